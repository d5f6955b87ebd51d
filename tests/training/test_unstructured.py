import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from killing import killed_after
from sparsebert.checkpoint import read_run
from sparsebert.cli import run
from sparsebert.inspect import describe, render
from training.checkpoint import load_checkpoint
from training.loading import load_dense
from training.unstructured.cli import NO_SPEED, build_parser
from training.unstructured.methods import METHODS, along_ramp, at_once, in_rounds
from training.unstructured.pruner import WeightPruner
from training.unstructured.stage import _warn_of_few_cuts
from training.unstructured.weights import EncoderWeights, LowestScores

ENCODER_WEIGHTS = 3 * (4 * 16 * 16 + 2 * 16 * 24)
MAGNITUDE_AFTER, MOVEMENT = METHODS["magnitude-after"], METHODS["movement"]


@pytest.fixture
def model(bert_dir):
    torch.manual_seed(3)
    return load_dense(str(bert_dir))


def a_loss(model):
    tokens = torch.tensor([[2, 7, 8, 9, 3], [2, 11, 12, 13, 3]])
    return functional.cross_entropy(model(tokens).logits, torch.tensor([0, 1]))


def test_the_lowest_scores_go_with_their_signs():
    mask = LowestScores(2).compute_mask(torch.tensor([0.5, -3.0, 2.0, -0.1]), torch.ones(4))
    assert mask.tolist() == [1, 0, 1, 0]
    assert LowestScores(0).compute_mask(torch.tensor([1.0]), torch.ones(1)).tolist() == [1]


def test_when_weights_leave():
    assert [at_once(step, 8, 0.75) for step in (0, 8)] == [0.75, 0.75]
    steps = (0, 1, 2, 4, 6, 8)  # 4 rounds, each keeps 0.25 ** 0.25 of what is left
    assert [in_rounds(step, 8, 0.75) for step in steps] == pytest.approx(
        [0.292893, 0.292893, 0.5, 0.646447, 0.75, 0.75], abs=1e-6
    )
    assert [along_ramp(step, 10, 0.8) for step in (0, 1, 4, 7, 10)] == pytest.approx([0, 0, 0.7, 0.8, 0.8])


def test_the_smallest_weights_of_the_whole_encoder_are_zero(model):
    before = [
        module.weight.detach().clone() for module in model.bert.encoder.modules() if hasattr(module, "in_features")
    ]
    weights = EncoderWeights(model)
    assert (weights.num_weights, weights.sparsity) == (ENCODER_WEIGHTS, 0.0)
    weights.keep_highest_of_all(weights.magnitudes(), 0.5)
    assert weights.sparsity == 0.5
    threshold = torch.cat([weight.abs().flatten() for weight in before]).median()
    a_loss(model)  # a forward pass makes the products
    for linear, weight in zip(weights.linears, before, strict=True):
        assert torch.equal(linear.weight, weight * (weight.abs() > threshold))
    weights.settle()
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in load_dense_like(model)}


def load_dense_like(model):
    return type(model)(model.config).named_parameters()


