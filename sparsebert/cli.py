"""The `sparsebert` command: finds the stage that a word names and runs it.

Imports a stage only when its word is given, so that an edge box needs nothing of the others.
Exit codes: 0 done; 1 our error, one line on stderr; 2 wrong usage; 130 interrupted.
"""

import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparsebert import __version__
from sparsebert.errors import MissingExtraError, SparseBertError

Main = Callable[[Sequence[str]], None]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A word of the command line, the module whose `main` answers it and the extra it needs."""

    word: str
    module: str
    extra: str | None
    help: str


COMMANDS = (
    Command(word="train", module="training.cli", extra="train", help="fine-tune a BERT classifier while pruning it"),
    Command(word="prune", module="training.prune_cli", extra="train", help="prune a checkpoint without training"),
    Command(
        word="sensitivity",
        module="training.sensitivity_cli",
        extra="train",
        help="measure what each head, FFN and block costs when it is removed",
    ),
    Command(
        word="baseline",
        module="training.unstructured.cli",
        extra="train",
        help="what pruning single weights keeps of the accuracy (no speed)",
    ),
    Command(
        word="sweep", module="training.sweep.cli", extra="train", help="train a grid of recipes, here or on a cluster"
    ),
    Command(word="export", module="export.cli", extra="export", help="make a model bundle of a masked checkpoint"),
    Command(
        word="latency-table",
        module="export.latency_cli",
        extra="export",
        help="measure what heads and neurons cost on this machine",
    ),
    Command(word="serve", module="service.starting", extra="serve", help="serve model bundles over HTTP"),
    Command(word="key", module="service.key_cli", extra="serve", help="make an API key for the service"),
    Command(word="inspect", module="sparsebert.inspect", extra=None, help="say what a bundle or a checkpoint is"),
)


def main() -> None:
    """Entry point of the `sparsebert` script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    word, rest = (arguments[0], arguments[1:]) if arguments else ("--help", ())
    if word in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0
    if word == "--version":
        sys.stdout.write(f"sparsebert {__version__}\n")
        return 0
    for command in COMMANDS:
        if command.word == word:
            return run_command(command, rest)
    sys.stderr.write(f"sparsebert: unknown command {word!r}\n{_usage()}")
    return 2


def run_stage(word: str) -> None:
    """Entry point of `python -m training`, `python -m export` and `python -m service`."""
    sys.exit(run([word, *sys.argv[1:]]))


def run_command(command: Command, arguments: Sequence[str]) -> int:
    """Load the stage of `command` and run it; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        _main(command, arguments)
    except (SparseBertError, OSError) as error:  # a full disk, say
        sys.stderr.write(f"sparsebert {command.word}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"\nsparsebert {command.word}: interrupted\n")
        return 130
    except SystemExit as stop:  # argparse: 2 for wrong usage, 0 after --help
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def _main(command: Command, arguments: Sequence[str]) -> None:
    try:
        stage: Main = importlib.import_module(command.module).main
        stage(arguments)
    except ModuleNotFoundError as error:
        own = (error.name or "").split(".")[0] in {"sparsebert", "training", "export", "service"}
        if own or command.extra is None:
            raise
        raise MissingExtraError(
            f"'sparsebert {command.word}' needs: pip install 'sparsebert[{command.extra}]' "
            f"(the package {error.name!r} is missing)"
        ) from error


def _usage() -> str:
    lines = ["usage: sparsebert COMMAND [OPTIONS]", ""]
    lines += [f"  {command.word:<14} {command.help}" for command in COMMANDS]
    lines += ["", "'sparsebert COMMAND --help' tells the options of one command."]
    return "\n".join(lines) + "\n"
