"""Which panels stand on more than one page?"""

from deploy.grafana.panels import lines, number, stacked, uncolored
from deploy.grafana.queries import FAILURES_ALLOWED, SERVICE, VARIANTS, over, per_second, quantile, series, share
from deploy.grafana.telling import About, Panel, Query, high_is_bad

VARIANT, BY_VARIANT = "{{model}}/{{variant}}", "model, variant"
OF_BOUND = high_is_bad(warn=0.8, bad=1)
FILL = "Texts and tokens that wait, as a share of --max-queue-items and --max-queue-tokens. Full ones refuse with 429."
TIME = "sparsebert_inference_request_duration_seconds"


def ready() -> Panel:
    return number(
        About(
            title="Ready",
            description="Whether a variant can answer. Not ready: its bundle did not load, or its workers died; "
            "`GET /readyz` and `GET /v1/models` say why.",
            unit="none",
            empty="no service",
        ),
        Query(over("min", series("sparsebert_model_ready", VARIANTS), BY_VARIANT), VARIANT),
        words={"1": ("ready", "green"), "0": ("not ready", "red")},
    )


def requests_now() -> Panel:
    return number(
        About(title="Requests", description="Requests to variants that ended, in a second.", unit="reqps"),
        Query(per_second("sparsebert_inference_requests_total", VARIANTS), "requests"),
    )


def p99_now() -> Panel:
    return number(
        About(
            title="p99",
            description="99 of 100 requests that ended ok took no longer, from their arrival at a variant to its "
            "probabilities. Exact to a bucket of the histogram, the last of which ends at 5 s.",
            unit="s",
        ),
        Query(quantile(0.99, TIME, VARIANTS), "p99"),
    )


def failed_now() -> Panel:
    ended, ours = "sparsebert_inference_requests_total", "error|timeout|rejected"
    failed = per_second(ended, VARIANTS, f'outcome=~"{ours}"')
    part = share(failed, per_second(ended, VARIANTS, f'outcome=~"ok|{ours}"'))
    panel = number(
        About(
            title="Failed",
            description="Share of requests to variants that ended with error, timeout or rejected; those that the "
            "client spoiled, left or gave too little time do not count. Beside it, that share of what "
            "deploy/prometheus/rules/objectives.yml allows: beyond 100% orange, red where an alert is near.",
            unit="percentunit",
            decimals=2,
        ),
        Query(part, "failed"),
        Query(f"{part} / on () group_left () {FAILURES_ALLOWED}", "of what is allowed"),
        levels=high_is_bad(warn=1, bad=6),
    )
    return uncolored(panel, "A")


def quantiles() -> Panel:
    return lines(
        About(
            title="Latency",
            description="50, 95 and 99 of 100 requests that ended ok took no longer, from their arrival at a variant "
            "to its probabilities.",
            unit="s",
        ),
        *(Query(quantile(q, TIME, VARIANTS), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))),
    )


def outcomes() -> Panel:
    return stacked(
        About(
            title="How requests ended",
            description="ok; invalid (the client's fault); rejected (queue full, stopping); timeout (the service's "
            "limit passed); impatient (the request's own, shorter limit passed); cancelled (the client left); error "
            "(the model failed).",
            unit="reqps",
        ),
        Query(per_second("sparsebert_inference_requests_total", VARIANTS, by="outcome"), "{{outcome}}"),
        {
            "ok": "green",
            "invalid": "blue",
            "rejected": "orange",
            "timeout": "yellow",
            "impatient": "light-purple",
            "cancelled": "purple",
            "error": "red",
        },
    )


def waiting() -> Panel:
    return lines(
        About(title="Texts that wait", description="The longest queue of any service, by variant.", unit="short"),
        Query(over("max", series("sparsebert_queue_depth", VARIANTS), BY_VARIANT), VARIANT),
    )


def fill() -> tuple[Query, Query]:
    """How full the fullest queue is, by what is bounded: texts and tokens."""

    def of_bound(waiting: str, kind: str) -> Query:
        bound = series("sparsebert_queue_limit", SERVICE, f'kind="{kind}"')
        of_its_own = "ignoring (model, variant, kind) group_left ()"
        return Query(over("max", f"{series(waiting, VARIANTS)} / {of_its_own} {bound}"), kind)

    return of_bound("sparsebert_queue_depth", "texts"), of_bound("sparsebert_queue_tokens", "tokens")


def fill_over_time() -> Panel:
    return lines(
        About(
            title="Fullest queue, of its bound",
            description=FILL,
            unit="percentunit",
            empty="no service",
        ),
        *fill(),
        levels=OF_BOUND,
    ).axis_soft_max(1)


def refused() -> Panel:
    return stacked(
        About(
            title="Refused, by reason",
            description="Requests refused although nothing may be wrong with their texts: queue_full and rate_limited "
            "are 429, deadline 504, draining and not_ready 503, body_too_large 413.",
            unit="reqps",
        ),
        Query(per_second("sparsebert_rejections_total", SERVICE, by="reason"), "{{reason}}"),
    )


def silence() -> Panel:
    return lines(
        About(
            title="Silence of the workers",
            description="For how long nobody could take a variant's texts. It grows while a batch is stuck and when "
            "workers are dead. Beyond --request-timeout-s (30 s by default) /readyz turns 503.",
            unit="s",
        ),
        Query(over("max", series("sparsebert_batcher_silence_seconds", VARIANTS), BY_VARIANT), VARIANT),
        levels=high_is_bad(warn=20, bad=30),
    )


def loaded(scope: str) -> Query:
    """A series for each variant that is loaded: what it is in labels, how long loading took as its value."""
    info, took = series("sparsebert_model_info", scope), series("sparsebert_model_load_duration_seconds", scope)
    return Query(f"{info} * ignoring (version, precision, provider, sha256, ort) group_left () {took}", "")
