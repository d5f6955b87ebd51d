"""An exception in packing, padding, the engine, its answer or an observer fails its own batch and nothing else."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from batching import encoding, start
from service.batcher import Batcher, SilentObserver
from service.encoding import EncodedBatch, Encoding, FloatArray
from service.engine import EchoEngine, Halt
from service.errors import EngineError
from service.packing import choose_batch
from service.tickets import Ending

GOOD, POISON = (5, 6), (13, 13, 13)


def broken_packing(lengths: list[int], max_tokens: int, max_items: int) -> list[int]:
    if len(POISON) in lengths:
        raise ZeroDivisionError
    return choose_batch(lengths, max_tokens, max_items)


class Answering(EchoEngine):
    """Gives something else than logits for a poisoned batch."""

    def __init__(self, answer: Callable[[FloatArray], object]) -> None:
        super().__init__()
        self._answer = answer

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        logits_BC = super().run(batch, halt)
        return self._answer(logits_BC) if POISON[0] in batch.input_ids_BS else logits_BC


ANSWERS = {
    "nothing": lambda logits_BC: None,
    "a row too few": lambda logits_BC: logits_BC[:-1],
    "a row too many": lambda logits_BC: np.concatenate([logits_BC, logits_BC]),
    "one dimension": lambda logits_BC: logits_BC[:, 0],
    "no number": lambda logits_BC: logits_BC * np.float32(np.nan),
    "infinite": lambda logits_BC: logits_BC + np.float32(np.inf),
    "texts": lambda logits_BC: logits_BC.astype(str),
}


async def assert_fails_alone(batcher: Batcher, poisoned: Encoding) -> None:
    with pytest.raises(EngineError, match="the model of reviews/dense failed on a batch of 1 texts"):
        await batcher.submit([poisoned])
    assert (await batcher.submit([encoding(*GOOD)])).rows_NC.tolist() == [[17.0, 2.0]]
    assert batcher.alive
    assert batcher.endings == {Ending.ERROR: 1, Ending.OK: 1}
    assert (batcher.num_queued, batcher.queued_tokens) == (0, 0)
    batcher.close()


async def test_packing() -> None:
    await assert_fails_alone(start(EchoEngine(), packing=broken_packing), encoding(*POISON))


async def test_packing_that_always_fails_ends_every_text() -> None:
    def broken(*_: object) -> list[int]:
        raise ZeroDivisionError

    batcher = start(EchoEngine(), packing=broken)
    calls = [batcher.submit([encoding(number), encoding(number)]) for number in range(3)]
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(answer, EngineError)
        assert isinstance(answer.__cause__, ZeroDivisionError)
    assert batcher.endings == {Ending.ERROR: 6}
    batcher.close()


async def test_padding() -> None:
    await assert_fails_alone(start(EchoEngine()), replace(encoding(*POISON), token_type_ids=(0,) * 2))


async def test_engine() -> None:
    def refuse(batch: EncodedBatch) -> None:
        if POISON[0] in batch.input_ids_BS:
            raise MemoryError

    await assert_fails_alone(start(EchoEngine(refuse)), encoding(*POISON))


@pytest.mark.parametrize("answer", ANSWERS)
async def test_answer(answer: str) -> None:
    await assert_fails_alone(start(Answering(ANSWERS[answer])), encoding(*POISON))


class Complaining(SilentObserver):
    """Raises whatever it is told."""

    def on_batch(self, batch: EncodedBatch, infer_s: float) -> None:
        raise RuntimeError("no room for batches")


async def test_observer(caplog: pytest.LogCaptureFixture) -> None:
    batcher = start(EchoEngine(), observer=Complaining())
    assert (await batcher.submit([encoding(*GOOD)])).rows_NC.tolist() == [[17.0, 2.0]]
    assert "an observer of reviews/dense failed" in caplog.text
    assert "no room for batches" in caplog.text
    batcher.close()
