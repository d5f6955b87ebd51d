"""How is a number asked of Prometheus? Pure functions from metrics and matchers to PromQL."""

# Values of the variables that are chosen at the top of a dashboard.
SERVICE = 'instance=~"$instance"'
VARIANTS = f'{SERVICE}, model=~"$model", variant=~"$variant"'
BASELINE = f'{SERVICE}, model=~"$model", variant=~"$baseline"'
CANDIDATE = f'{SERVICE}, model=~"$model", variant=~"$candidate"'
BOTH = f'{SERVICE}, model=~"$model", variant=~"$baseline|$candidate"'
PAIR = f'{SERVICE}, model=~"$model", baseline=~"$baseline", variant=~"$candidate"'

FIRING = 'ALERTS{alertstate="firing", alertname=~"SparseBert.*"}'

# Windows: long enough for a rate at the width of the screen, and all that the screen shows.
NOW = "$__rate_interval"
SHOWN = "$__range"

Z_95 = 1.96


def series(metric: str, *matchers: str) -> str:
    return f"{metric}{{{', '.join(matchers)}}}"


def over(operator: str, inner: str, by: str = "") -> str:
    """`sum(...)`, or `sum by (variant) (...)`."""
    return f"{operator} by ({by}) ({inner})" if by else f"{operator}({inner})"


def per_second(metric: str, *matchers: str, by: str = "") -> str:
    """How fast a counter grows now."""
    return over("sum", f"rate({series(metric, *matchers)}[{NOW}])", by)


def grown(metric: str, *matchers: str) -> str:
    """By how much a counter grew in the time that is shown."""
    return over("sum", f"increase({series(metric, *matchers)}[{SHOWN}])")


def share(part: str, whole: str) -> str:
    """A quotient that has no value, rather than a meaningless one, where there is nothing to divide by."""
    return f"{part} / ({whole} > 0)"


def mean(histogram: str, *matchers: str, by: str = "") -> str:
    return share(per_second(f"{histogram}_sum", *matchers, by=by), per_second(f"{histogram}_count", *matchers, by=by))


def quantile(q: float, histogram: str, *matchers: str, by: str = "") -> str:
    """As exact as the histogram's buckets are narrow."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {per_second(f'{histogram}_bucket', *matchers, by=labels)})"


def at_least(hits: str, tries: str) -> str:
    """Below which a share is not, with 95% confidence on either side: Wilson's interval, right for few tries too."""
    z2 = Z_95**2
    deviation = f"{Z_95} * sqrt({hits} * ({tries} - {hits}) / ({tries} > 0) + {z2 / 4:.4f})"
    return f"({hits} + {z2 / 2:.4f} - {deviation}) / ({tries} + {z2:.4f})"
