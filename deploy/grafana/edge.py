"""How is one small box: alive, within its memory and its core, fast enough, refusing anything?"""

from grafana_foundation_sdk.models import dashboard as model

from deploy.grafana import choices, shared
from deploy.grafana.frame import Page, Section, Strip, page
from deploy.grafana.panels import dial, number, under
from deploy.grafana.queries import SERVICE, SHOWN, over, per_second, series, share
from deploy.grafana.telling import About, Panel, Query, high_is_bad

# What compose, systemd and Kubernetes give the service on an edge box.
MEMORY_BYTES, CPUS = 512 * 2**20, 1
RESIDENT = series("sparsebert_process_resident_memory_bytes", SERVICE)
BUSY = per_second("process_cpu_seconds_total", SERVICE)
STARTED = series("process_start_time_seconds", SERVICE)


def edge() -> model.Dashboard:
    return page(
        Page.EDGE,
        "One small box with 1 CPU and 512 MB: alive, within its limits, fast enough.",
        [choices.one_instance(), choices.models(), choices.variants()],
        [
            Section("Now", [Strip(4, _now())]),
            Section("Limits", [Strip(7, _limits()), Strip(8, _limits_over_time())]),
            Section("Requests", [Strip(8, _requests()), Strip(7, _queue())]),
        ],
    )


def _now() -> list[Panel]:
    restarts = About(
        title="Restarts",
        description="How often the process started again in the time that is shown: each ended what was in flight. "
        "The journal or `docker logs` says why; killed without a word, it was out of memory.",
        unit="short",
        decimals=0,
        empty="no service",
    )
    return [
        number(
            About(
                title="Reached",
                description="Whether Prometheus could ask the box the last time.",
                unit="none",
                empty="never seen",
            ),
            Query(over("min", series("up", SERVICE)), "up"),
            words={"1": ("yes", "green"), "0": ("no", "red")},
        ),
        shared.ready(),
        number(
            About(title="Up for", description="Since the process started.", unit="s", empty="no service"),
            Query(f"time() - {STARTED}", "up for"),
        ),
        number(restarts, Query(f"changes({STARTED}[{SHOWN}])", "restarts"), levels=high_is_bad(warn=1, bad=3)),
        shared.requests_now(),
        shared.p99_now(),
    ]


def _limits() -> list[Panel]:
    files = share(series("process_open_fds", SERVICE), series("process_max_fds", SERVICE))
    levels = high_is_bad(warn=0.8, bad=0.95)
    return [
        dial(
            About(
                title="Memory, of 512 MB",
                description="Resident memory as a share of the 512 MB (MiB) that the unit, compose and Kubernetes "
                "allow; beyond that the kernel kills the process.",
                unit="percentunit",
                empty="no service",
            ),
            Query(f"{RESIDENT} / {MEMORY_BYTES}", "memory"),
            top=1,
            levels=levels,
        ),
        dial(
            About(
                title="CPU, of 1 core",
                description="Share of one core that the process keeps busy. At 100% it is throttled; no metric of the "
                "service tells how often: cAdvisor's container_cpu_cfs_throttled_periods_total or the unit's cpu.stat "
                "does.",
                unit="percentunit",
                empty="no service",
            ),
            Query(f"{BUSY} / {CPUS}", "CPU"),
            top=1,
            levels=levels,
        ),
        dial(
            About(
                title="Fullest queue, of its bound",
                description=shared.FILL,
                unit="percentunit",
                empty="no service",
            ),
            *shared.fill(),
            top=1,
            levels=shared.OF_BOUND,
        ),
        dial(
            About(
                title="Open files, of the most",
                description="Connections and files, of as many as the system allows the process.",
                unit="percentunit",
                empty="no service",
            ),
            Query(files, "files"),
            top=1,
            levels=levels,
        ),
    ]


def _limits_over_time() -> list[Panel]:
    return [
        under(
            MEMORY_BYTES,
            About(
                title="Resident memory",
                description="The line across is 512 MB. A step at a large batch is usual, a steady climb is a leak.",
                unit="bytes",
                empty="no service",
            ),
            Query(RESIDENT, "resident"),
        ),
        under(
            CPUS,
            About(
                title="Busy cores",
                description="CPU time of the process in a second. The line across is its limit.",
                unit="short",
                empty="no service",
            ),
            Query(BUSY, "cores"),
        ),
    ]


def _requests() -> list[Panel]:
    return [shared.quantiles(), shared.outcomes(), shared.refused()]


def _queue() -> list[Panel]:
    return [shared.waiting(), shared.fill_over_time(), shared.silence()]
