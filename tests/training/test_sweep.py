"""Whole sweeps of tiny models: nothing finished is done again, nothing is lost, and the numbers are those of train."""

import csv
import io
import shutil
import sys
from contextlib import closing, redirect_stderr
from pathlib import Path

import pytest

from killing import killed_after
from sparsebert.checkpoint import read_run
from sparsebert.cli import run
from sparsebert.masks import load_masks
from training.sweep.cli import read_axes
from training.sweep.conduct import Sweep
from training.sweep.plan import plan_sweep
from training.sweep.runner import Outcome

FAR_TOO_MUCH = "removing 99.0% of the encoder's parameters is not possible"


class InProcessRunner:
    """Runs the jobs here, one by one: real training, without the seconds that each new process takes."""

    def __init__(self):
        self.done = []

    def run(self, jobs):
        for job in jobs:
            said = io.StringIO()
            with redirect_stderr(said):
                code = run(job.command[2:])
            self.done.append(job.name)
            yield Outcome(name=job.name, error=said.getvalue().splitlines()[-1] if code else None)


@pytest.fixture
def shared(bert_dir, reviews_dir) -> list[str]:
    words = ["--model", str(bert_dir), "--data-dir", str(reviews_dir), "--max-length", "16"]
    words += ["--epochs", "1", "--prune-epochs", "2", "--recovery-epochs", "0", "--batch-size", "8"]
    return [*words, "--learning-rate", "5e-3", "--min-heads", "1", "--track", "none"]


def make_sweep(output: Path, shared: list[str], *grid: str, seeds: str | None = None) -> Sweep:
    output.mkdir(exist_ok=True)
    return Sweep(plan_sweep(read_axes(grid, seeds), shared), output, output)


def sweep_once(sweep: Sweep) -> list[str]:
    """Run a sweep; gives the names of its jobs."""
    runner = InProcessRunner()
    sweep.run(runner)
    return runner.done


def states(output: Path) -> dict[str, str]:
    with (output / "results.csv").open(newline="") as stream:
        return {row["point"]: row["state"] for row in csv.DictReader(stream)}


def numbers(folder: Path) -> tuple[object, ...]:
    record = read_run(folder)
    return record.evaluations, record.events, load_masks(folder / "masks.safetensors").kept_neurons_L()


def test_a_point_has_the_numbers_of_train(shared, tmp_path):
    sweep = make_sweep(tmp_path / "sweep", shared, "sparsity=0.1,0.5", seeds="4")
    dense, *points = sweep_once(sweep)
    assert dense.startswith("seed-4-")
    assert points == ["sparsity-0.1_seed-4", "sparsity-0.5_seed-4"]
    assert states(tmp_path / "sweep") == dict.fromkeys(points, "finished")
    assert sweep.left() == []
    assert run(["train", *shared, "--sparsity", "0.5", "--seed", "4", "--output", str(tmp_path / "train")]) == 0
    assert numbers(tmp_path / "sweep/points/sparsity-0.5_seed-4/sparse") == numbers(tmp_path / "train" / "sparse")
    (row,) = [row for row in sweep.rows() if row.axes == {"sparsity": "0.5"}]
    assert row.result.accuracy == read_run(tmp_path / "train" / "sparse").accuracy
    assert row.result.overall == row.result.accuracy  # no holdout
    assert row.result.dense_accuracy == read_run(tmp_path / "train" / "dense").accuracy
    assert 0.5 <= row.result.encoder_sparsity < 0.53


def test_a_failed_point_stops_no_other_and_alone_is_tried_again(shared, tmp_path):
    sweep = make_sweep(tmp_path, shared, "sparsity=0.99,0.1,0")
    sweep_once(sweep)
    assert states(tmp_path) == {
        "sparsity-0.99_seed-0": "failed", "sparsity-0.1_seed-0": "finished", "sparsity-0_seed-0": "finished",
    }  # fmt: skip
    assert FAR_TOO_MUCH in sweep.rows()[-1].error
    again = make_sweep(tmp_path, shared, "sparsity=0.99,0.1,0")
    assert [point.name for point in again.left()] == ["sparsity-0.99_seed-0"]
    assert sweep_once(again)[1:] == ["sparsity-0.99_seed-0"]


def test_a_grid_that_grew_does_what_is_new_and_one_that_shrank_forgets_nothing(shared, tmp_path):
    sweep_once(make_sweep(tmp_path, shared, "sparsity=0.1"))
    assert sweep_once(make_sweep(tmp_path, shared, "sparsity=0.1,0.2"))[1:] == ["sparsity-0.2_seed-0"]
    assert sweep_once(make_sweep(tmp_path, shared, "sparsity=0.1")) == []
    assert states(tmp_path) == {"sparsity-0.1_seed-0": "finished", "sparsity-0.2_seed-0": "finished"}


