"""A real service: what it answers, and how it refuses."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.conftest import KINDS, Service
from tests.serving.support import SECONDS
from tests.ssad.workflows.support import environment, run_python

pytestmark = [
    pytest.mark.slow,
    # httpx and the server's log are closed by the session's end, not by a test's.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def expected(service: Service, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return service.bundle.score({name: [row[name] for row in rows] for name in KINDS}).records()


def assert_predicts(answer: httpx.Response, wanted: list[dict[str, Any]]) -> None:
    assert answer.status_code == 200, answer.text
    predictions = answer.json()["predictions"]
    assert [sorted(row) for row in predictions] == [["confidence", "region", "score"]] * len(wanted)
    for found, row in zip(predictions, wanted, strict=True):
        assert found["score"] == pytest.approx(row["score"], rel=1e-5)
        assert found["confidence"] == pytest.approx(row["confidence"], abs=1e-5)
        assert found["region"] == row["region"]


def assert_refused(answer: httpx.Response, status: int, *named: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["title"]
    for name in named:
        assert name in problem["detail"]


def changed(service: Service, row: int, **values: Any) -> dict[str, Any]:
    """The first three rows as records, with some values of one row replaced."""
    rows = [dict(record) for record in service.rows[:3]]
    rows[row].update(values)
    return {"records": rows}


def test_large_bodies_are_scored_on_the_cores_that_may_be_used(tmp_path: Path) -> None:
    """Which are those of the machine only where nobody has pinned the process, as a container's `cpuset` does."""
    code = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from serving.settings import read_settings
