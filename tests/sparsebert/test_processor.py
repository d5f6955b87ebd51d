import pytest

from sparsebert.processor import needs_reduced_range


@pytest.mark.parametrize(
    ("machine", "cpu_info", "reduced"),
    [
        ("x86_64", "processor\t: 0\nflags\t\t: sse2 avx2 avx512_vnni\n", False),
        ("x86_64", "flags\t\t: sse2 avx2 avx_vnni\n", False),
        ("x86_64", "flags\t\t: sse2 avx2\n", True),
        ("x86_64", "model name\t: avx512_vnni\nflags\t\t: sse2\n", True),
        ("AMD64", "", True),
        ("aarch64", "", False),
        ("arm64", "Features\t: fp asimd\n", False),
    ],
)
def test_only_x86_without_vnni_needs_the_reduced_range(machine, cpu_info, reduced):
    assert needs_reduced_range(machine, cpu_info) == reduced
