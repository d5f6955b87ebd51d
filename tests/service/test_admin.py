"""The admin routes change what serves; a load that fails changes nothing, and names are never paths."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sparsebert.manifest import seal

WriteBundle = Callable[..., Path]
FIRST, SECOND = "0123456789ab", "ba9876543210"
VARIANTS = "/v1/admin/models/reviews/variants"


def renew(models: Path, write_bundle: WriteBundle, variant: str, seed: int, version: str = SECOND) -> Path:
    shutil.rmtree(models / "reviews" / variant)
    return write_bundle(models, variant=variant, seed=seed, version=version)


def label(client: TestClient, text: str = "good", **asked: str) -> tuple[str, float]:
    answer = client.post("/v1/predict", json={"inputs": text, **asked}).json()
    return answer["version"], answer["predictions"][0]["scores"]["positive"]


def state(client: TestClient, variant: str) -> tuple[str, str | None]:
    [found] = [one for one in client.get("/v1/models").json()["variants"] if one["variant"] == variant]
    return found["state"], found["error"]


def series(client: TestClient, variant: str) -> dict[str, float]:
    """The series of a variant, without histograms."""
    lines = [line for line in client.get("/metrics").text.splitlines() if f'variant="{variant}"' in line]
    values = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    return {name: value for name, value in values.items() if "_bucket{" not in name}


def ended_well(version: str, variant: str = "sparse") -> str:
    labels = f'model="reviews",outcome="ok",variant="{variant}",version="{version}"'
    return f"sparsebert_inference_requests_total{{{labels}}}"


def infos(found: dict[str, float]) -> list[str]:
    """The versions that the series of `sparsebert_model_info` tell."""
    told = (re.search(r'^sparsebert_model_info\{.*version="(\w+)"', name) for name in found)
    return [one[1] for one in told if one]


def test_a_new_version_takes_the_place_of_the_old_one(
    admin_client: TestClient, models_folder: Path, write_bundle: WriteBundle
) -> None:
    first = label(admin_client, variant="sparse")
    renew(models_folder, write_bundle, "sparse", seed=7)
    assert label(admin_client, variant="sparse") == first
    answer = admin_client.post(f"{VARIANTS}/sparse/load")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["model"], told["variant"], told["version"], told["former_version"]) == (
        "reviews", "sparse", SECOND, FIRST,
    )  # fmt: skip
    second = label(admin_client, variant="sparse")
    assert (first[0], second[0]) == (FIRST, SECOND)
    assert first[1] != second[1]
    assert [one["version"] for one in admin_client.get("/v1/models").json()["variants"]] == [FIRST, SECOND]
    after = series(admin_client, "sparse")
    assert (after[ended_well(FIRST)], after[ended_well(SECOND)]) == (2, 1)
    assert infos(after) == [SECOND]
    assert after['sparsebert_inference_inputs_total{model="reviews",variant="sparse"}'] == 3
    metadata = admin_client.get("/v2/models/reviews/versions/sparse").json()
    assert metadata["properties"]["bundle_version"] == SECOND


def change_a_byte(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)


def change_golden(folder: Path) -> None:
    golden = json.loads((folder / "golden.json").read_text())
    golden["logits"] = [[9.0, 9.0]]
    (folder / "golden.json").write_text(json.dumps(golden))


def rename(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(seal(manifest | {"variant": "other"})))


FAILURES = [
    (change_a_byte, "reviews/sparse/model.onnx was altered: sha256"),
    (change_golden, "reviews/sparse/golden.json was altered: sha256"),
    (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    (lambda folder: (folder / "manifest.json").write_text("{}"), "is malformed at name"),
    (rename, "holds the bundle reviews/other"),
    (shutil.rmtree, "the models folder has no reviews/sparse any more; put its bundle there"),
    (lambda folder: shutil.rmtree(folder.parents[1]), "the models folder has no reviews/sparse any more"),
]


@pytest.mark.parametrize(("damage", "words"), FAILURES)
def test_a_load_that_fails_changes_nothing(
    admin_client: TestClient, models_folder: Path, damage: Callable[[Path], None], words: str
) -> None:
    before, labelled = series(admin_client, "sparse"), label(admin_client, variant="sparse")
    damage(models_folder / "reviews" / "sparse")
    refused = admin_client.post(f"{VARIANTS}/sparse/load")
    assert refused.status_code == 409
    sentence = refused.json()["error"]
    assert sentence.startswith("variant reviews/sparse did not load: ")
    assert sentence.endswith("; the bundle that was loaded before still serves")
    assert words in sentence
    assert str(models_folder) not in sentence
    ready, error = state(admin_client, "sparse")
    assert ready == "ready"
    assert error is not None
    assert words in error
    assert label(admin_client, variant="sparse") == labelled
    assert admin_client.get("/readyz").status_code == 200
    assert series(admin_client, "sparse").keys() == before.keys()
    index = admin_client.post("/v2/repository/index").json()
    assert [(one["version"], one["state"], one["reason"]) for one in index] == [
        ("dense", "READY", ""), ("sparse", "READY", error),
    ]  # fmt: skip


def test_a_good_load_after_a_failed_one_clears_the_error(
    admin_client: TestClient, models_folder: Path, write_bundle: WriteBundle
) -> None:
    change_a_byte(models_folder / "reviews" / "sparse")
    assert admin_client.post(f"{VARIANTS}/sparse/load").status_code == 409
    renew(models_folder, write_bundle, "sparse", seed=1)
    assert admin_client.post(f"{VARIANTS}/sparse/load").status_code == 200
    assert state(admin_client, "sparse") == ("ready", None)


def test_a_graph_that_is_replaced_on_disk_does_not_harm_what_serves(
    admin_client: TestClient, models_folder: Path
) -> None:
    graph = models_folder / "reviews" / "sparse" / "model.onnx"
    before = label(admin_client, "the good film " * 3, variant="sparse")
    graph.write_bytes(b"\0" * 10)
    assert label(admin_client, "the good film " * 3, variant="sparse") == before
    graph.unlink()
    assert label(admin_client, "the good film " * 3, variant="sparse") == before
    assert "model.onnx is missing" in admin_client.post(f"{VARIANTS}/sparse/load").json()["error"]
    assert label(admin_client, "the good film " * 3, variant="sparse") == before


def test_what_is_unloaded_answers_no_more_and_comes_back(admin_client: TestClient) -> None:
    labelled = label(admin_client, variant="sparse")
    answer = admin_client.post(f"{VARIANTS}/sparse/unload")
    assert (answer.status_code, answer.json()) == (
        200, {"model": "reviews", "variant": "sparse", "former_version": FIRST, "gone": True},
    )  # fmt: skip
    refused = admin_client.post("/v1/predict", json={"inputs": "good", "variant": "sparse"})
    assert refused.status_code == 404
    assert refused.json()["error"] == (
        "variant reviews/sparse is not loaded; load it, or ask for one that is: reviews/dense"
    )
    assert state(admin_client, "sparse") == ("unloaded", None)
    assert admin_client.get("/readyz").status_code == 200
    assert admin_client.get("/v2/health/ready").status_code == 200
    assert admin_client.get("/v2/models/reviews/versions/sparse/ready").status_code == 404
    compared = admin_client.post("/v1/compare", json={"inputs": "good"})
    assert compared.status_code == 404
    assert compared.json()["error"] == (
        "comparing needs two variants of reviews that are ready, here is dense; "
        "load another one, or send the texts to /v1/predict"
    )
    index = admin_client.post("/v2/repository/index").json()
    assert index[1] == {"name": "reviews", "version": "sparse", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert len(admin_client.get("/v2/models/stats").json()["model_stats"]) == 1
    again = admin_client.post(f"{VARIANTS}/sparse/unload")
    assert (again.status_code, again.json()["former_version"]) == (200, None)
    assert admin_client.post(f"{VARIANTS}/sparse/load").json()["former_version"] is None
    assert label(admin_client, variant="sparse") == labelled


def test_the_gauges_of_what_is_unloaded_go_and_its_counters_stay(admin_client: TestClient) -> None:
    label(admin_client, variant="sparse")
    before = series(admin_client, "sparse")
    admin_client.post(f"{VARIANTS}/sparse/unload")
    after = series(admin_client, "sparse")
    gone = {name.partition("{")[0] for name in before.keys() - after.keys()}
    assert gone == {
        "sparsebert_model_info", "sparsebert_model_ready", "sparsebert_model_load_duration_seconds",
        "sparsebert_model_memory_bytes", "sparsebert_queue_depth", "sparsebert_queue_tokens",
        "sparsebert_batcher_silence_seconds",
    }  # fmt: skip
    assert {name: before[name] for name in after} == after
    assert after[ended_well(FIRST)] == 1
    admin_client.post(f"{VARIANTS}/sparse/load")
    label(admin_client, variant="sparse")
    loaded = series(admin_client, "sparse")
    assert loaded.keys() == before.keys()
    assert loaded[ended_well(FIRST)] == 2


def test_no_other_variant_takes_the_place_of_a_default_that_is_unloaded(admin_client: TestClient) -> None:
    admin_client.post(f"{VARIANTS}/dense/unload")
    refused = admin_client.post("/v1/predict", json={"inputs": "good"})
    assert (refused.status_code, refused.json()["error"]) == (
        404, "variant reviews/dense is not loaded; load it, or ask for one that is: reviews/sparse",
    )  # fmt: skip
    assert label(admin_client, variant="sparse")[0] == FIRST
    assert admin_client.get("/readyz").status_code == 200


def test_a_service_in_which_nothing_is_loaded_lives_and_is_not_ready(admin_client: TestClient) -> None:
    for variant in ("dense", "sparse"):
        admin_client.post(f"{VARIANTS}/{variant}/unload")
    ready = admin_client.get("/readyz")
    assert (ready.status_code, ready.json()["error"]) == (503, "no variant is loaded; load one")
    assert admin_client.get("/v2/health/ready").status_code == 503
    assert admin_client.get("/healthz").status_code == 200
    assert admin_client.get("/metrics").status_code == 200
    refused = admin_client.post("/v1/predict", json={"inputs": "good"})
    assert refused.json()["error"] == ("variant reviews/dense is not loaded; load it, or ask for one that is: none")
    admin_client.post(f"{VARIANTS}/dense/load")
    assert admin_client.get("/readyz").status_code == 200
    assert label(admin_client)[0] == FIRST


def test_a_load_of_what_is_not_loaded_may_fail_too(admin_client: TestClient, models_folder: Path) -> None:
    admin_client.post(f"{VARIANTS}/sparse/unload")
    change_a_byte(models_folder / "reviews" / "sparse")
    sentence = admin_client.post(f"{VARIANTS}/sparse/load").json()["error"]
    assert sentence.endswith("export or copy the bundle again")
    unloaded, error = state(admin_client, "sparse")
    assert unloaded == "unloaded"
    assert error is not None
    assert "was altered" in error
    assert admin_client.get("/readyz").status_code == 200
    assert admin_client.post("/v1/predict", json={"inputs": "good", "variant": "sparse"}).status_code == 404


def test_a_new_bundle_is_loaded_and_nobody_gets_to_it_unasked(
    admin_client: TestClient, models_folder: Path, write_bundle: WriteBundle
) -> None:
    write_bundle(models_folder, variant="best", seed=5, version=SECOND)
    write_bundle(models_folder, model="news", variant="tiny", seed=6)
    listed = [
        (one["model"], one["variant"], one["state"], one["found"], one["default"])
        for one in admin_client.get("/v1/admin/models").json()["variants"]
    ]
    assert listed == [
        ("news", "tiny", "unloaded", True, False),
        ("reviews", "best", "unloaded", True, False),
        ("reviews", "dense", "ready", True, True),
        ("reviews", "sparse", "ready", True, False),
    ]
    assert admin_client.post("/v1/predict", json={"inputs": "good", "variant": "best"}).status_code == 404
    assert admin_client.post(f"{VARIANTS}/best/unload").json()["former_version"] is None
    assert admin_client.post(f"{VARIANTS}/best/load").status_code == 200
    assert admin_client.post("/v1/admin/models/news/variants/tiny/load").status_code == 200
    assert label(admin_client, variant="best")[0] == SECOND
    assert label(admin_client)[0] == FIRST
    assert label(admin_client, model="reviews")[0] == FIRST
    assert label(admin_client, model="news")[0] == FIRST


def test_the_list_tells_what_is_gone_from_the_folder(admin_client: TestClient, models_folder: Path) -> None:
    shutil.rmtree(models_folder / "reviews" / "sparse")
    dense, sparse = admin_client.get("/v1/admin/models").json()["variants"]
    assert (dense["found"], sparse["found"]) == (True, False)
    assert sparse == {
        "model": "reviews", "variant": "sparse", "default": False, "state": "ready", "error": None, "version": FIRST,
        "found": False, "loading": False,
    }  # fmt: skip


def test_the_protocol_loads_and_unloads(
    admin_client: TestClient, models_folder: Path, write_bundle: WriteBundle
) -> None:
    def states() -> list[str]:
        return [one["state"] for one in admin_client.post("/v2/repository/index").json()]

    repository = "/v2/repository/models"
    answer = admin_client.post(f"{repository}/reviews.sparse/unload", json={"parameters": {"unload_dependents": False}})
    assert (answer.status_code, answer.content) == (200, b"")
    assert states() == ["READY", "UNAVAILABLE"]
    assert admin_client.post(f"{repository}/reviews/unload").status_code == 200
    assert states() == ["UNAVAILABLE", "UNAVAILABLE"]
    write_bundle(models_folder, variant="best", seed=5)
    answer = admin_client.post(f"{repository}/reviews/load", content=b"{}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert states() == ["READY", "READY", "READY"]
    renew(models_folder, write_bundle, "best", seed=6)
    change_a_byte(models_folder / "reviews" / "dense")
    refused = admin_client.post(f"{repository}/reviews/load")
    assert refused.status_code == 409
    assert refused.json()["error"].startswith("variant reviews/dense did not load: ")
    assert [label(admin_client, variant=one)[0] for one in ("best", "dense", "sparse")] == [SECOND, FIRST, FIRST]
    assert admin_client.post(f"{repository}/nope/load").json()["error"].startswith("there is no model 'nope'")
    assert admin_client.post(f"{repository}/reviews.nope/unload").status_code == 404
