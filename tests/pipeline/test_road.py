"""The whole road on a tiny model: train and prune, export three bundles, serve them, compare."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from sparsebert.checkpoint import read_examples
from sparsebert.cli import run
from sparsebert.manifest import read_manifest


@pytest.fixture(scope="module")
def road(bert_dir: Path, reviews_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road")
    words = ["--model", str(bert_dir), "--data-dir", str(reviews_dir), "--output", str(folder / "run")]
    words += ["--sparsity", "0.4", "--max-length", "16", "--batch-size", "8", "--learning-rate", "0.01"]
    assert run(["train", *words, "--epochs", "8", "--prune-epochs", "3"]) == 0
    for stage, variant, precision in (
        ("dense", "dense", "fp32"), ("sparse", "sparse", "fp32"), ("sparse", "sparse-int8", "int8"),
    ):  # fmt: skip
        target = folder / "models" / "reviews" / variant
        assert run(["export", str(folder / "run" / stage), "--output", str(target), "--precision", precision]) == 0
    return folder


def test_served_accuracy_is_the_manifest_s(road):
    examples = read_examples(road / "run" / "sparse")
    with TestClient(create_app(Settings(models=road / "models"))) as client:
        for variant in ("dense", "sparse", "sparse-int8"):
            body = {"inputs": [example.text for example in examples], "variant": variant}
            answer = client.post("/v1/predict", json=body).json()
            labels = [("no", "yes").index(prediction["label"]) for prediction in answer["predictions"]]
            right = sum(label == example.label for label, example in zip(labels, examples, strict=True))
            manifest = read_manifest(road / "models" / "reviews" / variant)
            assert right / len(examples) == pytest.approx(manifest.quality.value)
            assert answer["version"] == manifest.version


def test_variants_are_compared(road):
    with TestClient(create_app(Settings(models=road / "models"))) as client:
        texts = [example.text for example in read_examples(road / "run" / "sparse")]
        answer = client.post("/v1/compare", json={"inputs": texts, "repeats": 3}).json()
    assert answer["baseline"] == "dense"
    assert set(answer["variants"]) == {"dense", "sparse", "sparse-int8"}
    labels = [[p["label"] for p in variant["predictions"]] for variant in answer["variants"].values()]
    agreed = [len(set(of_one_text)) == 1 for of_one_text in zip(*labels, strict=True)]
    assert answer["agreement"] == sum(agreed) / len(texts)


def test_an_answer_does_not_depend_on_its_batch_mates(road):
    """Dynamic int8 would; the service runs such a variant one text at a time."""
    texts = ["good", "the film was a very very very very good film"] * 4
    with TestClient(create_app(Settings(models=road / "models"))) as client:
        for variant in ("sparse", "sparse-int8"):
            together = client.post("/v1/predict", json={"inputs": texts, "variant": variant}).json()["predictions"]
            alone = client.post("/v1/predict", json={"inputs": texts[0], "variant": variant}).json()["predictions"]
            assert together[0]["score"] == pytest.approx(alone[0]["score"], abs=1e-5)
