"""What runs ends on what it began with, loads stand in nobody's way, and what is unloaded leaves memory."""

import asyncio
import json
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from service.deadlines import of_service
from service.draining import Drain
from service.encoding import EncodedBatch, FloatArray
from service.engine import Halt
from service.errors import DrainingError, EngineError, LoadError, RequestTimeoutError, UnknownVariantError
from service.exchange import Asked
from service.loading import Loader
from service.memory import Leaving
from service.metrics import Metrics
from service.onnx_engine import OnnxEngine
from service.predicting import Predicted, Predictor
from service.records import RequestRecord
from service.routes import compare
from service.routing import VariantName
from service.serving import Serving
from service.settings import Settings
from service.tokenizer import TextInput
from service.variants import load_catalog

WriteBundle = Callable[..., Path]
FIRST, SECOND = "0123456789ab", "ba9876543210"
DENSE, SPARSE = (VariantName(model="reviews", variant=variant) for variant in ("dense", "sparse"))


class Gate:
    """What workers compute, and what is opened, waits while it is closed."""

    def __init__(self) -> None:
        self.computing, self.opening = threading.Event(), threading.Event()
        self.entered = threading.Semaphore(0)
        self.computing.set()
        self.opening.set()
        self.poisoned = False

    def open_engine(self, graph: Path) -> "GatedEngine":
        if threading.current_thread().name == "load":
            self.entered.release()
            assert self.opening.wait(timeout=30)
        return GatedEngine(graph, self)

    async def until_entered(self) -> None:
        assert await asyncio.get_running_loop().run_in_executor(None, partial(self.entered.acquire, timeout=30))


class GatedEngine(OnnxEngine):
    def __init__(self, graph: Path, gate: Gate) -> None:
        super().__init__(graph, threads=1)
        self._gate = gate

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        if threading.current_thread().name == "engine":
            self._gate.entered.release()
            assert self._gate.computing.wait(timeout=30)
            if self._gate.poisoned:
                raise MemoryError
        return super().run(batch, halt)


@asynccontextmanager
async def running(models: Path, gate: Gate) -> AsyncIterator[tuple[Serving, Loader]]:
    settings, clock_s = Settings(models=models, threads=1), asyncio.get_running_loop().time
    catalog = load_catalog(settings, gate.open_engine, clock_s)
    serving = Serving(settings, catalog, Metrics([], []), Drain(1.0), clock_s)
    del catalog
    serving.start()
    loader = Loader(serving, gate.open_engine)
    try:
        yield serving, loader
    finally:
        gate.computing.set()
        gate.opening.set()
        await loader.close()
        await serving.close()
        await asyncio.to_thread(serving.workers.join, 30)
        await asyncio.to_thread(loader.join, 30)


def predict(serving: Serving, variant: str = "sparse") -> asyncio.Task[tuple[str, Predicted]]:
    """A request that found its variant before this returns."""

    async def answer() -> tuple[str, Predicted]:
        found = serving.find("reviews", variant)
        record = RequestRecord(request_id="1", began_s=0.0)
        predictor = Predictor(clock_s=serving.clock_s, tokenizing=serving.tokenizing, record=record)
        inputs = [TextInput(text="good film")]
        predicted = await predictor.predict(found, inputs, truncate=False, deadline=of_service(serving.clock_s(), 30.0))
        return found.bundle.manifest.version, predicted

    return asyncio.ensure_future(answer())


def renew(models: Path, write_bundle: WriteBundle) -> None:
    shutil.rmtree(models / "reviews" / "sparse")
    write_bundle(models, variant="sparse", seed=9, version=SECOND)


def soon() -> float:
    return asyncio.get_running_loop().time() + 30


async def test_a_request_ends_on_the_bundle_that_it_began_with(models_folder: Path, write_bundle: WriteBundle) -> None:
    gate = Gate()
    async with running(models_folder, gate) as (serving, loader):
        expected = (await predict(serving))[1].probabilities_NC.tolist()
        gate.computing.clear()
        await gate.until_entered()
        running_one = predict(serving)
        await gate.until_entered()
        waiting_one = predict(serving)
        await asyncio.sleep(0)
        renew(models_folder, write_bundle)
        loaded = await loader.load(SPARSE, soon())
        assert (loaded.former_version, loaded.version) == (FIRST, SECOND)
        new_one = predict(serving)
        gate.computing.set()
        for answer in (running_one, waiting_one):
            version, predicted = await answer
            assert (version, predicted.probabilities_NC.tolist()) == (FIRST, expected)
        version, predicted = await new_one
        assert version == SECOND
        assert predicted.probabilities_NC.tolist() != expected


