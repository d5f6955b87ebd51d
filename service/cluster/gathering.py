"""How do the metrics of several replicas become one text, in which each series says whose it is?

Pure: works on the text format of Prometheus, as `service.metrics` writes it.
"""

from collections.abc import Iterable

COMMENTS = (b"# HELP ", b"# TYPE ")


def labelled(text: bytes, replica: str) -> bytes:
    """The same with the label `replica` before the others."""
    label = b'replica="' + replica.encode() + b'"'
    return b"".join(line if line.startswith(b"#") else _with(label, line) for line in text.splitlines(keepends=True))


def merged(texts: Iterable[bytes]) -> bytes:
    """One text: each family with what is said of it once, and then the series of all."""
    heads: dict[bytes, list[bytes]] = {}
    series: dict[bytes, list[bytes]] = {}
    for text in texts:
        family, is_new = b"", False
        for line in text.splitlines(keepends=True):
            if line.startswith(COMMENTS):
                name = line.split(b" ", 3)[2].strip()
                if name != family:
                    family, is_new = name, name not in heads
                    heads.setdefault(family, [])
                    series.setdefault(family, [])
                if is_new:
                    heads[family].append(line)
            else:
                series[family].append(line)
    return b"".join(b"".join([*heads[family], *series[family]]) for family in heads)


def _with(label: bytes, line: bytes) -> bytes:
    brace, space = line.find(b"{"), line.find(b" ")
    if 0 <= brace < space:
        return line[: brace + 1] + label + b"," + line[brace + 1 :]
    return line[:space] + b"{" + label + b"}" + line[space:]
