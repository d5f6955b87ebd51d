import pytest

from sparsebert.checkpoint import Example, evenly_spaced, read_examples
from sparsebert.errors import CheckpointError


@pytest.mark.parametrize(
    ("held", "count", "taken"),
    [(10, 5, [0, 2, 4, 6, 8]), (7, 3, [0, 2, 4]), (3, 3, [0, 1, 2]), (2, 9, [0, 1]), (0, 4, []), (5, 1, [0])],
)
def test_examples_are_taken_evenly(held, count, taken):
    examples = [Example(text=str(index), label=0) for index in range(held)]
    assert [int(example.text) for example in evenly_spaced(examples, count)] == taken


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "examples.jsonl has no example in it; copy the whole folder again"),
        ('{"text": "fine", "label": 1}\n{"text": "odd", "label": 2}\n', "has the label 2, and run.json names 2 labels"),
        ('{"text": "odd", "label": -1}\n', "has the label -1"),
    ],
)
def test_examples_that_nothing_can_be_judged_by_are_told(tmp_path, lines, message):
    (tmp_path / "examples.jsonl").write_text(lines)
    with pytest.raises(CheckpointError, match=message):
        read_examples(tmp_path, labels=("no", "yes"))
