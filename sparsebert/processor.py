"""Can this processor multiply 8-bit integers of the full range without error?

ONNX Runtime's x86 kernels for processors without VNNI add two products of 8-bit integers in 16 bits, which saturate
when weights use all 8 bits. Other processors have no such kernels. Knows nothing about models.
"""

import platform
from pathlib import Path

from sparsebert.errors import ConfigError
from sparsebert.manifest import WeightRange

CPU_INFO = Path("/proc/cpuinfo")
X86 = ("x86_64", "amd64", "i386", "i686", "x86")
VNNI_FLAGS = frozenset({"avx512_vnni", "avx512vnni", "avx_vnni"})


def needs_reduced_range(machine: str, cpu_info: str) -> bool:
    """Whether int8 weights must have 7 bits; `cpu_info` is the text of /proc/cpuinfo, empty where there is none."""
    if machine.lower() not in X86:
        return False
    flags = {
        flag
        for line in cpu_info.splitlines()
        if line.partition(":")[0].strip() == "flags"
        for flag in line.partition(":")[2].split()
    }
    return not flags & VNNI_FLAGS


def this_processor_needs_reduced_range() -> bool:
    """The answer for the machine that this runs on; on x86 without /proc/cpuinfo, the safe one."""
    try:
        cpu_info = CPU_INFO.read_text(encoding="utf-8")
    except OSError:
        cpu_info = ""
    return needs_reduced_range(platform.machine(), cpu_info)


def default_weight_range() -> WeightRange:
    """The largest range of int8 weights that this machine's processor multiplies without error."""
    return choose_weight_range(None, reduced_range=this_processor_needs_reduced_range())


def choose_weight_range(asked: WeightRange | None, *, reduced_range: bool) -> WeightRange:
    """The range of int8 weights: the asked one, or the largest that a processor multiplies without error.

    `reduced_range` says that it needs weights of 7 bits. Raises ConfigError when those of 8 bits are asked for all
    the same: what it measures and proves would be saturated answers.
    """
    if asked == "full" and reduced_range:
        raise ConfigError(
            "--weight-range full saturates on processors without VNNI such as this one, and a bundle is measured and "
            "proven where it is exported; export on a processor with VNNI, or take --weight-range reduced"
        )
    return asked or ("reduced" if reduced_range else "full")
