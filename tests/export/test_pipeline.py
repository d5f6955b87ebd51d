import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from export.builder import GraphBuilder
from export.bundle import bundle_name, bundle_version, spread
from export.forms import TUNED_CHOICES
from export.pipeline import ExportConfig, export_bundle
from export.runtime import OnnxRunner
from export.texts import encode_examples
from sparsebert.checkpoint import Example, read_examples, read_run
from sparsebert.cli import run
from sparsebert.digests import verify_files
from sparsebert.errors import CheckpointError, ConfigError, ParityError
from sparsebert.manifest import FileDigest, read_golden, read_manifest
from sparsebert.processor import default_weight_range
from training.geometry import geometry_of


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_a_bundle_is_whole_and_true(run_dir, tmp_path, precision):
    target = tmp_path / "reviews" / "sparse"
    manifest = export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=target, precision=precision))
    assert read_manifest(target) == manifest
    verify_files(target, manifest)
    record = read_run(run_dir / "sparse")
    assert (manifest.name, manifest.variant, manifest.labels) == ("reviews", "sparse", ("no", "yes"))
    assert manifest.size.encoder_sparsity == record.encoder_sparsity
    assert manifest.batch_invariant == (manifest.batch_difference <= 1e-4)
    assert manifest.batch_invariant or precision == "fp16"
    assert manifest.shares_batches
    assert manifest.quality.difference == pytest.approx(manifest.quality.value - record.accuracy)
    assert manifest.weight_range == {"int8": default_weight_range()}.get(precision)
    assert manifest.form["layout"] == ("padded" if precision == "fp16" else "packed")
    assert manifest.compact_difference < 1e-4
    assert (manifest.parity.num_examples, manifest.parity_random_ids.num_examples) == (32, 64)
    assert manifest.quality.num_examples == 32
    assert manifest.quality.value == pytest.approx(record.accuracy, abs=0.07)
    assert sorted(path.name for path in target.iterdir()) == [
        "golden.json", "manifest.json", "model.onnx", "tokenizer.json",
    ]  # fmt: skip


def test_golden_examples_replay(run_dir, tmp_path):
    target = tmp_path / "reviews" / "dense"
    export_bundle(ExportConfig(checkpoint=run_dir / "dense", target=target))
    golden = read_golden(target)
    assert len(golden.inputs) == 8
    examples = [Example(text=one.text, text_pair=one.text_pair, label=0) for one in golden.inputs]
    found = OnnxRunner(target / "model.onnx").all_logits(encode_examples(target / "tokenizer.json", examples, 16))
    assert found == pytest.approx(np.array(golden.logits), abs=1e-6)


def test_the_compact_model_reloads_with_transformers(run_dir, tmp_path):
    target = tmp_path / "reviews" / "sparse"
    manifest = export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=target, with_hf=True))
    model = AutoModelForSequenceClassification.from_pretrained(target / "hf", trust_remote_code=False)
    assert geometry_of(model) == manifest.geometry
    assert model.num_parameters() == manifest.size.parameters
    assert {"hf/model.safetensors", "hf/modeling.py", "hf/tokenizer.json"} <= set(manifest.files)
    texts = ["good film", "the plot was dull"]
    tokenizer = AutoTokenizer.from_pretrained(target / "hf")
    assert tokenizer(texts)["input_ids"] == AutoTokenizer.from_pretrained(run_dir / "sparse")(texts)["input_ids"]


def test_tuning_says_what_it_picked(run_dir, tmp_path, caplog):
    caplog.set_level("INFO")
    target = tmp_path / "reviews" / "sparse"
    config = ExportConfig(checkpoint=run_dir / "sparse", target=target, precision="int8", tune=True)
    manifest = export_bundle(config)
    assert manifest.tuned
    assert manifest.form.keys() == {"layout", "projections", "last", "attention", "mask", "products", "norms", "gelu"}
    assert {name for trial in manifest.trials for name in trial.tried} == set(TUNED_CHOICES["int8"])
    assert "tuned: {'layout'" in caplog.text
    assert "times as fast as" in caplog.text