async def test_an_unload_waits_for_requests_until_its_deadline(models_folder: Path) -> None:
    gate = Gate()
    async with running(models_folder, gate) as (serving, loader):
        gate.computing.clear()
        request = predict(serving)
        await gate.until_entered()
        unloaded = await loader.unload(SPARSE, asyncio.get_running_loop().time())
        assert (unloaded.former_version, unloaded.gone) == (FIRST, False)
        with pytest.raises(UnknownVariantError, match="variant reviews/sparse is not loaded"):
            await predict(serving)
        again = asyncio.ensure_future(loader.unload(SPARSE, soon()))
        loaded = await loader.load(SPARSE, soon())
        assert loaded.former_version is None
        gate.computing.set()
        assert (await request)[0] == FIRST
        await again


async def test_a_comparison_keeps_what_it_compares(models_folder: Path) -> None:
    gate = Gate()
    async with running(models_folder, gate) as (serving, loader):
        gate.computing.clear()
        asked = Asked(
            headers=(),
            body=b'{"inputs": "good film", "repeats": 3}',
            deadline=of_service(serving.clock_s(), 30.0),
            record=RequestRecord(request_id="1", began_s=0.0),
        )
        comparing = asyncio.ensure_future(compare.answer(serving, asked))
        await gate.until_entered()
        for name in (DENSE, SPARSE):
            assert not (await loader.unload(name, 0.0)).gone
        gate.computing.set()
        assert set(json.loads((await comparing).body)["variants"]) == {"dense", "sparse"}
        assert (await loader.unload(SPARSE, soon())).gone


async def test_requests_are_answered_while_a_bundle_is_opened(models_folder: Path) -> None:
    gate = Gate()
    async with running(models_folder, gate) as (serving, loader):
        gate.opening.clear()
        loading = asyncio.ensure_future(loader.load(SPARSE, soon()))
        await gate.until_entered()
        assert loader.loading == {SPARSE}
        other = asyncio.ensure_future(loader.load(DENSE, soon()))
        assert [(await predict(serving, variant))[0] for variant in ("dense", "sparse")] == [FIRST, FIRST]
        assert not loading.done()
        gate.opening.set()
        assert [(await one).former_version for one in (loading, other)] == [FIRST, FIRST]
        assert loader.loading == set()


async def test_changes_of_one_variant_come_one_after_the_other(models_folder: Path) -> None:
    gate = Gate()
    async with running(models_folder, gate) as (serving, loader):
        gate.opening.clear()
        first = asyncio.ensure_future(loader.load(SPARSE, soon()))
        await gate.until_entered()
        unload = asyncio.ensure_future(loader.unload(SPARSE, soon()))
        last = asyncio.ensure_future(loader.load(SPARSE, soon()))
        assert (await loader.unload(DENSE, soon())).former_version == FIRST
        assert not unload.done()
        gate.opening.set()
        assert (await first).former_version == FIRST
        assert (await unload).former_version == FIRST
        assert (await last).former_version is None
        assert sorted(serving.variants) == [SPARSE]


async def test_nobody_waits_for_a_load_for_ever(models_folder: Path, write_bundle: WriteBundle) -> None:
    gate = Gate()
    async with running(models_folder, gate) as (serving, loader):
        renew(models_folder, write_bundle)
        gate.opening.clear()
        with pytest.raises(RequestTimeoutError, match="variant reviews/sparse is still being loaded"):
            await loader.load(SPARSE, 0.0)
        with pytest.raises(RequestTimeoutError, match="variant reviews/sparse is still being loaded"):
            await loader.load(SPARSE, 0.0)
        with pytest.raises(RequestTimeoutError, match="variant reviews/sparse is being loaded; unload it when"):
            await loader.unload(SPARSE, asyncio.get_running_loop().time() + 0.01)
        assert (await loader.unload(DENSE, soon())).gone
        assert (await predict(serving))[0] == FIRST
        gate.opening.set()
        assert (await loader.load(SPARSE, soon())).former_version == SECOND
        assert (await predict(serving))[0] == SECOND


