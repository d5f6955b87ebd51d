"""Loads, unloads, requests and a drain in any order: every request is answered once, by what served when it came."""

import asyncio
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from service.deadlines import of_service
from service.draining import Drain
from service.encoding import EncodedBatch, FloatArray
from service.engine import Halt
from service.errors import DrainingError, LoadError, UnknownVariantError
from service.loading import Loader
from service.metrics import Metrics
from service.onnx_engine import OnnxEngine
from service.predicting import Predictor
from service.probabilities import softmax
from service.records import RequestRecord
from service.routing import VariantName
from service.serving import Serving
from service.settings import Settings
from service.tokenizer import TextInput
from service.variants import load_catalog

NAMES = tuple(VariantName(model="reviews", variant=variant) for variant in ("dense", "sparse"))
SEEDS = {"000000000000": 0, "111111111111": 1, "222222222222": 2}
BROKEN = "broken"
TEXT = "the good film"


class Gated(OnnxEngine):
    """Workers wait at `gate` before each batch; loads do not."""

    def __init__(self, graph: Path, gate: threading.Event) -> None:
        super().__init__(graph, threads=1)
        self._gate = gate

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        if threading.current_thread().name == "engine":
            assert self._gate.wait(timeout=30)
        return super().run(batch, halt)


class Changes(RuleBasedStateMachine):
    """A service whose folder, variants and requests change; what must come of it is known all the time."""

    written: Path
    folder: Path
    logits: Callable[..., np.ndarray]

    def __init__(self) -> None:
        super().__init__()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lying: dict[VariantName, str] = {}
        for name in NAMES:
            self.put(name, "000000000000")
        self.serving_now: dict[VariantName, str] = dict(self.lying)
        self.gate = threading.Event()
        self.gate.set()
        self.requests: list[tuple[VariantName, str, asyncio.Task[tuple[str, list[float]]]]] = []
        self.runner = asyncio.Runner()
        self.runner.run(self.start())

    async def start(self) -> None:
        settings = Settings(models=self.folder, threads=1)
        open_engine: Callable[[Path], Gated] = lambda graph: Gated(graph, self.gate)  # noqa: E731
        catalog = load_catalog(settings, open_engine, time.monotonic)
        self.drain = Drain(1.0)
        self.service = Serving(settings, catalog, Metrics([], []), self.drain, time.monotonic)
        self.service.start()
        self.loader = Loader(self.service, open_engine)

    def put(self, name: VariantName, version: str) -> None:
        place = self.folder / name.model / name.variant
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(self.written / version / name.model / name.variant)
        self.lying[name] = version

    @rule(name=st.sampled_from(NAMES), version=st.sampled_from((*SEEDS, BROKEN)))
    def replace(self, name: VariantName, version: str) -> None:
        self.put(name, version)

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: VariantName) -> None:
        (self.folder / name.model / name.variant).unlink(missing_ok=True)
        self.lying[name] = BROKEN

    @rule(name=st.sampled_from(NAMES))
    def load(self, name: VariantName) -> None:
        async def change() -> None:
            if self.drain.draining:
                with pytest.raises(DrainingError):
                    await self.loader.load(name, time.monotonic() + 60)
            elif self.lying[name] == BROKEN:
                with pytest.raises(LoadError):
                    await self.loader.load(name, time.monotonic() + 60)
            else:
                loaded = await self.loader.load(name, time.monotonic() + 60)
                assert loaded.former_version == self.serving_now.get(name)
                self.serving_now[name] = loaded.version
                assert self.serving_now[name] == self.lying[name]

        self.runner.run(change())

    @rule(name=st.sampled_from(NAMES))
    def unload(self, name: VariantName) -> None:
        async def change() -> None:
            if self.drain.draining:
                with pytest.raises(DrainingError):
                    await self.loader.unload(name, 0.0)
            else:
                unloaded = await self.loader.unload(name, 0.0)
                assert unloaded.former_version == self.serving_now.pop(name, None)

        self.runner.run(change())

    @rule(name=st.sampled_from(NAMES))
    def request(self, name: VariantName) -> None:
        async def ask() -> tuple[str, list[float]]:
            with self.drain.admitted():
                variant = self.service.find(name.model, name.variant)
                record = RequestRecord(request_id="1", began_s=0.0)
                predictor = Predictor(clock_s=time.monotonic, tokenizing=self.service.tokenizing, record=record)
                predicted = await predictor.predict(
                    variant, [TextInput(text=TEXT)], truncate=False, deadline=of_service(time.monotonic(), 60.0)
                )
                return variant.bundle.manifest.version, predicted.probabilities_NC[0].tolist()

        async def begin() -> None:
            task = asyncio.ensure_future(ask())
            await asyncio.sleep(0)
            version = self.serving_now.get(name)
            if version is None or self.drain.draining:
                with pytest.raises(DrainingError if self.drain.draining else UnknownVariantError):
                    await task
            else:
                self.requests.append((name, version, task))

        self.runner.run(begin())

    @rule()
    def hold(self) -> None:
        self.gate.clear()

    @rule()
    def settle(self) -> None:
        self.gate.set()
        self.runner.run(self.check_answers())

    async def check_answers(self) -> None:
        for name, version, task in self.requests:
            answered, probabilities = await task
            assert answered == version
            assert probabilities == pytest.approx(
                softmax(self.logits(SEEDS[version], TEXT)[None])[0].tolist(), abs=1e-5
            )
            assert name in self.service.catalog.names
        self.requests.clear()
        assert all(variant.batcher.num_queued == 0 for variant in self.service.variants.values())

    @precondition(lambda self: len(self.requests) > 2)
    @rule()
    def begin_to_stop(self) -> None:
        self.drain.begin(time.monotonic())

    @invariant()
    def what_serves_is_known(self) -> None:
        versions = {name: one.bundle.manifest.version for name, one in self.service.variants.items()}
        assert versions == self.serving_now
        assert {one.name for one in self.service.catalog.loaded} == set(self.serving_now)
        assert self.service.catalog.unloaded == set(NAMES) - set(self.serving_now)
        assert self.service.failures == {}
        assert self.service.catalog.default == NAMES[0]

    def teardown(self) -> None:
        async def end() -> None:
            await self.check_answers()
            assert self.drain.num_inflight == 0
            for name in () if self.drain.draining else NAMES:
                assert (await self.loader.unload(name, time.monotonic() + 60)).gone
                assert self.service.former_of(name) == []
            await self.loader.close()
            await self.service.close()

        self.gate.set()
        self.runner.run(end())
        self.service.workers.join(30)
        self.runner.close()


def test_changes_in_any_order(
    tmp_path: Path, write_bundle: Callable[..., Path], expected_logits: Callable[..., np.ndarray]
) -> None:
    for name in NAMES:
        for version, seed in SEEDS.items():
            write_bundle(tmp_path / version, variant=name.variant, seed=seed, version=version)
        broken = write_bundle(tmp_path / BROKEN, variant=name.variant)
        (broken / "golden.json").write_text("{}")
    machine = type(
        "Here", (Changes,),
        {"written": tmp_path, "folder": tmp_path / "models", "logits": staticmethod(expected_logits)},
    )  # fmt: skip
    run_state_machine_as_test(
        machine, settings=hypothesis_settings(max_examples=30, stateful_step_count=20, derandomize=True)
    )
