import pytest

from sparsebert.errors import ConfigError
from sparsebert.processor import choose_weight_range, needs_reduced_range


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


@pytest.mark.parametrize(
    ("asked", "reduced_range", "chosen"),
    [(None, True, "reduced"), (None, False, "full"), ("reduced", True, "reduced"), ("reduced", False, "reduced"),
     ("full", False, "full")],
)  # fmt: skip
def test_the_range_is_what_was_asked_for_or_what_the_processor_needs(asked, reduced_range, chosen):
    assert choose_weight_range(asked, reduced_range=reduced_range) == chosen


def test_weights_that_would_saturate_are_refused():
    with pytest.raises(ConfigError, match="without VNNI .* or take --weight-range reduced"):
        choose_weight_range("full", reduced_range=True)
