"""The REST reference of the site names what the service answers."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import PROJECT
from tests.serving.conftest import Service

REFERENCE = PROJECT / "docs" / "openapi.json"


def operations(document: dict[str, Any]) -> set[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
    """Path, method, parameters and statuses of everything that can be asked."""
    return {
        (
            path,
            method,
            tuple(parameter["name"] for parameter in operation.get("parameters", [])),
            tuple(sorted(operation["responses"])),
        )
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_reference_names_every_path_with_its_parameters(service: Service) -> None:
    """If it does not: save the `/openapi.json` of a service of the model `payments` as `docs/openapi.json`."""
    served = service.client.get("/openapi.json").json()
    written = json.loads(REFERENCE.read_text())
    assert operations(written) == operations(served)
    assert written["components"]["schemas"].keys() == served["components"]["schemas"].keys()
