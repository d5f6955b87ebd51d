import pytest
from accelerate import Accelerator

from sparsebert.errors import ConfigError, MissingExtraError
from training.tracking import check_tracker, flat, start_tracking, steps_beside


def test_settings_are_one_level_of_plain_values():
    assert flat({"seed": 1, "dense": {"epochs": 2.0, "deep": {"x": None}}, "shares": [0.5]}) == {
        "seed": 1, "dense.epochs": 2.0, "dense.deep.x": "None", "shares": "[0.5]",
    }  # fmt: skip


def test_an_unknown_tracker_is_refused():
    with pytest.raises(ConfigError, match="--track 'paper' is unknown; choose from tensorboard, mlflow, wandb, none"):
        check_tracker("paper")


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("training.tracking.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="--track wandb needs: pip install wandb"):
        check_tracker("wandb")


def test_mlflow_keeps_settings_and_curves(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="run by hand: pip install mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    track = start_tracking(Accelerator(cpu=True, log_with="mlflow"), "mlflow", {"seed": 3})
    track({"dense/loss": 0.5}, 20)
    track({"dense/loss": 0.25}, 40)
    track({"sparse/loss": 0.75}, 20)
    run = mlflow.last_active_run()
    mlflow.end_run()
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "dense/loss")
    assert [(point.step, point.value) for point in history] == [(20, 0.5), (40, 0.25)]
    assert mlflow.MlflowClient().get_run(run.info.run_id).data.params == {"seed": "3"}


def test_a_stage_has_steps_of_its_own_where_they_must_not_go_back():
    logged, defined = [], []
    track = steps_beside(logged.append, lambda name, step_metric: defined.append((name, step_metric)))
    track({"dense/loss": 0.5}, 40)
    track({"dense/loss": 0.25}, 60)
    track({"sparse/loss": 0.75, "sparse/accuracy": 0.5}, 20)
    assert logged == [
        {"dense/loss": 0.5, "dense/step": 40},
        {"dense/loss": 0.25, "dense/step": 60},
        {"sparse/loss": 0.75, "sparse/accuracy": 0.5, "sparse/step": 20},
    ]
    assert defined == [("dense/*", "dense/step"), ("sparse/*", "sparse/step")]
