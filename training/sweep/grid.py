"""Which points does a grid have, and what does each say to `sparsebert train`?

Takes any flag that `sparsebert train` has. Pure: knows nothing about folders, processes or what a flag does.
"""

import argparse
import difflib
import io
import itertools
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass

from sparsebert.errors import ConfigError
from training.config import TrainConfig
from training.flags import build_config, build_parser

SEED = "seed"
OWN_FLAGS = ("output", "help")  # the sweep's to give
SWITCH = ("on", "off")

Settings = tuple[tuple[str, str], ...]
"""Flags without their dashes, each with its value."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A flag of `sparsebert train` without its dashes, and the values to try."""

    flag: str
    values: tuple[str, ...]


def parse_axis(word: str) -> Axis:
    """`sparsity=0.5,0.67` as an axis. Raises ConfigError when it is none or `sparsebert train` has no such flag."""
    flag, equals, rest = word.partition("=")
    flag = flag.removeprefix("--")
    values = tuple(value.strip() for value in rest.split(","))
    if not equals or not flag or "" in values:
        raise ConfigError(f"--grid {word} is no axis; give a flag and its values, such as --grid sparsity=0.5,0.67")
    known = _value_flags()
    if flag not in known:
        near = difflib.get_close_matches(flag, known, n=1)
        raise ConfigError(f"--grid {word}: 'sparsebert train' has no --{flag}; try {', '.join(near or known)}")
    if len(set(values)) < len(values):
        raise ConfigError(f"--grid {word} names a value twice; leave one out")
    return Axis(flag=flag, values=values)


def check_axes(axes: Sequence[Axis], shared: Sequence[str]) -> None:
    """Raise ConfigError when a flag has more than one say: twice in the grid, or there and in the shared words."""
    flags = [axis.flag for axis in axes]
    twice = [flag for flag in flags if flags.count(flag) > 1]
    if twice:
        raise ConfigError(f"--{twice[0]} is in the grid twice; give all its values in one --grid or --seeds")
    given = _given_flags(shared)
    if "output" in given:
        raise ConfigError("after '--' stands --output, but each point has a folder of its own; leave it out")
    both = [flag for flag in flags if flag in given]
    if both:
        raise ConfigError(f"--{both[0]} is in the grid and after '--'; give it in one place")


def combinations(axes: Sequence[Axis]) -> list[Settings]:
    """Every choice of one value of each axis, the last axis changing fastest; seeds slowest, and named last."""
    grid = [axis for axis in axes if axis.flag != SEED]
    seeds = [axis for axis in axes if axis.flag == SEED]
    pairs = [[(axis.flag, value) for value in axis.values] for axis in (*seeds, *grid)]
    return [choice[len(seeds) :] + choice[: len(seeds)] for choice in itertools.product(*pairs)]


def train_words(settings: Settings) -> tuple[str, ...]:
    """What to say to `sparsebert train`. Raises ConfigError when a switch is neither on nor off."""
    parser = build_parser()
    return tuple(word for flag, value in settings for word in flag_words(parser, flag, value))


def flag_words(parser: argparse.ArgumentParser, flag: str, value: str) -> list[str]:
    """How `value` of `flag` is said to this parser; `on` and `off` when the flag takes no value."""
    actions = _actions(parser)
    if actions[f"--{flag}"].nargs != 0:
        return [f"--{flag}={value}"]
    if value not in SWITCH:
        raise ConfigError(f"--grid {flag}={value}: --{flag} is a switch; its values are {' and '.join(SWITCH)}")
    if value == "on":
        return [f"--{flag}"]
    return [f"--no-{flag}"] if f"--no-{flag}" in actions else []  # without a word for off, silence is


def read_config(words: Sequence[str]) -> TrainConfig:
    """The configuration that `sparsebert train` makes of these words. Raises ConfigError when it would refuse them."""
    return build_config(_parse(words))


def _parse(words: Sequence[str], namespace: Namespace | None = None) -> Namespace:
    """As `sparsebert train` parses; its complaint becomes a ConfigError."""
    with redirect_stderr(io.StringIO()) as said:
        try:
            return build_parser().parse_args(["--output=.", *words], namespace)
        except SystemExit as stop:
            if not stop.code:  # --help, which was answered
                raise
    raise ConfigError(said.getvalue().strip().splitlines()[-1].partition("error: ")[2])


def _given_flags(words: Sequence[str]) -> set[str]:
    """The flags that are set in `words`, however abbreviated."""
    actions = _actions(build_parser())
    # What a namespace holds already is not set to a default: what is None afterwards was not given.
    blank = Namespace(**{action.dest: None for action in actions.values()})
    given = vars(_parse(words, blank))
    given["output"] = None if str(given["output"]) == "." else given["output"]
    return {name.removeprefix("--") for name, action in actions.items() if given.get(action.dest) is not None}


def _value_flags() -> list[str]:
    flags = [name.removeprefix("--") for name in _actions(build_parser()) if name.startswith("--")]
    return [flag for flag in flags if flag not in OWN_FLAGS and not (flag.startswith("no-") and flag[3:] in flags)]


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return parser._option_string_actions  # argparse tells its flags nowhere else
