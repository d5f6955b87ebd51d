"""Routing, comparison, probabilities, inputs, CPUs and draining: values in, values out."""

import asyncio
import os
import time
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from service.cli import DrainingServer
from service.comparison import Measured, alternating, choose_baseline, compare
from service.draining import Drain
from service.errors import DrainingError, MalformedError, TooLongError, TooManyError, UnknownVariantError
from service.inputs import check_pairs, read_inputs
from service.probabilities import softmax, top_labels
from service.routing import VariantName, choose_defaults, choose_variant
from service.tokenizer import TextInput
from sparsebert.cpus import available_cpus, quota_cpus
from sparsebert.errors import ConfigError

DENSE = VariantName(model="reviews", variant="dense")
SPARSE = VariantName(model="reviews", variant="sparse")
PAIRS = VariantName(model="pairs", variant="sparse")
ALL = [DENSE, SPARSE, PAIRS]


@pytest.mark.parametrize(
    ("model", "variant", "chosen"),
    [
        (None, None, SPARSE),
        (None, "dense", DENSE),
        ("reviews", None, SPARSE),
        ("reviews", "dense", DENSE),
        ("pairs", None, PAIRS),
    ],
)
def test_routing(model: str | None, variant: str | None, chosen: VariantName) -> None:
    assert choose_variant(model, variant, (SPARSE, PAIRS), ALL) == chosen


@pytest.mark.parametrize(
    ("model", "variant", "sentence"),
    [
        ("nope", None, "there is no model 'nope'; there is pairs, reviews"),
        (None, "nope", "model 'reviews' has no variant 'nope'; it has dense, sparse"),
        ("pairs", "dense", "model 'pairs' has no variant 'dense'; it has sparse"),
    ],
)
def test_routing_says_what_exists(model: str | None, variant: str | None, sentence: str) -> None:
    with pytest.raises(UnknownVariantError) as caught:
        choose_variant(model, variant, (SPARSE, PAIRS), ALL)
    assert str(caught.value) == sentence


def test_default_variant() -> None:
    assert choose_defaults("", ALL) == (PAIRS, DENSE)
    assert choose_defaults("dense", ALL) == (DENSE, PAIRS)
    assert choose_defaults("reviews/sparse", ALL) == (SPARSE, PAIRS)
    with pytest.raises(ConfigError, match="choose pairs/sparse, reviews/dense, reviews/sparse"):
        choose_defaults("nope", ALL)


def measured(rows: list[list[float]], *infer_ms: float, labels: tuple[str, ...] = ("no", "yes")) -> Measured:
    return Measured(labels=labels, probabilities_NC=np.array(rows), infer_ms=infer_ms)


def test_comparison() -> None:
    comparison = compare(
        {
            "dense": measured([[0.9, 0.1], [0.2, 0.8]], 10.0, 30.0, 20.0),
            "sparse": measured([[0.6, 0.4], [0.6, 0.4]], 5.0, 4.0, 6.0),
            "other": measured([[0.1, 0.9], [0.9, 0.1]], 40.0, labels=("yes", "no")),
        },
        "dense",
    )
    assert comparison.agreement == 0.5
    assert comparison.variants["sparse"].agreement == 0.5
    assert comparison.variants["sparse"].speedup == 4.0
    assert comparison.variants["sparse"].max_probability_difference == pytest.approx(0.4)
    assert comparison.variants["other"].agreement == 1.0
    assert comparison.variants["other"].max_probability_difference == pytest.approx(0.1)
    assert comparison.variants["dense"].speedup == 1.0


def test_order_of_repeats_alternates() -> None:
    assert alternating(["a", "b"], 3) == [["a", "b"], ["b", "a"], ["a", "b"]]


def test_baseline() -> None:
    assert choose_baseline(["a", "dense"]) == "dense"
    assert choose_baseline(["b", "a"]) == "b"


