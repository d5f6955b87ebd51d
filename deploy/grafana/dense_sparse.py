"""Is the sparse variant faster and smaller than the dense one, does it say the same, and how do both fare now?"""

from collections.abc import Callable

from grafana_foundation_sdk.models import dashboard as model

from deploy.grafana import choices, shared
from deploy.grafana.frame import Page, Section, Strip, page
from deploy.grafana.panels import bars, both, lines, number, rows
from deploy.grafana.queries import (
    BASELINE,
    BOTH,
    CANDIDATE,
    PAIR,
    at_least,
    grown,
    mean,
    over,
    per_second,
    quantile,
    series,
    share,
)
from deploy.grafana.telling import About, Levels, Panel, Query, low_is_bad

STAGES = "sparsebert_stage_duration_seconds"
PAIRS, INFER = "sparsebert_experiment_pairs_total", "sparsebert_experiment_infer_seconds_total"
MEMORY = "sparsebert_model_memory_bytes"
TIMES = "suffix:×"
FASTER = Levels(((None, "red"), (1, "green")))
NO_COMPARES = "no compares"
# What is not agreed on bounds how much the accuracies can differ: by 10 points, by 5.
AGREEING = low_is_bad(bad=0.9, warn=0.95)


def dense_sparse() -> model.Dashboard:
    return page(
        Page.DENSE_SPARSE,
        "One variant of a model held against another: on the same texts by /v1/compare, and in the traffic of each.",
        [choices.instances(), choices.one_model(), choices.baseline(), choices.candidate()],
        [
            Section("The same texts to both: /v1/compare", [Strip(5, _verdict()), Strip(7, _comparisons())]),
            Section("The traffic of each: latency", [Strip(7, _quantiles())]),
            Section("The traffic of each: mean time of a stage", [Strip(7, _stages())]),
            Section("The traffic of each: throughput", [Strip(7, _throughput())]),
            Section("The traffic of each: batches", [Strip(7, _batches())]),
            Section("What is loaded", [Strip(7, [_memory(), _versions()])]),
        ],
    )


def _verdict() -> list[Panel]:
    agree, all_pairs = grown(PAIRS, PAIR, 'result="agree"'), grown(PAIRS, PAIR)
    of_baseline, of_candidate = grown(INFER, PAIR, 'side="baseline"'), grown(INFER, PAIR, 'side="variant"')
    memory, file = 'kind="load_delta"', 'kind="file"'
    return [
        number(
            About(
                title="Speed-up",
                description="Time that the baseline computed, divided by the candidate's, on the texts of /v1/compare "
                "in the time that is shown. Both sides ran the same texts equally often. Red: slower.",
                unit=TIMES,
                decimals=2,
                empty=NO_COMPARES,
            ),
            Query(share(of_baseline, of_candidate), "speed-up"),
            levels=low_is_bad(bad=1, warn=1.1),
        ),
        number(
            About(
                title="Agreement",
                description="Share of the texts of /v1/compare in the time that is shown to which both give the same "
                "label. The rest is the most by which their accuracies on these texts differ; red beyond 10 points.",
                unit="percentunit",
                decimals=1,
                empty=NO_COMPARES,
            ),
            Query(share(agree, all_pairs), "agreement"),
            levels=AGREEING,
        ),
        number(
            About(
                title="Agreement, at least",
                description="The lower end of its 95% confidence interval (Wilson): what these texts are enough to "
                "say, if they are like yours. Few texts say little, even when all agree.",
                unit="percentunit",
                decimals=1,
                empty=NO_COMPARES,
            ),
            Query(at_least(agree, all_pairs), "at least"),
            levels=AGREEING,
        ),
        number(
            About(
                title="Texts compared",
                description="In the time that is shown. A text counts once, whatever repeats says. Send your own with "
                "POST /v1/compare, or from the service's page.",
                unit="short",
                decimals=0,
                empty=NO_COMPARES,
            ),
            Query(all_pairs, "texts"),
        ),
        _smaller("Memory", "By how much the process grew at load: the baseline's, divided by the candidate's.", memory),
        _smaller("File", "Size of the graph's file: the baseline's, divided by the candidate's.", file),
    ]


def _smaller(title: str, description: str, kind: str) -> Panel:
    about = About(
        title=f"{title}: times smaller", description=description, unit=TIMES, decimals=2, empty="not both loaded"
    )
    sizes = [over("max", series(MEMORY, scope, kind)) for scope in (BASELINE, CANDIDATE)]
    return number(about, Query(share(*sizes), title.lower()), levels=low_is_bad(bad=1, warn=1.1))


