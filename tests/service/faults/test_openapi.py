"""Whatever schemathesis makes up from our OpenAPI gets a status, a type and a body that the OpenAPI tells of.

Of a service without keys, and of one with keys by an admin, whose requests load and unload what lies there.

By hand, since it brings twenty packages: `pip install schemathesis`, then
`SPARSEBERT_EXAMPLES=3000 pytest tests/service/faults/test_openapi.py`.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="run by hand: pip install schemathesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis import GenerationMode, checks  # noqa: E402

from benchmarks.service_process import started  # noqa: E402
from service.keys import Scope, make_key, write_line  # noqa: E402

checks.load_all_checks()
NUM_EXAMPLES = int(os.environ.get("SPARSEBERT_EXAMPLES", "100"))
# Not that whatever the schema allows is accepted (a text of spaces is not), nor that nothing is a 503 or 504.
CHECKS = [
    one
    for one in checks.CHECKS.get_all()
    if one.__name__
    in {
        "status_code_conformance", "content_type_conformance", "response_headers_conformance",
        "response_schema_conformance", "negative_data_rejection", "unsupported_method", "allow_header_conformance",
        "ignored_auth",
    }
]  # fmt: skip
# None is whatever schemathesis makes up.
MODELS, VARIANTS = (None, "reviews", "reviews.sparse", "broken"), (None, "dense", "sparse")


@dataclass(frozen=True)
class Target:
    """A service, and what goes with every request to it."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module", params=["open", "keyed"])
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, write_bundle: Callable[..., Path]
) -> Iterator[Target]:
    """Serves `reviews`; of `broken` the bundle cannot be loaded."""
    folder = tmp_path_factory.mktemp("fuzzed")
    write_bundle(folder, variant="dense", seed=0)
    write_bundle(folder, variant="sparse", seed=1)
    write_bundle(folder, model="broken", golden_off_by=1.0)
    flags, headers = ["--threads", "1", "--default-variant", "reviews/dense"], {}
    if request.param == "keyed":
        plain, key = make_key("operator", Scope.ADMIN, None, lambda size: "k" * size)
        keys = tmp_path_factory.mktemp("keys") / "keys.jsonl"
        keys.write_text(write_line(key))
        keys.chmod(0o600)
        flags, headers = [*flags, "--api-keys", str(keys)], {"X-API-Key": plain, "Authorization": f"Bearer {plain}"}
    with started(folder, *flags) as service:
        yield Target(service.url, headers)
        service.process.terminate()
        code, log = service.ending()
        assert (code, "Traceback" in log) == (0, False), log


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_operation(target: Target, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{target.url}/openapi.json")
    failures, operations = {}, []
    for found in schema.get_all_operations():
        operation = found.ok()
        operations.append(operation.label)
        try:
            check_operation(operation.as_strategy(generation_mode=mode), target, mode)
        except Unsatisfiable:  # nothing can be wrong about a GET without parameters
            assert mode is GenerationMode.NEGATIVE
        except (AssertionError, BaseExceptionGroup) as error:
            failures[operation.label] = str(error)
    assert len(operations) >= 20
    assert not failures


def check_operation(cases: object, target: Target, mode: GenerationMode) -> None:
    names = st.fixed_dictionaries({"model": st.sampled_from(MODELS), "variant": st.sampled_from(VARIANTS)})

    @settings(max_examples=NUM_EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(case=cases, known=names)
    def check(case: object, known: dict[str, str | None]) -> None:
        if mode is GenerationMode.POSITIVE:  # a name that is there could mend what is wrong with the others
            case.path_parameters.update(
                {name: known[name] or value for name, value in case.path_parameters.items() if name in known}
            )
        response = case.call(headers=target.headers)
        assert response.status_code < 500 or response.status_code in {503, 504}, response.text
        case.validate_response(response, checks=CHECKS, headers=target.headers)

    check()
