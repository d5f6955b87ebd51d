"""How a table of a user's becomes labelled texts: which columns, which labels, which rows are left out.

Knows nothing about tasks' names or where files lie, except for the reading of one file.
"""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TypeGuard

import pandas as pd

from sparsebert.checkpoint import Example
from sparsebert.errors import DataError

logger = logging.getLogger(__name__)

LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment", "is_duplicate")
FORMS = {
    ".parquet": "a parquet file",
    ".csv": "UTF-8 text with commas and a line of column names",
    ".tsv": "UTF-8 text with tabs and a line of column names",
    ".jsonl": "UTF-8 text with one JSON object a line",
}
SUFFIXES = tuple(FORMS)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The one or two columns of text and the column of the label."""

    texts: tuple[str, ...]
    label: str


def read_table(path: Path) -> pd.DataFrame:
    """Read a parquet, csv, tsv or jsonl file; texts such as "NA" and "null" stay texts.

    Raises DataError when the file is of another kind or cannot be parsed.
    """
    try:
        match path.suffix:
            case ".parquet":
                return pd.read_parquet(path)
            case ".csv":
                return pd.read_csv(path, keep_default_na=False, na_values=[""])
            case ".tsv":
                return pd.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, keep_default_na=False, na_values=[""])
            case ".jsonl":
                return pd.read_json(path, lines=True, dtype=False)
    except (OSError, ValueError, UnicodeDecodeError) as error:  # pandas and pyarrow errors are ValueErrors
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DataError(f"{path} cannot be read ({reason}); it must be {FORMS[path.suffix]}") from error
    raise DataError(f"{path} is of an unknown kind; use one of {', '.join(SUFFIXES)}")


def find_columns(
    names: Sequence[str],
    text_names: Sequence[str],
    texts: tuple[str, ...] | None,
    label: str | None,
    source: str = "the table",
) -> Columns:
    """Decide which columns of `source` to use.

    `names` are all columns, `text_names` those that hold strings; `texts` and `label` are what the user or the
    task asked for, None to look. Raises DataError when a column is missing or the choice is not clear.
    """
    if not names:
        raise DataError(f"{source} is empty; it needs rows with text and label")
    there = f"the columns are {', '.join(names)}"
    asked = [name for name in (*(texts or ()), *([label] if label else [])) if name not in names]
    if asked:
        raise DataError(f"{source}: there is no column {asked[0]!r}; {there}")
    label = label or _find_label(names, source)
    if texts is None:
        texts = tuple(name for name in text_names if name != label)
        if len(texts) not in (1, 2):
            found = f"text is in {', '.join(texts)}" if texts else "none but the label holds text"
            raise DataError(
                f"{source}: which column is the text? Name it with --text-column (twice for pairs), also where it "
                f"holds numbers; {there}, and {found}"
            )
    if label in texts:
        raise DataError(f"{source}: column {label!r} is the label and cannot be a text too; {there}")
    return Columns(texts=texts, label=label)


def _find_label(names: Sequence[str], source: str) -> str:
    found = [name for name in names if name.lower() in LABEL_COLUMNS]
    if len(found) != 1:
        raise DataError(
            f"{source}: which column is the label? Name it with --label-column; the columns are {', '.join(names)}"
        )
    return found[0]


def label_names(values: Sequence[object]) -> tuple[str, ...]:
    """Names of the labels found in a training file, in the order of their ids: numbers by size, words by alphabet.

    Whole numbers are named without a point, also where a missing label made the column one of floats.
    """
    numbers = [value for value in values if _is_number(value)]
    if len(numbers) < len(values):
        words = {str(value) for value in values}
        return tuple(sorted(words, key=int) if all(_is_whole(word) for word in words) else sorted(words))
    whole = all(float(number).is_integer() for number in numbers)
    return tuple(str(number) for number in sorted({int(n) if whole else float(n) for n in numbers}))


def label_id(value: object, ids: dict[str, int]) -> int | None:
    """The id of a label's value in any of the forms that a file may give it; None when there is none."""
    forms = [str(value)]
    if _is_number(value):
        forms.append(str(float(value)))
        forms += [str(int(value))] if float(value).is_integer() else []
    return next((ids[form] for form in forms if form in ids), None)


def to_examples(
    table: pd.DataFrame, columns: Columns, labels: Sequence[str], known_ids: bool, source: str
) -> list[Example]:
    """Turn rows into examples; rows without text or label are left out and counted in the log.

    `known_ids` says that integer labels are ids into `labels`; otherwise a label's words are looked up.
    Raises DataError for a label that is not among `labels`, naming the row (1 is the first row of data).
    """
    lookup = {name: index for index, name in enumerate(labels)}
    if known_ids:
        lookup |= {str(index): index for index in range(len(labels))}
    examples: list[Example] = []
    rows = table[[*columns.texts, columns.label]].itertuples(index=False, name=None)
    for number, (*texts, value) in enumerate(rows, start=1):
        words = ["" if pd.isna(text) else str(text).strip() for text in texts]
        if pd.isna(value) or not all(words):
            continue
        label = label_id(value, lookup)
        if label is None:
            raise DataError(f"row {number} of {source} has the label {value!r}; known are {', '.join(labels)}")
        examples.append(Example(text=words[0], text_pair=words[1] if len(words) > 1 else None, label=label))
    if len(examples) < len(table):
        logger.warning(
            "%s: left out %d of %d rows (no text or no label)", source, len(table) - len(examples), len(table)
        )
    return examples


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(word: str) -> bool:
    return word.isdecimal() and word == str(int(word))
