"""The whole road for the families that are not called BERT: train and prune, export, serve, reload."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from service.app import create_app
from service.settings import Settings
from sparsebert.checkpoint import read_examples
from sparsebert.cli import run
from sparsebert.manifest import read_manifest

FAMILIES = ("roberta", "distilbert", "electra")
TEXTS = ["good film", "the plot was awful and very dull and poor", "a Lovely, fine actor!"]
ALONE = """
import json, sys

class NotHere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("training", "sparsebert", "export"):
            raise ImportError(name)

sys.meta_path.insert(0, NotHere())
from transformers import AutoModelForSequenceClassification, AutoTokenizer

for folder in sys.argv[2:]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    batch = tokenizer(json.loads(sys.argv[1]), padding=True, truncation=True, max_length=8, return_tensors="pt")
    print(json.dumps(model(**batch).logits.softmax(-1).tolist()))
"""


def save_byte_level_tokenizer(folder: Path) -> int:
    """RoBERTa's own kind of tokenizer, trained on a few words; returns the size of its vocabulary."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained = ByteLevelBPETokenizer(add_prefix_space=False)
    words = "good great fine lovely bad poor awful dull the film was a plot and very actor scene it"
    trained.train_from_iterator([words] * 3, vocab_size=320, special_tokens=special, show_progress=False)
    model = json.loads(trained.to_str())["model"]
    RobertaTokenizerFast(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]]).save_pretrained(folder)
    return len(model["vocab"])


@pytest.fixture(scope="module")
def road(make_classifier, bert_dir, reviews_dir, tmp_path_factory) -> Path:
    """Backbones, runs and bundles of all families, in `FOLDER/backbones`, `runs` and `models`."""
    folder = tmp_path_factory.mktemp("families")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # such small matrices only wait for a second thread
    for family in FAMILIES:
        backbone, target = folder / "backbones" / family, folder / "models" / "reviews" / family
        backbone.mkdir(parents=True)
        if family == "roberta":
            sizes = {"vocab_size": save_byte_level_tokenizer(backbone)}
        else:
            for path in bert_dir.glob("tokenizer*"):
                shutil.copy(path, backbone)
            sizes = {}
        make_classifier(family, **sizes).base_model.save_pretrained(backbone)
        words = ["--model", str(backbone), "--data-dir", str(reviews_dir), "--output", str(folder / "runs" / family)]
        words += ["--sparsity", "0.4", "--max-length", "8", "--batch-size", "8", "--learning-rate", "0.005"]
        assert run(["train", *words, "--epochs", "2", "--prune-epochs", "1"]) == 0
        sparse = folder / "runs" / family / "sparse"
        assert run(["export", str(sparse), "--hf", "--output", str(target)]) == 0
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def predict(road):
    """The service's predictions of texts by a family's variant."""
    with TestClient(create_app(Settings(models=road / "models"))) as client:

        def ask(family: str, texts: list[str]) -> list[dict]:
            answer = client.post("/v1/predict", json={"inputs": texts, "variant": family, "truncate": True})
            return answer.json()["predictions"]

        yield ask


@pytest.mark.parametrize("family", FAMILIES)
def test_served_accuracy_is_the_manifest_s(road, predict, family):
    examples = read_examples(road / "runs" / family / "sparse")
    predictions = predict(family, [example.text for example in examples])
    labels = [("no", "yes").index(prediction["label"]) for prediction in predictions]
    right = sum(label == example.label for label, example in zip(labels, examples, strict=True))
    manifest = read_manifest(road / "models" / "reviews" / family)
    assert right / len(examples) == pytest.approx(manifest.quality.value)
    assert manifest.size.encoder_sparsity >= 0.4


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_the_backbone_s(road, family):
    backbone = AutoTokenizer.from_pretrained(road / "backbones" / family)
    bundle = road / "models" / "reviews" / family
    served = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    served.no_truncation()  # as the service does
    reloaded = AutoTokenizer.from_pretrained(bundle / "hf")
    for words in [(text,) for text in TEXTS] + [(TEXTS[0], TEXTS[1])]:
        expected = backbone(*words)["input_ids"]
        assert served.encode(*words).ids == expected
        assert reloaded(*words)["input_ids"] == expected


def test_the_compact_models_work_without_this_project(road, predict, tmp_path):
    """With Transformers alone, in a process that cannot import this project, they say what the service says."""
    folders = [road / "models" / "reviews" / family / "hf" for family in FAMILIES]
    result = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, json.dumps(TEXTS), *folders],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"HF_HOME": str(tmp_path)}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for family, line in zip(FAMILIES, result.stdout.splitlines(), strict=True):
        served = [[prediction["scores"][label] for label in ("no", "yes")] for prediction in predict(family, TEXTS)]
        assert np.array(served) == pytest.approx(np.array(json.loads(line)), abs=1e-4)
