from dataclasses import replace

import numpy as np
import pytest

from export.forms import CPU_FORM, DEFAULT_FORMS, TUNED_CHOICES
from export.texts import EncodedText, random_texts
from export.tuning import fastest_form, median_times_s, typical_batches

SLOW = {"packed": 3.0, "padded": 2.0, "separate": 1.0, "joined": 2.0, "gemm": 1.0, "matmul": 1.0, "plain": 1.0,
        "fused": 9.0, "inside": 3.0, "projected": 2.0, "unprojected": 1.0, "positions": 0.0, "exact": 0.0}  # fmt: skip


def add_up(runners, batch):
    costs = {form: form.as_dict() | {"attention": "exact"} for form in runners}
    return {form: sum(SLOW[choice] for choice in chosen.values()) for form, chosen in costs.items()}


ALL = TUNED_CHOICES["fp32"]


def test_neighbours_differ_in_one_choice():
    neighbours = CPU_FORM.neighbours(TUNED_CHOICES["fp32"])
    assert len(neighbours) == 6
    assert all(len(set(form.as_dict().items()) - set(CPU_FORM.as_dict().items())) == 1 for form in neighbours)
    assert set(DEFAULT_FORMS) == {"fp32", "int8", "fp16"}
    assert [form.layout for form in CPU_FORM.neighbours(["layout"])] == ["padded"]


def test_single_changes_lead_to_the_fastest(monkeypatch):
    monkeypatch.setattr("export.tuning.OnnxRunner", lambda graph: graph)
    tuned = fastest_form(lambda form: form, CPU_FORM, ALL, ["a", "b"], add_up)
    assert tuned.form == replace(CPU_FORM, layout="padded", projections="separate")
    assert tuned.speedup == pytest.approx(8 / 6)
    assert len(tuned.trials) == 6 + 5 + 3  # what differs from the default, and from each better form
    assert "layout padded is 1.143 times as fast as layout packed" in map(str, tuned.trials)


def test_a_form_that_is_as_fast_is_not_taken(monkeypatch):
    monkeypatch.setattr("export.tuning.OnnxRunner", lambda graph: graph)
    tuned = fastest_form(lambda form: form, CPU_FORM, ALL, ["a"], lambda runners, _: dict.fromkeys(runners, 1.0))
    assert (tuned.form, tuned.speedup, len(tuned.trials)) == (CPU_FORM, 1.0, 6)


def test_typical_batches():
    texts = [EncodedText([1] * length, [0] * length) for length in range(64, 0, -1)]
    one, alike, mixed = typical_batches(texts)
    assert [len(text.token_ids) for text in one] == [33]
    assert [len(text.token_ids) for text in alike] == list(range(33, 41))
    assert [len(text.token_ids) for text in mixed] == list(range(1, 65, 2))
    assert [len(batch) for batch in typical_batches(texts[:1])] == [1, 1, 1]


class Clock:
    """Runners move it forward."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


class Runner:
    def __init__(self, clock, times_s):
        self.clock, self.times_s = clock, iter(times_s)

    def padded_logits(self, batch):
        self.clock.now_s += next(self.times_s)
        return np.zeros((len(batch), 2))


def test_the_first_time_does_not_count_and_the_median_does():
    clock = Clock()
    runners = {CPU_FORM: Runner(clock, [100.0, *range(1, 16)])}
    assert median_times_s(runners, random_texts(0, 2, 5, 9), clock) == {CPU_FORM: 8.0}
