"""Which kinds of panel are there, and how do they look? Knows nothing about what any of them shows."""

from collections.abc import Mapping
from string import ascii_uppercase

from grafana_foundation_sdk.builders import bargauge, common, dashboard, gauge, stat, table, timeseries
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model

from deploy.grafana.telling import PLAIN, About, Levels, Query, now, now_with_labels, over_time, told

COLORS_OF_A_PAIR = ("blue", "orange")
NO_COLORS: Mapping[str, str] = {}
NO_WORDS: Mapping[str, tuple[str, str]] = {}


def number(
    about: About, *queries: Query, levels: Levels = PLAIN, words: Mapping[str, tuple[str, str]] = NO_WORDS
) -> stat.Panel:
    """A big number for each series; `words` gives some values a text and a colour."""
    panel = told(stat.Panel(), about, queries, levels, now)
    named = [
        model.ValueMap(options={value: model.ValueMappingResult(text=text, color=color)})
        for value, (text, color) in words.items()
    ]
    return (
        panel.mappings([*named])
        .reduce_options(_last())
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .color_mode(kinds.BigValueColorMode.VALUE)
    )


def dial(about: About, *queries: Query, top: float, levels: Levels) -> gauge.Panel:
    """Numbers against the most that they may be."""
    return told(gauge.Panel(), about, queries, levels, now).min(0).max(top).reduce_options(_last())


def bars(about: About, *queries: Query) -> bargauge.Panel:
    """A bar for each series, to be held against each other."""
    panel = told(bargauge.Panel(), about, queries, Levels(((None, "blue"),)), now)
    return (
        panel.min(0)
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .reduce_options(_last())
    )


def lines(about: About, *queries: Query, levels: Levels = PLAIN) -> timeseries.Panel:
    """A line for each series; where a colour of `levels` begins, another goes across."""
    across = kinds.GraphThresholdsStyleMode.OFF if levels == PLAIN else kinds.GraphThresholdsStyleMode.DASHED
    return (
        told(timeseries.Panel(), about, queries, levels, over_time)
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(across))
        .axis_soft_min(0)
        .line_width(2)
        .show_points(kinds.VisibilityMode.AUTO)
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
    )


def under(limit: float, about: About, *queries: Query) -> timeseries.Panel:
    """Lines below one that must not be reached, which is always in sight."""
    return lines(about, *queries, levels=Levels(((None, "green"), (limit, "red")))).axis_soft_max(limit)


def stacked(about: About, query: Query, colors: Mapping[str, str] = NO_COLORS) -> timeseries.Panel:
    """Areas that add up to a whole; `colors` fixes that of some series, by name."""
    stacking = common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A")
    # Without edges: the last one, maybe of a series of zeros, would lie on top of the sum.
    panel = lines(about, query).stacking(stacking).fill_opacity(60).line_width(0)
    for name, color in colors.items():
        panel.override_by_name(name, [_fixed(color)])
    return panel


def both(about: About, baseline: Query, candidate: Query) -> timeseries.Panel:
    """Two lines, each in its colour on every panel."""
    panel = lines(about, baseline, candidate)
    for ref_id, color in zip(ascii_uppercase, COLORS_OF_A_PAIR, strict=False):
        panel.override_by_query(ref_id, [_fixed(color)])
    return panel


def rows(about: About, query: Query, columns: Mapping[str, str]) -> table.Panel:
    """A row for each series; `columns` gives the labels that are shown, and `Value`, their titles, in order."""
    order = {name: index for index, name in enumerate(columns)}
    chosen = model.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": [*columns]}})
    named = model.DataTransformerConfig(
        id_val="organize", options={"indexByName": order, "renameByName": {**columns}, "excludeByName": {}}
    )
    panel = told(table.Panel(), about, [query], PLAIN, now_with_labels)
    return panel.with_transformation(chosen).with_transformation(named)


def _fixed(color: str) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(kinds.LegendDisplayMode.LIST)
        .placement(kinds.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )
