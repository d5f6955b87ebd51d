"""Do the parts of a checkpoint that only export brings together fit each other?

Knows nothing about files or graphs.
"""

from collections.abc import Mapping

from sparsebert.errors import CheckpointError


def check_words(vocabulary: Mapping[str, int], num_rows: int) -> None:
    """Raise CheckpointError when the tokenizer has an id for which the word table has no row.

    Training may never see that word, but a server that reads it would fail.
    """
    word = max(vocabulary, key=lambda one: vocabulary[one], default="")
    if vocabulary and vocabulary[word] >= num_rows:
        raise CheckpointError(
            f"the checkpoint's tokenizer gives {word!r} the id {vocabulary[word]}, and its model has {num_rows} rows "
            "of words, counted from 0; copy the whole folder again, or train again from a model and tokenizer that fit"
        )
