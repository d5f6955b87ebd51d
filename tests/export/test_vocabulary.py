import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from export.vocabulary import kept_ids, prune_tokenizer, shrink
from service.bundles import open_bundle
from service.onnx_engine import OnnxEngine
from sparsebert.cli import run
from sparsebert.errors import ExportError

CORPUS = ["banana band ban", "abandon the cabana", "a cab, a band", "bandana nab"] * 3
KINDS = ("wordpiece", "wordlevel", "bpe", "unigram")


def make_tokenizer(kind: str) -> Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    if kind == "wordpiece":
        tokenizer, trainer = Tokenizer(models.WordPiece(unk_token="[UNK]")), trainers.WordPieceTrainer
    elif kind == "wordlevel":
        tokenizer, trainer = Tokenizer(models.WordLevel(unk_token="[UNK]")), trainers.WordLevelTrainer
    elif kind == "bpe":
        tokenizer, trainer = Tokenizer(models.BPE(unk_token="[UNK]")), trainers.BpeTrainer
    else:
        tokenizer, trainer = Tokenizer(models.Unigram()), trainers.UnigramTrainer
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel() if kind == "bpe" else pre_tokenizers.Whitespace()
    if kind == "bpe":
        tokenizer.decoder = decoders.ByteLevel()
    words = {"unk_token": "[UNK]"} if kind == "unigram" else {}
    tokenizer.train_from_iterator(CORPUS, trainer(vocab_size=60, special_tokens=special, show_progress=False, **words))
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {kind: make_tokenizer(kind) for kind in KINDS}


texts = st.text(alphabet="abcdnotehx ,", max_size=20)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(corpus=st.lists(texts, min_size=1, max_size=5), other=texts)
def test_the_corpus_keeps_its_tokens_and_no_text_leaves_the_table(tokenizers, kind, corpus, other):
    whole = tokenizers[kind]
    shrunk = shrink(whole, corpus)
    smaller = Tokenizer.from_str(json.dumps(shrunk.tokenizer_json))
    for text in corpus:
        assert smaller.encode(text).tokens == whole.encode(text).tokens
        assert shrunk.kept[smaller.encode(text).ids].tolist() == whole.encode(text).ids
    assert max(smaller.encode(other, "ab").ids) < len(shrunk.kept) == smaller.get_vocab_size()


def test_what_a_corpus_does_not_need_goes(tokenizers):
    whole = tokenizers["wordpiece"]
    shrunk = shrink(whole, ["ban", ("a cab", "nab")])
    vocabulary = shrunk.tokenizer_json["model"]["vocab"]
    assert len(vocabulary) < whole.get_vocab_size()
    assert {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "ban", "a", "##a"} <= set(vocabulary)
    assert "abandon" not in vocabulary
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    pair = Tokenizer.from_str(json.dumps(shrunk.tokenizer_json)).encode("a cab", "nab")
    assert pair.tokens[0] == "[CLS]"
    assert pair.type_ids[-1] == 1


def test_an_unknown_word_of_the_corpus_stays_unknown():
    model = models.WordPiece({"[UNK]": 0, "a": 1, "ab": 2, "##b": 3, "##bc": 4}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert tokenizer.encode("abc").tokens == ["[UNK]"]  # "ab", and then there is no "##c"
    shrunk = shrink(tokenizer, ["abc a"])
    assert Tokenizer.from_str(json.dumps(shrunk.tokenizer_json)).encode("abc a").tokens == ["[UNK]", "a"]


def test_processors_and_padding_are_renumbered():
    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "x": 1, "</s>": 2, "gone": 3, "word": 4, "<pad>": 5, "<u>": 6},
                                           unk_token="<u>"))  # fmt: skip
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.enable_padding(pad_id=5, pad_token="<pad>")
    whole = json.loads(tokenizer.to_str())
    kept = kept_ids(whole, {4})
    assert kept.tolist() == [0, 1, 2, 4, 5, 6]
    pruned = prune_tokenizer(whole, kept)
    assert pruned["post_processor"]["sep"] == ["</s>", 2]
    assert pruned["padding"]["pad_id"] == 4
    assert pruned["model"]["vocab"] == {"<s>": 0, "x": 1, "</s>": 2, "word": 3, "<pad>": 4, "<u>": 5}


def test_an_unknown_kind_is_told():
    with pytest.raises(ExportError, match="cannot prune a Morse tokenizer; it can prune WordPiece, WordLevel"):
        kept_ids({"model": {"type": "Morse"}}, set())


def test_a_bundle_with_a_smaller_vocabulary_serves(run_dir, tmp_path, capsys):
    corpus, target = tmp_path / "corpus.txt", tmp_path / "reviews" / "small"
    corpus.write_text("the film was good\n\n")
    checkpoint = shutil.copytree(run_dir / "sparse", tmp_path / "sparse")
    for name in ("examples.jsonl", "calibration.jsonl"):  # whose texts count as the corpus's
        lines = (checkpoint / name).read_text().splitlines(keepends=True)
        (checkpoint / name).write_text("".join(line for line in lines if "lovely" not in line))
    assert run(["export", str(checkpoint), "--output", str(target), "--vocabulary", str(corpus), "--hf"]) == 0
    bundle = open_bundle(
        target, lambda graph: OnnxEngine(graph, threads=1), max_batch_tokens=64, clock_s=lambda: 0.0
    )  # its self-test replays golden examples
    rows = bundle.manifest.geometry.vocabulary_size
    assert rows < bundle.manifest.dense_geometry.vocabulary_size
    assert AutoTokenizer.from_pretrained(target / "hf").vocab_size == rows
    assert run(["inspect", str(target)]) == 0
    assert f"vocabulary:  {rows} of 23 rows kept" in capsys.readouterr().out


def test_a_corpus_that_cannot_be_read_is_told(run_dir, tmp_path, capsys):
    for content in (b"", b"\xff\xfe", None):
        corpus = tmp_path / "corpus.txt"
        corpus.unlink(missing_ok=True)
        if content is not None:
            corpus.write_bytes(content)
        target = tmp_path / "m" / "v"
        assert run(["export", str(run_dir / "sparse"), "--output", str(target), "--vocabulary", str(corpus)]) == 1
        assert "give a UTF-8 file, one text a line" in capsys.readouterr().err
        assert not target.exists()


def test_ids_are_sorted_and_whole_when_all_are_needed(tokenizers):
    whole = json.loads(tokenizers["wordlevel"].to_str())
    assert np.array_equal(kept_ids(whole, set(range(tokenizers["wordlevel"].get_vocab_size()))),
                          np.arange(tokenizers["wordlevel"].get_vocab_size()))  # fmt: skip
