import pytest

from sparsebert.checkpoint import Example, evenly_spaced


@pytest.mark.parametrize(
    ("held", "count", "taken"),
    [(10, 5, [0, 2, 4, 6, 8]), (7, 3, [0, 2, 4]), (3, 3, [0, 1, 2]), (2, 9, [0, 1]), (0, 4, []), (5, 1, [0])],
)
def test_examples_are_taken_evenly(held, count, taken):
    examples = [Example(text=str(index), label=0) for index in range(held)]
    assert [int(example.text) for example in evenly_spaced(examples, count)] == taken
