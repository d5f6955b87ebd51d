"""What every pruner is given, and how every result is judged: one code for ours and theirs.

The texts that judge are the validation split and a holdout of training texts that no training sees. Sizes are
counted on the model that is judged. Knows nothing about how a model was pruned.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification

from sparsebert.checkpoint import Example
from training.batching import EncodedExample
from training.checkpoint import MaskedCheckpoint, load_checkpoint
from training.compaction import compact
from training.data import HOLDOUT, DataConfig, load_data
from training.encoding import encode
from training.evaluation import predict_logits
from training.geometry import geometry_of
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification
from training.predictions import known_predictions

HOLDOUT_TEXTS = 4000
OWN_SETTINGS = (
    "head_size",
    "heads_per_layer",
    "neurons_per_layer",
    "embedding_size",
    "pooler_activation",
    "model_type",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """The dense checkpoint, the encoded texts, and its logits [N, C] for those that judge.

    `leaked`: dense training has seen the holdout.
    """

    checkpoint: MaskedCheckpoint
    digest: str
    train: Sequence[EncodedExample]
    judged: dict[str, Sequence[EncodedExample]]
    dense: dict[str, Tensor]
    pad_id: int
    leaked: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a model is and what it answers; a character of `correct` is one example, 1 when it was right.

    `divergence`: the mean of KL(dense || model) over the examples of a split, in nats. It tells a recovery that is
    nearer to the dense model where as many answers are right by chance.
    """

    heads_L: tuple[int, ...]
    neurons_L: tuple[int, ...]
    encoder_sparsity: float
    correct: dict[str, str]
    divergence: dict[str, float]

    def accuracy(self, split: str) -> float:
        return share_right(self.correct[split])


def share_right(correct: str) -> float:
    return correct.count("1") / len(correct)


def load_bench(dense: Path, data_dir: Path, holdout_texts: int) -> Bench:
    checkpoint = load_checkpoint(dense)
    data = load_data(DataConfig(task=checkpoint.run.task.name, data_dir=data_dir, holdout=holdout_texts))

    def tokens(examples: Sequence[Example]) -> list[EncodedExample]:
        return encode(examples, checkpoint.tokenizer, checkpoint.run.max_length).examples

    judged = {"validation": tokens(data.validation), HOLDOUT: tokens(data.others[HOLDOUT])}
    pad_id = checkpoint.tokenizer.pad_token_id
    known = known_predictions(dense, judged)
    asked = {name: texts for name, texts in judged.items() if name not in known}
    return Bench(
        checkpoint=checkpoint,
        digest=weights_digest(dense),
        train=tokens(data.train),
        judged=judged,
        dense=known | {name: predict_logits(checkpoint.model, texts, pad_id) for name, texts in asked.items()},
        pad_id=pad_id,
        leaked=checkpoint.run.num_train > len(data.train),
    )


def weights_digest(folder: Path) -> str:
    """Of the weights and masks: which model it is, wherever it lies."""
    sha256 = hashlib.sha256()
    for name in ("model.safetensors", "masks.safetensors"):
        sha256.update((folder / name).read_bytes())
    return sha256.hexdigest()


def judge(bench: Bench, model: SparseBertForSequenceClassification) -> Verdict:
    """In float32, on the compact model."""
    dense, own = geometry_of(bench.checkpoint.model), geometry_of(model)
    kept = sum(weight.numel() for weight in model.bert.encoder.parameters())
    if kept != own.encoder_parameters():
        raise ValueError(f"the model has {kept} encoder parameters but its configuration says {own}")
    correct, divergence = {}, {}
    for name, examples in bench.judged.items():
        logits_NC = predict_logits(model, examples, bench.pad_id)
        divergence[name] = mean_divergence(bench.dense[name], logits_NC)
        pairs = zip(logits_NC.argmax(dim=-1).tolist(), examples, strict=True)
        correct[name] = "".join("1" if answer == example.label else "0" for answer, example in pairs)
    return Verdict(
        heads_L=own.heads_L,
        neurons_L=own.neurons_L,
        encoder_sparsity=own.encoder_sparsity(dense),
        correct=correct,
        divergence=divergence,
    )


def mean_divergence(dense_NC: Tensor, logits_NC: Tensor) -> float:
    """KL(dense || other), mean over texts, in nats."""
    logs = [functional.log_softmax(each_NC.float(), dim=-1) for each_NC in (logits_NC, dense_NC)]
    return float(functional.kl_div(*logs, reduction="batchmean", log_target=True))


def judge_ours(bench: Bench, folder: Path) -> tuple[Verdict, MaskedCheckpoint]:
    """Raises ValueError when the checkpoint was trained on the holdout although the dense one was not."""
    checkpoint = load_checkpoint(folder)
    if not bench.leaked and checkpoint.run.num_train > len(bench.train):
        raise ValueError(f"{folder} was trained on {checkpoint.run.num_train} texts, the holdout among them")
    return judge(bench, compact(checkpoint.model, checkpoint.masks)), checkpoint


def as_hugging_face(model: SparseBertForSequenceClassification) -> BertForSequenceClassification:
    """The same dense model as the class that the peers were written for."""
    config = model.config
    if config.pooler_activation != "tanh" or config.embedding_size != config.hidden_size:
        raise ValueError("only a BERT can be given to the peers")
    values = {name: value for name, value in config.to_dict().items() if name not in OWN_SETTINGS}
    theirs = BertForSequenceClassification(BertConfig(**values, attn_implementation="eager"))
    theirs.load_state_dict(model.state_dict(), strict=True)
    return theirs.eval()


def as_sparse(model: BertForSequenceClassification, like: SparseBertConfig) -> SparseBertForSequenceClassification:
    """A Hugging Face BERT, cut or not, as ours: weight names are the same, sizes are read off the weights."""
    layers = model.bert.encoder.layer
    values = like.to_dict() | {
        "heads_per_layer": [layer.attention.self.query.weight.shape[0] // like.head_size for layer in layers],
        "neurons_per_layer": [layer.intermediate.dense.weight.shape[0] for layer in layers],
    }
    ours = SparseBertForSequenceClassification(SparseBertConfig(**values))
    ours.load_state_dict(model.state_dict(), strict=True)
    ours.set_attn_implementation("eager")
    _same_answers(model, ours.eval())
    return ours


@torch.inference_mode()
def _same_answers(theirs: BertForSequenceClassification, ours: SparseBertForSequenceClassification) -> None:
    """Raises ValueError when a cut model is not the function that its peer believes it to be."""
    ids = torch.arange(1000, 1024).view(2, 12)
    gap = (theirs.eval()(input_ids=ids).logits - ours(input_ids=ids).logits).abs().max()
    if gap > 1e-3:
        raise ValueError(f"the peer's model and its copy differ by {gap:.2g}")