def _comparisons() -> list[Panel]:
    agree, all_pairs = per_second(PAIRS, PAIR, 'result="agree"'), per_second(PAIRS, PAIR)
    of_baseline, of_candidate = per_second(INFER, PAIR, 'side="baseline"'), per_second(INFER, PAIR, 'side="variant"')
    return [
        lines(
            About(
                title="Speed-up over time",
                description="As above, minute by minute. A gap: nobody compared.",
                unit=TIMES,
                empty=NO_COMPARES,
            ),
            Query(share(of_baseline, of_candidate), "speed-up"),
            levels=FASTER,
        ),
        lines(
            About(
                title="Agreement over time",
                description="As above, minute by minute: few texts each, so it jumps.",
                unit="percentunit",
                empty=NO_COMPARES,
            ),
            Query(share(agree, all_pairs), "agreement"),
            levels=AGREEING,
        ).axis_soft_min(0.85),
    ]


def _pair(title: str, description: str, unit: str, expr: Callable[[str], str]) -> Panel:
    """The same question to both sides."""
    queries = [Query(expr(scope), "{{variant}}") for scope in (BASELINE, CANDIDATE)]
    return both(About(title=title, description=description, unit=unit), *queries)


def _quantiles() -> list[Panel]:
    told = "of 100 requests that ended ok took no longer. Each variant's own traffic: texts may differ."

    def of(q: float) -> Callable[[str], str]:
        return lambda scope: quantile(q, shared.TIME, scope, by="variant")

    return [
        _pair("p50", f"50 {told}", "s", of(0.5)),
        _pair("p95", f"95 {told}", "s", of(0.95)),
        _pair("p99", f"99 {told}", "s", of(0.99)),
    ]


def _stages() -> list[Panel]:
    meaning = {
        "tokenize": "Texts to tokens. The same tokenizer for both, as a rule.",
        "queue": "Waiting for a batch: of the text that waited longest.",
        "infer": "Computing the batches that the request's texts were in.",
        "postprocess": "Logits to probabilities.",
    }

    def of(stage: str) -> Callable[[str], str]:
        return lambda scope: mean(STAGES, scope, f'stage="{stage}"', by="variant")

    return [_pair(stage, description, "s", of(stage)) for stage, description in meaning.items()]


def _throughput() -> list[Panel]:
    def of(counter: str, *matchers: str) -> Callable[[str], str]:
        return lambda scope: per_second(counter, scope, *matchers, by="variant")

    return [
        _pair(
            "Requests",
            "Requests answered in a second: what was asked for, not what could be.",
            "reqps",
            of("sparsebert_inference_requests_total", 'outcome="ok"'),
        ),
        _pair("Texts a second", "Texts computed.", "short", of("sparsebert_inference_inputs_total")),
        _pair(
            "Tokens a second",
            "Tokens computed, without padding.",
            "short",
            of("sparsebert_tokens_total", 'kind="real"'),
        ),
    ]


def _batches() -> list[Panel]:
    tokens = "sparsebert_tokens_total"

    def padding(scope: str) -> str:
        whole = per_second(tokens, scope, by="variant")
        return share(per_second(tokens, scope, 'kind="padding"', by="variant"), whole)

    def truncated(scope: str) -> str:
        texts = per_second("sparsebert_inference_inputs_total", scope, by="variant")
        return share(per_second("sparsebert_truncated_inputs_total", scope, by="variant"), texts)

    def size(scope: str) -> str:
        return mean("sparsebert_batch_size", scope, by="variant")

    return [
        _pair("Texts in a batch", "The mean. The faster variant finds fewer texts waiting.", "short", size),
        _pair("Padding", "Share of the tokens of batches that is padding.", "percentunit", padding),
        _pair("Truncated texts", "Share of texts that were cut to fit the model.", "percentunit", truncated),
    ]


def _memory() -> Panel:
    kinds = (("load_delta", "in memory"), ("gpu_load_delta", "in the GPU's memory"), ("file", "file"))
    return bars(
        About(
            title="Size",
            description="By how much the process, and the GPU's used memory where there is one, grew at load, and the "
            "graph's file; the largest of the services.",
            unit="bytes",
            empty="none loaded",
        ),
        *(
            Query(over("max", series(MEMORY, scope, f'kind="{kind}"'), "variant"), f"{{{{variant}}}}: {name}")
            for kind, name in kinds
            for scope in (BASELINE, CANDIDATE)
        ),
    )


def _versions() -> Panel:
    columns = {
        "variant": "variant", "instance": "service", "version": "version", "precision": "precision",
        "provider": "provider", "Value": "time to load",
    }  # fmt: skip
    return rows(
        About(title="Versions", description="What is compared, and where it is loaded.", unit="s", empty="none loaded"),
        shared.loaded(BOTH),
        columns,
    )