def test_words_that_do_not_fit_together_are_told(tmp_path):
    with pytest.raises(ConfigError, match="--weight-range is for --precision int8, not for fp32"):
        ExportConfig(checkpoint=tmp_path, target=tmp_path / "m" / "v", weight_range="reduced")
    with pytest.raises(ConfigError, match="--tune measures on this machine's CPU, and fp16 is for GPUs"):
        ExportConfig(checkpoint=tmp_path, target=tmp_path / "m" / "v", precision="fp16", tune=True)


def test_a_failed_parity_leaves_nothing(run_dir, tmp_path, monkeypatch):
    logits = OnnxRunner.logits
    monkeypatch.setattr(OnnxRunner, "logits", lambda self, encoded: logits(self, encoded) + np.float32(0.01))
    target = tmp_path / "reviews" / "sparse"
    with pytest.raises(ParityError, match="nothing was bundled; worst on"):
        export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=target))
    assert list(target.parent.iterdir()) == []


def test_a_graph_that_ignores_the_mask_is_not_bundled(run_dir, tmp_path, monkeypatch):
    build = GraphBuilder.node

    def without_mask(self, operator, *inputs, **attributes):
        kept = inputs[:4] if operator == "MultiHeadAttention" else inputs
        return build(self, operator, *kept, **attributes)

    monkeypatch.setattr(GraphBuilder, "node", without_mask)
    with pytest.raises(ParityError, match="when texts of other lengths share the batch"):
        export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=tmp_path / "m" / "v"))
    assert list((tmp_path / "m").iterdir()) == []


def test_texts_as_long_as_the_model_reads_are_bundled_and_served(bert_dir, tmp_path):
    rows = ["text,label"] + [f"{'good film ' * 40}{i},{i % 2}" for i in range(24)]
    for name in ("train.csv", "validation.csv"):
        (tmp_path / name).write_text("\n".join(rows))
    words = ["--model", str(bert_dir), "--data-dir", str(tmp_path), "--output", str(tmp_path / "run")]
    assert run(["train", *words, "--max-length", "32", "--epochs", "1", "--sparsity", "0"]) == 0
    assert run(["export", str(tmp_path / "run" / "dense"), "--output", str(tmp_path / "m" / "t" / "long")]) == 0
    assert run(["serve", "--models", str(tmp_path / "m"), "--dry-run"]) == 0


def test_a_folder_that_is_no_bundle_is_not_replaced(run_dir, tmp_path):
    variant = tmp_path / "reviews" / "sparse"
    export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=variant))
    with pytest.raises(ConfigError, match=r"reviews exists and is no bundle \(it has no manifest.json\)"):
        export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=tmp_path / "reviews"))
    assert (variant / "model.onnx").is_file()


def test_masks_that_do_not_fit_are_told(run_dir, tmp_path):
    from sparsebert.masks import MaskSet, save_masks

    checkpoint = shutil.copytree(run_dir / "sparse", tmp_path / "sparse")
    save_masks(MaskSet.dense(3, 5, 24), checkpoint / "masks.safetensors")
    with pytest.raises(CheckpointError, match="has masks for"):
        export_bundle(ExportConfig(checkpoint=checkpoint, target=tmp_path / "m" / "v"))


def test_names_come_from_the_folder(tmp_path):
    assert bundle_name(tmp_path / "demo" / "sparse-int8") == ("demo", "sparse-int8")
    for name in ("Sparse", "dense+x", "-x", "a,b", "x" * 65, "é"):
        with pytest.raises(ConfigError, match="ends in"):
            bundle_name(tmp_path / "demo" / name)


def test_a_version_is_of_graph_tokenizer_and_labels():
    def digest(character):
        return FileDigest(sha256=character * 64, size_bytes=1)

    files = {"model.onnx": digest("a"), "tokenizer.json": digest("b"), "golden.json": digest("c")}
    version = bundle_version(files, ("no", "yes"))
    assert re.fullmatch(r"[0-9a-f]{12}", version)
    assert bundle_version(files | {"golden.json": digest("d")}, ("no", "yes")) == version
    others = [
        bundle_version(files | {"model.onnx": digest("d")}, ("no", "yes")),
        bundle_version(files | {"tokenizer.json": digest("d")}, ("no", "yes")),
        bundle_version(files, ("yes", "no")),
    ]
    assert len({version, *others}) == 4


