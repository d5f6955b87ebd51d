"""How large is a model? Its sizes, read off its configuration.

Knows nothing about weights; what the sizes cost is in `sparsebert.geometry`.
"""

from sparsebert.geometry import Geometry
from training.modeling import SparseBertForSequenceClassification


def geometry_of(model: SparseBertForSequenceClassification) -> Geometry:
    """The sizes of this model."""
    config = model.config
    return Geometry(
        hidden_size=config.hidden_size,
        embedding_size=None if config.embedding_size == config.hidden_size else config.embedding_size,
        head_size=config.head_size,
        heads_L=tuple(config.heads_L()),
        neurons_L=tuple(config.neurons_L()),
        vocabulary_size=config.vocab_size,
        max_positions=config.max_position_embeddings,
        token_types=config.type_vocab_size,
        num_labels=config.num_labels,
    )
