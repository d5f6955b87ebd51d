"""Which texts does the field `inputs` of a request hold?

Pure: JSON values in, texts out, every refusal a sentence with the place in it. Knows nothing about tokens or HTTP.
"""

from service.errors import MalformedError, TooLongError, TooManyError
from service.tokenizer import TextInput

FORMS = 'a text or {"text": ..., "text_pair": ...}'
KINDS = {str: "a text", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}


def read_inputs(value: object, max_items: int, max_characters: int) -> list[TextInput]:
    """The texts of `value`: one text, one object with `text` and `text_pair`, or a list of either.

    Raises MalformedError, TooManyError, or TooLongError for a text of more than `max_characters`.
    """
    inputs = _read_all(value, max_items)
    for index, one in enumerate(inputs):
        longest = max(len(one.text), len(one.text_pair or ""))
        if longest > max_characters:
            called = place(index, len(inputs))
            raise TooLongError(
                f"{called} has a text of {longest} characters, the limit is {max_characters}, also with "
                '"truncate": true; send a part of it, or raise --max-text-characters'
            )
    return inputs


def _read_all(value: object, max_items: int) -> list[TextInput]:
    if not isinstance(value, list):
        return [_read_one(value, "inputs")]
    if not value:
        raise MalformedError("inputs is an empty list; send at least one text")
    if len(value) > max_items:
        raise TooManyError(f"inputs has {len(value)} texts, the limit is {max_items}; send fewer at a time")
    return [_read_one(item, f"inputs[{index}]") for index, item in enumerate(value)]


def place(index: int, num_inputs: int) -> str:
    """What a refusal calls an input: one that came alone need not have been in a list."""
    return "the input" if num_inputs == 1 else f"inputs[{index}]"


def check_pairs(inputs: list[TextInput], *, pair: bool, model: str) -> None:
    """Raise MalformedError when a text does not have the form that the model was trained on."""
    for index, one in enumerate(inputs):
        if pair == (one.text_pair is not None):
            continue
        called = place(index, len(inputs))
        if pair:
            raise MalformedError(
                f'{called} is a single text, but {model} reads pairs; send {{"text": ..., "text_pair": ...}}'
            )
        raise MalformedError(f"{called} is a pair, but {model} reads single texts; leave out text_pair")


def _read_one(value: object, place: str) -> TextInput:
    if isinstance(value, dict):
        unknown = [name for name in value if name not in ("text", "text_pair")]
        if unknown:
            raise MalformedError(f"{place} has the unknown field {unknown[0]!r}; it has text and text_pair")
        if "text" not in value:
            raise MalformedError(f"{place} has no field text; send {FORMS}")
        pair = value.get("text_pair")
        text = _read_text(value["text"], f"{place}.text")
        return TextInput(text=text, text_pair=None if pair is None else _read_text(pair, f"{place}.text_pair"))
    if not isinstance(value, str):
        raise MalformedError(f"{place} must be {FORMS}, not {_kind(value)}")
    return TextInput(text=_read_text(value, place))


def _read_text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise MalformedError(f"{place} must be a text, not {_kind(value)}")
    if not value.strip():
        raise MalformedError(f"{place} is empty; send a text with at least one character")
    if "\0" in value:
        raise MalformedError(f"{place} has a NUL character at position {value.index(chr(0))}; remove it")
    return value


def _kind(value: object) -> str:
    return KINDS.get(type(value), "null")
