"""How many CPUs may this process really use: its affinity, cut by the quota of its container.

Knows nothing about threads or models.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """CPUs of the affinity mask, or fewer when a cgroup v2 or v1 quota allows fewer; at least 1."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = quota_cpus(cgroups, membership)
    return cpus if quota is None else max(1, min(cpus, math.floor(quota)))


def quota_cpus(cgroups: Path, membership: Path = MEMBERSHIP) -> float | None:
    """The CPU time per wall time that the process's cgroup and those above it allow; None when none sets a limit."""
    quotas = [quota for folder in _folders(cgroups, membership) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _folders(cgroups: Path, membership: Path) -> Iterator[Path]:
    """Where a quota may lie: the mount points, as a container sees its own limit, and all from there to the process."""
    yield from (cgroups, cgroups / "cpu")
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = cgroups / controllers
        parts = PurePosixPath(path).relative_to("/").parts if path.startswith("/") else ()
        for depth in range(len(parts) + 1):
            yield mount.joinpath(*parts[:depth])


def _quota(folder: Path) -> float | None:
    """Of one cgroup, v2 or v1."""
    words = _read(folder / "cpu.max").split()
    if len(words) == 2:
        return None if words[0] == "max" else int(words[0]) / int(words[1])
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if quota and period and int(quota) > 0:
        return int(quota) / int(period)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
