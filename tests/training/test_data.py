from pathlib import Path

import datasets
import pandas as pd
import pytest

from sparsebert.checkpoint import Example
from sparsebert.errors import ConfigError, DataError
from training.data import DataConfig, load_data, split_by_hash


def test_any_csv_goes_through_the_door(reviews_dir):
    data = load_data(DataConfig(data_dir=reviews_dir))
    assert (len(data.train), len(data.validation), data.labels) == (96, 32, ("no", "yes"))
    assert not data.pair


def test_sst2_files_as_glue_names_them(tmp_path):
    table = pd.DataFrame({"sentence": ["good film", "bad film"], "label": [1, 0]})
    table.to_parquet(tmp_path / "train.parquet")
    table.to_parquet(tmp_path / "validation.parquet")
    data = load_data(DataConfig(task="sst2", data_dir=tmp_path))
    assert data.labels == ("negative", "positive")
    assert data.train[0] == Example(text="good film", label=1)


def test_mnli_has_pairs_and_its_own_validation_file(tmp_path):
    table = pd.DataFrame({"premise": ["a b", "d"], "hypothesis": ["c", "e"], "label": [2, 0]})
    table.to_parquet(tmp_path / "train.parquet")
    table[:1].to_parquet(tmp_path / "validation_matched.parquet")
    data = load_data(DataConfig(task="mnli", data_dir=tmp_path))
    assert data.pair
    assert data.validation == (Example(text="a b", text_pair="c", label=2),)


def test_training_texts_of_one_label_are_told(tmp_path):
    for name in ("train", "validation"):
        pd.DataFrame({"sentence": ["a", "b"], "label": [1, 1]}).to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match="all 2 training texts of .* are labelled 'positive'"):
        load_data(DataConfig(task="sst2", data_dir=tmp_path))


def test_judged_texts_of_one_label_are_told(tmp_path, caplog):
    (tmp_path / "train.csv").write_text("text,label\na,no\nb,yes\n")
    (tmp_path / "validation.csv").write_text("text,label\nc,yes\nd,yes\n")
    data = load_data(DataConfig(data_dir=tmp_path))
    told = f"all 2 validation texts of {data.source} are labelled 'yes'; accuracy there says little"
    assert told in caplog.text
    caplog.clear()
    (tmp_path / "validation.csv").write_text("text,label\nc,yes\nd,no\n")
    load_data(DataConfig(data_dir=tmp_path))
    assert caplog.text == ""


def test_columns_can_be_named(tmp_path):
    rows = {"u": ["x"] * 40, "v": [f"text {i}" for i in range(40)], "w": [3, 5] * 20}
    pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    data = load_data(DataConfig(data_dir=tmp_path / "rows.csv", text_columns=("v",), label_column="w"))
    assert data.labels == ("3", "5")
    assert {example.text for example in (*data.train, *data.validation)} == set(rows["v"])


def test_without_validation_file_the_split_is_by_hash(tmp_path, caplog):
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(200)], "label": ["a", "b"] * 100})
    frame.to_csv(tmp_path / "train.csv", index=False)
    data = load_data(DataConfig(data_dir=tmp_path))
    assert len(data.train) + len(data.validation) == 200
    assert 10 < len(data.validation) < 60
    assert "no validation file" in caplog.text