def test_a_killed_sweep_goes_on_inside_its_point(shared, tmp_path, caplog):
    sweep_once(make_sweep(tmp_path / "whole", shared, "sparsity=0.2"))
    sweep = make_sweep(tmp_path / "killed", shared, "sparsity=0.1,0.2")
    with killed_after(12 + 24 + 12):  # the dense model, the first point, half of the second
        sweep_once(sweep)
    assert states(tmp_path / "killed") == {"sparsity-0.1_seed-0": "finished", "sparsity-0.2_seed-0": "open"}
    with caplog.at_level("INFO"):
        assert sweep_once(sweep)[1:] == ["sparsity-0.2_seed-0"]
    assert "sparse: resumed after step 12 of 24" in caplog.text
    whole, killed = (tmp_path / kind / "points/sparsity-0.2_seed-0/sparse" for kind in ("whole", "killed"))
    assert numbers(whole) == numbers(killed)


def test_new_points_are_not_mixed_with_a_dense_model_of_other_data(shared, reviews_dir, tmp_path):
    data = shutil.copytree(reviews_dir, tmp_path / "data")
    shared = [*shared, "--data-dir", str(data)]
    sweep_once(make_sweep(tmp_path / "sweep", shared, "sparsity=0.1"))
    with (data / "train.csv").open("a") as stream:
        stream.write("a good film,yes\n")
    sweep = make_sweep(tmp_path / "sweep", shared, "sparsity=0.1,0.2")
    (dense,) = sweep_once(sweep)
    assert states(tmp_path / "sweep") == {"sparsity-0.1_seed-0": "finished", "sparsity-0.2_seed-0": "failed"}
    assert f"its dense model {dense}: " in sweep.rows()[-1].error
    assert "holds a run with other settings or data" in sweep.rows()[-1].error


def test_a_point_that_ended_well_elsewhere_is_told(shared, tmp_path):
    class AnotherFolderRunner(InProcessRunner):
        def run(self, jobs):
            yield from (Outcome(name=job.name, error=None) for job in jobs)

    sweep = make_sweep(tmp_path, shared, "sparsity=0.1")
    sweep.run(AnotherFolderRunner())
    assert sweep.rows()[0].error == f"it ended well, but not in {tmp_path}, which all machines must see"


def test_an_interrupted_sweep_closes_its_runner(shared, tmp_path):
    closed = []

    class InterruptedRunner(InProcessRunner):
        def run(self, jobs):
            with closing(type("Children", (), {"close": lambda self: closed.append("children")})()):
                raise KeyboardInterrupt
            yield

    with pytest.raises(KeyboardInterrupt):
        make_sweep(tmp_path, shared, "sparsity=0.1").run(InterruptedRunner())
    assert closed == ["children"]
    assert states(tmp_path) == {"sparsity-0.1_seed-0": "open"}


def test_the_command_runs_processes(shared, dense_dir, tmp_path, capsys):
    words = ["sweep", "--output", str(tmp_path / "sweep"), "--grid", "sparsity=0.1", "--jobs", "2"]
    shared = [*shared, "--model", str(dense_dir), "--epochs", "0"]
    assert run([*words, "--dry-run", "--", *shared]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["0.1", "0", "open"]
    assert not (tmp_path / "sweep").exists()
    assert run([*words, "--", *shared]) == 0
    log = (tmp_path / "sweep/points/sparsity-0.1_seed-0/train.log").read_text()
    assert "sparse: step 24 of 24" in log
    cells = capsys.readouterr().out.splitlines()[1].split()
    accuracy = read_run(tmp_path / "sweep/points/sparsity-0.1_seed-0/sparse").accuracy
    assert cells[:3] == ["0.1", "0", f"{accuracy:.2%}"]
    assert run([*words, "--", *shared]) == 0
    assert (tmp_path / "sweep/points/sparsity-0.1_seed-0/train.log").read_text() == log


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--grid", "sparsity=0.5,2"], "the point sparsity=2 is none: --sparsity is 2; it must be"),
        (["--grid", "sparsity=0.5", "--jobs", "0"], "--jobs is 0; it must be at least 1"),
        (["--grid", "sparsity=0.5", "--gpus", "1"], "--gpus needs --ray"),
        (["--grid", "sparsity=0.5", "--gpus", "-1"], "--gpus is -1; it must be at least 0"),
        ([], "a sweep needs a --grid"),
    ],
)
def test_bad_words_are_one_clear_line(tmp_path, capsys, flags, message):
    assert run(["sweep", "--output", str(tmp_path / "sweep"), *flags]) == 1
    error = capsys.readouterr().err
    assert error.startswith("sparsebert sweep: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


def test_without_its_machines_a_sweep_leaves_nothing_behind(tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    words = ["sweep", "--output", str(tmp_path / "sweep"), "--grid", "sparsity=0.5", "--ray", "local"]
    assert run(words) == 1
    assert "--ray needs: pip install" in capsys.readouterr().err
    assert "results.csv" not in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_told(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(["sweep", "--output", str(tmp_path / "file" / "sweep"), "--grid", "sparsity=0.5"]) == 1
    assert "cannot be written" in capsys.readouterr().err
