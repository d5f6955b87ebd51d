"""How many CPUs may this process really use: its affinity, cut by the quota of its container.

Knows nothing about threads or models.
"""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def available_cpus(cgroups: Path = CGROUPS) -> int:
    """CPUs of the affinity mask, or fewer when a cgroup v2 or v1 quota allows fewer; at least 1."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = quota_cpus(cgroups)
    return cpus if quota is None else max(1, min(cpus, math.floor(quota)))


def quota_cpus(cgroups: Path) -> float | None:
    """The CPU time per wall time that the cgroup allows; None when it sets no limit."""
    words = _read(cgroups / "cpu.max").split()
    if len(words) == 2:
        return None if words[0] == "max" else int(words[0]) / int(words[1])
    quota, period = _read(cgroups / "cpu/cpu.cfs_quota_us"), _read(cgroups / "cpu/cpu.cfs_period_us")
    if quota and period and int(quota) > 0:
        return int(quota) / int(period)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
