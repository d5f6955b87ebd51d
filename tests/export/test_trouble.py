"""What export refuses, in a sentence that names the cure, with nothing left behind."""

import pytest

from export.pipeline import ExportConfig, export_bundle
from sparsebert.errors import ConfigError


def test_full_weights_are_for_processors_that_multiply_them_without_error(run_dir, tmp_path):
    target = tmp_path / "m" / "v"
    config = ExportConfig(checkpoint=run_dir / "sparse", target=target, precision="int8", weight_range="full")
    with pytest.raises(ConfigError, match="export on a processor with VNNI, or take --weight-range reduced"):
        export_bundle(config, reduced_range=True)
    assert not target.parent.exists()
    assert export_bundle(config, reduced_range=False).weight_range == "full"