def test_the_split_by_hash_is_fixed():
    examples = [Example(text=f"text {i}", label=0) for i in range(12)]
    _, validation = split_by_hash(examples, 0.3)
    assert [example.text for example in validation] == ["text 6", "text 7", "text 11"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no training file; it needs one of train.parquet, train.csv"),
        ({"train.csv": "text,label\n", "validation.csv": "text,label\nx,1\n"}, "is empty"),
        (
            {"train.csv": "text,label\nx,yes\ny,yes\n", "validation.csv": "text,label\nx,no\ny,yes\n"},
            "/train.csv has the single label 'yes'; a classifier needs at least two",
        ),
        ({"train.csv": "text,label\nx,1\ny,0\n", "validation.csv": "label\n1\n"}, "no column 'text'"),
        (
            {"train.csv": "text,label\nx,1\ny,0\n", "validation.csv": "label\n1\n"},
            "/validation.csv: there is no ",
        ),
        ({"train.jsonl": ""}, "/train.jsonl is empty; it needs rows with text and label"),
        (
            {"train.csv": "text,label\nx,1\ny,0\n"},
            "/train.csv has 2 rows, too few to keep 15% .* add one",
        ),
        (
            {"train.csv": "text,label\n1,a\n2,b\n"},
            "/train.csv: which column .* holds numbers; .* none but the",
        ),
    ],
)
def test_bad_folders_are_told(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        load_data(DataConfig(data_dir=tmp_path))


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(DataError, match="--data-dir .*nowhere does not exist"):
        load_data(DataConfig(data_dir=tmp_path / "nowhere"))


def test_bad_choices_are_told():
    with pytest.raises(ConfigError, match="--task 'sst3' is unknown; choose from"):
        load_data(DataConfig(task="sst3"))
    with pytest.raises(ConfigError, match="--task custom needs --data-dir"):
        DataConfig(task="custom")
    with pytest.raises(ConfigError, match="--text-column names 'a' twice"):
        DataConfig(data_dir=Path("x"), text_columns=("a", "a"))
    with pytest.raises(ConfigError, match="given 3 times"):
        DataConfig(data_dir=Path("x"), text_columns=("a", "b", "c"))


def test_without_the_hub_the_cure_is_files():
    with pytest.raises(DataError, match="cannot be had from the hub .* use --task qqp --data-dir DIR"):
        load_data(DataConfig(task="qqp"))


def test_a_holdout_is_chosen_by_text_and_never_trained_on(reviews_dir):
    whole, data = load_data(DataConfig(data_dir=reviews_dir)), load_data(DataConfig(data_dir=reviews_dir, holdout=20))
    aside = data.others["holdout"]
    assert len(aside) >= 20
    assert not {example.text for example in aside} & {example.text for example in data.train}
    assert sorted(map(repr, (*aside, *data.train))) == sorted(map(repr, whole.train))
    assert data.validation == whole.validation
    assert data.digest != whole.digest
    assert load_data(DataConfig(data_dir=reviews_dir, holdout=20)).others == data.others


def test_mnli_is_judged_on_mismatched_texts_too_when_they_are_there(tmp_path):
    table = pd.DataFrame({"premise": ["a b", "d"], "hypothesis": ["c", "e"], "label": [2, 0]})
    table.to_parquet(tmp_path / "train.parquet")
    for name in ("validation_matched", "validation_mismatched"):
        table[:1].to_parquet(tmp_path / f"{name}.parquet")
    data = load_data(DataConfig(task="mnli", data_dir=tmp_path))
    assert data.others == {"validation_mismatched": (Example(text="a b", text_pair="c", label=2),)}


def test_what_the_hub_gives_is_read_as_files_are(tmp_path, monkeypatch):
    """As `nyu-mll/glue` is laid out: names of labels in the features, an index, a test split without labels."""
    features = datasets.Features(
        {
            "premise": datasets.Value("string"), "hypothesis": datasets.Value("string"), "idx": datasets.Value("int32"),
            "label": datasets.ClassLabel(names=["entailment", "neutral", "contradiction"]),
        }
    )  # fmt: skip
    table = {"premise": ["a b", "d"], "hypothesis": ["c", "e"], "label": [2, 0], "idx": [0, 1]}
    split = datasets.Dataset.from_dict(table, features=features)
    names = ("train", "validation_matched", "validation_mismatched", "test_matched")
    asked = []

    def load_dataset(*words):
        asked.append(words)
        return datasets.DatasetDict(dict.fromkeys(names, split))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_data(DataConfig(task="mnli"))
    assert asked == [("nyu-mll/glue", "mnli")]
    assert data.train == (Example(text="a b", text_pair="c", label=2), Example(text="d", text_pair="e", label=0))
    assert (data.train, data.train) == (data.validation, data.others["validation_mismatched"])
    assert (data.labels[2], data.source) == ("contradiction", "nyu-mll/glue/mnli")
