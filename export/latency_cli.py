"""`sparsebert latency-table`: the command line's words become a table in a file.

Knows nothing about how times are taken.
"""

import argparse
import datetime
import importlib.metadata
import logging
import platform
from collections.abc import Sequence
from pathlib import Path

from export.latency import LatencyConfig, measure
from export.runtime import runtime_version
from sparsebert.checkpoint import read_run
from sparsebert.cpus import available_cpus
from sparsebert.files import check_file_writable, write_whole
from sparsebert.latency import LatencyTable

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Run `sparsebert latency-table` with the words after it."""
    options = build_parser().parse_args(arguments)
    check_file_writable(options.out, "--out")
    dense = read_run(options.checkpoint).dense_geometry
    threads = options.threads or available_cpus()
    config = LatencyConfig(
        precisions=tuple(options.precision), shapes=tuple(options.shapes), rounds=options.rounds, threads=threads
    )
    table = LatencyTable(
        hidden_size=dense.hidden_size,
        head_size=dense.head_size,
        embedding_size=dense.embedding_size,
        threads=threads,
        shapes=tuple(measure(dense, config)),
        provenance={
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "sparsebert": importlib.metadata.version("sparsebert"),
            "onnxruntime": runtime_version(),
            "machine": platform.machine(),
        },
    )
    write_whole(options.out, table.model_dump_json(indent=1) + "\n")
    for entry in table.shapes:
        logger.info(
            "%s %dx%d: the dense model takes %.2f ms",
            entry.precision, entry.batch, entry.tokens, entry.predict_ms(dense),
        )  # fmt: skip
    logger.info("-> %s", options.out)


def build_parser() -> argparse.ArgumentParser:
    """The flags of `sparsebert latency-table`."""
    parser = argparse.ArgumentParser(
        prog="sparsebert latency-table",
        description="Measure, on the machine that will serve, how many milliseconds each number of heads and of FFN "
        "neurons takes in the exported graph, for models of a checkpoint's sizes. Takes minutes at most; let nothing "
        "else run meanwhile.",
    )
    parser.add_argument("checkpoint", type=Path, help="folder that 'sparsebert train' wrote, such as runs/demo/dense")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table, as JSON")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "int8"), default=["fp32", "int8"])
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=_shape,
        default=[(1, 32), (8, 32)],
        metavar="BATCHxTOKENS",
        help="(default: 1x32 8x32)",
    )
    parser.add_argument("--rounds", type=int, default=25, help="times that each graph runs (default: 25)")
    parser.add_argument("--threads", type=int, default=0, help="threads of the graph; 0, the default: all cores")
    return parser


def _shape(word: str) -> tuple[int, int]:
    batch, tokens = (int(part) for part in word.split("x"))
    if min(batch, tokens) < 1:
        raise ValueError(word)
    return batch, tokens
