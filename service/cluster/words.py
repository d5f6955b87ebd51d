"""Does a command line ask for a cluster, and for which? Imports nothing, so that a service without one pays nothing."""

from collections.abc import Mapping, Sequence

FLAG, VARIABLE = "--ray", "SPARSEBERT_RAY"
LOCAL = "local"


def asks_for_cluster(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether it does."""
    named = {name.upper(): value for name, value in environment.items()}  # settings are read without regard to case
    return bool(named.get(VARIABLE)) or any(word.split("=")[0] == FLAG for word in arguments)


def lone_flags(arguments: Sequence[str]) -> list[str]:
    """Flags of a cluster on a command line; where it asks for none they mean nothing."""
    return [word.split("=")[0] for word in arguments if word.startswith(f"{FLAG}-")]


def with_address(arguments: Sequence[str]) -> list[str]:
    """The same, with `local` where the flag stands alone."""
    words = list(arguments)
    if FLAG in words:
        after = words.index(FLAG) + 1
        if after == len(words) or words[after].startswith("-"):
            words.insert(after, LOCAL)
    return words
