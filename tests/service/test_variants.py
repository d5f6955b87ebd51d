"""A bad bundle fails alone, with a sentence; a service without any good one does not start."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.bundles import check_golden, check_processor, open_bundle
from service.catalog import Catalog
from service.encoding import EncodedBatch, FloatArray
from service.engine import EchoEngine, Halt
from service.onnx_engine import OnnxEngine
from service.opening import cache_folder, open_engine_with
from service.settings import Settings
from service.tokenizer import TextTokenizer
from service.variants import load_catalog
from sparsebert.errors import BundleError, ConfigError
from sparsebert.manifest import Golden, GoldenInput, read_manifest, seal

WriteBundle = Callable[..., Path]


def load(models: Path, **settings: object) -> Catalog:
    chosen = Settings(models=models, threads=1, **settings)
    return load_catalog(chosen, open_engine_with(chosen), time.monotonic)


def change_a_byte(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)


def lose_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def stop_half_way(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "golden.json").unlink()


def break_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"schema_version": 2}')


def rename(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(seal(manifest | {"variant": "other"})))


DAMAGES = [
    (change_a_byte, "was altered: sha256"),
    (lose_the_tokenizer, "tokenizer.json is missing"),
    (stop_half_way, "manifest.json cannot be read"),
    (break_the_manifest, "is malformed at name"),
    (rename, "holds the bundle reviews/other"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_a_damaged_bundle_fails_alone(
    models_folder: Path, damage: Callable[[Path], None], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(models_folder / "reviews" / "sparse")
    with TestClient(create_app(Settings(models=models_folder, threads=1))) as client:
        dense, sparse = client.get("/v1/models").json()["variants"]
        assert (dense["state"], sparse["state"]) == ("ready", "failed")
        assert words in sparse["error"]
        assert words in caplog.text
        assert client.post("/v1/predict", json={"inputs": "good"}).status_code == 200
        refused = client.post("/v1/predict", json={"inputs": "good", "variant": "sparse"})
        assert refused.status_code == 503
        assert words in refused.json()["error"]
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "variant reviews/sparse did not load" in ready.json()["error"]
        assert client.get("/healthz").status_code == 200
        assert 'sparsebert_model_ready{model="reviews",variant="sparse"} 0.0' in client.get("/metrics").text


def test_a_bundle_that_computes_something_else_is_refused(tmp_path: Path, write_bundle: WriteBundle) -> None:
    write_bundle(tmp_path, variant="dense")
    write_bundle(tmp_path, variant="odd", golden_off_by=0.5)
    [failed] = load(tmp_path).failed
    assert "computes something else on this machine" in failed.error
    assert "off by 0.5, allowed is 0.001" in failed.error


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model.onnx", "cannot be opened by ONNX Runtime"),
        ("tokenizer.json", "is not a tokenizer"),
        ("golden.json", "golden.json is malformed"),
    ],
)
def test_files_with_the_right_digest_and_the_wrong_content(
    tmp_path: Path, write_bundle: WriteBundle, content: str, words: str
) -> None:
    write_bundle(tmp_path, variant="dense")
    folder = write_bundle(tmp_path, variant="odd")
    (folder / content).write_text("{}")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][content] = {
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "size_bytes": 2,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(seal(manifest)))
    [failed] = load(tmp_path).failed
    assert words in failed.error


def test_leftovers_of_an_interrupted_write_are_passed_over(models_folder: Path) -> None:
    (models_folder / "reviews" / ".sparse.abc").mkdir()
    (models_folder / ".reviews.abc" / "dense").mkdir(parents=True)
    (models_folder / "README").write_text("")
    assert [str(name) for name in load(models_folder).names] == ["reviews/dense", "reviews/sparse"]


def test_without_a_good_bundle_the_service_does_not_start(tmp_path: Path, write_bundle: WriteBundle) -> None:
    with pytest.raises(BundleError, match=r"there is no models folder .*/nope; run `make models`"):
        load(tmp_path / "nope")
    with pytest.raises(BundleError, match=r"has no bundle in it; run `make models`"):
        load(tmp_path)
    lose_the_tokenizer(write_bundle(tmp_path))
    with pytest.raises(BundleError, match=r"no bundle in .* can serve, the first because: .*tokenizer.json is missing"):
        load(tmp_path)


def test_settings_choose_variants_and_default(models_folder: Path) -> None:
    assert str(load(models_folder).default) == "reviews/dense"
    assert str(load(models_folder, default_variant="sparse").default) == "reviews/sparse"
    assert [str(name) for name in load(models_folder, variants="sparse").names] == ["reviews/sparse"]
    with pytest.raises(ConfigError, match="--variants names 'nope', which is not there"):
        load(models_folder, variants="nope")


def test_a_bundle_that_does_not_fit_the_settings_fails_alone(tmp_path: Path, write_bundle: WriteBundle) -> None:
    write_bundle(tmp_path, variant="dense", max_sequence_length=8)
    write_bundle(tmp_path, variant="long")
    catalog = load(tmp_path, max_batch_tokens=8)
    assert [str(bundle.name) for bundle in catalog.loaded] == ["reviews/dense"]
    assert catalog.failed[0].error == (
        "reviews/long reads texts of up to 16 tokens, more than --max-batch-tokens, which is 8; "
        "raise it to at least that"
    )


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"inputs": [{"name": "ids", "dtype": "int64", "shape": [-1, -1]}]}, "a manifest with the inputs ids"),
        ({"outputs": [{"name": "scores", "dtype": "float32", "shape": [-1, 2]}]}, "the outputs scores"),
    ],
)
def test_a_manifest_of_another_graph_is_refused(
    tmp_path: Path, write_bundle: WriteBundle, manifest: dict[str, object], words: str
) -> None:
    write_bundle(tmp_path, variant="dense")
    write_bundle(tmp_path, variant="odd", **manifest)
    [failed] = load(tmp_path).failed
    assert words in failed.error


def test_a_graph_without_a_mask_is_refused(tmp_path: Path, write_bundle: WriteBundle) -> None:
    folder = write_bundle(tmp_path)
    graph = onnx.load(folder / "model.onnx")
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            if name == "attention_mask":
                node.input[index] = "token_type_ids"
    del graph.graph.input[[one.name for one in graph.graph.input].index("attention_mask")]
    onnx.save(graph, folder / "model.onnx")
    with pytest.raises(BundleError, match="reads input_ids, token_type_ids and gives logits; the service feeds"):
        OnnxEngine(folder / "model.onnx", threads=1)


class MovedByMates(EchoEngine):
    """Answers depend on how long the longest text of the batch is."""

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        return super().run(batch, halt) * 0 + batch.input_ids_BS.shape[1]


def test_batch_mates_that_matter_are_noticed(models_folder: Path) -> None:
    folder = models_folder / "reviews" / "dense"
    manifest, tokenizer = read_manifest(folder), TextTokenizer.from_file(folder / "tokenizer.json")
    golden = Golden(inputs=(GoldenInput(text="the good film"),), logits=((5.0, 5.0),), tolerance=1e-3)
    with pytest.raises(BundleError, match="a golden logit moves by 1, allowed is 0.001"):
        check_golden(folder, manifest, golden, tokenizer, MovedByMates())
    dependent = manifest.model_copy(update={"batch_invariant": False})
    check_golden(folder, dependent, golden, tokenizer, MovedByMates())


def test_a_text_of_full_length_is_computed_before_the_first_request(models_folder: Path) -> None:
    batches: list[tuple[int, ...]] = []

    class Watched(OnnxEngine):
        def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
            batches.append(batch.input_ids_BS.shape)
            return super().run(batch, halt)

    folder = models_folder / "reviews" / "dense"
    open_bundle(folder, partial(Watched, threads=1), max_batch_tokens=1024, clock_s=time.monotonic)
    assert batches[-1] == (1, 16)


def test_clients_do_not_learn_where_the_bundles_lie(models_folder: Path) -> None:
    lose_the_tokenizer(models_folder / "reviews" / "sparse")
    [failed] = load(models_folder).failed
    assert failed.error.startswith("reviews/sparse is not a complete bundle: tokenizer.json is missing")


def test_a_loaded_bundle_tells_its_cost(tmp_path: Path, write_bundle: WriteBundle) -> None:
    folder = write_bundle(tmp_path, spare_rows=4_000_000)
    [bundle] = load(tmp_path).loaded
    assert bundle.load_s > 0
    assert bundle.file_bytes == (folder / "model.onnx").stat().st_size
    assert bundle.file_bytes > 32_000_000
    assert 0.9 * bundle.file_bytes < bundle.memory_bytes < 2 * bundle.file_bytes


def test_a_bundle_for_another_processor_is_refused(write_bundle, tmp_path):
    folder = write_bundle(tmp_path, precision="int8", weight_range="full")
    check_processor(folder, read_manifest(folder), reduced_range=False)
    with pytest.raises(BundleError, match="export again with --weight-range reduced"):
        check_processor(folder, read_manifest(folder), reduced_range=True)
    reduced = write_bundle(tmp_path, variant="reduced", precision="int8", weight_range="reduced")
    check_processor(reduced, read_manifest(reduced), reduced_range=True)


def test_a_bundle_for_gpus_is_refused_on_the_cpu(write_bundle, tmp_path):
    folder = write_bundle(tmp_path, precision="fp16")
    opener = open_engine_with(Settings(models=tmp_path, threads=1))
    with pytest.raises(BundleError, match="fp16, for GPUs, .*; export fp32 or int8"):
        open_bundle(folder, opener, max_batch_tokens=64, clock_s=lambda: 0.0)


def test_what_a_device_keeps_of_a_graph_lies_apart_from_other_graphs(models_folder: Path, tmp_path: Path) -> None:
    dense, sparse = (read_manifest(models_folder / "reviews" / variant) for variant in ("dense", "sparse"))
    settings = Settings(device="openvino", device_cache=str(tmp_path / "kept"))
    assert {cache_folder(settings, one) for one in (dense, dense, sparse)} == {
        str(tmp_path / "kept" / one.files["model.onnx"].sha256[:16]) for one in (dense, sparse)
    }
    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert cache_folder(Settings(), dense) == ""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--device-cache .* cannot be written .Not a directory."):
        cache_folder(Settings(device="openvino", device_cache=str(tmp_path / "file")), dense)