def test_spread_goes_from_short_to_long():
    examples = [Example(text="x" * size, label=0) for size in (5, 1, 9, 3, 7)]
    assert spread(examples, 3) == [1, 0, 2]
    assert spread(examples, 99) == [1, 3, 0, 4, 2]
    assert spread(examples[:1], 3) == [0]


def test_the_command_and_its_errors(run_dir, tmp_path, capsys):
    assert run(["export", str(run_dir / "sparse"), "--output", str(tmp_path / "m" / "v")]) == 0
    assert run(["export", str(tmp_path), "--output", str(tmp_path / "m" / "w")]) == 1
    assert "is not a masked checkpoint" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "m" / "w").exists()
    assert run(["export", "--precision", "fp8", str(run_dir / "sparse"), "--output", "x/y"]) == 2


def test_inspect_tells_bundle_and_checkpoint(run_dir, tmp_path, capsys):
    target = tmp_path / "reviews" / "sparse"
    export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=target))
    assert run(["inspect", str(target)]) == 0
    shown = capsys.readouterr().out
    assert "reviews/sparse" in shown
    assert "digests verified" in shown
    assert "logits do not depend on the other texts of a batch" in shown
    assert "(largest difference " in shown
    assert "+0.00 points against PyTorch" in shown
    assert "(opset 20)" in shown
    assert run(["inspect", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "fp32"
    assert "warning" not in shown
    (target / "extra.py").write_text("")
    assert run(["inspect", str(target)]) == 0
    assert "warning:     the manifest does not know extra.py; remove" in capsys.readouterr().out
    assert run(["inspect", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unlisted_files"] == ["extra.py"]
    assert run(["inspect", str(run_dir / "sparse")]) == 0
    assert "sparse stage of" in capsys.readouterr().out
    (target / "tokenizer.json").write_text("{}")
    assert run(["inspect", str(target)]) == 1
    assert "tokenizer.json was altered" in capsys.readouterr().err
    checkpoint = shutil.copytree(run_dir / "sparse", tmp_path / "checkpoint")
    (checkpoint / "model.safetensors").unlink()
    assert run(["inspect", str(checkpoint)]) == 1
    assert "checkpoint has no model.safetensors; copy the whole folder" in capsys.readouterr().err


def test_pairs_go_through(bert_dir, tmp_path):
    rows = ["a,b,label"] + [f"good film {i},bad plot {i % 3},{i % 2}" for i in range(24)]
    for name in ("train.csv", "validation.csv"):
        (tmp_path / name).write_text("\n".join(rows))
    words = ["--model", str(bert_dir), "--data-dir", str(tmp_path), "--output", str(tmp_path / "run")]
    words += ["--max-length", "16", "--epochs", "1", "--sparsity", "0"]
    result = subprocess.run([sys.executable, "-m", "training", *words], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    manifest = export_bundle(ExportConfig(checkpoint=tmp_path / "run" / "dense", target=tmp_path / "m" / "pairs"))
    assert manifest.task.pair
    assert read_golden(tmp_path / "m" / "pairs").inputs[0].text_pair is not None
    assert read_examples(tmp_path / "run" / "dense")[0].text_pair == "bad plot 0"


def test_lost_accuracy_is_warned_of(run_dir, tmp_path, caplog):
    checkpoint = shutil.copytree(run_dir / "sparse", tmp_path / "sparse")
    record = read_run(checkpoint)
    plain = export_bundle(ExportConfig(checkpoint=checkpoint, target=tmp_path / "m" / "v")).quality.value
    for better, warned in ((0.004, False), (0.006, True)):
        changed = record.model_copy(update={"accuracy": plain + better})
        (checkpoint / "run.json").write_text(changed.model_dump_json())
        caplog.clear()
        quality = export_bundle(ExportConfig(checkpoint=checkpoint, target=tmp_path / "m" / "v")).quality
        assert quality.difference == pytest.approx(-better)
        assert ("0.60 points below the masked model's in PyTorch" in caplog.text) == warned
