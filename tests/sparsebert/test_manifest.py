import json

import pytest

from sparsebert.digests import digest_file, unlisted_files, verify_files
from sparsebert.errors import BundleError, DigestError
from sparsebert.manifest import Manifest, read_golden, read_manifest, seal, write_manifest

GEOMETRY = {
    "hidden_size": 4, "head_size": 2, "heads_L": [1], "neurons_L": [3], "vocabulary_size": 9, "max_positions": 8,
    "token_types": 2, "num_labels": 2,
}  # fmt: skip


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "golden.json").write_text('{"inputs": [{"text": "a"}], "logits": [[0.5, 1.5]], "tolerance": 0.001}')
    files = {path.name: digest_file(path).model_dump() for path in tmp_path.iterdir()}
    manifest = {
        "schema_version": 2, "name": "demo", "variant": "sparse", "version": "0123456789ab", "labels": ["no", "yes"],
        "task": {"name": "custom", "pair": False}, "geometry": GEOMETRY, "dense_geometry": GEOMETRY,
        "inputs": [{"name": "input_ids", "dtype": "int64", "shape": [-1, -1]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": [-1, 2]}],
        "max_sequence_length": 8, "precision": "fp32", "weight_range": None, "batch_invariant": True, "opset": 20,
        "operators": {"MatMul": 3}, "form": {"layout": "packed"}, "tuned": False, "compact_difference": 0.0,
        "quality": {"metric": "accuracy", "value": 0.9, "data": "custom", "num_examples": 10},
        "parity": {"max_logit_difference": 1e-6, "label_agreement": 1.0, "num_examples": 10},
        "parity_random_ids": {"max_logit_difference": 1e-6, "label_agreement": 1.0, "num_examples": 10},
        "size": {"parameters": 10, "encoder_parameters": 5, "encoder_sparsity": 0.5, "macs": 7,
                 "macs_sequence_length": 128},
        "files": files, "provenance": {"onnx": "1"},
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(seal(manifest)))
    return tmp_path


def change(bundle, **values):
    path = bundle / "manifest.json"
    path.write_text(json.dumps(seal(json.loads(path.read_text()) | values)))


def test_a_whole_bundle_is_read_and_verified(bundle):
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    assert manifest.labels == ("no", "yes")
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert read_golden(bundle).logits == ((0.5, 1.5),)


def test_trials_of_tuning_are_read_and_bundles_without_them_too(bundle):
    assert read_manifest(bundle).trials == ()
    trial = {"tried": {"layout": "padded"}, "instead_of": {"layout": "packed"}, "ratio": 0.8}
    change(bundle, trials=[trial])
    manifest = read_manifest(bundle)
    assert [one.model_dump() for one in manifest.trials] == [trial]
    write_manifest(bundle, manifest)
    assert read_manifest(bundle).trials == manifest.trials


def test_a_changed_byte_is_found(bundle):
    (bundle / "model.onnx").write_bytes(b"grapH")
    with pytest.raises(DigestError, match=r"model.onnx was altered: sha256 .* export or copy the bundle again"):
        verify_files(bundle, read_manifest(bundle))


def test_a_missing_file_is_found(bundle):
    (bundle / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer.json is missing"):
        verify_files(bundle, read_manifest(bundle))


def test_a_half_written_bundle_has_no_manifest(bundle):
    (bundle / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"not a complete bundle: manifest.json cannot be read"):
        read_manifest(bundle)


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"schema_version": 1}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"precision": "fp8"}, "precision"),
        ({"variant": "../dense"}, "variant"),
        ({"quality": {"metric": "accuracy", "value": 1.5, "data": "x", "num_examples": 1}}, "quality.value"),
    ],
)
def test_a_malformed_manifest_names_the_place(bundle, values, place):
    change(bundle, **values)
    with pytest.raises(BundleError, match=f"malformed at {place}: .*; export again"):
        read_manifest(bundle)


def test_files_must_be_listed_and_inside(bundle):
    change(bundle, files={})
    with pytest.raises(BundleError, match=r"does not list model.onnx, tokenizer.json, golden.json"):
        verify_files(bundle, read_manifest(bundle))


@pytest.mark.parametrize("outside", ["../secret", "hf/../../secret", "/secret"])
def test_a_file_outside_the_bundle_is_not_read(bundle, tmp_path_factory, outside):
    there = tmp_path_factory.mktemp("elsewhere") / "secret"
    there.write_text("x")
    name = str(there) if outside == "/secret" else outside
    files = {path.name: digest_file(path).model_dump() for path in bundle.iterdir() if path.name != "manifest.json"}
    change(bundle, files=files | {name: digest_file(there).model_dump()})
    with pytest.raises(BundleError, match="outside the bundle"):
        verify_files(bundle, read_manifest(bundle))


@pytest.mark.parametrize(
    ("old", "new"), [('["no", "yes"]', '["yes", "no"]'), ("demo", "demp"), ("true", "false"), ("0.9", "0.8")]
)
def test_a_changed_byte_of_the_manifest_is_found(bundle, old, new):
    path = bundle / "manifest.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DigestError, match=r"manifest.json was altered: .*; export or copy the bundle again"):
        read_manifest(bundle)


def test_golden_needs_a_row_for_each_input(bundle):
    (bundle / "golden.json").write_text('{"inputs": [{"text": "a"}], "logits": [], "tolerance": 0.001}')
    with pytest.raises(BundleError, match="1 inputs but 0 logits"):
        read_golden(bundle)


@pytest.mark.parametrize(
    ("batch_invariant", "batch_difference", "shared"),
    [(True, None, True), (True, 1e-6, True), (False, None, False), (False, 0.02, True), (False, 0.021, False)],
)
def test_texts_share_batches_where_that_moves_logits_by_rounding_at_most(
    bundle, batch_invariant, batch_difference, shared
):
    assert read_manifest(bundle).batch_difference is None  # older bundles
    change(bundle, batch_invariant=batch_invariant, batch_difference=batch_difference)
    assert read_manifest(bundle).shares_batches == shared


def test_files_that_no_digest_vouches_for_are_found(bundle):
    manifest = read_manifest(bundle)
    assert unlisted_files(bundle, manifest) == []
    (bundle / "hf").mkdir()
    (bundle / "hf" / "extra.py").write_text("print(1)")
    (bundle / "link.py").symlink_to(bundle / "nowhere")
    assert unlisted_files(bundle, manifest) == ["hf/extra.py", "link.py"]
