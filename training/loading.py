"""How a pretrained model, in a folder or on the hub, is loaded as a dense SparseBERT.

Transformers loads it as what it is, in any of its file formats; `training.families` says it in our terms.
Knows nothing about which folder or name a `--model` stands for.
"""

import logging
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig

from sparsebert.checkpoint import MASKS_FILE
from sparsebert.errors import BackboneError
from sparsebert.masks import load_masks
from training.backbone import cannot_load
from training.families import FAMILIES, sparse_config, sparse_weights
from training.modeling import ACTIVATIONS, SparseBertConfig, SparseBertForSequenceClassification

logger = logging.getLogger(__name__)

# What a pretrained encoder may come without: the heads of all families.
FRESH_WEIGHTS = ("classifier.", "pre_classifier.", "bert.pooler.")


def load_dense(name_or_path: str, *, whole: bool = False, **config_changes: Any) -> SparseBertForSequenceClassification:
    """A BERT, or a model of another of our families, with all heads and neurons, in evaluation mode.

    `config_changes` (labels, dropout) replace values of its configuration. Weights that the checkpoint
    does not have (the classifier of a pretrained encoder) are initialised as Hugging Face does.
    Raises BackboneError when it cannot be read or is of no family that SparseBERT takes, and when it must be `whole`
    but has no classifier for as many labels or has them in another order.
    """
    _refuse_sparse(Path(name_or_path))
    try:
        theirs = _read_config(name_or_path)
        own = _own_config(name_or_path, theirs)
        for name, value in config_changes.items():
            setattr(own, name, value)
        if whole:
            _compare_labels(name_or_path, theirs, own)
        return _load(name_or_path, theirs, own, whole=whole)
    except (OSError, ValueError, SafetensorError) as error:
        raise cannot_load(name_or_path, error) from error


def _refuse_sparse(folder: Path) -> None:
    """Masks are no part of the weights, so a sparse checkpoint would become dense again."""
    if not (folder / MASKS_FILE).is_file():
        return
    masks = load_masks(folder / MASKS_FILE)
    if not (masks.heads_LH.all() and masks.neurons_LF.all()):
        raise BackboneError(f"{folder} is sparse already; give the dense checkpoint that it came from")


def max_positions(name_or_path: str) -> int:
    """How many tokens a model reads. Raises BackboneError as `load_dense` does."""
    try:
        return int(_own_config(name_or_path, _read_config(name_or_path)).max_position_embeddings)
    except (OSError, ValueError) as error:
        raise cannot_load(name_or_path, error) from error


def _read_config(name_or_path: str) -> PreTrainedConfig:
    """The configuration, as its own class; what we do not take is told before Transformers looks for its code."""
    values, _ = PreTrainedConfig.get_config_dict(name_or_path)
    taken = {*FAMILIES, SparseBertConfig.model_type}
    reason = None
    if values.get("model_type", "bert") not in taken:
        reason = f"a {values['model_type']!r} model"
    elif values.get("is_decoder"):
        reason = "a decoder"
    elif values.get("position_embedding_type", "absolute") != "absolute":
        reason = f"a model with {values['position_embedding_type']!r} positions"
    if reason is not None:
        raise BackboneError(
            f"{name_or_path} is {reason}; SparseBERT takes encoders with absolute positions of the model types "
            f"{', '.join(FAMILIES)}, for example --model google-bert/bert-base-uncased"
        )
    config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)
    if config.model_type == SparseBertConfig.model_type and _is_uneven(config):
        raise BackboneError(
            f"{name_or_path} is cut already and its layers differ in size; to prune further give "
            "the dense checkpoint that it came from"
        )
    return config


def _is_uneven(config: SparseBertConfig) -> bool:
    return len({*config.heads_L()}) > 1 or len({*config.neurons_L()}) > 1


def _own_config(name_or_path: str, theirs: PreTrainedConfig) -> SparseBertConfig:
    own = deepcopy(theirs) if isinstance(theirs, SparseBertConfig) else sparse_config(theirs)
    if own.hidden_act not in ACTIVATIONS:
        raise BackboneError(
            f"{name_or_path} has the activation {own.hidden_act!r}; SparseBERT takes {', '.join(ACTIVATIONS)}"
        )
    return own


def _compare_labels(name_or_path: str, theirs: PreTrainedConfig, own: SparseBertConfig) -> None:
    """What a model that is taken as it is calls its answers, against what the data call them."""
    names, wanted = _label_names(theirs), _label_names(own)
    if _mean_the_same(names, wanted):
        return
    folded, expected = ([name.casefold() for name in labels] for labels in (names, wanted))
    told = f"{name_or_path} answers {', '.join(names)}, the data have {', '.join(wanted)}"
    if len(folded) != len(expected) or sorted(folded) == sorted(expected):
        raise BackboneError(
            f"{told}; it can't be taken as it is: give --epochs at least 1 for a classifier of these labels"
        )
    logger.warning("%s; they are taken for the same, in this order", told)


def _mean_the_same(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a classifier's answers are called as the data's labels are, or have only numbers for names."""
    folded = [name.casefold() for name in names]
    return folded in ([name.casefold() for name in wanted], [f"label_{index}" for index in range(len(wanted))])


def _label_names(config: PreTrainedConfig) -> list[str]:
    return [str(name) for _, name in sorted((config.id2label or {}).items())]


def _load(
    name_or_path: str, theirs: PreTrainedConfig, own: SparseBertConfig, *, whole: bool
) -> SparseBertForSequenceClassification:
    names, wanted = _label_names(theirs), _label_names(own)
    theirs.num_labels = own.num_labels  # which gives them other names
    model, report = AutoModelForSequenceClassification.from_pretrained(
        name_or_path, config=theirs, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
    )
    other_sizes = {key for key, *_ in report["mismatched_keys"]}
    missing = sorted({*report["missing_keys"], *other_sizes})
    if whole and missing:
        raise BackboneError(
            f"{name_or_path} has no classifier for {own.num_labels} labels; fine-tune it with --epochs of at least 1, "
            "or give --model a model that is fine-tuned on them"
        )
    lost = [key for key in missing if not key.startswith(FRESH_WEIGHTS)]
    if lost:
        raise BackboneError(f"{name_or_path} has no usable {lost[0]} ({len(lost)} weights missing in all)")
    if any(key.startswith("classifier.") for key in other_sizes):
        logger.warning(
            "%s: its classifier of %s is replaced by a new one: the data have %s",
            name_or_path, ", ".join(names), ", ".join(wanted),
        )  # fmt: skip
    elif not (whole or any(key.startswith("classifier.") for key in missing) or _mean_the_same(names, wanted)):
        logger.warning(
            "%s: its classifier of %s is where the fine-tuning starts: the data have %s, in this order",
            name_or_path, ", ".join(names), ", ".join(wanted),
        )  # fmt: skip
    weights = model.state_dict()
    if not isinstance(theirs, SparseBertConfig):
        weights = sparse_weights(theirs, weights)
    loaded = SparseBertForSequenceClassification.from_pretrained(
        None, config=own, state_dict=weights, dtype=torch.float32
    )
    return cast(SparseBertForSequenceClassification, loaded)