def test_pruned_weights_get_no_gradient_and_stay_zero(model):
    pruner = WeightPruner(model, MAGNITUDE_AFTER, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        a_loss(model).backward()
        pruner.after_backward(step, 3)
        optimizer.step()
        optimizer.zero_grad()
    assert pruner.encoder_sparsity == pruner.weights.sparsity == 0.5
    pruner.settle()
    zeros = sum(int((linear.weight == 0).sum()) for linear in pruner.weights.linears)
    assert zeros == ENCODER_WEIGHTS // 2


def test_each_matrix_keeps_its_own_highest(model):
    weights = EncoderWeights(model)
    scores = [float(number + 1) * torch.rand(weight.shape) for number, weight in enumerate(weights.originals())]
    weights.keep_highest_of_each(scores, 0.25)
    for linear, score in zip(weights.linears, scores, strict=True):
        kept = linear.weight_mask == 1
        assert float(kept.float().mean()) == 0.75
        assert float(score[kept].min()) > float(score[~kept].max())


def test_a_score_has_the_gradient_of_its_straight_through_mask_also_where_it_is_zero(model):
    pruner = WeightPruner(model, MOVEMENT, 0.5)
    pruner.weights.keep_highest_of_all([torch.rand(weight.shape) for weight in pruner.weights.originals()], 0.5)
    for linear in pruner.weights.linears:
        linear.register_forward_hook(lambda module, *_: module.weight.retain_grad())
    expected = []
    for _ in range(2):  # micro-batches
        a_loss(model).backward()
        expected.append([linear.weight_orig.detach() * linear.weight.grad for linear in pruner.weights.linears])
    [group] = pruner.parameter_groups(10)
    for score, one, two, weight in zip(group["params"], *expected, pruner.weights.originals(), strict=True):
        torch.testing.assert_close(score.grad, one + two)
        assert int(score.grad.count_nonzero()) > int((weight.grad != 0).sum())


def test_scores_grow_where_weights_move_away_from_zero_at_the_rate_of_their_own(model):
    pruner = WeightPruner(model, MOVEMENT, 0.5)
    [group] = pruner.parameter_groups(10)
    assert (group["peak_lr"], group["weight_decay"]) == (0.01, 0.0)
    a_loss(model).backward()
    gradients = [score.grad.clone() for score in group["params"]]
    torch.optim.AdamW([group]).step()
    for score, gradient in zip(pruner.state()["movement"], gradients, strict=True):
        large = gradient.abs() > 1e-5  # Adam's first step is of one size
        assert bool(large.any())
        torch.testing.assert_close(score[large], -0.01 * gradient[large].sign(), rtol=1e-2, atol=0)


def test_weights_of_the_lowest_movement_leave_and_return(model):
    pruner = WeightPruner(model, MOVEMENT, 0.5)
    masks = []
    for step in (59, 79, 119, 159):  # one observed step before each update; the tail begins after 112
        a_loss(model).backward()
        model.zero_grad()
        for score in pruner.state()["movement"]:
            score.copy_(torch.rand(score.shape, generator=torch.Generator().manual_seed(step)))
        pruner.after_backward(step, 160)
        masks.append(torch.cat([linear.weight_mask.flatten() for linear in pruner.weights.linears]))
    assert [round(1 - float(mask.mean()), 3) for mask in masks] == [0.421, 0.481, 0.5, 0.5]
    assert bool(((masks[0] == 0) & (masks[1] == 1)).any())
    assert torch.equal(masks[2], masks[3])


def test_what_recovered_under_its_masks_keeps_them(model):
    pruner = WeightPruner(model, MOVEMENT, 0.5)
    a_loss(model).backward()
    pruner.after_backward(159, 160)
    masks = [linear.weight_mask.clone() for linear in pruner.weights.linears]
    for score in pruner.state()["movement"]:
        score.neg_()
    pruner.settle()
    for linear, mask in zip(pruner.weights.linears, masks, strict=True):
        assert torch.equal(linear.weight == 0, mask == 0)


def test_masks_follow_movement_at_every_step_of_the_ramp(model):
    pruner = WeightPruner(model, MOVEMENT, 0.5)
    assert pruner.cuts(10) == [2, 3, 4, 5, 6, 7]
    shares = []
    for step in range(10):
        a_loss(model).backward()
        pruner.after_backward(step, 10)
        shares.append(round(pruner.weights.sparsity, 3))
    assert shares == [0.0, 0.211, 0.352, 0.438, 0.481, 0.497, 0.5, 0.5, 0.5, 0.5]
    assert WeightPruner(model_like(model), MAGNITUDE_AFTER, 0.5).cuts(6) == []


def test_too_few_steps_for_a_ramp_are_told(model, caplog):
    _warn_of_few_cuts("movement-50", WeightPruner(model, MOVEMENT, 0.5), 2)
    assert "movement-50: 2 steps are few, weights leave after step 1 and 2 alone; give more --retrain-epochs" in (
        caplog.text
    )


def model_like(model):
    return type(model)(model.config)


def words(method, bert_dir, reviews_dir, output):
    return [
        "baseline", method, "--model", str(bert_dir), "--data-dir", str(reviews_dir), "--output", str(output),
        "--epochs", "10", "--retrain-epochs", "30", "--batch-size", "8", "--learning-rate", "1e-2",
        "--retrain-learning-rate", "3e-3", "--max-length", "16", "--sparsity", "0.5", "--track", "none",
        "--precision", "fp32",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("baselines")


@pytest.mark.parametrize("method", METHODS)
def test_a_baseline_is_a_ceiling_without_speed(method, bert_dir, reviews_dir, output, caplog):
    caplog.set_level("INFO")
    assert run(words(method, bert_dir, reviews_dir, output)) == 0
    record = read_run(output / f"{method}-50")
    assert record.stage == "baseline"
    assert record.weight_sparsity == pytest.approx(0.5, abs=1e-3)
    assert (record.encoder_sparsity, record.removed_share) == (0.0, 0.0)
    assert record.accuracy >= 0.75
    assert record.metrics["validation"].difference is not None
    assert NO_SPEED in caplog.text
    assert "50.0% of the encoder's weights are 0" in caplog.text
    assert "not smaller, not faster" in render(describe(output / f"{method}-50"))
    assert load_checkpoint(output / f"{method}-50").masks.kept_heads_L() == (4, 4, 4)


def test_the_dense_stage_is_that_of_train(bert_dir, reviews_dir, output, caplog):
    given = words("magnitude-after", bert_dir, reviews_dir, output)
    run(given)
    caplog.set_level("INFO")
    run(given)
    assert "magnitude-after-50: already there" in caplog.text
    first = output / "dense" / "run.json"
    config = json.loads(first.read_bytes())["config"]
    train = ["train", *given[2:]]
    for flag in ("--retrain-epochs", "--retrain-learning-rate", "--sparsity"):
        at = train.index(flag)
        del train[at : at + 2]
    caplog.clear()
    assert run([*train, "--sparsity", "0"]) == 0
    assert "dense: already there" in caplog.text
    assert json.loads(first.read_bytes())["config"] == config


def test_what_a_former_form_of_the_method_gave_is_not_taken_for_this_one_s(
    bert_dir, reviews_dir, output, capsys, monkeypatch
):
    given = words("magnitude-after", bert_dir, reviews_dir, output)
    assert run(given) == 0
    for former in (replace(MAGNITUDE_AFTER, form=0), replace(MAGNITUDE_AFTER, constants=(0.5,))):
        monkeypatch.setitem(METHODS, "magnitude-after", former)
        capsys.readouterr()
        assert run(given) == 1
        assert "magnitude-after-50 holds a run with other settings or data, or of an earlier" in capsys.readouterr().err
    monkeypatch.setitem(METHODS, "magnitude-after", replace(MAGNITUDE_AFTER, source="cited in other words"))
    assert run(given) == 0


def test_what_tells_the_forms_of_a_method_apart():
    assert {name: method.rule for name, method in METHODS.items()} == {
        "iterative-magnitude": "dense magnitude form 1 (4,)",
        "magnitude-before": "backbone magnitude form 1 ()",
        "magnitude-after": "dense magnitude form 1 ()",
        "movement": "backbone movement form 2 (RampConfig(shape='cubic', warmup_share=0.1, frozen_share=0.3), 0.01)",
    }


def test_a_killed_baseline_ends_with_the_same_weights(bert_dir, reviews_dir, tmp_path):
    whole, killed = (
        [*words("movement", bert_dir, reviews_dir, tmp_path / name), "--epochs", "1", "--retrain-epochs", "4"]
        for name in ("whole", "killed")
    )
    assert run(whole) == 0
    with killed_after(12 + 30):  # in the third epoch of the second stage
        run(killed)
    assert not (tmp_path / "killed" / "movement-50").exists()
    assert run(killed) == 0
    before, after = (load_file(tmp_path / name / "movement-50" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_faults_are_told_in_words(bert_dir, reviews_dir, tmp_path, capsys, monkeypatch):
    given = words("magnitude-after", bert_dir, reviews_dir, tmp_path / "file" / "out")
    (tmp_path / "file").write_text("in the way")
    assert run(given) == 1
    assert "out cannot be written (Not a directory); choose another" in capsys.readouterr().err

    def exhausted(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")

    monkeypatch.setattr("training.unstructured.stage.WeightPruner", exhausted)
    given[given.index("--output") + 1] = str(tmp_path / "out")
    given[given.index("--epochs") + 1] = "1"
    assert run(given) == 1
    assert "out of memory: split each batch with --accumulation 4" in capsys.readouterr().err


def test_no_training_is_told(bert_dir, reviews_dir, tmp_path, capsys):
    given = words("movement", bert_dir, reviews_dir, tmp_path)
    for flag, value in (("--retrain-epochs", "0"), ("--retrain-epochs", "-1"), ("--retrain-learning-rate", "3")):
        assert run([*given, flag, value]) == 1
        assert f"{flag} is {value}; " in capsys.readouterr().err


def test_methods_of_the_pretrained_model_need_it(bert_dir, reviews_dir, tmp_path, capsys):
    given = words("magnitude-before", bert_dir, reviews_dir, tmp_path)
    given[given.index("--epochs") + 1] = "0"
    assert run(given) == 1
    assert "starts from the pretrained model" in capsys.readouterr().err


def test_the_help_names_every_source():
    text = "".join(build_parser().format_help().split())
    for method in METHODS.values():
        assert "".join(method.source.split()) in text
    assert "nothingsmallerorfaster" in text
