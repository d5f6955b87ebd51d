"""Which form of the graph is the fastest on this machine? Measured, choice by choice, on batches of real texts.

Knows nothing about precision. All times come from one process in turns, because machines are shared and noisy.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean, median

from tqdm import tqdm

from export.assembly import Assemble
from export.forms import Form
from export.runtime import OnnxRunner
from export.texts import EncodedText
from sparsebert.manifest import Trial

logger = logging.getLogger(__name__)

Batch = Sequence[EncodedText]
Measure = Callable[[dict[Form, OnnxRunner], Batch], dict[Form, float]]
ROUNDS = 15
WORTH = 1.03  # a form must be faster by this factor to replace another


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The fastest form, how many times faster it is than the first, and all that was measured on the way."""

    form: Form
    speedup: float
    trials: tuple[Trial, ...]


def typical_batches(texts: Sequence[EncodedText]) -> list[list[EncodedText]]:
    """What a service computes: one text, 8 of like lengths, and 32 of all lengths."""
    ordered = sorted(texts, key=lambda text: len(text.token_ids))
    middle = len(ordered) // 2
    step = max(1, len(ordered) // 32)
    return [ordered[middle : middle + 1], ordered[middle : middle + 8], ordered[::step][:32]]


def median_times_s(
    runners: dict[Form, OnnxRunner], batch: Batch, clock_s: Callable[[], float] = time.perf_counter
) -> dict[Form, float]:
    """The median time of one batch for each form, measured in turns."""
    times: dict[Form, list[float]] = {form: [] for form in runners}
    for step in range(ROUNDS + 1):  # the first one warms up
        for form, runner in runners.items():
            began_s = clock_s()
            runner.padded_logits(batch)
            if step:
                times[form].append(clock_s() - began_s)
    return {form: median(values) for form, values in times.items()}


def fastest_form(
    assemble: Assemble,
    start: Form,
    choices: Sequence[str],
    batches: Sequence[Batch],
    measure: Measure = median_times_s,
) -> Tuned:
    """The fastest form that changes of single `choices` lead to from `start`.

    Each round measures the best form so far against all that differ from it in one choice; what counts is the
    geometric mean of the ratios over `batches`.
    """
    best, speedup, trials = start, 1.0, list[Trial]()
    tried = {start}
    with tqdm(desc="tuning", unit="form", disable=None) as bar:
        while candidates := [form for form in best.neighbours(choices) if form not in tried]:
            runners = {form: OnnxRunner(assemble(form)) for form in (best, *candidates)}
            times = [measure(runners, batch) for batch in batches]
            ratios = {form: geometric_mean(of[best] / of[form] for of in times) for form in candidates}
            tried.update(candidates)
            bar.update(len(candidates))
            for form, ratio in ratios.items():
                trials.append(Trial(tried=_changes(best, form), instead_of=_changes(form, best), ratio=ratio))
                logger.info("tuning: %s", trials[-1])
            winner = max(ratios, key=lambda form: ratios[form])
            if ratios[winner] < WORTH:
                break
            best, speedup = winner, speedup * ratios[winner]
    return Tuned(form=best, speedup=speedup, trials=tuple(trials))


def _changes(old: Form, new: Form) -> dict[str, str]:
    """What is said of `new` that is not said of `old`."""
    return dict(new.as_dict().items() - old.as_dict().items())
