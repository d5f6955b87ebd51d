r"""Does `sparsebert train` keep more accuracy than other structured pruners, given the same model, data and time?

    pip install torch-pruning textpruner scipy
    sparsebert train --recipe demo --task sst2 --data-dir data/sst2 --sparsity 0 --output runs/sst2
    sparsebert train --recipe demo --task sst2 --data-dir data/sst2 --model runs/sst2/dense --epochs 0 \
        --sparsity 0.67 --prune-epochs 2 --output runs/ours-67
    python -m benchmarks.pruners.peers runs/sst2/dense --data-dir data/sst2 --output runs/peers \
        --ours runs/ours-67/sparse --sparsities 0.67 --cuts 1 8

Both trainings must leave the holdout out: the 4,000 training texts with the smallest sha256.

Every pruner starts from the dense checkpoint and is followed by a recovery with the optimiser settings and the
distillation of our checkpoint of that sparsity and seed (without one: those of the dense run). Scoring, cutting and
recovery together take as many CPU seconds as our checkpoint was pruned and trained (`cpu_s` of its run.json), unless
--cpu-seconds says otherwise; --steps counts the steps of the recovery alone. CPU seconds are those of all threads: give
both sides as many threads. A pruner cuts once before the recovery, or several times within its first part (--cuts,
--cut-share).

`results.jsonl` has a line for each finished run, with every single answer, and no run is repeated; `results.md` has
the tables. One --output is for one setting of ours. After a colon stands a variant of a pruner (`variants.py`).
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import logging as transformers_logging

from benchmarks.pruners.judging import (
    HOLDOUT_TEXTS,
    Bench,
    Verdict,
    as_hugging_face,
    judge,
    judge_ours,
    load_bench,
    weights_digest,
)
from benchmarks.pruners.recovery import Budget, Recovery, autocast
from benchmarks.pruners.report import write_tables
from benchmarks.pruners.variants import PRUNERS, new_pruner
from training.distillation import (
    DistillationConfig,
    DistillationObjective,
    LabelObjective,
    Objective,
    TeacherAnswers,
)
from training.evaluation import predict_logits
from training.loop import LoopConfig

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What a checkpoint of ours was pruned and recovered with."""

    cpu_s: float
    config: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """All that decides a result."""

    pruner: str
    sparsity: float
    seed: int
    cuts: int
    cut_share: float
    objective: str
    learning_rate: float
    settings: str
    budget: str
    steps: int | None
    cpu_s: float | None
    score_texts: int
    holdout_texts: int
    threads: int
    dense: str


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    transformers_logging.set_verbosity_error()
    bench = load_bench(options.dense, options.data_dir, options.holdout_texts)
    if bench.leaked:
        print(
            f"{options.dense} was trained on the holdout too: accuracies there say nothing about new texts", flush=True
        )
    options.output.mkdir(parents=True, exist_ok=True)
    results = _Results(options.output, bench)
    dense = {"pruner": "dense", "sparsity": 0.0, "dense": bench.digest, "holdout_texts": options.holdout_texts}
    if not results.has(dense):
        results.add(dense, judge(bench, bench.checkpoint.model))
    ours = _judge_ours(bench, options, results)
    for run in _runs(bench, options, ours):
        if not results.has(asdict(run)):
            print(f"{run.pruner} {run.sparsity:.0%} cuts {run.cuts} {run.objective} seed {run.seed}", flush=True)
            try:
                _do(bench, run, _config(bench, ours, run.sparsity, run.seed), options.output, results)
            except Exception as error:  # noqa: BLE001 - what a pruner cannot do is a result; the next is tried
                print(f"  refused: {type(error).__name__}: {str(error).splitlines()[0][:200]}", flush=True)
                results.refuse(asdict(run), f"{type(error).__name__}: {error}")
    results.write_tables()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense", type=Path, help="the dense checkpoint that all start from")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--ours", type=Path, nargs="*", default=[], help="finished sparse checkpoints of ours")
    parser.add_argument("--pruners", nargs="+", default=["magnitude", "torch-pruning", "textpruner"], choices=PRUNERS)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.67, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cuts", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--cut-share", type=float, default=0.4, help="of the recovery, by which the last cut is done")
    parser.add_argument("--objectives", nargs="+", default=["distilled"], choices=("distilled", "labels"))
    parser.add_argument("--learning-rates", type=float, nargs="+", help="ours unless given")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--steps", type=int, help="of each recovery")
    limit.add_argument("--cpu-seconds", type=float, help="of scoring, cutting and recovery; as ours unless given")
    parser.add_argument("--score-texts", type=int, default=2048, help="by which a pruner judges units before a cut")
    parser.add_argument("--holdout-texts", type=int, default=HOLDOUT_TEXTS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


class _Results:
    """The file of finished runs."""

    def __init__(self, folder: Path, bench: Bench) -> None:
        self._folder, self._bench = folder, bench
        self._path = folder / "results.jsonl"
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        self._records: list[Record] = [json.loads(line) for line in text.splitlines()]

    def has(self, run: Record) -> bool:
        return any(record["run"] == run for record in self._records)

    def has_other(self, own: Record) -> bool:
        """Whether one of our checkpoints that is there differs from this one in its weights only."""
        others = (record["run"] for record in self._records if record["run"] != own)
        return any(other | {"weights": own["weights"]} == own for other in others)

    def add(self, run: Record, verdict: Verdict, **measured: Any) -> None:
        accuracies = {split: round(verdict.accuracy(split), 5) for split in verdict.correct}
        self._append({"run": run, "accuracy": accuracies, "leaked": self._bench.leaked} | measured | asdict(verdict))
        print(f"  {verdict.encoder_sparsity:.1%} removed, {accuracies}, {measured}", flush=True)

    def refuse(self, run: Record, reason: str) -> None:
        self._append({"run": run, "refused": reason})

    def write_tables(self) -> None:
        write_tables(self._records, self._folder / "results.md")

    def _append(self, record: Record) -> None:
        self._records.append(record)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.write_tables()


def _judge_ours(bench: Bench, options: argparse.Namespace, results: _Results) -> dict[tuple[float, int], Ours]:
    """Judge our checkpoints; what each took and was trained with, by sparsity and seed."""
    ours: dict[tuple[float, int], Ours] = {}
    for folder in options.ours:
        verdict, checkpoint = judge_ours(bench, folder)
        asked = checkpoint.run.events[-1].target_sparsity
        if len(checkpoint.run.config["budget"]["shares"]) > 1:
            raise SystemExit(
                f"{folder} is of a family: what its earlier targets took is not in its seconds; train it alone"
            )
        own = {
            "pruner": "ours", "sparsity": asked, "seed": checkpoint.run.seed, "dense": bench.digest,
            "holdout_texts": options.holdout_texts, "weights": weights_digest(folder),
        }  # fmt: skip
        if results.has_other(own):
            raise SystemExit(f"{options.output} has another checkpoint of ours like {folder}; give another --output")
        if checkpoint.run.cpu_s is None:
            raise SystemExit(f"{folder} does not say how much CPU it took; train it again")
        ours[asked, checkpoint.run.seed] = Ours(cpu_s=checkpoint.run.cpu_s, config=checkpoint.run.config)
        if not results.has(own):
            points = checkpoint.run.evaluations
            results.add(own, verdict, cpu_s=checkpoint.run.cpu_s, steps=points[-1].step if points else 0)
    return ours


def _runs(bench: Bench, options: argparse.Namespace, ours: dict[tuple[float, int], Ours]) -> Iterator[Run]:
    for sparsity, seed, name, cuts, objective, rate in product(
        options.sparsities, options.seeds, options.pruners, options.cuts, options.objectives,
        options.learning_rates or [None],
    ):  # fmt: skip
        cpu_s, budget = options.cpu_seconds, f"{options.cpu_seconds} CPU s"
        if options.steps is not None:
            budget = f"{options.steps} steps"
        elif cpu_s is None:
            if (sparsity, seed) not in ours:
                raise SystemExit(f"none of --ours has sparsity {sparsity} and seed {seed}; give --cpu-seconds")
            cpu_s, budget = ours[sparsity, seed].cpu_s, "as ours"
        config = _config(bench, ours, sparsity, seed)
        yield Run(
            pruner=name, sparsity=sparsity, seed=seed, cuts=cuts, cut_share=options.cut_share if cuts > 1 else 0.0,
            objective=objective, learning_rate=rate or _recovery(config).learning_rate,
            settings=_told(config), budget=budget, steps=options.steps, cpu_s=cpu_s,
            score_texts=options.score_texts, holdout_texts=options.holdout_texts,
            threads=options.threads, dense=bench.digest,
        )  # fmt: skip


def _do(bench: Bench, run: Run, config: dict[str, Any], folder: Path, results: _Results) -> None:
    settings = replace(_recovery(config), learning_rate=run.learning_rate)
    budget = Budget(steps=run.steps, cpu_s=run.cpu_s)
    recovery = Recovery(bench, _objective(bench, run.objective, config, folder), settings, budget, run.seed)
    model = as_hugging_face(bench.checkpoint.model)
    pruner = new_pruner(run.pruner, model, bench.checkpoint.model.config, run.cuts)
    prune_s = 0.0
    for cut in range(run.cuts):
        recovery.train(model, run.cut_share * cut / max(1, run.cuts - 1))
        batches = recovery.score_batches(run.score_texts, cut)
        began_s = time.process_time()
        model = pruner.cut(model, run.sparsity * (cut + 1) / run.cuts, batches, last=cut == run.cuts - 1)
        took_s = time.process_time() - began_s
        prune_s += took_s
        recovery.cpu_s += took_s
    recovery.train(model, 1.0)
    results.add(
        asdict(run), judge(bench, model),
        prune_cpu_s=round(prune_s, 1), cpu_s=round(recovery.cpu_s, 1), steps=recovery.steps,
    )  # fmt: skip


def _config(bench: Bench, ours: dict[tuple[float, int], Ours], sparsity: float, seed: int) -> dict[str, Any]:
    """That of our checkpoint which a run is held against; where there is none, of the dense one."""
    own = ours.get((sparsity, seed))
    return bench.checkpoint.run.config if own is None else own.config


def _recovery(config: dict[str, Any]) -> LoopConfig:
    """The optimiser settings with which ours recovers."""
    return LoopConfig(**config["recovery"])


def _told(config: dict[str, Any]) -> str:
    """All settings of the recovery and of what it learns from, but for how long and how fast."""
    others = {name: value for name, value in config["recovery"].items() if name not in ("epochs", "learning_rate")}
    if not others.get("frozen_layers"):
        others.pop("frozen_layers", None)  # results from before it was known are the same
    return json.dumps(others | config["distillation"], sort_keys=True)


def _objective(bench: Bench, name: str, config: dict[str, Any], folder: Path) -> Objective:
    if name == "labels":
        return LabelObjective()
    path = folder / f"teacher-{bench.digest[:12]}-{len(bench.train)}.safetensors"
    if not path.exists():
        with autocast():
            logits_NC = predict_logits(bench.checkpoint.model, bench.train, bench.pad_id)
        save_file({"logits_NC": logits_NC}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    distillation = DistillationConfig(**config["distillation"])
    if distillation.states_weight:
        raise SystemExit("ours learned from hidden states, which peers cannot; train it with --states-weight 0")
    return DistillationObjective(TeacherAnswers(load_file(path)["logits_NC"]), distillation)


if __name__ == "__main__":
    main()