async def test_a_load_that_is_done_when_the_service_stops_does_not_serve(models_folder: Path) -> None:
    gate = Gate()
    async with running(models_folder, gate) as (serving, loader):
        before = serving.variants
        gate.opening.clear()
        loading = asyncio.ensure_future(loader.load(SPARSE, soon()))
        await gate.until_entered()
        serving.drain.begin(0.0)
        gate.opening.set()
        with pytest.raises(DrainingError):
            await loading
        assert serving.variants is before


async def test_what_still_runs_on_a_former_bundle_is_told_when_the_service_ends(models_folder: Path) -> None:
    gate = Gate()
    async with running(models_folder, gate) as (serving, loader):
        gate.computing.clear()
        request = predict(serving)
        await gate.until_entered()
        await loader.unload(SPARSE, 0.0)
        await serving.close()
        answers = await asyncio.gather(request, return_exceptions=True)
        assert [type(answer) for answer in answers] == [DrainingError]
        del request, answers  # they hold what the request held


@pytest.mark.parametrize("error", [RuntimeError("secret of opening"), SystemExit(3)])
async def test_whatever_opening_raises_is_told_and_changes_nothing(
    models_folder: Path, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(graph: Path) -> OnnxEngine:
        raise error

    async with running(models_folder, Gate()) as (serving, _):
        with pytest.raises(LoadError, match="opening it failed; the log says of what; the bundle that was loaded"):
            await Loader(serving, fail).load(SPARSE, soon())
        assert (await predict(serving))[0] == FIRST
        assert type(error).__name__ in caplog.text


async def test_a_bundle_that_is_written_while_it_is_loaded_is_refused(models_folder: Path) -> None:
    def write(graph: Path) -> OnnxEngine:
        engine = OnnxEngine(graph, threads=1)
        (graph.parent / "golden.json").write_bytes((graph.parent / "golden.json").read_bytes() + b" ")
        return engine

    async with running(models_folder, Gate()) as (serving, _):
        with pytest.raises(LoadError, match="reviews/sparse was written to while it was loaded; load it again when it"):
            await Loader(serving, write).load(SPARSE, soon())
        assert (await predict(serving))[0] == FIRST


def watches(serving: Serving) -> list[weakref.ref[object]]:
    bundle = serving.variants[SPARSE].bundle
    return [weakref.ref(bundle.engine), weakref.ref(bundle)]


@pytest.mark.parametrize("poisoned", [False, True], ids=["answered", "failed"])
@pytest.mark.parametrize("reload", [False, True], ids=["unload", "load"])
async def test_nothing_holds_what_is_unloaded(models_folder: Path, poisoned: bool, reload: bool) -> None:
    gate = Gate()
    async with running(models_folder, gate) as (serving, loader):
        watched = watches(serving)
        gate.poisoned = poisoned
        if poisoned:
            with pytest.raises(EngineError):
                await predict(serving)
        else:
            await predict(serving)
        serving.refresh_gauges(0.0)
        if reload:
            await loader.load(SPARSE, soon())
        await loader.unload(SPARSE, soon())
        assert [watch() for watch in watched] == [None, None]


async def test_nothing_holds_what_did_not_load(models_folder: Path) -> None:
    opened: list[weakref.ref[object]] = []

    def open_engine(graph: Path) -> OnnxEngine:
        engine = OnnxEngine(graph, threads=1)
        opened.append(weakref.ref(engine))
        (graph.parent / "golden.json").touch()
        return engine

    async with running(models_folder, Gate()) as (serving, _):
        with pytest.raises(LoadError):
            await Loader(serving, open_engine).load(SPARSE, soon())
        assert [watch() for watch in opened] == [None]


class Thing:
    """May be watched."""


def test_what_is_still_held_is_told() -> None:
    held, alone = Thing(), Thing()
    assert not Leaving(held).give_back([0.0])
    circle = [alone]
    circle.append(circle)  # type: ignore[arg-type]
    leaving = Leaving(alone)
    del alone, circle
    assert leaving.give_back([0.0])