from serving.state import Service
print(Service(read_settings(cache="cache")).scorers._max_workers)
"""
    ended = run_python("-c", code, cwd=tmp_path, env=environment(""))
    assert (ended.stdout, ended.stderr) == ("1\n", "")


def test_records_are_scored(service: Service) -> None:
    assert_predicts(service.score({"records": service.rows}), expected(service, service.rows))


def test_columns_and_rows_are_scored(service: Service) -> None:
    names = list(KINDS)[::-1]
    document = {"columns": names, "rows": [[row[name] for name in names] for row in service.rows]}
    assert_predicts(service.score(document), expected(service, service.rows))


def test_the_answer_names_the_model_and_its_version(service: Service) -> None:
    answer = service.score({"records": service.rows[:1]})
    assert answer.json()["model"] == {"name": "payments", "version": "1"}
    assert answer.headers["x-model-name"] == "payments"
    assert answer.headers["x-model-version"] == "1"


def layouts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    values = [[row[name] for name in KINDS] for row in rows]
    return {
        "dataframe_split": {"columns": list(KINDS), "data": values},
        "dataframe_split with an index": {"columns": list(KINDS), "index": list(range(len(rows))), "data": values},
        "dataframe_records": rows,
        "instances": rows,
        "instances as lists": values,
        "inputs": {name: [row[name] for row in rows] for name in KINDS},
        "inputs as lists": values,
        "inputs as records": rows,
    }


@pytest.mark.parametrize("layout", layouts([]))
def test_every_layout_of_mlflow_is_scored(service: Service, layout: str) -> None:
    document = {layout.split(" ")[0]: layouts(service.rows)[layout]}
    assert_predicts(service.invoke(document), expected(service, service.rows))


@pytest.mark.parametrize("content_type", ["text/csv", "text/csv; charset=utf-8"])
def test_csv_is_scored(service: Service, content_type: str) -> None:
    body = pd.DataFrame(service.rows).to_csv(index=False)
    answer = service.client.post("/invocations", content=body, headers={"Content-Type": content_type})
    assert_predicts(answer, expected(service, service.rows))


def test_many_rows_are_scored(service: Service) -> None:
    rows = service.rows * 100
    assert_predicts(service.score({"records": rows}), expected(service, rows))


def test_requests_at_the_same_time_get_their_own_answers(service: Service) -> None:
    wanted = expected(service, service.rows)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda row: service.score({"records": [row]}), service.rows * 3))
    for answer, row in zip(answers, wanted * 3, strict=True):
        assert_predicts(answer, [row])


@pytest.mark.parametrize("path", ["/ping", "/health", "/livez", "/readyz"])
def test_it_says_that_it_is_up(service: Service, path: str) -> None:
    assert service.client.get(path).status_code == 200


def test_it_describes_its_model(service: Service) -> None:
    model = service.client.get("/v1/model").json()
    assert (model["name"], model["version"], model["detector"]) == ("payments", "1", "ssad")
    assert {column["name"]: column["kind"] for column in model["columns"]} == KINDS
    assert model["thresholds"] == service.bundle.curve.to_json()["thresholds"]


def test_a_category_never_seen_is_scored(service: Service) -> None:
    answer = service.score(changed(service, 1, kind="barter"))
    assert math.isfinite(answer.json()["predictions"][1]["score"])


def test_an_unknown_column_is_ignored(service: Service) -> None:
    assert_predicts(service.score(changed(service, 1, colour="red")), expected(service, service.rows[:3]))


@pytest.mark.parametrize("name", KINDS)
def test_a_missing_value_is_scored(service: Service, name: str) -> None:
    assert service.score(changed(service, 1, **{name: None})).status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b"\xff\xfe", b'{"records": [{"amount": NaN}]}', b'{"records": [{"amount": Infinity}]}'],
)
@pytest.mark.parametrize("path", ["/v1/score", "/invocations"])
def test_a_body_that_is_no_json_is_refused(service: Service, path: str, body: bytes) -> None:
    answer = service.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert_refused(answer, answer.status_code)
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize(
    "document",
    [
        3,
        "text",
        [],
        {},
        {"records": []},
        {"records": None},
        {"records": {}},
        {"records": [1]},
        {"records": [[]]},
        {"records": [{}]},
        {"records": [], "columns": []},
        {"columns": ["amount"]},
        {"columns": [], "rows": []},
        {"columns": ["amount"], "rows": [3]},
        {"columns": [1], "rows": [[1]]},
        {"columns": "amount", "rows": [[1]]},
    ],
)
def test_a_document_of_another_layout_is_refused(service: Service, document: Any) -> None:
    assert_refused(service.score(document), 422)


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"instances": []},
        {"instances": [[]]},
        {"instances": 3},
        {"inputs": {}},
        {"inputs": {"amount": 3}},
        {"inputs": {name: [] for name in KINDS}},
        {"inputs": []},
        {"dataframe_split": {}},
        {"dataframe_split": {"columns": ["amount"], "data": []}},
        {"dataframe_split": {"columns": {}, "data": [[1]]}},
        {"dataframe_split": []},
        {"dataframe_records": []},
        {"dataframe_records": [], "inputs": []},
    ],
)
def test_an_invocation_of_another_layout_is_refused(service: Service, document: Any) -> None:
    assert_refused(service.invoke(document), 422)


@pytest.mark.parametrize("body", ["", "amount,count\n", "amount\n1\n", "\x00\x01", "a,b\n1,2,3,4\n1\n"])
def test_a_csv_that_is_none_is_refused(service: Service, body: str) -> None:
    answer = service.client.post("/invocations", content=body, headers={"Content-Type": "text/csv"})
    assert_refused(answer, 422)


def test_a_csv_whose_rows_have_more_fields_than_its_header_is_refused_with_the_line(service: Service) -> None:
    header, *rows = pd.DataFrame(service.rows).to_csv(index=False).splitlines()
    body = "\n".join([header, *(f"{row}," for row in rows)])
    answer = service.client.post("/invocations", content=body, headers={"Content-Type": "text/csv"})
    assert_refused(answer, 422, "see line 2")


def test_missing_columns_are_all_named(service: Service) -> None:
    rows = [{name: row[name] for name in KINDS if name not in ("count", "kind")} for row in service.rows]
    assert_refused(service.score({"records": rows}), 422, "count", "kind", "2 of the detector's 5")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("amount", "much"),
        ("amount", []),
        ("amount", {}),
        ("amount", [1, 2]),
        ("count", "4 items"),
        ("paid", "perhaps"),
        ("paid", [True]),
        ("day", "yesterday"),
        ("day", "2025-13-01"),
        ("day", 20250101),
        ("day", True),
        ("day", []),
        ("kind", []),
        ("kind", {"a": 1}),
        ("kind", ["card"]),
    ],
)
def test_a_value_of_another_kind_is_refused_by_row_and_column(service: Service, name: str, value: Any) -> None:
    assert_refused(service.score(changed(service, 1, **{name: value})), 422, "row 1", f"'{name}'")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("amount", [1.5, True, "7"]),
        ("amount", [True, "7", None]),
        ("count", [1, "2", False]),
        ("paid", [True, 1, "no"]),
        ("paid", [0.0, "true", None]),
        ("day", ["2025-01-01", None, "2025-01-01T10:00:00Z"]),
        ("day", ["2025-01-01", "20250101", "2025-W01-1"]),
        ("kind", [1, 2.5, "card"]),
        ("kind", [1, 2.5, None]),
        ("kind", [True, 1, None]),
    ],
)
def test_values_of_several_types_score_together_as_they_do_alone(
    service: Service, name: str, values: list[Any]
) -> None:
    rows = [{**row, name: value} for row, value in zip(service.rows, values, strict=False)]
    together = service.score({"records": rows})
    assert together.status_code == 200, together.text
    alone = [service.score({"records": [row]}).json()["predictions"][0] for row in rows]
    assert_predicts(together, alone)


def test_several_wrong_values_are_named_together(service: Service) -> None:
    document = changed(service, 0, amount="x")
    document["records"][2]["day"] = "never"
    assert_refused(service.score(document), 422, "row 0", "'amount'", "row 2", "'day'")


def test_a_column_of_lists_is_refused_and_not_a_500(service: Service) -> None:
    rows = [{**row, "amount": [1.0, 2.0]} for row in service.rows[:3]]
    assert_refused(service.score({"records": rows}), 422, "'amount'")


def test_ragged_rows_are_named(service: Service) -> None:
    values = [[row[name] for name in KINDS] for row in service.rows[:4]]
    values[2] = values[2][:-1]
    assert_refused(service.score({"columns": list(KINDS), "rows": values}), 422, "row 2")


def test_columns_of_different_length_are_refused(service: Service) -> None:
    columns = {name: [row[name] for row in service.rows] for name in KINDS}
    columns["amount"] = columns["amount"][:-1]
    assert_refused(service.invoke({"inputs": columns}), 422, "length")


def test_a_column_named_twice_is_refused(service: Service) -> None:
    values = [[*[row[name] for name in KINDS], 7] for row in service.rows[:2]]
    assert_refused(service.score({"columns": [*KINDS, "amount"], "rows": values}), 422, "amount")


@pytest.mark.parametrize("value", [1e308, -1e308, 10**400, "1e999", True])
def test_a_number_too_large_is_scored_or_refused(service: Service, value: Any) -> None:
    answer = service.client.post("/v1/score", content=json.dumps(changed(service, 1, amount=value)))
    assert answer.status_code in (200, 400, 422), answer.text
    if answer.status_code == 200:
        assert all(isinstance(row["score"], float) for row in answer.json()["predictions"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/score", 405),
        ("PUT", "/invocations", 405),
        ("POST", "/ping", 405),
        ("GET", "/nothing", 404),
        ("POST", "/v1/nothing", 404),
    ],
)
def test_a_wrong_method_or_path_is_a_problem_too(service: Service, method: str, path: str, status: int) -> None:
    assert_refused(service.client.request(method, path), status)


@pytest.mark.parametrize("length", ["-1", "abc"])
def test_a_content_length_that_is_none_is_refused(service: Service, length: str) -> None:
    import socket

    host, port = service.client.base_url.host, service.client.base_url.port
    assert port is not None
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        connection.sendall(f"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
        assert connection.recv(1000).split(b" ")[1].startswith(b"4")


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64),
    st.floats(allow_nan=False),
    st.sampled_from(["", "7", "true", "2025-01-01", "2025-01-01T00:00:00Z", "card", "1e999"]),
)
records = st.fixed_dictionaries(dict.fromkeys(KINDS, scalars | json_values))
documents = st.one_of(
    json_values,
    st.fixed_dictionaries({"records": json_values}),
    st.fixed_dictionaries({"records": st.lists(records, max_size=3)}),
    st.fixed_dictionaries({"records": st.lists(st.fixed_dictionaries(dict.fromkeys(KINDS, scalars)), max_size=4)}),
    st.fixed_dictionaries({"columns": json_values, "rows": json_values}),
    st.fixed_dictionaries({"columns": st.just(list(KINDS)), "rows": st.lists(st.lists(json_values, max_size=6))}),
    st.fixed_dictionaries({"dataframe_split": json_values}),
    st.fixed_dictionaries({"dataframe_records": st.lists(records, max_size=3)}),
    st.fixed_dictionaries({"inputs": st.dictionaries(st.sampled_from(list(KINDS)), json_values)}),
    st.fixed_dictionaries({"instances": json_values}),
)


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(document=documents)
def test_no_document_makes_the_service_fail(service: Service, document: Any) -> None:
    body = json.dumps(document)
    for path in ("/v1/score", "/invocations"):
        answer = service.client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 400, 422), f"{path} {body} -> {answer.status_code}"
        if answer.status_code != 200:
            assert_refused(answer, answer.status_code)


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=60) | st.text(alphabet='amount,count\n"1;', max_size=60).map(str.encode))
def test_no_csv_makes_the_service_fail(service: Service, body: bytes) -> None:
    answer = service.client.post("/invocations", content=body, headers={"Content-Type": "text/csv"})
    assert answer.status_code in (200, 400, 422), f"{body!r} -> {answer.status_code}"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="memory maps are Linux's")
def test_the_service_has_loaded_neither_torch_nor_mlflow(service: Service) -> None:
    service.score({"records": service.rows})
    maps = Path(f"/proc/{service.pid}/maps").read_text()
    assert "onnxruntime" in maps
    for library in ("/torch/", "libtorch", "/sklearn/", "/matplotlib/", "/scipy/"):
        assert library not in maps, library
