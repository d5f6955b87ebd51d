"""A small dense checkpoint that knows good from bad, and the same with a masked neuron."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sparsebert.checkpoint import MASKS_FILE, Example, Metrics, RunRecord
from sparsebert.manifest import Task
from sparsebert.masks import MaskSet, save_masks

if TYPE_CHECKING:
    from training.config import TrainConfig


@pytest.fixture(autouse=True)
def next_test_chooses_its_arithmetic() -> Iterator[None]:
    """accelerate keeps one precision for a whole process: each test hands it back."""
    yield
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def dense_dir(bert_dir: Path, reviews_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import AutoTokenizer

    from training.batching import collate
    from training.checkpoint import MaskedCheckpoint, save_checkpoint
    from training.encoding import encode
    from training.geometry import geometry_of
    from training.loading import load_dense
    from training.predictions import Answers

    torch.manual_seed(0)
    model, tokenizer = load_dense(str(bert_dir)).train(), AutoTokenizer.from_pretrained(bert_dir)
    train, validation = (read_reviews(reviews_dir / f"{split}.csv") for split in ("train", "validation"))
    encoded = encode(train, tokenizer, 16).examples
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(60):
        batch = collate(encoded, [(16 * step + row) % len(encoded) for row in range(16)], pad_id=0)
        model(*batch[:3], labels=batch.labels_B).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    record = RunRecord(
        stage="dense", model="tiny", task=Task(name="custom", pair=False), labels=("no", "yes"), data="reviews",
        num_train=96, num_validation=32, max_length=16, seed=0, config={"fingerprint": "of the dense run"},
        dense_geometry=geometry_of(model), encoder_sparsity=0.0, accuracy=1.0, duration_s=1.0, evaluations=(),
        events=(), versions={}, metrics={"validation": Metrics(num_examples=32, accuracy=1.0)}, removed_share=0.0,
        truncated_texts=0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("checkpoints") / "dense"
    save_checkpoint(
        folder,
        MaskedCheckpoint(
            model=model.eval(), tokenizer=tokenizer, masks=MaskSet.dense(3, 4, 24), run=record, examples=validation,
            calibration=train,
        ),
        {"validation": Answers(asked=(), logits_NC=torch.zeros(32, 2))},
    )  # fmt: skip
    return folder


def read_reviews(path: Path) -> list[Example]:
    with path.open(newline="") as stream:
        return [Example(text=row["text"], label=int(row["label"] == "yes")) for row in csv.DictReader(stream)]


@pytest.fixture
def sparse_dir(dense_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(dense_dir, tmp_path_factory.mktemp("masked") / "sparse")
    masks = MaskSet.dense(3, 4, 24)
    masks.neurons_LF[1, 3] = False
    save_masks(masks, folder / MASKS_FILE)
    return folder


@pytest.fixture(scope="session")
def run_config(bert_dir: Path, reviews_dir: Path) -> "TrainConfig":
    """A whole run, to half of the encoder, in which the tiny model learns: epochs of 12 steps."""
    from training.budget import BudgetConfig
    from training.config import TrainConfig
    from training.data import DataConfig
    from training.loop import LoopConfig
    from training.pruner import PruningConfig
    from training.selection import KeepFloor, SelectionRules

    return TrainConfig(
        model=str(bert_dir),
        data=DataConfig(data_dir=reviews_dir),
        dense=LoopConfig(epochs=10, batch_size=8, learning_rate=1e-2),
        sparse=LoopConfig(epochs=3, batch_size=8, learning_rate=5e-3),
        recovery=LoopConfig(epochs=1, batch_size=8, learning_rate=5e-3),
        pruning=PruningConfig(update_every_steps=4, rules=SelectionRules(floor=KeepFloor(heads=1, neurons=2))),
        budget=BudgetConfig(shares=(0.5,)),
        max_length=16,
        track="none",
    )
