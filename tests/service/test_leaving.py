"""What is unloaded leaves memory, and what is still held is told."""

import weakref
from pathlib import Path

import pytest

from gated_loading import SPARSE, Gate, predict, running, soon
from service.errors import EngineError, LoadError
from service.loading import Loader
from service.memory import Leaving
from service.onnx_engine import OnnxEngine
from service.serving import Serving


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
