"""Whatever schemathesis makes up from our OpenAPI gets a status, a type and a body that the OpenAPI tells of.

By hand, since it brings twenty packages: `pip install schemathesis`, then
`SPARSEBERT_EXAMPLES=3000 pytest tests/service/faults/test_openapi.py`.
"""

import os

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="run by hand: pip install schemathesis")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis import GenerationMode, checks  # noqa: E402

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
    }
]  # fmt: skip


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_operation(service_url: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{service_url}/openapi.json")
    failures, operations = {}, []
    for found in schema.get_all_operations():
        operation = found.ok()
        operations.append(operation.label)
        try:
            check_operation(operation.as_strategy(generation_mode=mode))
        except Unsatisfiable:  # nothing can be wrong about a GET without parameters
            assert mode is GenerationMode.NEGATIVE
        except BaseExceptionGroup as error:
            failures[operation.label] = error
    assert len(operations) >= 20
    assert not failures


def check_operation(cases: object) -> None:
    @settings(max_examples=NUM_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def check(case: object) -> None:
        response = case.call()
        assert response.status_code < 500 or response.status_code in {503, 504}, response.text
        case.validate_response(response, checks=CHECKS)

    check()
