"""What do all dashboards have in common: where panels stand, and which other pages there are?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model

from deploy.grafana.choices import Choice
from deploy.grafana.queries import FIRING
from deploy.grafana.telling import SOURCE, Panel

WIDTH = 24


class Page(StrEnum):
    """Every dashboard, by its uid, which is also the name of its file and the end of its address."""

    OVERVIEW = "sparsebert-overview"
    DENSE_SPARSE = "sparsebert-dense-sparse"
    EDGE = "sparsebert-edge"


TITLES = {
    Page.OVERVIEW: "SparseBERT: overview",
    Page.DENSE_SPARSE: "SparseBERT: dense against sparse",
    Page.EDGE: "SparseBERT: edge box",
}


@dataclass(frozen=True)
class Strip:
    """Panels of one height beside each other, equally wide."""

    height: int
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Section:
    """Strips under a headline."""

    title: str
    strips: Sequence[Strip]


def page(which: Page, description: str, choices: Sequence[Choice], sections: Sequence[Section]) -> model.Dashboard:
    """The whole dashboard; panels are numbered in the order in which they are read."""
    built = (
        dashboard.Dashboard(TITLES[which])
        .uid(which)
        .description(description)
        .tags(["sparsebert"])
        .readonly()
        .time("now-1h", "now")
        .refresh("30s")
        .timezone(kinds.TimeZoneBrowser)
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .variables([*choices])
        .links([_link(other) for other in Page if other != which])
        .annotation(_alerts())
    )
    numbers = count(1)
    for section in sections:
        built.with_row(dashboard.Row(section.title).id(next(numbers)))
        for panel in _placed(section, numbers):
            built.with_panel(panel)
    return _in_sight(built.build())


def _in_sight(built: model.Dashboard) -> model.Dashboard:
    """The SDK puts links and annotations into a menu, and has no word against it."""
    for link in built.links or []:
        link.placement = None  # type: ignore[assignment]
    for marks in (built.annotations and built.annotations.list_val) or []:
        marks.placement = None  # type: ignore[assignment]
    return built


def _placed(section: Section, numbers: Iterator[int]) -> Iterator[Panel]:
    for strip in section.strips:
        span, rest = divmod(WIDTH, len(strip.panels))
        if rest:
            raise ValueError(f"{section.title}: {len(strip.panels)} panels do not divide a width of {WIDTH}")
        for panel in strip.panels:
            yield panel.height(strip.height).span(span).id(next(numbers))


def _link(other: Page) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(TITLES[other])
        .type(model.DashboardLinkType.LINK)
        .icon("dashboard")
        .tooltip("Keeps the time and what is chosen")
        .url(f"/d/{other}")
        .include_vars(True)
        .keep_time(True)
    )


def _alerts() -> dashboard.AnnotationQuery:
    """Marks on every graph where an alert of Prometheus fired."""
    return (
        dashboard.AnnotationQuery()
        .name("Alerts")
        .datasource(SOURCE)
        .expr(FIRING)
        .title_format("{{alertname}}")
        .text_format("{{instance}} {{model}} {{variant}}")
        .step("60s")
        .enable(True)
        .hide(False)
        .icon_color("red")
    )
