import pandas as pd
import pytest

from sparsebert.checkpoint import Example
from sparsebert.errors import DataError
from training.tables import Columns, find_columns, label_id, label_names, read_table, to_examples

PAIR = Columns(texts=("a", "b"), label="label")
ONE = Columns(texts=("text",), label="label")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", 'text,label\nNA,1\n"say ""hi"", you",0\n'),
        ("t.tsv", 'text\tlabel\nNA\t1\nsay "hi", you\t0\n'),
        ("t.jsonl", '{"text": "NA", "label": 1}\n{"text": "say \\"hi\\", you", "label": 0}\n'),
    ],
)
def test_texts_are_read_as_they_are(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    table = read_table(tmp_path / name)
    examples = to_examples(table, ONE, ("no", "yes"), known_ids=True, source="t")
    assert examples == [Example(text="NA", label=1), Example(text='say "hi", you', label=0)]


def test_parquet(tmp_path):
    pd.DataFrame({"text": ["x"], "label": [1]}).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").to_dict("list") == {"text": ["x"], "label": [1]}


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl", "t.xlsx"])
def test_a_file_that_cannot_be_read_is_told(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe\x00 not a table")
    with pytest.raises(DataError, match="cannot be read .*; it must be |unknown kind"):
        read_table(tmp_path / name)


def test_columns_are_found():
    assert find_columns(["id", "Text", "Label"], ["Text"], None, None) == Columns(texts=("Text",), label="Label")
    assert find_columns(["a", "b", "label"], ["a", "b", "label"], None, None) == PAIR


@pytest.mark.parametrize(
    ("texts", "label", "message"),
    [
        (("nope",), None, "no column 'nope'; the columns are a, b, c, stars"),
        (None, "nope", "no column 'nope'"),
        (None, None, "which column is the label"),
        (None, "stars", "which column is the text"),
        (("a", "stars"), "stars", "the table: column 'stars' is the label and cannot be a text too"),
    ],
)
def test_a_choice_that_is_not_clear_names_the_cure(texts, label, message):
    with pytest.raises(DataError, match=message):
        find_columns(["a", "b", "c", "stars"], ["a", "b", "c"], texts, label)


def test_label_names():
    assert label_names(["yes", "no", "yes"]) == ("no", "yes")
    assert label_names([10, 2, 2.0]) == ("2", "10")
    assert label_names([3, 3.5, 4]) == ("3.0", "3.5", "4.0")
    assert label_names(["01", "x"]) == ("01", "x")
    assert label_names(["10", "9"]) == ("9", "10")
    assert label_names([9007199254740993, 9007199254740992]) == ("9007199254740992", "9007199254740993")
    assert label_names([True, False]) == ("False", "True")


@pytest.mark.parametrize(
    "values", [[3.0, 3.5, 4.0], ["01", "x"], ["a", "b"], [0, 1], [0.0, 1.0, 2.0], [True, False], [-1, 1], ["1", "x"]]
)
def test_every_label_of_a_file_is_found_again(values):
    names = label_names(values)
    ids = {name: index for index, name in enumerate(names)}
    assert {label_id(value, ids) for value in values} == set(range(len(values)))


def test_whole_numbers_are_found_in_both_forms():
    assert label_id(1.0, {"0": 0, "1": 1}) == 1
    assert label_id(3, {"3.0": 0, "3.5": 1}) == 0
    assert label_id("2", {"0": 0, "1": 1}) is None
    assert label_names(["10", "2"]) == ("2", "10")
    assert label_names([True, False]) == ("False", "True")


def test_pairs_words_and_gaps(caplog):
    rows = [("x", "y", "yes"), ("x", None, "no"), (" ", "y", "no"), ("x", "y", None), ("p", "q", "no")]
    table = pd.DataFrame(rows, columns=["a", "b", "label"])
    examples = to_examples(table, PAIR, ("no", "yes"), known_ids=False, source="the table")
    assert examples == [Example(text="x", text_pair="y", label=1), Example(text="p", text_pair="q", label=0)]
    assert "the table: left out 3 of 5 rows" in caplog.text


def test_an_unknown_label_names_the_row():
    table = pd.DataFrame({"text": ["x", "y"], "label": [0, 7]})
    with pytest.raises(DataError, match="row 2 of the table has the label 7; known are no, yes"):
        to_examples(table, ONE, ("no", "yes"), known_ids=True, source="the table")
