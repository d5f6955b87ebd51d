"""What the admin routes refuse: what is no name, changes while the service stops, and models over the wire."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

VARIANTS = "/v1/admin/models/reviews/variants"


@pytest.mark.parametrize(
    ("model", "variant"),
    [
        ("nope", "sparse"), ("reviews", "nope"), ("reviews", ".."), ("..", "reviews"), ("reviews", "..%2fsparse"),
        ("reviews", "%2e%2e"), ("%2e%2e", "models"), ("reviews", "sparse%00"), ("reviews", ".hidden"),
        ("%2ftmp", "x"), ("reviews", "*"), ("reviews", "s" * 5000),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["load", "unload"])
def test_only_names_that_were_found_are_names(
    admin_client: TestClient, models_folder: Path, model: str, variant: str, verb: str
) -> None:
    (models_folder / "reviews" / ".hidden").mkdir()
    refused = admin_client.post(f"/v1/admin/models/{model}/variants/{variant}/{verb}")
    assert refused.status_code == 404
    assert refused.json()["error"].startswith(
        ("there is no model ", "model 'reviews' has no variant ", "there is no path")
    )
    assert len(admin_client.get("/v1/models").json()["variants"]) == 2


def test_nothing_is_changed_while_the_service_stops(admin_client: TestClient) -> None:
    admin_client.app.state.serving.drain.begin(0.0)
    for verb in ("load", "unload"):
        refused = admin_client.post(f"{VARIANTS}/sparse/{verb}")
        assert refused.status_code == 503
        assert refused.json()["error"].startswith("the service is stopping")
        assert admin_client.post(f"/v2/repository/models/reviews/{verb}").status_code == 503


@pytest.mark.parametrize("name", ["config", "file:1/model.onnx"])
def test_the_protocol_takes_no_models_over_the_wire(admin_client: TestClient, name: str) -> None:
    refused = admin_client.post("/v2/repository/models/reviews/load", json={"parameters": {name: "{}"}})
    assert (refused.status_code, refused.json()["error"]) == (
        400,
        f"the parameter {name!r} is not taken; a bundle is loaded as it lies in the models folder: change it there",
    )
    assert admin_client.post("/v2/repository/models/reviews/load", content=b"[]").status_code == 400
    assert admin_client.post("/v2/repository/models/reviews/load", content=b"{").status_code == 400
