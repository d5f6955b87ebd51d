"""The tables: what every run reached, and how far ours is from the best run of every peer, example by example.

A peer's best run is the one with the most right answers over both splits, so the choice favours the peer.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap

Record = dict[str, Any]
SPLITS = ("validation", "holdout")
RESAMPLES = 9999
HEADER = """| pruner | cuts | learns from | rate | budget | seed | asked | removed | validation | holdout \
| prune s | recover s | steps | heads | neurons |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""
PAIRED_HEADER = """| sparsity | peer | its best run | split | ours | peer | ours - peer | 95% interval | McNemar p |
|---|---|---|---|---|---|---|---|---|
"""


def write_tables(records: Sequence[Record], path: Path) -> None:
    done = sorted((one for one in records if "refused" not in one), key=_order)
    refused = [one for one in records if "refused" in one]
    text = "# Pruners compared\n\n" + HEADER + "".join(map(_row, done))
    if any(one["leaked"] for one in done):
        text += "\nThe dense checkpoint was trained on the holdout too: accuracies there say nothing about new texts.\n"
    text += "\n## Ours against each peer's best run\n\n" + PAIRED_HEADER + "".join(_paired_rows(done))
    if refused:
        text += "\n## Refused\n\n" + "".join(
            f"* {one['run']['pruner']} at {one['run']['sparsity']:.0%}, cuts {one['run']['cuts']}: {one['refused']}\n"
            for one in refused
        )
    path.write_text(text, encoding="utf-8")


def _order(record: Record) -> tuple[Any, ...]:
    run = record["run"]
    return run["sparsity"], run["pruner"] != "ours", run["pruner"], run.get("cuts", 0), run.get("seed", 0)


def _row(record: Record) -> str:
    run = record["run"]
    cells = [
        run["pruner"],
        run.get("cuts", ""),
        run.get("objective", ""),
        run.get("learning_rate", ""),
        _budget(run),
        run.get("seed", ""),
        f"{run['sparsity']:.0%}",
        f"{record['encoder_sparsity']:.1%}",
        *(f"{record['accuracy'][split]:.2%}" for split in SPLITS),
        record.get("prune_seconds", ""),
        round(record["seconds"]),
        record.get("steps", ""),
        " ".join(map(str, record["heads_L"])),
        " ".join(map(str, record["neurons_L"])),
    ]
    return "| " + " | ".join(map(str, cells)) + " |\n"


def _budget(run: Record) -> str:
    if run.get("steps") is not None:
        return f"{run['steps']} steps"
    return f"{run['seconds']:.0f} s" if run.get("seconds") is not None else ""


def _paired_rows(records: Sequence[Record]) -> list[str]:
    """Answers of one way of pruning are averaged over its seeds; examples are what is drawn again."""
    ways: dict[tuple[float, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        run = record["run"]
        if run["pruner"] != "dense":
            family = run["pruner"].partition(":")[0]
            ways[run["sparsity"], family][_way(run)].append(record)
    rows = []
    for (sparsity, family), by_way in sorted(ways.items(), key=lambda item: item[0]):
        if family == "ours" or (sparsity, "ours") not in ways:
            continue
        ours = [record for group in ways[sparsity, "ours"].values() for record in group]
        best = max(by_way, key=lambda way: sum(_right(by_way[way], split).mean() for split in SPLITS))
        for split in (*SPLITS, "both"):
            rows.append(
                _paired_row(
                    f"{sparsity:.0%}", family, best, split, _answers(ours, split), _answers(by_way[best], split)
                )
            )
    return rows


def _way(run: Record) -> str:
    if run["pruner"] == "ours":
        return "ours"
    return f"{run['pruner']}, {run['cuts']} cuts, {run['objective']}, rate {run['learning_rate']}, {_budget(run)}"


def _answers(records: Sequence[Record], split: str) -> np.ndarray:
    """Share of seeds that were right, for each example."""
    return np.concatenate([_right(records, one) for one in SPLITS]) if split == "both" else _right(records, split)


def _right(records: Sequence[Record], split: str) -> np.ndarray:
    return np.mean([[answer == "1" for answer in record["correct"][split]] for record in records], axis=0)


def _paired_row(sparsity: str, family: str, way: str, split: str, ours_N: np.ndarray, peer_N: np.ndarray) -> str:
    """McNemar's exact test on the examples where the two differ; with several seeds, where one is right more often."""
    gap_N = ours_N - peer_N
    wins, losses = int((gap_N > 0).sum()), int((gap_N < 0).sum())
    p = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    low = high = 0.0
    if gap_N.any():
        rng = np.random.default_rng(0)
        interval = bootstrap((gap_N,), np.mean, n_resamples=RESAMPLES, method="percentile", batch=500, rng=rng)
        low, high = interval.confidence_interval
    cells = (
        sparsity, family, way, split, f"{ours_N.mean():.2%}", f"{peer_N.mean():.2%}", f"{100 * gap_N.mean():+.2f}",
        f"{100 * low:+.2f} to {100 * high:+.2f}", f"{p:.2g}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |\n"
