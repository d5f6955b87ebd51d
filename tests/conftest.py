"""Tiny random models, a word-list tokenizer and small files of labelled texts, shared by all tests."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before Transformers is imported: no test reaches the network
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models are slower on several threads, above all on a busy machine

import csv
import gc
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GOOD = ("good", "great", "fine", "lovely")
BAD = ("bad", "poor", "awful", "dull")
FILLER = ("the", "film", "was", "a", "plot", "and", "very", "actor", "scene", "it")
SLOW = ("tests/training/", "tests/pipeline/", "tests/export/")
# How long an example takes says something of the machine only.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *FILLER)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that no worker of pytest-xdist is left alone with one at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(SLOW))


def pytest_collection_finish() -> None:
    """What imports made lives to the end: full collections, such as accelerate's of a third of a second, skip it."""
    gc.collect()
    gc.freeze()


def write_reviews(path: Path, num_rows: int, seed: int) -> None:
    rng = random.Random(seed)
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", "label"])
        for index in range(num_rows):
            positive = index % 2 == 1
            words = [*rng.choices(FILLER, k=rng.randint(2, 9)), rng.choice(GOOD if positive else BAD)]
            rng.shuffle(words)
            rows.writerow([" ".join(words), "yes" if positive else "no"])


@pytest.fixture(scope="session", autouse=True)
def interrupts_are_heard() -> Iterator[None]:
    """Where tests run in the background of a shell, Python finds SIGINT ignored and leaves it so, for children too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def reviews_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 training and 32 validation texts with the labels `no` and `yes`, as csv."""
    folder = tmp_path_factory.mktemp("reviews")
    write_reviews(folder / "train.csv", 96, seed=1)
    write_reviews(folder / "validation.csv", 32, seed=2)
    return folder


@pytest.fixture(scope="session")
def bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT encoder of 3 layers, 4 heads and 24 neurons, as Hugging Face saves it, with its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(7)
    BertModel(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=24,
            max_position_embeddings=32,
            initializer_range=0.2,
        )
    ).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_classifier() -> Callable[..., "PreTrainedModel"]:
    """A random Hugging Face classifier of a model type: 3 layers, 4 heads, 24 neurons, reads 12 tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    values = {
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 24, "max_position_embeddings": 12, "initializer_range": 0.2, "pad_token_id": 0,
    }  # fmt: skip
    one_type = {"pad_token_id": 1, "max_position_embeddings": 14, "type_vocab_size": 1}
    differences = {
        "bert": {}, "electra": {"embedding_size": 8}, "distilbert": {"hidden_dim": 24},
        "roberta": one_type, "xlm-roberta": one_type, "camembert": one_type,
    }  # fmt: skip

    def make(model_type: str, **changes: object) -> "PreTrainedModel":
        torch.manual_seed(11)
        config = AutoConfig.for_model(model_type, **(values | differences[model_type] | {"num_labels": 3} | changes))
        model = AutoModelForSequenceClassification.from_config(config).eval()
        with torch.no_grad():  # fresh biases and norms are 0 and 1 and would hide a lost one
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
        return model

    return make
