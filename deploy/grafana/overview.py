"""The page to look at first: does everything answer, how fast, what is refused, and what does it cost?"""

from grafana_foundation_sdk.models import dashboard as model

from deploy.grafana import choices, shared
from deploy.grafana.frame import Page, Section, Strip, page
from deploy.grafana.panels import bars, lines, number, rows, stacked
from deploy.grafana.queries import FIRING, SERVICE, VARIANTS, mean, over, per_second, quantile, series, share
from deploy.grafana.shared import BY_VARIANT, VARIANT
from deploy.grafana.telling import About, Panel, Query, high_is_bad

# What answers with predictions: the other routes are pages, probes and comparisons.
PREDICTING = 'route=~"/v1/predict|/v2/models/.*/infer"'


def overview() -> model.Dashboard:
    return page(
        Page.OVERVIEW,
        "All services that Prometheus watches, together: what answers, how fast, what is refused, what it costs.",
        [choices.instances(), choices.models(), choices.variants()],
        [
            Section("Now", [Strip(4, _now())]),
            Section("Traffic", [Strip(8, _traffic())]),
            Section("Latency", [Strip(8, _latency())]),
            Section("Queue and batches", [Strip(7, _queue()), Strip(7, _batches())]),
            Section("Machines", [Strip(8, _machines())]),
            Section("What is loaded", [Strip(6, [_versions()])]),
        ],
    )


def _now() -> list[Panel]:
    alerts = About(
        title="Alerts firing",
        description="Alerts that Prometheus has firing now; docs/operations.md says what to do for each.",
        unit="short",
    )
    return [
        number(alerts, Query(f"count({FIRING}) or vector(0)", "alerts"), levels=high_is_bad(warn=1, bad=1)),
        shared.ready(),
        shared.requests_now(),
        shared.p99_now(),
        shared.failed_now(),
        number(
            About(
                title="Fullest queue",
                description=shared.FILL,
                unit="percentunit",
                decimals=1,
                empty="no service",
            ),
            *shared.fill(),
            levels=shared.OF_BOUND,
        ),
    ]


def _traffic() -> list[Panel]:
    requests = "sparsebert_inference_requests_total"
    errors = per_second("sparsebert_http_requests_total", SERVICE, 'status=~"[45].."', by="status")
    return [
        lines(
            About(title="Requests, by variant", description="Requests that ended, however they did.", unit="reqps"),
            Query(per_second(requests, VARIANTS, by=BY_VARIANT), VARIANT),
        ),
        shared.outcomes(),
        stacked(
            About(
                title="Errors, by code",
                description="HTTP answers that are errors. 4xx are the client's (429: too much at a time), 499 is a "
                "client that left, 5xx are ours.",
                unit="reqps",
                empty="no errors",
            ),
            Query(f"{errors} > 0", "{{status}}"),
        ),
        lines(
            About(title="In flight", description="Requests to a variant that are not answered yet.", unit="short"),
            Query(over("sum", series("sparsebert_inflight_requests", VARIANTS), BY_VARIANT), VARIANT),
        ),
    ]


def _latency() -> list[Panel]:
    stages = "sparsebert_stage_duration_seconds"
    of_stage = per_second(f"{stages}_sum", VARIANTS, by="stage")
    requests = per_second(f"{stages}_count", VARIANTS, 'stage="infer"')
    return [
        *(
            lines(
                About(
                    title=f"{name}, by variant",
                    description=f"{hundredth} of 100 requests that ended ok took no longer, from their arrival at a "
                    "variant to its probabilities.",
                    unit="s",
                ),
                Query(quantile(hundredth / 100, shared.TIME, VARIANTS, by=BY_VARIANT), VARIANT),
            )
            for hundredth, name in ((50, "p50"), (99, "p99"))
        ),
        stacked(
            About(
                title="Where the time goes",
                description="Mean time of each stage of a request. Much in queue: too few cores, or large requests.",
                unit="s",
            ),
            Query(f"{of_stage} / on () group_left () ({requests} > 0)", "{{stage}}"),
        ),
        lines(
            About(
                title="HTTP answers",
                description="Time to answer a prediction, from the request's head to the last byte, also of refused "
                "ones. Counted by route, hence of all models and variants.",
                unit="s",
            ),
            *(
                Query(quantile(q, "sparsebert_http_request_duration_seconds", SERVICE, PREDICTING), name)
                for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
            ),
        ),
    ]


