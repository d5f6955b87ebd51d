"""Two processes on the CPU, as `accelerate launch` starts them."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparsebert.checkpoint import read_run
from training.checkpoint import load_checkpoint

WORKER = Path(__file__).parent / "distributed_worker.py"
LAUNCH = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip


def launch(*words: str) -> str:
    """Start two processes that see no GPU; what they wrote to stderr."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run([*LAUNCH, *words], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def launched(bert_dir, reviews_dir, tmp_path_factory) -> tuple[Path, str]:
    """The folder of the worker, which leaves a whole run in `run` besides, and what it told. Processes start once."""
    folder = tmp_path_factory.mktemp("found")
    words = ["train", "--model", str(bert_dir), "--data-dir", str(reviews_dir), "--output", str(folder / "run")]
    words += ["--epochs", "10", "--prune-epochs", "3", "--recovery-epochs", "1", "--batch-size", "8"]
    words += ["--learning-rate", "1e-2", "--prune-learning-rate", "5e-3", "--max-length", "16", "--sparsity", "0.5"]
    words += ["--min-neurons", "2", "--dropout", "0", "--precision", "fp32", "--track", "tensorboard"]
    return folder, launch(str(WORKER), str(bert_dir), str(folder), *words)


@pytest.fixture(scope="module")
def found(launched) -> dict[str, dict[str, torch.Tensor]]:
    """What the worker saved: of each case a row for each process."""
    return torch.load(launched[0] / "found.pt")


@pytest.mark.parametrize("case", ["fisher", "gradient", "movement, l1", "gate, l0", "activation", "margin"])
def test_all_processes_hold_the_same(found, case):
    assert {part: torch.equal(*rows) for part, rows in found[case].items()} == {
        "weights": True, "masks": True, "scores": True, "learned": True,
    }  # fmt: skip
    assert 20 < int(found[case]["masks"][0].sum()) < 80  # of 84 units


@pytest.mark.parametrize("case", ["fisher", "gradient", "movement, l1", "margin"])
def test_two_processes_learn_what_one_does(found, case, bert_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    worker = runpy.run_path(str(WORKER))
    stage = worker["Stage"](str(bert_dir), tmp_path, worker["CASES"][case], worker["NUM_TEXTS"])
    alone = stage.run(worker["OBJECTIVES"].get(case))
    assert torch.equal(alone["masks"], found[case]["masks"][0])
    for part in ("weights", "scores", "learned"):
        torch.testing.assert_close(found[case][part][0], alone[part], rtol=0, atol=1e-5)


def test_two_killed_processes_end_with_the_same_numbers(found):
    assert all(torch.equal(found["resumed"][part], rows) for part, rows in found["fisher"].items())


def test_a_run_of_two_processes_is_one_run(launched):
    folder, log = launched[0] / "run", launched[1]
    assert "training on cpu:0, precision no, 2 processes" in log
    assert [log.count(line) for line in ("dense: step 12 of 120", "sparse: step 36 of 36", "next: ")] == [1, 1, 1]
    checkpoint, dense = load_checkpoint(folder / "sparse"), read_run(folder / "dense")
    assert dense.accuracy >= 0.9
    assert checkpoint.run.accuracy >= 0.8
    assert 0.5 <= checkpoint.run.encoder_sparsity < 0.52
    assert sorted(path.name for path in folder.iterdir()) == [".work", "dense", "logs", "sparse"]
    assert list((folder / ".work").iterdir()) == []
    assert len(list((folder / "logs").rglob("events.*"))) == 2  # the curves, and the settings
