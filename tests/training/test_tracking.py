import pytest

from sparsebert.errors import ConfigError, MissingExtraError
from training.tracking import check_tracker, flat


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
