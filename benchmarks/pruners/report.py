"""The tables: what every run reached, and how far ours is from the best run of every peer, example by example.

A peer's best way is the one with the highest mean of both accuracies, chosen after the fact among those with most
seeds, so the choice favours the peer.
"""

import json
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
| KL | prune CPU s | all CPU s | steps | heads | neurons |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""
PAIRED_HEADER = """| sparsity | peer | its best way | split | ours CPU s | peer CPU s \
| ours | peer | ours - peer | 95% interval | McNemar p |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def write_tables(records: Sequence[Record], path: Path) -> None:
    done = sorted((one for one in records if "refused" not in one), key=_order)
    refused = [one for one in records if "refused" in one]
    text = "# Pruners compared\n\n" + HEADER + "".join(map(_row, done))
    if any(one["leaked"] for one in done):
        text += "\nThe dense checkpoint was trained on the holdout too: accuracies there say nothing about new texts.\n"
    text += "\n## Ours against each peer's best way\n\n" + PAIRED_HEADER + "".join(_paired_rows(done))
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
        run.get("budget", ""),
        run.get("seed", ""),
        f"{run['sparsity']:.0%}",
        f"{record['encoder_sparsity']:.1%}",
        *(f"{record['accuracy'][split]:.2%}" for split in SPLITS),
        "" if "divergence" not in record else f"{_mean_divergence(record):.4f}",
        record.get("prune_cpu_s", ""),
        record.get("cpu_s", ""),
        record.get("steps", ""),
        " ".join(map(str, record["heads_L"])),
        " ".join(map(str, record["neurons_L"])),
    ]
    return "| " + " | ".join(map(str, cells)) + " |\n"


def _mean_divergence(record: Record) -> float:
    """Over the texts of both splits."""
    texts = {split: len(record["correct"][split]) for split in SPLITS}
    return sum(record["divergence"][split] * count for split, count in texts.items()) / sum(texts.values())


def _paired_rows(records: Sequence[Record]) -> list[str]:
    """Answers of one way of pruning are averaged over its seeds; examples are what is drawn again."""
    ours: dict[float, list[Record]] = defaultdict(list)
    peers: dict[tuple[float, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        name, sparsity = record["run"]["pruner"], record["run"]["sparsity"]
        if name == "ours":
            ours[sparsity].append(record)
        elif name != "dense":
            peers[sparsity, name.partition(":")[0]][_way(record["run"])].append(record)
    rows = []
    for (sparsity, family), ways in sorted(peers.items()):
        best = max(ways.values(), key=lambda way: (len(way), sum(_right(way, split).mean() for split in SPLITS)))
        for split in (*SPLITS, "both") if ours[sparsity] else ():
            names = (f"{sparsity:.0%}", family, _label(best), split, _cpu_s(ours[sparsity]), _cpu_s(best))
            rows.append(_paired_row(names, _answers(ours[sparsity], split), _answers(best, split)))
    return rows


def _way(run: Record) -> str:
    """What seeds of one way have in common; our seeds may have taken other times."""
    return json.dumps({name: value for name, value in run.items() if name not in ("seed", "cpu_s")}, sort_keys=True)


def _label(records: Sequence[Record]) -> str:
    run = records[0]["run"]
    cuts = "1 cut" if run["cuts"] == 1 else f"{run['cuts']} cuts in the first {run['cut_share']:.0%}"
    words = (
        run["pruner"],
        cuts,
        run["objective"],
        f"rate {run['learning_rate']}",
        f"scores of {run['score_texts']} texts",
        f"budget {run['budget']}",
    )
    return ", ".join(words) + f", {len(records)} seed{'s' if len(records) > 1 else ''}"


def _cpu_s(records: Sequence[Record]) -> str:
    """Of scoring, cutting and recovery, the mean over seeds: two ways of different length are no comparison."""
    return f"{np.mean([record['cpu_s'] for record in records]):.0f}"


def _answers(records: Sequence[Record], split: str) -> np.ndarray:
    """Share of seeds that were right, for each example."""
    return np.concatenate([_right(records, one) for one in SPLITS]) if split == "both" else _right(records, split)


def _right(records: Sequence[Record], split: str) -> np.ndarray:
    return np.mean([[answer == "1" for answer in record["correct"][split]] for record in records], axis=0)


def _paired_row(names: tuple[str, ...], ours_N: np.ndarray, peer_N: np.ndarray) -> str:
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
        *names, f"{ours_N.mean():.2%}", f"{peer_N.mean():.2%}", f"{100 * gap_N.mean():+.2f}",
        f"{100 * low:+.2f} to {100 * high:+.2f}", f"{p:.2g}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |\n"
