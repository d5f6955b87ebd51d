from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from sparsebert.errors import ConfigError
from training.budget import BudgetConfig
from training.config import TrainConfig
from training.flags import build_config, build_parser, no_flags
from training.geometry import geometry_of
from training.loading import load_dense
from training.loop import LoopConfig
from training.optimizer import new_optimizer
from training.run import run_training


def trained(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_frozen_layers_and_all_below_them_get_no_gradients(bert_dir):
    model = load_dense(str(bert_dir))
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    optimizer = new_optimizer(model, 1e-2, 0.0, True, frozen_layers=1)
    texts = torch.tensor([[2, 7, 8, 3]])
    model(input_ids=texts, attention_mask=torch.ones_like(texts)).logits.square().sum().backward()
    optimizer.step()
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == trained(model)
    assert moved == {name for name in before if not name.startswith(("bert.embeddings", "bert.encoder.layer.0."))}
    assert [len(group["params"]) for group in optimizer.param_groups] == [
        len([name for name in moved if name.endswith("weight") and "LayerNorm" not in name]),
        len([name for name in moved if name.endswith("bias") or "LayerNorm" in name]),
    ]


def test_a_narrow_models_projection_is_below_the_layers(bert_dir):
    model = load_dense(str(bert_dir))
    model.bert.embeddings_project = torch.nn.Linear(4, geometry_of(model).hidden_size)
    new_optimizer(model, 1e-2, 0.0, True, frozen_layers=1)
    assert not any("embeddings" in name for name in trained(model))
    whole = deepcopy(model).requires_grad_(True)
    new_optimizer(whole, 1e-2, 0.0, True)
    assert trained(whole) == {name for name, _ in whole.named_parameters()}


def test_recovery_leaves_frozen_layers_as_pruning_left_them(run_config: TrainConfig, tmp_path):
    small = replace(run_config, dense=replace(run_config.dense, epochs=1), sparse=replace(run_config.sparse, epochs=1))
    run_training(replace(small, recovery=replace(small.recovery, epochs=0)), tmp_path / "pruned")
    run_training(replace(small, recovery=replace(small.recovery, frozen_layers=1)), tmp_path / "frozen")
    pruned, frozen = (load_file(tmp_path / name / "sparse" / "model.safetensors") for name in ("pruned", "frozen"))
    same = {name for name in pruned if torch.equal(pruned[name], frozen[name])}
    below = {name for name in pruned if name.startswith(("bert.embeddings", "bert.encoder.layer.0."))}
    assert below <= same
    assert any(name.startswith("bert.encoder.layer.1.") for name in pruned.keys() - same)


def test_one_layer_at_least_recovers(run_config: TrainConfig, tmp_path, bert_dir):
    layers = geometry_of(load_dense(str(bert_dir))).num_layers
    config = replace(run_config, recovery=replace(run_config.recovery, frozen_layers=layers))
    with pytest.raises(ConfigError, match=f"--freeze-layers {layers} leaves none of the model's {layers} layers"):
        run_training(config, tmp_path)
    assert not (tmp_path / "dense").exists()
    with pytest.raises(ConfigError, match="--freeze-layers is -1; it must be at least 0"):
        LoopConfig(epochs=1, frozen_layers=-1)


def test_the_flag_is_for_recovery_alone():
    words = ["--output", "run", "--sparsity", "0.5", "--freeze-layers", "2"]
    config = build_config(build_parser().parse_args(words, namespace=no_flags()))
    assert [one.frozen_layers for one in (config.dense, config.sparse, config.recovery)] == [0, 0, 2]


def test_layers_are_frozen_where_there_is_a_recovery_of_them(run_config: TrainConfig, tmp_path):
    frozen = replace(run_config.recovery, frozen_layers=1)
    with pytest.raises(ConfigError, match="--freeze-layers 1 is for the recovery, and --recovery-epochs is 0; give it"):
        replace(run_config, recovery=replace(frozen, epochs=0))
    with pytest.raises(ConfigError, match="layers are frozen in recovery only"):
        replace(run_config, sparse=frozen)
    dense_only = replace(run_config, budget=BudgetConfig(), recovery=replace(frozen, frozen_layers=99))
    run_training(replace(dense_only, dense=replace(run_config.dense, epochs=1)), tmp_path)
    assert (tmp_path / "dense").exists()


def test_runs_from_before_layers_could_be_frozen_are_the_same(run_config: TrainConfig):
    frozen = replace(run_config, recovery=replace(run_config.recovery, frozen_layers=1))
    assert frozen.fingerprint("sparse", "d", "m") != run_config.fingerprint("sparse", "d", "m")
    assert frozen.fingerprint("dense", "d", "m") == run_config.fingerprint("dense", "d", "m")
