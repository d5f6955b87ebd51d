"""What is every panel told, whatever its kind: its queries, its words, its unit and its levels?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, dashboard, gauge, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as asking

SOURCE = common.DataSourceRef(type_val="prometheus", uid="prometheus")

Panel = timeseries.Panel | stat.Panel | gauge.Panel | bargauge.Panel | table.Panel
P = TypeVar("P", timeseries.Panel, stat.Panel, gauge.Panel, bargauge.Panel, table.Panel)


@dataclass(frozen=True, kw_only=True)
class About:
    """What a panel says of itself; `empty` stands where there is no data, which is seldom a fault."""

    title: str
    description: str
    unit: str
    decimals: int | None = None
    empty: str = "no traffic"


@dataclass(frozen=True)
class Query:
    """PromQL, and what its series are called."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Levels:
    """Colours, each with the value that it begins at; the first has none."""

    steps: tuple[tuple[float | None, str], ...]


Ask = Callable[[str, Query], prometheus.Dataquery]
PLAIN = Levels(((None, "text"),))


def high_is_bad(*, warn: float, bad: float) -> Levels:
    return Levels(((None, "green"), (warn, "orange"), (bad, "red")))


def low_is_bad(*, bad: float, warn: float) -> Levels:
    return Levels(((None, "red"), (bad, "orange"), (warn, "green")))


def over_time(ref_id: str, query: Query) -> prometheus.Dataquery:
    """Ask for the course over the time that is shown."""
    asked = prometheus.Dataquery().datasource(SOURCE).ref_id(ref_id).expr(query.expr).legend_format(query.legend)
    return asked.range().format(asking.PromQueryFormat.TIME_SERIES)


def now(ref_id: str, query: Query) -> prometheus.Dataquery:
    """Ask for the values at the end of that time, so that an old value never passes for one of now."""
    return over_time(ref_id, query).instant()


def now_with_labels(ref_id: str, query: Query) -> prometheus.Dataquery:
    """Ask for them as a table, with a column for each label."""
    return now(ref_id, query).format(asking.PromQueryFormat.TABLE)


def told(panel: P, about: About, queries: Sequence[Query], levels: Levels, ask: Ask) -> P:
    """The panel with all of it."""
    panel.title(about.title).description(about.description).unit(about.unit).no_value(about.empty)
    panel.datasource(SOURCE).thresholds(_thresholds(levels))
    if about.decimals is not None:
        panel.decimals(about.decimals)
    for ref_id, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(ask(ref_id, query))
    return panel


def _thresholds(levels: Levels) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=value, color=color) for value, color in levels.steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
