"""Where the labelled texts come from: the hub, files of the user's, or the demo's movie reviews.

Knows nothing about tokens or models.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sparsebert.checkpoint import Example
from sparsebert.errors import ConfigError, DataError
from training.movie_reviews import load_movie_reviews
from training.tables import SUFFIXES, find_columns, label_names, read_table, to_examples
from training.tasks import CUSTOM, MOVIE_REVIEWS, TaskSpec, find_task

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.15
HOLDOUT = "holdout"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data: a task's name, a folder or file of the user's, and columns where they must be told.

    `holdout`: so many training texts are kept from training and judged at the end, chosen by a hash of the text.
    """

    task: str | None = None
    data_dir: Path | None = None
    text_columns: tuple[str, ...] | None = None
    label_column: str | None = None
    holdout: int = 0

    def __post_init__(self) -> None:
        if self.holdout < 0:
            raise ConfigError(f"--holdout is {self.holdout}; it must be at least 0")
        if self.text_columns is not None and len(self.text_columns) not in (1, 2):
            raise ConfigError(
                f"--text-column was given {len(self.text_columns)} times; give it once, or twice for pairs"
            )
        if self.text_columns is not None and len(set(self.text_columns)) < len(self.text_columns):
            raise ConfigError(f"--text-column names {self.text_columns[0]!r} twice; a pair needs two columns")
        if self.task == CUSTOM.name and self.data_dir is None:
            raise ConfigError("--task custom needs --data-dir with train and validation files")

    @property
    def spec(self) -> TaskSpec:
        """The task; without a name, the demo's, or a custom one when files are given."""
        if self.task is None:
            return MOVIE_REVIEWS if self.data_dir is None else CUSTOM
        return find_task(self.task)


