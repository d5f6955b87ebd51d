"""What export refuses, in a sentence that names the cure, with nothing left behind."""

import shutil

import pytest

from export.pipeline import ExportConfig, export_bundle
from sparsebert.cli import run
from sparsebert.errors import ConfigError, ExportError


def test_full_weights_are_for_processors_that_multiply_them_without_error(run_dir, tmp_path):
    target = tmp_path / "m" / "v"
    config = ExportConfig(checkpoint=run_dir / "sparse", target=target, precision="int8", weight_range="full")
    with pytest.raises(ConfigError, match="export on a processor with VNNI, or take --weight-range reduced"):
        export_bundle(config, reduced_range=True)
    assert not target.parent.exists()
    assert export_bundle(config, reduced_range=False).weight_range == "full"


def test_a_model_that_no_onnx_file_holds_is_told_what_fits(run_dir, tmp_path):
    target = tmp_path / "m" / "v"
    with pytest.raises(ExportError, match="in fp32 this model has .* that an ONNX file holds; take --precision fp16"):
        export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=target), limit_bytes=12_000)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("command", ["export", "inspect"])
@pytest.mark.parametrize("name", ["examples.jsonl", "calibration.jsonl"])
def test_a_checkpoint_without_texts_is_told(run_dir, tmp_path, capsys, command, name):
    checkpoint = shutil.copytree(run_dir / "sparse", tmp_path / "sparse")
    (checkpoint / name).write_text("")
    output = ["--output", str(tmp_path / "m" / "v")] if command == "export" else []
    assert run([command, str(checkpoint), *output]) == 1
    assert f"{name} has no example in it; copy the whole folder again" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
