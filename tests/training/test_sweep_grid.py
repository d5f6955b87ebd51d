"""Words become points: pure, nothing is run."""

import argparse
from pathlib import Path

import pytest

from sparsebert.errors import ConfigError
from training.sweep.cli import read_axes, split_words
from training.sweep.grid import Axis, combinations, flag_words, parse_axis, train_words
from training.sweep.plan import dense_job, dense_runs, describe, folder_name, plan_sweep, point_job


def plan(*grid: str, seeds: str | None = None, shared: tuple[str, ...] = ()):
    return plan_sweep(read_axes(grid, seeds), shared)


def names(points) -> list[str]:
    return [point.name for point in points]


def test_an_axis_is_a_flag_and_its_values():
    assert parse_axis("sparsity=0.5,0.67") == Axis(flag="sparsity", values=("0.5", "0.67"))
    assert parse_axis("--prune-epochs=4, 8") == Axis(flag="prune-epochs", values=("4", "8"))


def test_words_after_the_dashes_are_those_of_train():
    assert split_words(["--jobs", "2", "--", "--model", "m", "--"]) == (["--jobs", "2"], ["--model", "m", "--"])
    assert split_words(["--jobs", "2"]) == (["--jobs", "2"], [])


def test_seeds_change_slowest_and_are_named_last():
    axes = [Axis(flag="seed", values=("0", "1")), Axis(flag="sparsity", values=("0.5", "0.67"))]
    assert combinations(axes) == [
        (("sparsity", "0.5"), ("seed", "0")),
        (("sparsity", "0.67"), ("seed", "0")),
        (("sparsity", "0.5"), ("seed", "1")),
        (("sparsity", "0.67"), ("seed", "1")),
    ]


def test_a_value_is_one_word_so_that_it_may_begin_with_a_dash():
    assert train_words((("learning-rate", "-1"), ("task", "sst2"))) == ("--learning-rate=-1", "--task=sst2")


def test_a_switch_is_on_or_off():
    parser = argparse.ArgumentParser()
    parser.add_argument("--reactivation", action=argparse.BooleanOptionalAction)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--mode", choices=("on", "off"))
    assert flag_words(parser, "reactivation", "on") == ["--reactivation"]
    assert flag_words(parser, "reactivation", "off") == ["--no-reactivation"]
    assert flag_words(parser, "quick", "off") == []
    assert flag_words(parser, "mode", "off") == ["--mode=off"]
    with pytest.raises(ConfigError, match="--reactivation is a switch; its values are on and off"):
        flag_words(parser, "reactivation", "yes")


def test_a_grid_becomes_points():
    points = plan("learning-rate=1e-4,2e-4", "sparsity=0.5,0", seeds="0,3", shared=("--recipe", "demo"))
    assert names(points) == [
        "learning-rate-1e-4_sparsity-0.5_seed-0", "learning-rate-1e-4_sparsity-0_seed-0",
        "learning-rate-2e-4_sparsity-0.5_seed-0", "learning-rate-2e-4_sparsity-0_seed-0",
        "learning-rate-1e-4_sparsity-0.5_seed-3", "learning-rate-1e-4_sparsity-0_seed-3",
        "learning-rate-2e-4_sparsity-0.5_seed-3", "learning-rate-2e-4_sparsity-0_seed-3",
    ]  # fmt: skip
    last = points[-1]
    assert last.words == ("--recipe", "demo", "--learning-rate=2e-4", "--sparsity=0", "--seed=3")
    assert last.axes == (("learning-rate", "2e-4"), ("sparsity", "0"))
    assert (last.seed, last.stage) == (3, "dense")
    assert {point.stage for point in points[::2]} == {"sparse"}


def test_points_share_a_dense_model_when_nothing_of_the_dense_stage_differs():
    points = plan("sparsity=0.5,0.67", "prune-epochs=2,4", "learning-rate=1e-4,2e-4", seeds="0,1")
    runs = dense_runs(points)
    assert len(points) == 16
    assert len(runs) == 4  # two rates, two seeds
    assert len({run.name for run in runs}) == 4
    assert [run.name.rsplit("-", 1)[0] for run in runs] == ["seed-0", "seed-0", "seed-1", "seed-1"]
    assert all(run.words[-1] == "--sparsity=0" for run in runs)
    assert len(dense_runs(plan("sparsity=0.5,0.67", "prune-epochs=2,4"))) == 1
    assert len(dense_runs(plan("epochs=1,2", "sparsity=0.5,0.67"))) == 2
    assert len(dense_runs(plan("model=minilm,google-bert/bert-base-uncased"))) == 2


