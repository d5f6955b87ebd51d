"""What runs ends on what it began with, and loads stand in nobody's way."""

import asyncio
import json
import threading
from pathlib import Path

import pytest

from gated_loading import DENSE, FIRST, SECOND, SPARSE, Gate, WriteBundle, predict, renew, running, soon
from service.deadlines import of_service
from service.errors import DrainingError, LoadError, NotReadyError, RequestTimeoutError, UnknownVariantError
from service.exchange import Asked
from service.loading import Loader
from service.onnx_engine import OnnxEngine
from service.records import RequestRecord
from service.routes import compare
from service.schemas import CompareRequest


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


async def test_a_comparison_waits_for_what_is_being_loaded_and_for_nothing_else(models_folder: Path) -> None:
    gate = Gate()
    chosen = CompareRequest.model_validate({"inputs": "good"})
    async with running(models_folder, gate) as (serving, loader):
        await loader.unload(SPARSE, soon())
        gate.opening.clear()
        again = asyncio.ensure_future(loader.load(DENSE, soon()))
        await gate.until_entered()
        with pytest.raises(UnknownVariantError, match="here is dense; load another one"):
            compare.choose_variants(serving, chosen)
        loading = asyncio.ensure_future(loader.load(SPARSE, soon()))
        gate.opening.set()
        await again
        gate.opening.clear()
        await gate.until_entered()
        with pytest.raises(NotReadyError, match="are ready, here is dense; reviews/sparse is being loaded"):
            compare.choose_variants(serving, chosen)
        gate.opening.set()
        await loading
        assert sorted(compare.choose_variants(serving, chosen)) == ["dense", "sparse"]


async def test_changes_of_one_variant_come_one_after_the_other(models_folder: Path) -> None:
    gate = Gate()
    async with running(models_folder, gate) as (serving, loader):
        gate.opening.clear()
        first = asyncio.ensure_future(loader.load(SPARSE, soon()))
        await gate.until_entered()
        unload = asyncio.ensure_future(loader.unload(SPARSE, soon()))
        last = asyncio.ensure_future(loader.load(SPARSE, soon()))
        assert (await loader.unload(DENSE, 0.0)).former_version == FIRST
        assert sorted(serving.variants) == [SPARSE]
        assert not unload.done()
        gate.opening.set()
        assert (await first).former_version == FIRST
        assert (await unload).former_version == FIRST
        assert (await last).former_version is None
        assert sorted(serving.variants) == [SPARSE]


async def test_memory_is_not_given_back_while_a_bundle_is_opened(models_folder: Path) -> None:
    gate = Gate()
    async with running(models_folder, gate) as (serving, loader):
        gate.opening.clear()
        loading = asyncio.ensure_future(loader.load(DENSE, soon()))
        await gate.until_entered()
        assert not (await loader.unload(SPARSE, 0.0)).gone
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(serving.former_of(SPARSE)) == 1
        gate.opening.set()
        await loading
        assert (await loader.unload(SPARSE, soon())).gone
        assert serving.former_of(SPARSE) == []


async def test_a_load_waits_for_what_nobody_uses_and_not_for_what_still_answers(models_folder: Path) -> None:
    gate = Gate()
    async with running(models_folder, gate) as (serving, loader):
        gate.computing.clear()
        request = predict(serving)
        await gate.until_entered()
        await loader.unload(SPARSE, 0.0)
        gate.opening.clear()
        first, second = (asyncio.ensure_future(loader.load(DENSE, soon())) for _ in range(2))
        await gate.until_entered()
        gate.opening.set()
        await first
        await gate.until_entered()
        assert len(serving.former_of(SPARSE)) == 1
        assert serving.former_of(DENSE) == []
        await second
        gate.computing.set()
        assert (await request)[0] == FIRST


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
        assert not (await loader.unload(DENSE, 0.0)).gone
        assert (await predict(serving))[0] == FIRST
        gate.opening.set()
        assert (await loader.unload(DENSE, soon())).gone
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


async def test_a_load_for_which_there_is_no_thread_is_not_waited_for_at_the_end(
    models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with running(models_folder, Gate()) as (_, loader):
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await loader.load(SPARSE, soon())
        loader.join(0.0)  # which raises for a thread that never began
        assert (await loader.load(SPARSE, soon())).former_version == FIRST


async def test_a_bundle_that_is_written_while_it_is_loaded_is_refused(models_folder: Path) -> None:
    def write(graph: Path) -> OnnxEngine:
        engine = OnnxEngine(graph, threads=1)
        (graph.parent / "golden.json").write_bytes((graph.parent / "golden.json").read_bytes() + b" ")
        return engine

    async with running(models_folder, Gate()) as (serving, _):
        with pytest.raises(LoadError, match="reviews/sparse was written to while it was loaded; load it again when it"):
            await Loader(serving, write).load(SPARSE, soon())
        assert (await predict(serving))[0] == FIRST
