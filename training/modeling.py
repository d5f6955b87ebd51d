"""What is a SparseBERT: one class for the dense, the masked and the compact classifier.

The only file that knows Hugging Face attribute names. It knows nothing about scores, schedules or data, and
imports nothing of this project: `save_pretrained` copies it next to the weights as their remote code.

Letters: B texts, T tokens, D hidden size, L layers, H heads, E head size, F neurons of a feed-forward network.

Transformers v5 has neither `prune_heads` nor `head_mask`, and its models want the same width in every layer.
So the blocks are ours, with Hugging Face's embeddings, attention functions and weight names: BERT checkpoints
load as they are. A block without units is identity and has no weights, its LayerNorm included
(CoFi, Xia et al. 2022, section 3.1).
"""

from typing import Any, Literal, NamedTuple, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import BertConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward
from transformers.models.electra.modeling_electra import ElectraEmbeddings
from transformers.utils import can_return_tuple

# Transformers' names of the activations that a feed-forward network may have.
TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")
ACTIVATIONS = ("gelu", "gelu_python", *TANH_GELUS, "relu")


class UnitGates(NamedTuple):
    """What the consumers of the units are multiplied by; a layer of zeros says that the block is removed.

    `heads_LH` [L, H] and `neurons_LF` [L, F] are floating point and may carry gradients; with gates of its own for
    each text they are [L, B, 1, H] and [L, B, 1, F];
    `attention_L` and `ffn_L` say on the host which blocks exist, so that forward never waits for a device.
    """

    heads_LH: Tensor
    neurons_LF: Tensor
    attention_L: tuple[bool, ...]
    ffn_L: tuple[bool, ...]


@strict
class SparseBertConfig(BertConfig):
    """A `BertConfig` whose layers may have different numbers of heads and neurons; 0 removes the block.

    `num_attention_heads` and `intermediate_size` stay those of the dense model that it came from. Embeddings
    narrower or wider than the encoder (ELECTRA) are projected to its size; None: they have that of the encoder.
    """

    model_type = "sparse_bert"

    head_size: int = 64
    heads_per_layer: list[int] | None = None
    neurons_per_layer: list[int] | None = None
    embedding_size: int | None = None
    pooler_activation: Literal["tanh", "relu", "gelu"] = "tanh"

    def __post_init__(self, **others: Any) -> None:
        super().__post_init__(**others)
        if self.embedding_size is None:
            self.embedding_size = self.hidden_size

    def heads_L(self) -> list[int]:
        """Heads in each layer."""
        return self.heads_per_layer or [self.num_attention_heads] * self.num_hidden_layers

    def neurons_L(self) -> list[int]:
        """FFN neurons in each layer."""
        return self.neurons_per_layer or [self.intermediate_size] * self.num_hidden_layers


class SparseSelfAttention(nn.Module):
    """Scaled dot-product attention with any number of heads; names as in Hugging Face's BertSelfAttention."""

    def __init__(self, config: SparseBertConfig, num_heads: int) -> None:
        super().__init__()
        self.config = config
        self.head_size = config.head_size
        self.scaling = config.head_size**-0.5
        self.is_causal = False
        width = num_heads * config.head_size
        self.query = nn.Linear(config.hidden_size, width)
        self.key = nn.Linear(config.hidden_size, width)
        self.value = nn.Linear(config.hidden_size, width)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, x_BTD: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The contexts of all heads, [B, T, H * E]."""
        split = (*x_BTD.shape[:-1], -1, self.head_size)
        q_BHTE, k_BHTE, v_BHTE = (
            projection(x_BTD).view(split).transpose(1, 2) for projection in (self.query, self.key, self.value)
        )
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.dropout.p if self.training else 0.0
        context_BTHE = attend(
            self, q_BHTE, k_BHTE, v_BHTE, attention_mask, dropout=dropout, scaling=self.scaling, is_causal=False
        )[0]
        return cast(Tensor, context_BTHE.reshape(*x_BTD.shape[:-1], -1))


class SparseOutput(nn.Module):
    """Projection back to the hidden size, residual and LayerNorm."""

    def __init__(self, config: SparseBertConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, units_BTU: Tensor, residual_BTD: Tensor) -> Tensor:
        """Units [B, T, U] (contexts of all heads, or activations of neurons) to [B, T, D]."""
        return cast(Tensor, self.LayerNorm(self.dropout(self.dense(units_BTU)) + residual_BTD))


class SparseAttention(nn.Module):
    """One attention block."""

    def __init__(self, config: SparseBertConfig, num_heads: int) -> None:
        super().__init__()
        self.self = SparseSelfAttention(config, num_heads)
        self.output = SparseOutput(config, num_heads * config.head_size)

    def forward(self, x_BTD: Tensor, attention_mask: Tensor | None, gates_H: Tensor | None) -> Tensor:
        """[B, T, D] to [B, T, D]; a gate [H] multiplies the context of its head."""
        contexts_BTU = self.self(x_BTD, attention_mask)
        if gates_H is not None:
            contexts_BTU = contexts_BTU * gates_H.to(contexts_BTU.dtype).repeat_interleave(self.self.head_size, dim=-1)
        return cast(Tensor, self.output(contexts_BTU, x_BTD))


class SparseIntermediate(nn.Module):
    """The FFN's first projection and its activation."""

    def __init__(self, config: SparseBertConfig, num_neurons: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, num_neurons)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] to the neurons' activations [B, T, F]."""
        return cast(Tensor, self.activation(self.dense(x_BTD)))


