"""What a named task reads and calls its labels: GLUE, the demo's movie reviews, or any file of the user's.

Knows nothing about where the rows lie.
"""

from dataclasses import dataclass

from sparsebert.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Columns and labels of a task.

    `text_columns` and `label_column` are None where they are found by looking at the file; `labels` are the
    names of the integer labels 0, 1, …, None where the file says them. `hub` is data set and configuration.
    `other_splits` are judged as well at the end, where they are there; `f1` adds the F1 of label 1 to the accuracy.
    """

    name: str
    text_columns: tuple[str, ...] | None = None
    label_column: str | None = None
    labels: tuple[str, ...] | None = None
    validation_split: str = "validation"
    other_splits: tuple[str, ...] = ()
    hub: tuple[str, str] | None = None
    f1: bool = False


MOVIE_REVIEWS = TaskSpec(
    name="movie-reviews", text_columns=("text",), label_column="label", labels=("negative", "positive")
)
CUSTOM = TaskSpec(name="custom")

TASKS = {
    task.name: task
    for task in (
        MOVIE_REVIEWS,
        TaskSpec(
            name="sst2",
            text_columns=("sentence",),
            label_column="label",
            labels=("negative", "positive"),
            hub=("nyu-mll/glue", "sst2"),
        ),
        TaskSpec(
            name="qqp",
            text_columns=("question1", "question2"),
            label_column="label",
            labels=("not_duplicate", "duplicate"),
            hub=("nyu-mll/glue", "qqp"),
            f1=True,
        ),
        TaskSpec(
            name="mnli",
            text_columns=("premise", "hypothesis"),
            label_column="label",
            labels=("entailment", "neutral", "contradiction"),
            validation_split="validation_matched",
            other_splits=("validation_mismatched",),
            hub=("nyu-mll/glue", "mnli"),
        ),
        CUSTOM,
    )
}


def find_task(name: str) -> TaskSpec:
    """The task of that name. Raises ConfigError when there is none."""
    if name not in TASKS:
        raise ConfigError(f"--task {name!r} is unknown; choose from {', '.join(TASKS)}")
    return TASKS[name]