@dataclass(frozen=True, kw_only=True)
class TextData:
    """The splits, the labels' names and where it all came from; `others` are judged at the end only."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    labels: tuple[str, ...]
    source: str
    others: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)

    @property
    def pair(self) -> bool:
        return self.train[0].text_pair is not None

    @cached_property
    def digest(self) -> str:
        """sha256 of all texts and labels: equal for equal data, wherever it lies."""
        sha256 = hashlib.sha256(repr(self.labels).encode())
        for split in (self.train, self.validation, *self.others.values()):
            for example in split:
                sha256.update(repr((example.text, example.text_pair, example.label)).encode())
            sha256.update(b"\n")
        return sha256.hexdigest()


class _Table(NamedTuple):
    """The rows of one split, and the file or split that a message names."""

    name: str
    rows: pd.DataFrame

    @property
    def columns(self) -> list[str]:
        return [str(name) for name in self.rows.columns]


def load_data(config: DataConfig) -> TextData:
    """Load both splits. Raises DataError when they cannot be had, are empty or have fewer than two labels."""
    spec = config.spec
    if config.data_dir is not None:
        data = _from_files(spec, config, config.data_dir)
    elif spec is MOVIE_REVIEWS:
        data = _movie_reviews()
    else:
        data = _from_hub(spec, config)
    data = keep_aside(data, config.holdout)
    seen = {example.label for example in data.train}
    if len(seen) < 2:
        raise DataError(
            f"all {len(data.train)} training texts of {data.source} are labelled {data.labels[seen.pop()]!r}; "
            "a classifier needs texts of at least two labels"
        )
    _warn_of_one_label(data)
    return data


def _warn_of_one_label(data: TextData) -> None:
    for name, split in {"validation": data.validation, **data.others}.items():
        seen = {example.label for example in split}
        if len(seen) == 1:
            logger.warning(
                "all %d %s texts of %s are labelled %r; accuracy there says little: add texts of other labels",
                len(split), name, data.source, data.labels[seen.pop()],
            )  # fmt: skip


def keep_aside(data: TextData, count: int) -> TextData:
    """`data` with the `count` training texts of the smallest hashes as the split "holdout"; equal texts stay together.

    Raises ConfigError when that leaves less than half of the training texts.
    """
    if not count:
        return data
    if 2 * count > len(data.train):
        raise ConfigError(f"--holdout {count} is more than half of the {len(data.train)} training texts; keep fewer")
    hashes = [_hash(example) for example in data.train]
    last = sorted(hashes)[count - 1]
    pairs = list(zip(data.train, hashes, strict=True))
    kept = tuple(example for example, value in pairs if value > last)
    aside = tuple(example for example, value in pairs if value <= last)
    return replace(data, train=kept, others={**data.others, HOLDOUT: aside})


def split_by_hash(examples: Sequence[Example], validation_share: float) -> tuple[list[Example], list[Example]]:
    """Training and validation examples; the same text always falls on the same side, on every machine."""
    train: list[Example] = []
    validation: list[Example] = []
    for example in examples:
        (validation if _hash(example) / 2**64 < validation_share else train).append(example)
    return train, validation


def _hash(example: Example) -> int:
    """A number in [0, 2^64) that depends on the (first) text only."""
    return int.from_bytes(hashlib.sha256(example.text.encode()).digest()[:8], "big")


def _movie_reviews() -> TextData:
    train, validation = split_by_hash(load_movie_reviews(), VALIDATION_SHARE)
    labels = MOVIE_REVIEWS.labels or ()
    source = "movie review snippets of vaderSentiment 3.3.2 (Hutto and Gilbert 2014)"
    return TextData(train=tuple(train), validation=tuple(validation), labels=labels, source=source)


def _from_files(spec: TaskSpec, config: DataConfig, data_dir: Path) -> TextData:
    train_path, validation_path = _find_files(data_dir, spec.validation_split)
    train = _Table(str(train_path), read_table(train_path))
    validation = None if validation_path is None else _Table(str(validation_path), read_table(validation_path))
    paths = {name: _find_file(data_dir, name) for name in spec.other_splits}
    others = {name: _Table(str(path), read_table(path)) for name, path in paths.items() if path is not None}
    return _to_data(spec, config, train, validation, others, source=f"{spec.name} from {data_dir.name}")


def _find_files(data_dir: Path, validation_split: str) -> tuple[Path, Path | None]:
    """The training file and, if there is one, the validation file. A single file is a training file."""
    if data_dir.is_file():
        return data_dir, None
    if not data_dir.is_dir():
        raise DataError(f"--data-dir {data_dir} does not exist")
    wanted = {stem: _find_file(data_dir, stem) for stem in ("train", validation_split, "validation", "dev")}
    train = wanted.pop("train")
    if train is None:
        kinds = ", ".join(f"train{suffix}" for suffix in SUFFIXES)
        raise DataError(f"--data-dir {data_dir} holds no training file; it needs one of {kinds}")
    return train, next((path for path in wanted.values() if path is not None), None)


def _find_file(folder: Path, stem: str) -> Path | None:
    paths = [folder / f"{stem}{suffix}" for suffix in SUFFIXES]
    return next((path for path in paths if path.is_file()), None)


def _from_hub(spec: TaskSpec, config: DataConfig) -> TextData:
    import datasets  # slow to import, and needed here alone

    repository, name = spec.hub or ("", "")
    try:
        splits = datasets.load_dataset(repository, name)
    except Exception as error:
        raise DataError(
            f"the data set {repository}/{name} cannot be had from the hub ({type(error).__name__}); "
            f"with files at hand use --task {spec.name} --data-dir DIR"
        ) from error
    tables = {
        split: _Table(f"the split {split!r} of {repository}/{name}", splits[split].to_pandas())
        for split in ("train", spec.validation_split, *spec.other_splits)
    }
    others = {other: tables[other] for other in spec.other_splits}
    return _to_data(spec, config, tables["train"], tables[spec.validation_split], others, source=f"{repository}/{name}")


def _to_data(
    spec: TaskSpec,
    config: DataConfig,
    train: _Table,
    validation: _Table | None,
    others: Mapping[str, _Table],
    source: str,
) -> TextData:
    columns = find_columns(
        train.columns,
        [name for name in train.columns if _holds_text(train.rows[name])],
        config.text_columns or spec.text_columns,
        config.label_column or spec.label_column,
        train.name,
    )
    labels = spec.labels or label_names(train.rows[columns.label].dropna().tolist())
    if len(labels) == 1:  # told before a row of the validation split is found to have another
        raise DataError(f"{train.name} has the single label {labels[0]!r}; a classifier needs at least two")

    def examples(table: _Table) -> list[Example]:
        find_columns(table.columns, [], columns.texts, columns.label, table.name)
        found = to_examples(table.rows, columns, labels, spec.labels is not None, table.name)
        if not found:
            raise DataError(f"{table.name} is empty; it needs rows with text and label")
        return found

    train_examples = examples(train)
    if validation is None:
        train_examples, judged = _split(train_examples, train.name)
    else:
        judged = examples(validation)
    return TextData(
        train=tuple(train_examples),
        validation=tuple(judged),
        labels=labels,
        source=source,
        others={name: tuple(examples(table)) for name, table in others.items()},
    )


def _split(examples: Sequence[Example], name: str) -> tuple[list[Example], list[Example]]:
    """Training and validation examples of a file that comes alone."""
    logger.warning("no validation file: %d%% of the training rows, chosen by hash", round(100 * VALIDATION_SHARE))
    train, validation = split_by_hash(examples, VALIDATION_SHARE)
    if not train or not validation:
        raise DataError(
            f"{name} has {len(examples)} rows, too few to keep {VALIDATION_SHARE:.0%} of them for validation, and "
            "there is no validation file; add one, or more rows"
        )
    return train, validation


def _holds_text(column: pd.Series) -> bool:
    return pd.api.types.is_string_dtype(column.dropna())
