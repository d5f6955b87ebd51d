"""How soon is ours ready, and how much memory does it take, with one small bundle and with three?

    python -m benchmarks.servers.footprint models/sst2

What the table of the targets asks for beside the comparison; the measuring is that of `service_footprint`.
"""

import argparse
from pathlib import Path

from benchmarks.service_footprint import Footprint, measure

ALONE = "sparse-int8"
THREE = ("dense", "sparse", "sparse-int8")
HEAD = (
    "| bundles | ready after, s | resident when ready, MB (PSS) | resident after load, MB (PSS) | texts a second |",
    "|---|---|---|---|---|",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder with a bundle for each variant, such as models/sst2")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--requests", type=int, default=600)
    options = parser.parse_args()
    model = options.model.resolve()
    print("\n".join(HEAD))
    for variants in ((ALONE,), THREE):
        names = ",".join(f"{model.name}/{variant}" for variant in variants)
        print(row(variants, measure(model.parent, names, options.starts, options.requests, clients=16)), flush=True)


def row(variants: tuple[str, ...], found: Footprint) -> str:
    """A line of the table."""
    weights = [
        f"{memory.rss_bytes / 1e6:.0f} ({memory.pss_bytes / 1e6:.0f})" for memory in (found.memory[0], found.memory[-1])
    ]
    names = ", ".join(f"`{variant}`" for variant in variants)
    return f"| {names} | {found.ready_s:.2f} | {' | '.join(weights)} | {found.num_texts / found.took_s:.0f} |"


if __name__ == "__main__":
    main()
