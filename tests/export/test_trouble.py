"""What export refuses, in a sentence that names the cure, with nothing left behind."""

import json
import resource
import shutil

import pytest

from export.pipeline import ExportConfig, export_bundle
from sparsebert.cli import run
from sparsebert.errors import ConfigError, ExportError
from sparsebert.manifest import read_manifest


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


def with_json(name, **changes):
    def damage(folder):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | changes))

    return damage


def with_text(name, text):
    return lambda folder: (folder / name).write_text(text)


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def with_an_id_too_many(folder):
    text = (folder / "tokenizer.json").read_text()
    values = json.loads(text)
    values["model"]["vocab"]["it"] = 40
    (folder / "tokenizer.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_text("tokenizer.json", "{}"), "its tokenizer is damaged or incomplete (KeyError: 'added_tokens')"),
        (with_text("tokenizer.json", '{"a'), "its tokenizer is damaged or incomplete (JSONDecodeError: "),
        (without("tokenizer.json", "tokenizer_config.json"), "its tokenizer is damaged or incomplete (ValueError: "),
        (with_text("config.json", "[]"), "its model is damaged or incomplete (TypeError: "),
        (with_text("config.json", "{}"), "holds another model than it was saved with (weights such as bert."),
        (with_json("config.json", hidden_size="abc"), "'hidden_size' expected int, got str"),
        (with_json("config.json", pooler_activation="swish"), "Validation error for field 'pooler_activation': "),
        (with_json("config.json", num_attention_heads=3), "(weights such as bert.encoder.layer.0.attention"),
        (with_json("config.json", intermediate_size=12), "(weights such as bert.encoder.layer.0.intermediate.dense"),
        (without("model.safetensors"), "its model is damaged or incomplete (OSError: "),
        (with_an_id_too_many, "tokenizer gives 'it' the id 40, and its model has 23 rows of words"),
    ],
)
def test_a_damaged_checkpoint_is_told(run_dir, tmp_path, capsys, damage, message):
    checkpoint = shutil.copytree(run_dir / "sparse", tmp_path / "sparse")
    damage(checkpoint)
    assert run(["export", str(checkpoint), "--output", str(tmp_path / "m" / "v")]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("limit_bytes", "with_hf"), [(500, False), (9000, True), (9000, False)], ids=["tokenizer", "weights", "graph"]
)
def test_a_full_disk_is_told_and_leaves_the_old_bundle(run_dir, tmp_path, limit_bytes, with_hf):
    target = tmp_path / "m" / "v"
    before = export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=target))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))  # no file may be larger, as on a full disk
    try:
        with pytest.raises(ExportError, match=r"v cannot be written \(.*File too large.*\); nothing was bundled"):
            export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=target, with_hf=with_hf))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_manifest(target) == before
    assert [path.name for path in target.parent.iterdir()] == ["v"]
