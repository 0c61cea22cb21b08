"""Whatever bytes come: rows, or a refusal; never another error. `SSAD_TEST_BODIES` sets how many are tried."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import schemathesis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serving import bodies, tables
from serving.app import app_around
from serving.follower import Follower
from serving.problems import RefusalError
from serving.routers.inference_protocol import Inference
from serving.settings import read_settings
from serving.source import Source
from serving.state import Service
from ssad.bundle import Bundle
from ssad.errors import RowsError
from tests.serving.conftest import KINDS, mixed_table
from tests.serving.test_routes import arrow, packed

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

BODIES = int(os.environ.get("SSAD_TEST_BODIES", "300"))

LIMITS = read_settings(max_rows=1000, max_body_bytes=10**6)
TABLE = pa.Table.from_pandas(mixed_table().head(5), preserve_index=False)
WHOLE = {
    "parquet": packed(TABLE),
    "arrow": arrow(TABLE),
    "csv": mixed_table().head(5).to_csv(index=False).encode(),
    "json": b'{"records": ' + mixed_table().head(5).to_json(orient="records").encode() + b"}",
}

several = settings(max_examples=BODIES, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    return Bundle(bundle_folder)


def decoded(decode: Any, body: bytes, bundle: Bundle) -> bool:
    """Whether a body holds rows; one that does not is refused."""
    try:
        for inputs in decode(body, bundle.schema, LIMITS):
            assert inputs.numeric.shape == (len(inputs), len(bundle.schema.numeric))
    except (RowsError, RefusalError):
        return False
    return True


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """The body with a few bytes changed, cut out or put in."""
    at = st.integers(0, len(whole))
    edits = st.lists(st.tuples(at, st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=4)

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        body = whole
        for start, cut, put in edits:
            body = body[:start] + put + body[start + cut :]
        return body

    return edits.map(apply)


@pytest.mark.parametrize(
    ("decode", "whole"),
    [
        (tables.parquet_rows, "parquet"),
        (tables.arrow_rows, "arrow"),
        (tables.csv_rows, "csv"),
        (bodies.score_rows, "json"),
        (bodies.ndjson_rows, "json"),
    ],
)
@several
@given(data=st.data())
def test_a_damaged_body_is_read_or_refused(bundle: Bundle, decode: Any, whole: str, data: st.DataObject) -> None:
    decoded(decode, data.draw(damaged(WHOLE[whole]) | st.binary(max_size=200)), bundle)


@pytest.mark.parametrize(
    ("decode", "body"),
    [
        (tables.parquet_rows, WHOLE["parquet"].replace(b"amount", b"amou\x80t")),
        (tables.csv_rows, b"\n\x80,count\n1,2\n"),
        (tables.csv_rows, b"\n" + WHOLE["csv"].replace(b"count", b"amount", 1)),
    ],
)
def test_a_header_that_is_no_text_or_comes_late_is_refused(bundle: Bundle, decode: Any, body: bytes) -> None:
    assert not decoded(decode, body, bundle)


def test_the_whole_bodies_hold_rows(bundle: Bundle) -> None:
    assert decoded(tables.parquet_rows, WHOLE["parquet"], bundle)
    assert decoded(tables.arrow_rows, WHOLE["arrow"], bundle)
    assert decoded(tables.csv_rows, WHOLE["csv"], bundle)


cells = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
json_values = st.recursive(cells, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))
tensors = st.fixed_dictionaries(
    {"name": st.sampled_from([*KINDS, "x"]), "shape": st.lists(st.integers(-1, 3), max_size=3), "data": json_values}
)


@several
@example({"inputs": [{"name": "x", "shape": [1, 0], "data": []}]})
@given(st.fixed_dictionaries({"inputs": st.lists(tensors | json_values, max_size=6)}) | json_values)
def test_any_tensors_are_read_or_refused(bundle: Bundle, document: Any) -> None:
    decoded(Inference().rows, json.dumps(document).encode(), bundle)


columns = st.sampled_from(
    [
        pa.array([1, None, 3], pa.int64()),
        pa.array([1.5, None, 3], pa.float32()),
        pa.array(["1", None, "x"]),
        pa.array([b"1", b"\xff", None]),
        pa.array([None, None, None]),
        pa.array([[1], None, [2, 3]]),
        pa.array([{"a": 1}, None, {"a": 2}]),
        pa.array([True, None, False]),
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.array([1, None, 3]).dictionary_encode(),
        pa.array([1, 2, None], pa.timestamp("ns", tz="Europe/Paris")),
        pa.array([1, 2, None], pa.date32()),
        pa.array([1, 2, None], pa.time64("us")),
        pa.array([1, 2, None], pa.duration("s")),
        pa.array([2**62, None, -(2**62)], pa.timestamp("s")),
        pa.array([1, None, 2], pa.decimal128(5)),
    ]
)


@several
@given(st.fixed_dictionaries(dict.fromkeys(KINDS, columns)))
def test_columns_of_any_type_are_read_or_refused(bundle: Bundle, drawn: dict[str, Any]) -> None:
    decoded(tables.arrow_rows, arrow(pa.table(drawn)), bundle)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # schemathesis uses what its own dependencies deprecate
@pytest.mark.parametrize("path", ["/v1/score", "/invocations", "/v2/models/payments/infer"])
def test_what_the_documentation_allows_never_fails(bundle_folder: Path, tmp_path: Path, path: str) -> None:
    service = Service(read_settings(cache=tmp_path, model="models:/payments/7"))
    service.serve(Bundle(bundle_folder), Source("models:/payments/7", "payments", "7"))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app_around(service, Follower(service)))
    valid = schema[path]["POST"].as_strategy()
    wrong = schema[path]["POST"].as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)

    @settings(max_examples=max(20, BODIES // 10), suppress_health_check=list(HealthCheck))
    @given(case=valid | wrong)
    def never_fails(case: schemathesis.Case[Any]) -> None:
        answer = case.call()
        assert answer.status_code in (200, 400, 404, 405, 406, 408, 413, 415, 422), answer.text

    never_fails()