def _queue() -> list[Panel]:
    return [shared.waiting(), shared.fill_over_time(), shared.silence(), shared.refused()]


def _batches() -> list[Panel]:
    tokens = "sparsebert_tokens_total"
    padding = per_second(tokens, VARIANTS, 'kind="padding"', by=BY_VARIANT)
    texts = per_second("sparsebert_inference_inputs_total", VARIANTS, by=BY_VARIANT)
    cut = per_second("sparsebert_truncated_inputs_total", VARIANTS, by=BY_VARIANT)
    return [
        lines(
            About(
                title="Texts in a batch",
                description="The mean. Larger batches answer more texts a second, and make each wait longer.",
                unit="short",
            ),
            Query(mean("sparsebert_batch_size", VARIANTS, by=BY_VARIANT), VARIANT),
        ),
        lines(
            About(
                title="Padding",
                description="Share of the tokens of batches that is padding. Bundles that compute without it (the "
                "packed layout) pay for it in the attention only.",
                unit="percentunit",
            ),
            Query(share(padding, per_second(tokens, VARIANTS, by=BY_VARIANT)), VARIANT),
        ),
        lines(
            About(
                title="Truncated texts",
                description="Share of the texts that were cut to fit the model, because the request allowed it.",
                unit="percentunit",
            ),
            Query(share(cut, texts), VARIANT),
        ),
        lines(
            About(title="Tokens a second", description="Tokens computed, without padding.", unit="short"),
            Query(per_second(tokens, VARIANTS, 'kind="real"', by=BY_VARIANT), VARIANT),
        ),
    ]


def _machines() -> list[Panel]:
    def memory(kind: str) -> str:
        return over("max", series("sparsebert_model_memory_bytes", VARIANTS, f'kind="{kind}"'), BY_VARIANT)

    process = Query(series("sparsebert_process_resident_memory_bytes", SERVICE), "{{instance}}")
    cpu = Query(per_second("process_cpu_seconds_total", SERVICE, by="instance"), "{{instance}}")
    return [
        lines(
            About(
                title="Resident memory",
                description="Of each process. It grows with the largest batches at first; if it goes on growing, "
                "something leaks.",
                unit="bytes",
            ),
            process,
        ),
        bars(
            About(
                title="Memory of variants",
                description="By how much the process, and the GPU's used memory where there is one, grew when a "
                "variant was loaded; the largest of the services.",
                unit="bytes",
                empty="none loaded",
            ),
            Query(memory("load_delta"), VARIANT),
            Query(memory("gpu_load_delta"), f"{VARIANT}: GPU"),
        ),
        lines(
            About(title="Busy cores", description="CPU time of each process in a second. Linux only.", unit="short"),
            cpu,
        ),
        lines(
            About(
                title="GPU memory",
                description="Used memory of the GPU: by everybody (device) and by this process.",
                unit="bytes",
                empty="no GPU computes",
            ),
            Query(series("sparsebert_gpu_memory_used_bytes", SERVICE), "{{instance}} {{device}} {{scope}}"),
        ),
    ]


def _versions() -> Panel:
    columns = {
        "instance": "service", "model": "model", "variant": "variant", "version": "version",
        "precision": "precision", "provider": "provider", "ort": "ONNX Runtime", "sha256": "sha256 of the graph",
        "Value": "time to load",
    }  # fmt: skip
    return rows(
        About(
            title="Versions",
            description="What is loaded where. Two versions of one variant: a rolling update that is not over.",
            unit="s",
            empty="none loaded",
        ),
        shared.loaded(VARIANTS),
        columns,
    )
