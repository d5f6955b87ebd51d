"""Which rows of the embedding table does a corpus need, and what is the tokenizer without the others?

Every text of the corpus keeps its tokens exactly. Other texts are still spelt, with smaller pieces: special tokens and
single characters always stay. Works on `tokenizer.json` as plain values; knows nothing about models.

Why that is exact: a tokenizer chooses among its pieces (longest first in WordPiece, best score in Unigram, earliest
merge in BPE), and what it chose is still there, with fewer rivals. It is checked all the same.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sparsebert.errors import ExportError

Ids = NDArray[np.int64]
Json = dict[str, Any]
TextOrPair = str | tuple[str, str]
CHUNK = 1000
PIECE_MARKS = ("##", "▁", "Ġ")
EXACT_MODELS = ("WordPiece", "WordLevel", "BPE", "Unigram")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shrunk:
    """A smaller tokenizer, and the old id of each of its ids."""

    tokenizer_json: Json
    kept: Ids


def _nothing(_: int) -> None: ...


def shrink(tokenizer: Tokenizer, texts: Sequence[TextOrPair], on_text: Callable[[int], object] = _nothing) -> Shrunk:
    """The tokenizer without what `texts` do not need; `on_text` is called with numbers of texts, twice for each.

    Raises ExportError for a tokenizer of an unknown kind.
    """
    whole: Json = json.loads(tokenizer.to_str())
    needed, different = set[int](), list[str]()
    for chunk in batched(texts):
        needed.update(index for encoding in tokenizer.encode_batch_fast(chunk) for index in encoding.ids)
        on_text(len(chunk))
    kept = kept_ids(whole, needed)
    smaller = Tokenizer.from_str(json.dumps(prune_tokenizer(whole, kept)))
    for chunk in batched(texts):
        pairs = zip(tokenizer.encode_batch_fast(chunk), smaller.encode_batch_fast(chunk), chunk, strict=True)
        different += [_joined(text) for old, new, text in pairs if old.ids != kept[new.ids].tolist()]
        on_text(len(chunk))
    if different:
        # A word that no pieces spelt may be spelt now that a longer piece is gone: keep all pieces it could have.
        written = "\n".join(different)
        written = tokenizer.normalizer.normalize_str(written) if tokenizer.normalizer else written
        kept = kept_ids(
            whole, needed | {i for piece, i in _vocabulary(whole).items() if _without_mark(piece) in written}
        )
    return Shrunk(tokenizer_json=prune_tokenizer(whole, kept), kept=kept)


def batched(texts: Sequence[TextOrPair]) -> Iterator[list[TextOrPair]]:
    """Chunks that fit in memory when tokenised."""
    for start in range(0, len(texts), CHUNK):
        yield list(texts[start : start + CHUNK])


def _joined(text: TextOrPair) -> str:
    return text if isinstance(text, str) else " ".join(text)


def kept_ids(tokenizer_json: Json, needed: set[int]) -> Ids:
    """Ids that stay, sorted: the needed ones, special tokens, single characters, and what BPE makes those of.

    Raises ExportError for a tokenizer whose texts would not keep their tokens.
    """
    kind = tokenizer_json["model"].get("type")
    if kind not in EXACT_MODELS:
        raise ExportError(f"--vocabulary cannot prune a {kind} tokenizer; it can prune {', '.join(EXACT_MODELS)}")
    vocabulary = _vocabulary(tokenizer_json)
    kept = needed | {token["id"] for token in tokenizer_json["added_tokens"]} | set(_special_ids(tokenizer_json))
    kept |= {index for piece, index in vocabulary.items() if len(_without_mark(piece)) <= 1}
    if kind == "BPE":
        kept |= _parents(_merges(tokenizer_json), vocabulary, kept)
    return np.array(sorted(kept), np.int64)


def prune_tokenizer(tokenizer_json: Json, kept: Ids) -> Json:
    """The tokenizer with the kept tokens only, numbered from 0 in their old order."""
    new = {int(old): index for index, old in enumerate(kept)}
    pruned = deepcopy(tokenizer_json)
    model = pruned["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for index, entry in enumerate(model["vocab"]) if index in new]
        model["unk_id"] = new.get(model.get("unk_id"))
    else:
        model["vocab"] = {piece: new[index] for piece, index in model["vocab"].items() if index in new}
    if model["type"] == "BPE":
        pieces = model["vocab"]
        model["merges"] = [
            merge
            for merge, (left, right) in zip(model["merges"], _merges(tokenizer_json), strict=True)
            if left in pieces and right in pieces and left + right in pieces
        ]
    for token in pruned["added_tokens"]:
        token["id"] = new[token["id"]]
    _renumber(pruned.get("post_processor"), new)
    if pruned.get("padding"):
        pruned["padding"]["pad_id"] = new.get(pruned["padding"]["pad_id"], 0)
    return pruned


def _vocabulary(tokenizer_json: Json) -> dict[str, int]:
    model = tokenizer_json["model"]
    if model["type"] == "Unigram":
        return {piece: index for index, (piece, _) in enumerate(model["vocab"])}
    return dict(model["vocab"])


def _without_mark(piece: str) -> str:
    for mark in PIECE_MARKS:
        if len(piece) > len(mark) and piece.startswith(mark):
            return piece[len(mark) :]
    return piece


def _special_ids(tokenizer_json: Json) -> Iterator[int]:
    """Ids that the tokenizer itself puts in: by its post-processor, for unknown words, as padding."""
    model, vocabulary = tokenizer_json["model"], _vocabulary(tokenizer_json)
    if model.get("unk_token") in vocabulary:
        yield vocabulary[model["unk_token"]]
    if model.get("unk_id") is not None:
        yield model["unk_id"]
    if tokenizer_json.get("padding"):
        yield tokenizer_json["padding"]["pad_id"]
    for holder, key in _id_places(tokenizer_json.get("post_processor")):
        yield holder[key]


def _id_places(processor: Json | None) -> Iterator[tuple[Any, Any]]:
    """Where a post-processor holds ids: (container, key) pairs."""
    if processor is None:
        return
    for special in processor.get("special_tokens", {}).values() if processor["type"] == "TemplateProcessing" else ():
        yield from ((special["ids"], index) for index in range(len(special["ids"])))
    for name in ("sep", "cls"):  # BertProcessing, RobertaProcessing: [token, id]
        if name in processor:
            yield processor[name], 1
    for inner in processor.get("processors", ()):
        yield from _id_places(inner)


def _renumber(processor: Json | None, new: dict[int, int]) -> None:
    for holder, key in _id_places(processor):
        holder[key] = new[holder[key]]


def _merges(tokenizer_json: Json) -> list[tuple[str, str]]:
    """Pairs; older files hold them as one string."""
    merges = tokenizer_json["model"]["merges"]
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    return [(left, right) for left, right in pairs]


def _parents(merges: list[tuple[str, str]], vocabulary: dict[str, int], kept: set[int]) -> set[int]:
    """What the kept tokens are merged of, and what those are, to the single characters."""
    made_of: dict[str, list[tuple[str, str]]] = {}
    for left, right in merges:
        made_of.setdefault(left + right, []).append((left, right))
    found: set[int] = set()
    waiting = [piece for piece, index in vocabulary.items() if index in kept]
    while waiting:
        for part in (part for pair in made_of.get(waiting.pop(), ()) for part in pair):
            if vocabulary[part] not in found | kept:
                found.add(vocabulary[part])
                waiting.append(part)
    return found