def test_a_model_that_is_taken_as_it_is_needs_no_dense_run():
    points = plan("sparsity=0.5,0.67", shared=("--model", "runs/a/dense", "--epochs", "0"))
    assert dense_runs(points) == ()
    assert point_job(points[0], Path("/out"), Path("/here")).command == (
        "-m", "sparsebert", "train", "--teacher-cache=/out/teacher", "--model", "runs/a/dense", "--epochs", "0",
        "--sparsity=0.5", "--output=/out/points/sparsity-0.5_seed-0",
    )  # fmt: skip


def test_a_point_starts_from_its_dense_model():
    (point,) = plan("sparsity=0.5", shared=("--recipe", "demo"))
    (run,) = dense_runs([point])
    dense, job = dense_job(run, Path("/out"), Path("/here")), point_job(point, Path("/out"), Path("/here"))
    assert dense.command == (
        "-m", "sparsebert", "train", "--recipe", "demo", "--sparsity=0.5", "--sparsity=0",
        f"--output=/out/dense/{run.name}",
    )  # fmt: skip
    assert job.command == (
        "-m", "sparsebert", "train", "--teacher-cache=/out/teacher", "--recipe", "demo", "--sparsity=0.5",
        f"--model=/out/dense/{run.name}/dense", "--epochs=0", "--output=/out/points/sparsity-0.5_seed-0",
    )  # fmt: skip
    assert (job.name, job.folder, job.cwd) == (point.name, Path("/out/points/sparsity-0.5_seed-0"), Path("/here"))


def test_a_grid_that_grows_keeps_its_names():
    (before,) = plan("sparsity=0.5", "prune-epochs=2")
    after = plan("prune-epochs=4,2", "sparsity=0.8,0.5", seeds="1,0")
    (same,) = [point for point in after if point.identity == before.identity]
    assert same.name == before.name == "prune-epochs-2_sparsity-0.5_seed-0"
    assert same.dense.name == before.dense.name


def test_a_point_is_the_same_wherever_its_words_stand():
    (grid,) = plan("sparsity=0.5", "prune-epochs=2")
    (shared,) = plan("sparsity=0.5", shared=("--prune-epochs", "2"))
    assert grid.identity == shared.identity
    assert grid.name != shared.name


def test_names_are_safe_and_told_apart():
    assert folder_name((("importance", "fisher"), ("sparsity", "0.67"))) == "importance-fisher_sparsity-0.67"
    slash, dash = folder_name((("model", "a/b"),)), folder_name((("model", "a-b"),))
    assert dash == "model-a-b"
    assert slash == "model-a-b-2ccc3d7d"
    assert len(folder_name((("text-column", "x" * 300),))) == 129
    assert describe((("sparsity", "0.5"), ("seed", "1"))) == "sparsity=0.5 seed=1"


@pytest.mark.parametrize(
    ("grid", "seeds", "shared", "message"),
    [
        ([], None, [], "a sweep needs a --grid, such as"),
        (["sparsity"], None, [], "--grid sparsity is no axis; give a flag and its values"),
        (["sparsity=0.5,"], None, [], "--grid sparsity=0.5, is no axis"),
        (["sparsty=0.5"], None, [], "'sparsebert train' has no --sparsty; try sparsity"),
        (["output=a,b"], None, [], "'sparsebert train' has no --output"),
        (["sparsity=0.5,0.5"], None, [], "names a value twice"),
        (["sparsity=0.5,0.50"], None, [], "sparsity-0.5_seed-0 and sparsity-0.50_seed-0 are the same point"),
        (["sparsity=0.5", "sparsity=0.6"], None, [], "--sparsity is in the grid twice"),
        (["seed=1"], "2", [], "--seed is in the grid twice"),
        (["sparsity=0.5"], None, ["--spars", "0.6"], "--sparsity is in the grid and after '--'"),
        (["recipe=demo"], None, ["--recipe", "demo"], "--recipe is in the grid and after '--'"),
        (["text-column=a"], None, ["--text-column", "b"], "--text-column is in the grid and after '--'"),
        (["sparsity=0.5"], None, ["--output", "there"], "each point has a folder of its own; leave it out"),
        (["sparsity=0.5"], None, ["--outputs", "there"], "unrecognized arguments: --outputs there"),
        (["sparsity=0.3"], None, ["--max-drop", "1"], "it looks for its sparsity (--max-drop)"),
        (["sparsity=0.5,much"], None, [], "argument --sparsity: 'much' is not a number"),
        (["sparsity=0.5,1.5"], None, [], "the point sparsity=1.5 is none: --sparsity is 1.5; it must be above 0"),
        (["recipe=demo,fast"], None, [], "argument --recipe: invalid choice: 'fast'"),
        (["prune-epochs=1,0"], "7", [], "the point prune-epochs=0 seed=7 is none: --prune-epochs is 0, but"),
    ],
)
def test_a_grid_that_cannot_be_run_is_told_before_anything_runs(grid, seeds, shared, message):
    with pytest.raises(ConfigError) as error:
        plan_sweep(read_axes(grid, seeds), shared)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
