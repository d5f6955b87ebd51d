"""What is finished, and how it is told."""

from training.sweep.grid import Axis
from training.sweep.plan import plan_sweep
from training.sweep.receipts import Finished, Receipt, find_finished, left_to_do
from training.sweep.results import make_rows, to_csv, to_table

POINTS = plan_sweep([Axis(flag="sparsity", values=("0.5", "0.67", "0.8"))], ())


def finished(
    name: str, axes: dict[str, str], identity: str, accuracy: float, overall: float, holdout: float | None = None
) -> Finished:
    receipt = Receipt(axes=axes, seed=0, stage="sparse", identity=identity)
    return Finished(
        name=name, receipt=receipt, accuracy=accuracy, dense_accuracy=0.9, holdout_accuracy=holdout, overall=overall,
        dense_overall=0.9, encoder_sparsity=0.5, duration_s=90.0,
    )  # fmt: skip


DONE = {
    result.receipt.identity: result
    for result in (
        finished("sparsity-0.5_seed-0", {"sparsity": "0.5"}, POINTS[0].identity, 0.875, 0.875),
        finished("importance-fisher_seed-0", {"importance": "fisher"}, "of before", 0.86, 0.91, 0.92),
    )
}
ROWS = make_rows(POINTS, DONE, {"sparsity-0.8_seed-0": "killed by SIGKILL"})


def test_what_has_no_receipt_of_these_settings_is_left_to_do():
    assert [point.name for point in left_to_do(POINTS, DONE)] == ["sparsity-0.67_seed-0", "sparsity-0.8_seed-0"]


def test_the_best_come_first_and_points_of_an_earlier_grid_stay():
    assert [(row.name, row.state) for row in ROWS] == [
        ("importance-fisher_seed-0", "finished"),
        ("sparsity-0.5_seed-0", "finished"),
        ("sparsity-0.67_seed-0", "open"),
        ("sparsity-0.8_seed-0", "failed"),
    ]


def test_csv():
    assert to_csv(ROWS).splitlines() == [
        "point,importance,sparsity,seed,state,accuracy,dense_accuracy,holdout_accuracy,overall,encoder_sparsity,duration_s,error",
        "importance-fisher_seed-0,fisher,,0,finished,0.86,0.9,0.92,0.91,0.5,90.0,",
        "sparsity-0.5_seed-0,,0.5,0,finished,0.875,0.9,,0.875,0.5,90.0,",
        "sparsity-0.67_seed-0,,0.67,0,open,,,,,,,",
        "sparsity-0.8_seed-0,,0.8,0,failed,,,,,,,killed by SIGKILL",
    ]


def test_table():
    assert [line.rstrip() for line in to_table(ROWS).splitlines()] == [
        "importance  sparsity  seed  accuracy  holdout  vs dense  removed  minutes",
        "    fisher               0    86.00%   92.00%     +1.00    50.0%      1.5",
        "                 0.5     0    87.50%              -2.50    50.0%      1.5",
        "                0.67     0      open",
        "                 0.8     0    failed",
        "",
        "sparsity-0.8_seed-0: killed by SIGKILL",
    ]


def test_a_receipt_without_its_checkpoint_is_none(tmp_path):
    folder = tmp_path / "points" / "sparsity-0.5_seed-0"
    folder.mkdir(parents=True)
    receipt = Receipt(axes={"sparsity": "0.5"}, seed=0, stage="sparse", identity=POINTS[0].identity)
    (folder / "point.json").write_text(receipt.model_dump_json())
    assert find_finished(tmp_path) == {}
    (folder / "point.json").write_text("{")
    assert find_finished(tmp_path) == {}
    assert find_finished(tmp_path / "nothing") == {}
