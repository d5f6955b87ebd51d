"""A quota counts wherever between the mount point and the process's own cgroup it is set, in v1 and in v2."""

import os
from pathlib import Path

import pytest

from sparsebert.cpus import available_cpus, quota_cpus

V2_SERVICE = "0::/system.slice/sparsebert.service\n"
V1_SERVICE = "5:cpu,cpuacct:/system.slice/sparsebert.service\n4:memory:/elsewhere\n"


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        (V2_SERVICE, {"system.slice/sparsebert.service/cpu.max": "200000 100000"}, 2.0),
        (V2_SERVICE, {"system.slice/sparsebert.service/cpu.max": "max 100000"}, None),
        (
            V2_SERVICE,
            {"system.slice/cpu.max": "100000 100000", "system.slice/sparsebert.service/cpu.max": "max 100000"},
            1.0,
        ),
        (
            V2_SERVICE,
            {"system.slice/cpu.max": "400000 100000", "system.slice/sparsebert.service/cpu.max": "300000 100000"},
            3.0,
        ),
        (V2_SERVICE, {"user.slice/cpu.max": "100000 100000"}, None),
        ("0::/docker/0123\n", {"cpu.max": "100000 100000"}, 1.0),
        (
            V1_SERVICE,
            {
                "cpu,cpuacct/system.slice/sparsebert.service/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/system.slice/sparsebert.service/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (V1_SERVICE, {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        (
            "4:memory:/small\n",
            {"memory/small/cpu.cfs_quota_us": "50000", "memory/small/cpu.cfs_period_us": "100000"},
            None,
        ),
        ("", {}, None),
        ("garbage", {}, None),
    ],
)
def test_quota(membership: str, files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text + "\n")
    (tmp_path / "membership").write_text(membership)
    assert quota_cpus(tmp_path / "cgroup", tmp_path / "membership") == quota


def test_neither_quota_nor_membership_is_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5})
    assert available_cpus(tmp_path / "none", tmp_path / "none") == 3
