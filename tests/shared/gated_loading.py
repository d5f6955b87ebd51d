"""How is a service run whose workers, and whose loads, wait until a test lets them?"""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from service.deadlines import of_service
from service.draining import Drain
from service.encoding import EncodedBatch, FloatArray
from service.engine import Halt
from service.loading import Loader
from service.metrics import Metrics
from service.onnx_engine import OnnxEngine
from service.predicting import Predicted, Predictor
from service.records import RequestRecord
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
