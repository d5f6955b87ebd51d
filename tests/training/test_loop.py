from itertools import count

import pytest
import torch
from accelerate import Accelerator

from sparsebert.masks import MaskSet
from training.batching import EncodedExample, EncodedSplits
from training.costs import ParameterCost
from training.distillation import LabelObjective, MarginObjective
from training.geometry import geometry_of
from training.loading import load_dense
from training.loop import LoopConfig, StageLoop
from training.pruner import Pruner, PruningConfig
from training.schedule import RampConfig, SparsityRamp
from training.snapshot import SnapshotFile


class Counting(LabelObjective):
    """The n-th loss is n."""

    def __init__(self):
        self.calls = 0

    def loss(self, answer, *_):
        self.calls += 1
        return 0.0 * answer.logits_BC.sum() + float(self.calls)


def a_loop(bert_dir, folder, objective, every_s=0.0, pruning=None, dropout=0.1):
    torch.manual_seed(0)  # the classifier
    model = load_dense(str(bert_dir))
    texts = [EncodedExample([2, 7, 8, 3], [0] * 4, index % 2) for index in range(50)]
    return StageLoop(
        name="stage", model=model, data=EncodedSplits(train=texts, validation=texts[:4], pad_id=0),
        objective=objective, config=LoopConfig(epochs=1, batch_size=1, dropout=dropout),
        accelerator=Accelerator(cpu=True), snapshot=SnapshotFile(folder / "stage.pt", "stage", every_s), seed=0,
        cpu_clock_s=count().__next__, pruner=pruning and a_pruner(model, pruning),
    )  # fmt: skip


def a_pruner(model, pruning):
    dense = geometry_of(model)
    masks = MaskSet.dense(dense.num_layers, dense.heads_L[0], dense.neurons_L[0])
    return Pruner(model, masks, dense, pruning, SparsityRamp(final=0.5, config=pruning.ramp), ParameterCost())


def test_a_loss_point_is_of_the_steps_since_the_one_before(bert_dir, tmp_path):
    loop = a_loop(bert_dir, tmp_path, Counting())
    loop.run()
    assert [(point.step, point.training_loss) for point in loop.losses] == [(20, 10.5), (40, 30.5)]
    assert [(point.step, point.training_loss) for point in loop.evaluations] == [(50, 25.5)]  # since the last of them
    assert loop.cpu_s == 50  # a tick of the clock for each step


def test_a_kill_inside_an_evaluation_costs_no_step(bert_dir, tmp_path, monkeypatch):
    def killed(*_arguments):
        raise KeyboardInterrupt

    objective = Counting()
    with monkeypatch.context() as patch:
        patch.setattr("training.loop.predict_logits", killed)
        with pytest.raises(KeyboardInterrupt):
            a_loop(bert_dir, tmp_path, objective, every_s=1e9).run()
    assert objective.calls == 50
    again = a_loop(bert_dir, tmp_path, objective, every_s=1e9)
    again.run()
    assert objective.calls == 50
    assert [(point.step, point.training_loss) for point in again.evaluations] == [(50, 25.5)]


def test_losses_survive_a_kill(bert_dir, tmp_path):
    objective = Counting()
    calls, original = iter(range(100)), objective.loss

    def killed(*arguments):
        if next(calls) == 30:
            raise KeyboardInterrupt
        return original(*arguments)

    objective.loss = killed
    with pytest.raises(KeyboardInterrupt):
        a_loop(bert_dir, tmp_path, objective).run()
    again = a_loop(bert_dir, tmp_path, objective)
    again.run()
    assert [(point.step, point.training_loss) for point in again.losses] == [(20, 10.5), (40, 30.5)]
    assert [(point.step, point.training_loss) for point in again.evaluations] == [(50, 25.5)]
    assert again.cpu_s == 50
    assert torch.isfinite(next(iter(load_dense(str(bert_dir)).parameters()))).all()


STANDING = PruningConfig(importance="margin", ramp=RampConfig(shape="one-shot", frozen_share=0.0))


def judged(loop):
    """The scores and masks that a finished loop left."""
    state = loop._pruner.state()
    return [*state["scores"], *state["masks"]]


def test_what_does_not_teach_leaves_the_weights_as_they_are_and_without_gradients(bert_dir, tmp_path):
    loop = a_loop(bert_dir, tmp_path, MarginObjective(2.0), pruning=STANDING)
    before = {name: value.detach().clone() for name, value in loop._plain.named_parameters()}
    loop.run()
    after = dict(loop._plain.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(value.grad is None for value in after.values())
    assert [point.encoder_sparsity for point in loop.evaluations] == [pytest.approx(0.5, abs=0.03)]


def test_margins_are_judged_without_dropout_and_a_kill_changes_nothing(bert_dir, tmp_path):
    objective = MarginObjective(2.0)
    calls, original = iter(range(100)), objective.loss

    def killed(*arguments):
        if next(calls) == 30:
            raise KeyboardInterrupt
        return original(*arguments)

    whole = a_loop(bert_dir, tmp_path / "whole", MarginObjective(2.0), pruning=STANDING, dropout=0.0)
    whole.run()
    objective.loss = killed
    with pytest.raises(KeyboardInterrupt):
        a_loop(bert_dir, tmp_path / "killed", objective, pruning=STANDING, dropout=0.5).run()
    again = a_loop(bert_dir, tmp_path / "killed", objective, pruning=STANDING, dropout=0.5)
    again.run()
    assert next(calls) == 51  # 50 steps and the one that was killed
    assert all(torch.equal(one, other) for one, other in zip(judged(whole), judged(again), strict=True))
