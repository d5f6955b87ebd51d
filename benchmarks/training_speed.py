"""How fast is a step of training: against the Hugging Face Trainer, with pruning, compiled?

    python -m benchmarks.training_speed --data-dir data/sst2
    python -m benchmarks.training_speed pruning --data-dir data/sst2 --rounds 3 --steps 20

* `trainer`: tokens a second (padding is not counted) of our dense fine-tuning and of the Trainer with its defaults,
  on the same texts with the same batch size.
* `pruning`: a step that scores and selects units and learns from cached logits, for each criterion, against a dense
  step on the same batches.
* `compile`: how long torch.compile takes, and how much faster a step then is.

All cases take turns, each with a model of its own; ratios are quotients of medians over rounds. Nothing else should
run meanwhile.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from benchmarks.training_cases import WARM_STEPS, Bench, PlainSteps, run_ours, run_trainer
from training.backbone import EMBEDDED, resolve_backbone
from training.criteria import IMPORTANCE_NAMES
from training.data import DataConfig, load_data
from training.encoding import encode, load_tokenizer
from training.precision import resolve


def compare_with_trainer(bench: Bench) -> None:
    precisions = dict.fromkeys((resolve("auto"), "no"))
    cases: dict[str, Callable[[], float]] = {
        f"ours, {label(precision)}": lambda precision=precision: run_ours(bench, precision)[1]
        for precision in precisions
    }
    cases["Trainer, fp32"] = lambda: run_trainer(bench)[1]
    rates = bench.rounds_of(cases)
    theirs = statistics.median(rates["Trainer, fp32"])
    print(f"\n{'dense fine-tuning':<24}{'tokens/s':>10}{'x Trainer':>11}")
    for name, values in rates.items():
        print(f"{name:<24}{statistics.median(values):10.0f}{statistics.median(values) / theirs:11.2f}")


def compare_pruning(bench: Bench) -> None:
    precision = resolve("auto")
    cases: dict[str, Callable[[], float]] = {"dense": lambda: run_ours(bench, precision)[0]}
    for name in IMPORTANCE_NAMES:
        cases[name] = lambda name=name: run_ours(bench, precision, name)[0]
    times = bench.rounds_of(cases)
    dense_s = statistics.median(times["dense"])
    print(f"\n{f'a step, {label(precision)}':<24}{'ms':>10}{'x dense':>11}")
    for name, values in times.items():
        print(f"{name:<24}{1000 * statistics.median(values):10.1f}{statistics.median(values) / dense_s:11.3f}")


def compare_compiled(bench: Bench) -> None:
    precision = resolve("auto")
    eager, compiled = (PlainSteps(bench, precision, compiled=compiled) for compiled in (False, True))
    eager()
    began_s = time.perf_counter()
    compiled()
    first_s = time.perf_counter() - began_s
    times = bench.rounds_of({"eager": eager, "compiled": compiled})
    eager_s, compiled_s = (statistics.median(values) for values in times.values())
    print(f"\n{f'torch.compile, {label(precision)}':<24}{'ms':>10}{'x eager':>11}")
    print(f"{'eager':<24}{1000 * eager_s:10.1f}{1:11.2f}\n{'compiled':<24}{1000 * compiled_s:10.1f}", end="")
    print(f"{eager_s / compiled_s:11.2f}\ncompiling took {first_s - compiled_s * bench.steps:.0f} s")


def label(precision: str) -> str:
    return "fp32" if precision == "no" else precision


PARTS = {"trainer": compare_with_trainer, "pruning": compare_pruning, "compile": compare_compiled}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--data-dir", type=Path, required=True, help="SST-2 as `sparsebert train` reads it")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50, help="of one run; 50 batches are what is sorted by length")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown or options.steps <= WARM_STEPS:
        parser.error(f"parts are {', '.join(PARTS)}; --steps is more than {WARM_STEPS}")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    folder = resolve_backbone(options.model)
    tokenizer = load_tokenizer(folder, 128)
    data = load_data(DataConfig(task="sst2", data_dir=options.data_dir))
    texts = encode(data.train[: options.steps * options.batch_size], tokenizer, 128).examples
    bench = Bench(model=folder, texts=texts, tokenizer=tokenizer, batch_size=options.batch_size, rounds=options.rounds)
    lengths = [len(text.token_ids) for text in texts]
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; {len(texts)} texts of "
        f"{statistics.mean(lengths):.0f} tokens on average, {bench.steps} batches of {bench.batch_size}"
    )
    for name in options.parts or PARTS:
        PARTS[name](bench)


if __name__ == "__main__":
    main()
