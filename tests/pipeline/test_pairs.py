"""Pairs of texts go the whole road: training, export with golden pairs, serving."""

import csv
import random
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from sparsebert.checkpoint import read_examples
from sparsebert.cli import run
from sparsebert.manifest import read_golden, read_manifest

GOOD, BAD, FILLER = ("good", "great", "fine"), ("bad", "poor", "dull"), ("the", "film", "was", "a", "plot", "very")


def write_pairs(path: Path, num_rows: int, seed: int) -> None:
    """The second text alone says which label: a road that loses it learns nothing."""
    rng = random.Random(seed)
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["question", "answer", "verdict"])
        for index in range(num_rows):
            answer = [*rng.choices(FILLER, k=rng.randint(1, 5)), rng.choice(GOOD if index % 2 else BAD)]
            rows.writerow([" ".join(rng.choices(FILLER, k=3)), " ".join(answer), "yes" if index % 2 else "no"])


@pytest.fixture(scope="module")
def road(bert_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder / "train.csv", 96, seed=1)
    write_pairs(folder / "validation.csv", 32, seed=2)
    words = ["--model", str(bert_dir), "--data-dir", str(folder), "--output", str(folder / "run"), "--track", "none"]
    words += ["--text-column", "question", "--text-column", "answer", "--label-column", "verdict"]
    words += ["--sparsity", "0.4", "--max-length", "16", "--batch-size", "8", "--learning-rate", "0.01"]
    assert run(["train", *words, "--epochs", "8", "--prune-epochs", "2", "--recovery-epochs", "2"]) == 0
    for stage, variant, precision in (("dense", "dense", "fp32"), ("sparse", "sparse-int8", "int8")):
        target = folder / "models" / "answers" / variant
        assert run(["export", str(folder / "run" / stage), "--output", str(target), "--precision", precision]) == 0
    return folder


@pytest.mark.parametrize("variant", ["dense", "sparse-int8"])
def test_a_pair_is_one_all_the_way(road, variant):
    bundle = road / "models" / "answers" / variant
    manifest = read_manifest(bundle)
    assert manifest.task.pair
    assert all(item.text_pair for item in read_golden(bundle).inputs)
    examples = read_examples(road / "run" / "dense")
    with TestClient(create_app(Settings(models=road / "models"))) as client:
        pairs = [{"text": example.text, "text_pair": example.text_pair} for example in examples]
        answer = client.post("/v1/predict", json={"inputs": pairs, "variant": variant}).json()
        refused = client.post("/v1/predict", json={"inputs": "alone", "variant": variant})
    labels = [("no", "yes").index(prediction["label"]) for prediction in answer["predictions"]]
    right = sum(label == example.label for label, example in zip(labels, examples, strict=True)) / len(examples)
    assert right == pytest.approx(manifest.quality.value)
    assert right >= 0.9
    assert refused.status_code == 400
    assert "text_pair" in refused.json()["error"]