@given(st.lists(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_softmax_is_finite_and_sums_to_one(rows: list[list[float]]) -> None:
    probabilities = softmax(np.array(rows, np.float32))
    assert np.isfinite(probabilities).all()
    assert probabilities.sum(axis=1) == pytest.approx(1.0)


def test_top_labels_are_most_probable_first() -> None:
    assert list(top_labels([0.2, 0.5, 0.3], ["a", "b", "c"], 2).items()) == [("b", 0.5), ("c", 0.3)]
    assert list(top_labels([0.2, 0.3, 0.5], ["b", "a", "c"], None)) == ["c", "a", "b"]


def test_inputs_of_every_form() -> None:
    assert read_inputs("a", 2, 9) == [TextInput(text="a")]
    assert read_inputs({"text": "a", "text_pair": "b"}, 2, 9) == [TextInput(text="a", text_pair="b")]
    assert read_inputs(["a", {"text": "b"}], 2, 9) == [TextInput(text="a"), TextInput(text="b")]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([], "inputs is an empty list; send at least one text"),
        ("", "inputs is empty; send a text with at least one character"),
        (["a", " \n"], "inputs[1] is empty; send a text with at least one character"),
        (["a", 3], 'inputs[1] must be a text or {"text": ..., "text_pair": ...}, not a number'),
        (None, 'inputs must be a text or {"text": ..., "text_pair": ...}, not null'),
        ({"text": True}, "inputs.text must be a text, not a boolean"),
        ({"txt": "a"}, "inputs has the unknown field 'txt'; it has text and text_pair"),
        ({}, 'inputs has no field text; send a text or {"text": ..., "text_pair": ...}'),
        ("a\0", "inputs has a NUL character at position 1; remove it"),
    ],
)
def test_malformed_inputs_say_where(value: object, sentence: str) -> None:
    with pytest.raises(MalformedError) as caught:
        read_inputs(value, 2, 9)
    assert str(caught.value) == sentence


def test_too_many_inputs() -> None:
    with pytest.raises(TooManyError, match="inputs has 3 texts, the limit is 2"):
        read_inputs(["a", "b", "c"], 2, 9)


@pytest.mark.parametrize("value", [["a", "x" * 10], ["a", {"text": "a", "text_pair": "x" * 10}]])
def test_too_many_characters(value: object) -> None:
    with pytest.raises(TooLongError, match=r"inputs\[1\] has a text of 10 characters, the limit is 9, also with"):
        read_inputs(value, 2, 9)


def test_pairs_and_single_texts_do_not_mix() -> None:
    with pytest.raises(MalformedError, match="the input is a single text, but reviews reads pairs"):
        check_pairs([TextInput(text="a")], pair=True, model="reviews")
    with pytest.raises(MalformedError, match="the input is a pair, but reviews reads single texts"):
        check_pairs([TextInput(text="a", text_pair="b")], pair=False, model="reviews")
    with pytest.raises(MalformedError, match=r"inputs\[1\] is a pair, but reviews reads single texts"):
        check_pairs([TextInput(text="a"), TextInput(text="a", text_pair="b")], pair=False, model="reviews")


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2.0),
    ],
)
def test_quota_of_a_container(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert quota_cpus(tmp_path) == quota


@pytest.mark.parametrize(
    ("quota", "cpus"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", 3), ("900000 100000", 3)]
)
def test_a_quota_cuts_the_affinity(quota: str, cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    (tmp_path / "cpu.max").write_text(quota)
    assert available_cpus(tmp_path) == cpus


def test_a_drain_waits_for_what_had_begun_but_not_for_ever() -> None:
    drain = Drain(timeout_s=10.0)
    with drain.admitted():
        drain.begin(100.0)
        assert not drain.is_late(109.0)
        assert drain.is_late(110.0)
        assert not drain.is_over(110.0)
        assert drain.is_over(111.0)
        with pytest.raises(DrainingError), drain.admitted():
            pass
    assert drain.is_over(101.0)
    assert not drain.is_late(200.0)


@pytest.mark.parametrize("dead", [False, True])
def test_a_server_whose_workers_died_for_good_ends(dead: bool) -> None:
    async def nothing(*_: object) -> None: ...

    server = DrainingServer(
        uvicorn.Config(nothing),
        Drain(10.0),
        end_requests=nothing,
        died=lambda: dead,
        follow=lambda: None,
        patience_s=30.0,
    )
    asyncio.run(server.on_tick(1))
    assert server.should_exit is dead


def test_requests_are_ended_when_the_time_of_the_drain_is_up() -> None:
    ended = []

    async def end_requests() -> None:
        ended.append(True)

    async def nothing(scope: object, receive: object, send: object) -> None: ...

    drain = Drain(timeout_s=0.0)
    server = DrainingServer(
        uvicorn.Config(nothing),
        drain,
        end_requests=end_requests,
        died=lambda: False,
        follow=lambda: None,
        patience_s=30.0,
    )
    with drain.admitted():
        asyncio.run(server.on_tick(1))
        assert (ended, server.should_exit) == ([], False)
        drain.begin(time.monotonic())
        asyncio.run(server.on_tick(1))
        assert (ended, server.should_exit) == ([True], False)
    asyncio.run(server.on_tick(1))
    assert server.should_exit
