"""Which model families become a SparseBERT, and how: their configurations and weights in its own terms.

What tells a family from BERT (names, where positions begin, token types, the size of the embeddings, the head's
activation) is settled here, once, when a model is loaded. Knows nothing about folders or hubs.

N token types, E size of the embeddings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from sparsebert.errors import BackboneError
from training.modeling import SparseBertConfig

# Values of a configuration that say whose it is, not what it computes.
IDENTITY = frozenset({"model_type", "architectures", "transformers_version", "dtype"})
TOKEN_TYPES = 2  # at least: tokenizers give the second text of a pair the type 1, also where the model has no types
POSITION_TABLE = "bert.embeddings.position_embeddings.weight"
TYPE_TABLE = "bert.embeddings.token_type_embeddings.weight"


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a family says what BERT says.

    `weights` are replaced in a weight's name, one after the other; `values` are its configuration's names for
    SparseBERT's. `counts_from_padding`: positions begin after `pad_token_id`, as in fairseq.
    """

    weights: tuple[tuple[str, str], ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    pooler_activation: str = "tanh"
    counts_from_padding: bool = False


# A classification head of two layers is BERT's pooler and classifier.
TWO_LAYER_HEAD = (("classifier.dense.", "bert.pooler.dense."), ("classifier.out_proj.", "classifier."))
ROBERTA = Family(weights=(("roberta.", "bert."), *TWO_LAYER_HEAD), counts_from_padding=True)
DISTILBERT = Family(
    weights=(
        ("distilbert.transformer.", "bert.encoder."),
        ("distilbert.", "bert."),
        (".attention.q_lin.", ".attention.self.query."),
        (".attention.k_lin.", ".attention.self.key."),
        (".attention.v_lin.", ".attention.self.value."),
        (".attention.out_lin.", ".attention.output.dense."),
        (".sa_layer_norm.", ".attention.output.LayerNorm."),
        (".ffn.lin1.", ".intermediate.dense."),
        (".ffn.lin2.", ".output.dense."),
        (".output_layer_norm.", ".output.LayerNorm."),
        ("pre_classifier.", "bert.pooler.dense."),
    ),
    values={
        "dim": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "hidden_dim": "intermediate_size",
        "activation": "hidden_act",
        "dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "seq_classif_dropout": "classifier_dropout",
    },
    pooler_activation="relu",
)
ELECTRA = Family(weights=(("electra.", "bert."), *TWO_LAYER_HEAD), pooler_activation="gelu")
FAMILIES = {
    "bert": Family(),
    "roberta": ROBERTA,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "camembert": ROBERTA,
    "xlm-roberta": ROBERTA,
}


def sparse_config(dense: PreTrainedConfig) -> SparseBertConfig:
    """The configuration of the SparseBERT that a model of one of FAMILIES becomes, with all heads and neurons.

    Raises BackboneError when it does not say where its positions begin.
    """
    family = FAMILIES[dense.model_type]
    known = {one.name for one in fields(SparseBertConfig)} - IDENTITY
    values = {family.values.get(name, name): value for name, value in dense.to_dict().items()}
    values = {name: value for name, value in values.items() if name in known} | {
        "head_size": dense.hidden_size // dense.num_attention_heads,
        "max_position_embeddings": dense.max_position_embeddings - first_position(dense),
        "type_vocab_size": max(TOKEN_TYPES, getattr(dense, "type_vocab_size", 0)),
        "pooler_activation": family.pooler_activation,
    }
    return SparseBertConfig(**values)


def sparse_weights(dense: PreTrainedConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of that SparseBERT.

    Positions that no token reads are left out (exact for texts padded on the right); a model with fewer token
    types than a pair needs gets types that mean the same.
    """
    own = {_own_name(name, FAMILIES[dense.model_type]): weight for name, weight in weights.items()}
    own[POSITION_TABLE] = own[POSITION_TABLE][first_position(dense) :].clone()
    types_NE = own.get(TYPE_TABLE, torch.zeros_like(own[POSITION_TABLE][:1]))
    own[TYPE_TABLE] = types_NE.repeat(TOKEN_TYPES, 1) if len(types_NE) < TOKEN_TYPES else types_NE
    return own


def first_position(dense: PreTrainedConfig) -> int:
    """The row of the position table that the first token reads. Raises BackboneError when it cannot be known."""
    if not FAMILIES[dense.model_type].counts_from_padding:
        return 0
    if dense.pad_token_id is None:
        raise BackboneError(
            f"this {dense.model_type!r} model has no pad_token_id, from which its positions are counted; "
            "write it into its config.json"
        )
    return int(dense.pad_token_id) + 1


def _own_name(name: str, family: Family) -> str:
    for theirs, ours in family.weights:
        name = name.replace(theirs, ours)
    return name