class SparseBertLayer(GradientCheckpointingLayer):
    """An attention block and an FFN block, either of which may be missing."""

    def __init__(self, config: SparseBertConfig, num_heads: int, num_neurons: int) -> None:
        super().__init__()
        self.attention = SparseAttention(config, num_heads) if num_heads else None
        self.intermediate = SparseIntermediate(config, num_neurons) if num_neurons else None
        self.output = SparseOutput(config, num_neurons) if num_neurons else None

    def forward(self, x_BTD: Tensor, attention_mask: Tensor | None, layer: int, gates: UnitGates | None) -> Tensor:
        """[B, T, D] to [B, T, D]; `layer` says which rows of `gates` are this layer's."""
        if self.attention is not None and (gates is None or gates.attention_L[layer]):
            x_BTD = self.attention(x_BTD, attention_mask, None if gates is None else gates.heads_LH[layer])
        if self.intermediate is not None and self.output is not None and (gates is None or gates.ffn_L[layer]):
            units_BTF = self.intermediate(x_BTD)
            if gates is not None:
                units_BTF = units_BTF * gates.neurons_LF[layer].to(units_BTF.dtype)
            x_BTD = self.output(units_BTF, x_BTD)
        return x_BTD


class SparseBertEncoder(nn.Module):
    """All layers."""

    def __init__(self, config: SparseBertConfig) -> None:
        super().__init__()
        sizes = zip(config.heads_L(), config.neurons_L(), strict=True)
        self.layer = nn.ModuleList(SparseBertLayer(config, heads, neurons) for heads, neurons in sizes)

    def forward(self, x_BTD: Tensor, attention_mask: Tensor | None, gates: UnitGates | None) -> list[Tensor]:
        """What enters and what each layer makes of it, L + 1 tensors [B, T, D]."""
        states = [x_BTD]
        for index, layer in enumerate(self.layer):
            states.append(layer(states[-1], attention_mask, index, gates))
        return states


class SparsePooler(nn.Module):
    """A dense layer on the first token; names as in Hugging Face's BertPooler, the activation as configured."""

    def __init__(self, config: SparseBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.pooler_activation]

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] to [B, D]."""
        return cast(Tensor, self.activation(self.dense(x_BTD[:, 0])))


class SparseBertPreTrainedModel(PreTrainedModel):
    """What `from_pretrained` and `save_pretrained` need to know."""

    config_class = SparseBertConfig
    base_model_prefix = "bert"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ElectraEmbeddings):
            module.position_ids.copy_(torch.arange(module.position_ids.shape[-1]).expand((1, -1)))
            module.token_type_ids.zero_()


class SparseBertModel(SparseBertPreTrainedModel):
    """Embeddings (projected to the hidden size when theirs is another), encoder and pooler."""

    def __init__(self, config: SparseBertConfig) -> None:
        super().__init__(config)
        self.embeddings = ElectraEmbeddings(config)  # BERT's, of any size
        width = self.embeddings.word_embeddings.embedding_dim
        self.embeddings_project = None if width == config.hidden_size else nn.Linear(width, config.hidden_size)
        self.encoder = SparseBertEncoder(config)
        self.pooler = SparsePooler(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return cast(nn.Embedding, self.embeddings.word_embeddings)

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word_embeddings = value

    def forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        gates: UnitGates | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """The pooled first token [B, D], and the states before, between and after the layers, [B, T, D] each."""
        x_BTD, mask = self.embed(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        states = self.encoder(x_BTD, mask, gates)
        return self.pooler(states[-1]), states

    def embed(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """What the first layer is given: states [B, T, D], and the mask in the form that attention wants."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        x_BTD = self.embeddings(
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
        )
        if self.embeddings_project is not None:
            x_BTD = self.embeddings_project(x_BTD)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=x_BTD, attention_mask=attention_mask)
        return x_BTD, mask


class SparseBertForSequenceClassification(SparseBertPreTrainedModel):
    """A text classifier that runs dense, masked (with `gates`) and compact (smaller `config`)."""

    def __init__(self, config: SparseBertConfig) -> None:
        super().__init__(config)
        self.bert = SparseBertModel(config)
        dropout = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        gates: UnitGates | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> SequenceClassifierOutput:
        """Logits [B, labels]; when `labels` are given the loss that Transformers has for them, and states if asked for.

        That is the mean cross-entropy of `labels` [B], or what the configuration's `problem_type` says.
        """
        if self.config.output_attentions if output_attentions is None else output_attentions:
            raise ValueError("SparseBERT gives no attentions: layers have different heads or none; leave them out")
        pooled_BD, states = self.bert(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, gates)
        logits = self.classifier(self.dropout(pooled_BD))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits.float(), config=self.config)
        with_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=tuple(states) if with_states else None)

    def set_dropout(self, probability: float) -> None:
        """Use one dropout probability everywhere; 0 turns it off. Not part of what is saved."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability


SparseBertConfig.register_for_auto_class()
SparseBertForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
