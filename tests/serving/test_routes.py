"""Every protocol, format, limit and key, in this process: what needs no server of its own."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.exceptions import MlflowException
from pyarrow import csv, parquet
from starlette.testclient import TestClient

from serving import openapi
from serving.app import app_around
from serving.follower import Follower
from serving.gate import OPEN
from serving.routers.admin import MAX_AGE_SECONDS, MAX_DELIVERY_BYTES, sign
from serving.settings import MULTIPROCESS, listing, read_settings
from serving.source import Source
from serving.state import Service
from serving.tables import LONGEST_NUMBER
from ssad.bundle import Bundle, Drift
from ssad.bundle.pyfunc import PyFuncDetector
from ssad.bundle.schema import MISSING_WORDS
from ssad.errors import SettingsError
from tests.conftest import PROJECT
from tests.serving.conftest import KINDS
from tests.ssad.workflows.support import run_python

# The test client leaves a stream of its own to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

PARQUET, ARROW = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"

Rows = list[dict[str, Any]]
Client = Callable[..., TestClient]


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def client_of(bundle_folder: Path, tmp_path: Path) -> Iterator[Client]:
    """Makes clients of a service with these settings."""
    services = []

    def make(**settings: Any) -> TestClient:
        service = Service(read_settings(cache=tmp_path / "cache", model="models:/payments@champion", **settings))
        service.serve(Bundle(bundle_folder), Source("models:/payments@champion", "payments", "7", "champion", "run"))
        services.append(service)
        return TestClient(app_around(service, Follower(service)), raise_server_exceptions=False)

    yield make
    for service in services:
        service.pool.shutdown()


@pytest.fixture
def client(client_of: Client) -> TestClient:
    return client_of()


def service_of(client: TestClient) -> Service:
    service: Service = client.app.service  # type: ignore[attr-defined]  # ours, typed as any ASGI app
    return service


def table(rows: Rows) -> pa.Table:
    return pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)


def arrow(rows: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())


def packed(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(rows, sink)
    return bytes(sink.getvalue())


def post(
    client: TestClient, body: bytes | str | Iterator[bytes], content_type: str, path: str = "/v1/score", **headers: str
) -> Any:
    return client.post(path, content=body, headers={"Content-Type": content_type, **headers})


def ndjson(rows: Rows) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


def bodies(rows: Rows) -> dict[str, bytes]:
    return {
        "application/x-ndjson": ndjson(rows),
        "text/csv": pd.DataFrame(rows).to_csv(index=False).encode(),
        PARQUET: packed(table(rows)),
        ARROW: arrow(table(rows)),
    }


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "text/csv", PARQUET, ARROW])
def test_every_format_scores_as_json_does(client: TestClient, rows: Rows, content_type: str) -> None:
    wanted = client.post("/v1/score", json={"records": rows}).json()["predictions"]
    answer = post(client, bodies(rows)[content_type], content_type)
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == wanted


def test_a_csv_has_the_missing_values_that_pandas_reads(client: TestClient) -> None:
    lines = [",".join(KINDS), *(f"{word},4,true,2025-03-01,{word}" for word in MISSING_WORDS if word != " ")]
    body = "\n".join(lines)
    read = pd.read_csv(io.StringIO(body)).astype(object)
    assert read[["amount", "kind"]].isna().all(axis=None)
    records = read.where(read.notna(), None).to_dict("records")
    answer = post(client, body, "text/csv")
    assert answer.status_code == 200, answer.text
    assert answer.json() == client.post("/v1/score", json={"records": records}).json()


@pytest.mark.parametrize("content_type", ["text/csv", PARQUET])
def test_mlflows_route_takes_tables_too(client: TestClient, rows: Rows, content_type: str) -> None:
    answer = post(client, bodies(rows)[content_type], content_type, "/invocations")
    assert len(answer.json()["predictions"]) == len(rows)


@pytest.mark.parametrize("accept", ["text/csv", PARQUET, ARROW])
def test_an_answer_comes_in_the_format_that_is_accepted(client: TestClient, rows: Rows, accept: str) -> None:
    wanted = client.post("/v1/score", json={"records": rows}).json()["predictions"]
    answer = client.post("/v1/score", json={"records": rows}, headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(accept)
    read = {"text/csv": csv.read_csv, PARQUET: parquet.read_table, ARROW: lambda f: pa.ipc.open_stream(f).read_all()}
    assert read[accept](io.BytesIO(answer.content)).to_pylist() == wanted


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("*/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/html, application/xml;q=0.9, */*;q=0.8", "application/json"),
        ("text/csv, application/json", "text/csv"),
        ("text/csv;q=0.1, application/json", "application/json"),
        (f"application/json;q=0.5, {ARROW}", ARROW),
        ("application/json;q=0, */*", "text/csv"),
        ("TEXT/CSV; header=present; q=1.0", "text/csv"),
    ],
)
def test_the_accepted_format_that_is_liked_best_is_answered(
    client: TestClient, rows: Rows, accept: str, wanted: str
) -> None:
    answer = client.post("/v1/score", json={"records": rows}, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, wanted)


@pytest.mark.parametrize("accept", ["image/png", "text/csv;q=0", "*/*;q=0.0", ","])
def test_an_answer_that_cannot_be_written_is_refused(client: TestClient, rows: Rows, accept: str) -> None:
    answer = client.post("/v1/score", json={"records": rows}, headers={"Accept": accept})
    assert answer.status_code == 406


def test_large_bodies_are_scored_part_by_part(client: TestClient, rows: Rows) -> None:
    many = pa.concat_tables([table(rows)] * 2000)  # more than a part holds
    answer = post(client, packed(many), PARQUET, Accept=ARROW)
    scores = pa.ipc.open_stream(answer.content).read_all()["score"].to_numpy()
    assert len(scores) == len(many)
    assert np.allclose(scores.reshape(2000, -1), scores[: len(rows)])


def test_the_row_of_a_wrong_value_is_told_wherever_it_is(client: TestClient, rows: Rows) -> None:
    many = pd.DataFrame(rows * 1000).astype({"day": object})
    many.loc[19_000, "day"] = "never"
    problem = post(client, packed(pa.Table.from_pandas(many)), PARQUET).json()
    assert problem["errors"] == [{"row": 19_000, "column": "day", "detail": "expected an ISO 8601 date or null"}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("pack", [packed, arrow])
def test_what_is_not_finite_is_refused_by_row_and_column(
    client: TestClient, rows: Rows, value: float, pack: Callable[[pa.Table], bytes]
) -> None:
    given = table(rows)
    amounts = [*[1.0] * 3, value, *[1.0] * (len(rows) - 4)]
    given = given.set_column(given.schema.get_field_index("amount"), "amount", pa.array(amounts, pa.float64()))
    answer = post(client, pack(given), PARQUET if pack is packed else ARROW)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"row": 3, "column": "amount", "detail": "expected a number or null"}]


@pytest.mark.parametrize("word", ["inf", "-Infinity", "nan"])
def test_a_word_for_what_is_not_finite_is_refused(client: TestClient, rows: Rows, word: str) -> None:
    answer = client.post("/v1/score", json={"records": [{**rows[0], "amount": word}]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["column"] == "amount"


def test_no_refusal_repeats_a_value(client: TestClient, rows: Rows) -> None:
    secret = "4111-1111-1111-1111"
    given = [{**rows[0], "amount": secret}]
    answers = [client.post("/v1/score", json={"records": given})]
    answers += [post(client, body, kind) for kind, body in bodies(given).items()]
    answers += [post(client, f"{start}\n{secret},{secret}\n", "text/csv") for start in ("amount", f"{secret},{secret}")]
    for answer in answers:
        assert answer.status_code == 422, answer.text
        assert secret not in answer.text


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"records": [{"amount": 1, "amount": 2}]}', "application/json"),
        (b'{"records": [], "records": []}', "application/json"),
        (b'{"amount": 1, "amount": 2}', "application/x-ndjson"),
        (b"amount,amount\n1,2\n", "text/csv"),
    ],
)
def test_a_key_that_comes_twice_is_refused(client: TestClient, body: bytes, content_type: str) -> None:
    answer = post(client, body, content_type)
    assert answer.status_code == 422
    assert "more than once" in answer.json()["detail"]


def test_a_colon_in_a_value_is_no_second_key(client: TestClient, rows: Rows) -> None:
    assert client.post("/v1/score", json={"records": [{**rows[0], "day": "2025-01-01T10:00:00Z"}]}).status_code == 200


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"PAR1 and nothing more PAR1", PARQUET, 422),
        (b"", PARQUET, 422),
        (b"", ARROW, 422),
        (b"\xff\xff\xff\xff\x10", ARROW, 422),
        (b"\xff\xfe", "text/csv", 422),
        (b"[" * 5000, "application/json", 400),
        (b'{"records": ' + b"[" * 900 + b"]" * 900 + b"}", "application/json", 422),
        (b"{}", "text/xml", 415),
        (b"{}\n3", "application/x-ndjson", 422),
        (b"{}\n{", "application/x-ndjson", 400),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(
    client: TestClient, body: bytes, content_type: str, status: int
) -> None:
    answer = post(client, body, content_type)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "depth",
    [
        # Too deep for Python's parser, which looks for keys that come twice, but not for the one that reads.
        pytest.param(990, marks=pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python's goes as deep")),
        5000,
    ],
)
def test_a_body_that_is_nested_too_deeply_is_told_so(client: TestClient, depth: int) -> None:
    row = b'{"a": ":", "amount": ' + b"[" * depth + b"]" * depth + b"}"
    for body, content_type in ((b'{"records": [' + row + b"]}", "application/json"), (row, "application/x-ndjson")):
        answer = post(client, body, content_type)
        detail = answer.json()["detail"]
        assert (answer.status_code, detail) == (400, "the body is nested too deeply; send a list of rows.")


@pytest.mark.parametrize("pack", [packed, arrow])
def test_a_column_of_an_extension_type_is_read_as_it_is_stored(
    client: TestClient, rows: Rows, pack: Callable[[pa.Table], bytes]
) -> None:
    whole = table(rows[:2])
    stored, extension = (
        whole.set_column(whole.schema.get_field_index("kind"), "kind", pa.array(2 * [b"0123456789abcdef"], kind))
        for kind in (pa.binary(16), pa.uuid())
    )
    found = [post(client, pack(given), PARQUET if pack is packed else ARROW) for given in (stored, extension)]
    assert [answer.status_code for answer in found] == [200, 200], found[1].text
    assert found[0].json() == found[1].json()


@pytest.fixture(params=[True, False], ids=["pandas' types known", "unknown"])
def periods(request: pytest.FixtureRequest) -> Iterator[pa.Array]:
    """Two periods; a service without pandas knows their type by what the column says of itself."""
    months = pa.array(pd.period_range("2024-01", periods=2, freq="M"))
    if not request.param:
        pa.unregister_extension_type(months.type.extension_name)
    yield months
    if not request.param:
        pa.register_extension_type(months.type)


@pytest.mark.parametrize("name", ["amount", "kind"])
@pytest.mark.parametrize("pack", [packed, arrow])
def test_periods_are_no_numbers(
    client: TestClient, rows: Rows, name: str, pack: Callable[[pa.Table], bytes], periods: pa.Array
) -> None:
    body = pack(table(rows[:2]).set_column(list(rows[0]).index(name), name, periods))
    answer = post(client, body, PARQUET if pack is packed else ARROW)
    assert answer.status_code == 422
    assert f"column '{name}' holds periods" in answer.json()["detail"]


def test_intervals_among_the_words_of_an_arrow_stream_are_refused(client: TestClient, rows: Rows) -> None:
    answer = post(client, arrow(table(rows[:2]).append_column("band", pa.array(pd.cut([1, 2], 2)))), ARROW)
    assert answer.status_code == 422
    assert "a column of a type that cannot be read; send it as text" in answer.json()["detail"]


def test_a_csv_that_ends_within_quotes_is_refused(client: TestClient, rows: Rows) -> None:
    text = pd.DataFrame(rows[:3]).assign(note="a").to_csv(index=False)
    assert len(post(client, text, "text/csv").json()["predictions"]) == 3
    answer = post(client, text.replace(",a\n", ',"a\n', 1), "text/csv")
    assert answer.status_code == 422
    assert "ends within a quoted field" in answer.json()["detail"]


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "text/csv", PARQUET, ARROW])
@pytest.mark.parametrize("name", KINDS)
def test_a_column_that_is_missing_is_named_in_every_format(
    client: TestClient, rows: Rows, content_type: str, name: str
) -> None:
    lacking = [{key: value for key, value in row.items() if key != name} for row in rows]
    answer = post(client, bodies(lacking)[content_type], content_type)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert f"lack 1 of the detector's 5 columns: {name};" in answer.json()["detail"]


@pytest.mark.parametrize("lacking", [{}, {"amount": 1, "more": 2}, dict.fromkeys([*KINDS][:-1])])
@pytest.mark.parametrize("layout", ["records", "application/x-ndjson", "instances"])
def test_a_record_that_lacks_a_column_is_refused_whatever_the_others_have(
    client: TestClient, rows: Rows, layout: str, lacking: dict[str, Any]
) -> None:
    given = [{**rows[0], "another": 1}, rows[1], lacking, {}]
    if layout == "application/x-ndjson":
        answer = post(client, ndjson(given), layout)
    else:
        answer = client.post("/v1/score" if layout == "records" else "/invocations", json={layout: given})
    names = [name for name in KINDS if name not in lacking]
    assert answer.status_code == 422
    assert f"row 2 lacks {len(names)} of the detector's 5 columns: {', '.join(names)};" in answer.json()["detail"]
    assert [(error["row"], error["column"]) for error in answer.json()["errors"]] == [(2, name) for name in names]


@pytest.mark.parametrize("layout", ["instances", "inputs"])
def test_a_row_by_itself_is_one_row_as_to_mlflow(client: TestClient, rows: Rows, layout: str) -> None:
    alone, listed = (client.post("/invocations", json={layout: given}) for given in (rows[0], [rows[0]]))
    assert alone.status_code == 200, alone.text
    assert alone.json() == listed.json()


@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_csv_of_a_header_alone_has_no_rows(client: TestClient, ending: str) -> None:
    answer = post(client, ",".join(KINDS) + ending, "text/csv")
    assert answer.status_code == 422
    assert answer.json()["detail"] == "there are no rows; send at least one."


def test_a_name_in_a_csv_may_have_a_line_break(client: TestClient, rows: Rows) -> None:
    text = pd.DataFrame(rows[:3]).assign(**{"two\nlines": 1}).to_csv(index=False)
    for line_end in ("\n", "\r\n"):
        answer = post(client, "\n" + text.replace("\n", line_end), "text/csv")
        assert len(answer.json()["predictions"]) == 3


@pytest.mark.parametrize("layout", ["dataframe_records", "inputs"])
def test_mlflows_records_are_padded_as_mlflow_does(client: TestClient, rows: Rows, layout: str) -> None:
    lacking = {name: value for name, value in rows[1].items() if name != "amount"}
    padded = client.post("/invocations", json={layout: [rows[0], lacking]})
    null = client.post("/invocations", json={layout: [rows[0], {**lacking, "amount": None}]})
    assert padded.status_code == 200, padded.text
    assert padded.json() == null.json()


def test_a_compressed_body_is_refused_before_it_is_unpacked(client: TestClient, rows: Rows) -> None:
    assert post(client, arrow(table(rows), "zstd"), ARROW).status_code == 415
    assert post(client, b"x", "application/json", **{"Content-Encoding": "gzip"}).status_code == 415


def test_a_parquet_bomb_is_refused_before_it_is_unpacked(client_of: Client, rows: Rows) -> None:
    client = client_of(max_rows=100_000)
    zeros = pa.table({name: pa.nulls(2_000_000, pa.float64()) for name in KINDS})
    body = packed(zeros)
    assert len(body) < 100_000
    assert post(client, body, PARQUET).status_code == 413


def test_a_word_that_unpacks_to_more_than_a_body_may_have_is_refused(client_of: Client, rows: Rows) -> None:
    client = client_of(max_body_bytes=100_000)
    one = table(rows[:1])
    wide = one.set_column(one.schema.get_field_index("kind"), "kind", pa.array(["x" * 200_000]))
    body = packed(wide)
    assert len(body) < 50_000
    assert post(client, body, PARQUET).status_code == 413
    assert post(client, packed(one), PARQUET).status_code == 200


def test_one_long_word_in_every_row_is_held_once(client: TestClient, rows: Rows) -> None:
    wide = table(rows * 50)
    words = pa.array(["x" * 2**20] * len(wide))
    answer = post(client, packed(wide.set_column(wide.schema.get_field_index("kind"), "kind", words)), PARQUET)
    assert answer.status_code == 200, answer.text


def with_column(whole: pa.Table, name: str, values: Any) -> pa.Table:
    return whole.set_column(whole.schema.get_field_index(name), name, values)


def in_format(rows: pa.Table, content_type: str) -> bytes:
    return packed(rows) if content_type == PARQUET else arrow(rows)


@pytest.mark.parametrize("content_type", [PARQUET, ARROW])
@pytest.mark.parametrize("name", ["amount", "paid", "day"])
def test_text_too_long_for_any_number_is_refused_by_its_length(
    client: TestClient, rows: Rows, name: str, content_type: str
) -> None:
    words = pa.array(["x" * (LONGEST_NUMBER + 1)] * len(rows)).dictionary_encode()
    answer = post(client, in_format(with_column(table(rows), name, words), content_type), content_type)
    assert answer.status_code == 422
    told = {"row": 0, "column": name, "detail": f"expected {LONGEST_NUMBER} bytes of text at most"}
    assert answer.json()["errors"][0] == told


@pytest.mark.parametrize("content_type", [PARQUET, ARROW])
@pytest.mark.parametrize("text", [str, lambda number: f" {number} "], ids=["as written", "with blanks"])
def test_what_a_dictionary_holds_is_read_once_and_means_the_same(
    client: TestClient, rows: Rows, content_type: str, text: Callable[[Any], str]
) -> None:
    whole = table(rows)
    for name in ("amount", "count", "paid", "day", "kind"):
        words = [None if row[name] is None else text(row[name]) if name == "amount" else str(row[name]) for row in rows]
        whole = with_column(whole, name, pa.array(words).dictionary_encode())
    answer = post(client, in_format(whole, content_type), content_type)
    assert answer.json() == client.post("/v1/score", json={"records": rows}).json()


def views(words: list[str]) -> pa.Array:
    return pa.array(words, pa.string_view())


def run_ends(words: list[str]) -> pa.Array:
    return pa.RunEndEncodedArray.from_arrays(pa.array([len(words)], pa.int32()), pa.array(words[:1]))


def lists(words: list[str]) -> pa.Array:
    return pa.array([[word] for word in words])


@pytest.mark.parametrize("name", ["amount", "kind"])
@pytest.mark.parametrize("build", [views, run_ends, lists])
def test_a_word_that_is_in_the_body_once_and_would_be_in_every_row_is_refused(
    client: TestClient, rows: Rows, name: str, build: Callable[[list[str]], pa.Array]
) -> None:
    odd = build(["1"] * len(rows))
    answer = post(client, arrow(with_column(table(rows), name, odd)), ARROW)
    assert answer.status_code == 422
    assert f"column {name!r} holds values of another type" in answer.json()["detail"]
    assert post(client, arrow(table(rows).append_column("unknown", odd)), ARROW).status_code == 200


@pytest.mark.parametrize("name", ["amount", "kind"])
def test_text_of_a_fixed_length_counts_in_every_row(client_of: Client, rows: Rows, name: str) -> None:
    wide = with_column(table(rows), name, pa.array([b"1" * 10_000] * len(rows), pa.binary(10_000)))
    body = packed(wide)
    assert len(body) < 20_000
    assert post(client_of(max_body_bytes=100_000), body, PARQUET).status_code == 413


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson", "text/csv", PARQUET, ARROW])
def test_a_long_word_scores_as_any_unknown_one_and_is_not_kept(
    client: TestClient, rows: Rows, content_type: str
) -> None:
    for word, short in (("x" * 5000, "x"), (" " * 5000, None)):
        long, same = ([{**row, "kind": kind} for row in rows] for kind in (word, short))
        body = bodies(long).get(content_type, json.dumps({"records": long}).encode())
        answer = post(client, body, content_type)
        assert answer.json() == client.post("/v1/score", json={"records": same}).json()
    _, kept = service_of(client).current().window.recent()
    assert max(map(len, kept.categorical.ravel())) < 1000


@pytest.mark.parametrize(
    ("settings", "status"), [({"max_rows": 3}, 413), ({"max_body_bytes": 50}, 413), ({"max_json_bytes": 50}, 413)]
)
def test_too_much_is_refused(client_of: Client, rows: Rows, settings: dict[str, int], status: int) -> None:
    assert client_of(**settings).post("/v1/score", json={"records": rows}).status_code == status


def test_a_body_without_a_length_is_counted_as_it_comes(client_of: Client) -> None:
    sent = client_of(max_body_bytes=1000).post(
        "/v1/score", content=iter([b"x" * 600] * 3), headers={"Content-Type": "application/json"}
    )
    assert sent.status_code == 413


def test_too_many_requests_at_once_are_sent_away_but_probes_and_scrapes(client_of: Client, rows: Rows) -> None:
    client = client_of(max_concurrency=1)

    def sending() -> Iterator[bytes]:
        yield b'{"records": '
        answer = client.post("/v1/score", json={"records": rows})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert [client.get(path).status_code for path in ("/livez", "/metrics")] == [200, 200]
        yield json.dumps(rows).encode() + b"}"

    assert post(client, sending(), "application/json").status_code == 200


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands, so that no hour ends between two requests, and with it what was counted of its rate."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)


@pytest.mark.usefixtures("still")
def test_scrapes_take_nothing_of_a_clients_rate_but_need_its_key(client_of: Client) -> None:
    client = client_of(rate_limit="1/hour", api_keys=(hashed("one"),))
    asked = [(path, client.get(path, headers={"X-API-Key": "one"})) for path in 2 * ["/metrics", "/v1/model"]]
    assert [(path, answer.status_code) for path, answer in asked] == [
        ("/metrics", 200),
        ("/v1/model", 200),
        ("/metrics", 200),
        ("/v1/model", 429),
    ]
    assert client.get("/metrics").status_code == 401


@pytest.mark.usefixtures("still")
def test_one_client_may_not_send_more_than_its_rate(client_of: Client, rows: Rows) -> None:
    client = client_of(rate_limit="2/hour")
    answers = [client.post("/v1/score", json={"records": rows}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 0 < int(answers[2].headers["retry-after"]) <= 3600


def test_a_client_is_told_when_it_may_come_again(client_of: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client, began = client_of(rate_limit="2/hour"), time.time() // 3600 * 3600
    waits = []
    for minutes in (1, 1, 1, 30):
        monkeypatch.setattr(time, "time", lambda minutes=minutes: began + 60 * minutes)
        waits.append(int(client.get("/v1/model").headers.get("retry-after", 0)))
    assert waits[:2] == [0, 0]
    assert waits[2] - waits[3] == 29 * 60


@pytest.mark.usefixtures("still")
def test_a_key_that_nobody_asked_for_makes_no_other_client(client_of: Client, rows: Rows) -> None:
    client = client_of(rate_limit="2/hour")
    answers = [client.post("/v1/score", json={"records": rows}, headers={"X-API-Key": invented}) for invented in "abc"]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


@pytest.mark.parametrize("sent", [{"X-API-Key": "one"}, {"Authorization": "Bearer two"}, {"X-API-Key": "admin"}])
def test_each_of_the_keys_opens(client_of: Client, sent: dict[str, str]) -> None:
    client = client_of(api_keys=(hashed("one"), hashed("two")), admin_key=hashed("admin"))
    assert client.get("/v1/model", headers=sent).status_code == 200


@pytest.mark.parametrize("sent", [{}, {"X-API-Key": "three"}, {"X-API-Key": hashed("one")}, {"Authorization": "one"}])
@pytest.mark.parametrize("path", ["/v1/model", "/metrics", "/v1/drift", "/v2/models/payments"])
def test_nothing_else_opens(client_of: Client, sent: dict[str, str], path: str) -> None:
    answer = client_of(api_keys=(hashed("one"),)).get(path, headers=sent)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/ping", "/health", "/version", "/docs"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes_need_no_key(client_of: Client, method: str, path: str) -> None:
    assert client_of(api_keys=(hashed("one"),)).request(method, path).status_code == 200


def test_a_head_has_no_more_rights_than_a_get(client_of: Client) -> None:
    client = client_of(api_keys=(hashed("one"),))
    assert client.head("/v1/model").status_code == 401
    assert client.head("/v1/model", headers={"X-API-Key": "one"}).status_code == 200
    assert client.head("/v1/score", headers={"X-API-Key": "one"}).status_code == 405


def test_an_api_key_is_no_admin_key(client_of: Client) -> None:
    client = client_of(api_keys=(hashed("one"),), admin_key=hashed("admin"))
    assert client.post("/admin/reload", headers={"X-API-Key": "one"}).status_code == 403
    assert client.post("/admin/reload", headers={"X-API-Key": "admin"}).status_code == 202


def test_without_an_admin_key_nobody_is_admin(client: TestClient) -> None:
    assert client.post("/admin/reload", headers={"X-API-Key": ""}).status_code == 403


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a file of keys is to be, which is looked at for every request."""
    monkeypatch.setattr("serving.keys.REFRESH_SECONDS", 0.0)
    return tmp_path / "keys"


def status_with(client: TestClient, key: str) -> int:
    """What a request with a key is answered."""
    return client.get("/v1/model", headers={"X-API-Key": key}).status_code


def test_keys_are_read_again_when_their_file_changes(client_of: Client, keys: Path) -> None:
    keys.write_text(f"{hashed('old')}  # to be retired\n")
    client = client_of(api_keys_file=keys)
    assert status_with(client, "old") == 200
    for later, damaged in enumerate((b"no hash", b"\xff no text"), 1):
        keys.write_bytes(damaged)
        os.utime(keys, (later, later))
        assert status_with(client, "old") == 200
    keys.write_text(hashed("new"))
    os.utime(keys, (3, 3))
    assert status_with(client, "old") == 401
    assert status_with(client, "new") == 200


def test_keys_are_read_again_when_another_file_of_the_same_time_takes_the_place_of_theirs(
    client_of: Client, keys: Path
) -> None:
    aside = keys.with_name("aside")
    for path, key in ((keys, "old"), (aside, "new")):
        path.write_text(hashed(key))
        os.utime(path, (1, 1))
    client = client_of(api_keys_file=keys)
    assert status_with(client, "old") == 200
    aside.rename(keys)
    assert status_with(client, "old") == 401
    assert status_with(client, "new") == 200


def test_an_emptied_file_of_keys_opens_nothing(client_of: Client, keys: Path) -> None:
    keys.write_text(hashed("one"))
    client = client_of(api_keys_file=keys)
    assert status_with(client, "one") == 200
    keys.write_text("")
    assert client.get("/v1/model").status_code == 401
    for key in ("", "one"):
        assert status_with(client, key) == 401


def delivery(secret: str, stamp: int, body: bytes = b"{}") -> dict[str, str]:
    signature = sign(secret, "1", str(stamp), body)
    return {"X-MLflow-Signature": signature, "X-MLflow-Delivery-Id": "1", "X-MLflow-Timestamp": str(stamp)}


@pytest.mark.parametrize(
    ("secret", "age", "status"),
    [("right", 0, 202), ("wrong", 0, 401), ("right", MAX_AGE_SECONDS + 60, 401), ("right", -MAX_AGE_SECONDS - 60, 401)],
)
def test_a_hook_is_heeded_if_it_is_signed_and_fresh(client_of: Client, secret: str, age: int, status: int) -> None:
    client = client_of(webhook_secret="right")
    answer = client.post("/hooks/mlflow", content=b"{}", headers=delivery(secret, int(time.time()) - age))
    assert answer.status_code == status


def test_a_delivery_that_is_too_large_to_be_one_is_not_read(client_of: Client) -> None:
    client, body = client_of(webhook_secret="right"), [b"x" * MAX_DELIVERY_BYTES] * 2
    assert (
        client.post("/hooks/mlflow", content=iter(body), headers=delivery("right", int(time.time()))).status_code == 413
    )


def test_bodies_that_anybody_may_send_take_no_clients_place(client_of: Client) -> None:
    client = client_of(webhook_secret="right", max_concurrency=1)
    for refused in (client_of(), client_of(webhook_secret="right")):
        assert status_while_nothing_comes(refused) == 401  # at once, unread

    def sending() -> Iterator[bytes]:
        yield b"{"
        assert client.get("/v1/model").status_code == 200
        yield b"}"

    sent = client.post("/hooks/mlflow", content=sending(), headers=delivery("wrong", int(time.time())))
    assert sent.status_code == 401


@pytest.mark.parametrize(
    ("age", "changed"),
    [(MAX_AGE_SECONDS + 60, {}), (0, {"X-MLflow-Signature": "v1,x"}), (0, {"X-MLflow-Timestamp": ""})],
    ids=["old", "no signature", "no time"],
)
def test_a_delivery_that_cannot_be_right_is_not_read(client_of: Client, age: int, changed: dict[str, str]) -> None:
    headers = delivery("right", int(time.time()) - age) | changed
    assert status_while_nothing_comes(client_of(webhook_secret="right"), headers) == 401


def test_more_deliveries_than_come_at_once_are_not_read(client_of: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.routers.admin.MOST_READ", 1)
    client, headers = client_of(webhook_secret="right"), delivery("right", int(time.time()))

    def sending() -> Iterator[bytes]:
        yield b"{"
        answer = client.post("/hooks/mlflow", content=b"{}", headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        yield b"}"

    for _ in range(2):  # there is room again
        assert client.post("/hooks/mlflow", content=sending(), headers=headers).status_code == 202


def status_while_nothing_comes(client: TestClient, headers: dict[str, str] | None = None) -> int:
    """Of a delivery whose body never comes; without a signature, unless it has these headers."""

    def nothing() -> Iterator[bytes]:
        raise AssertionError("the body is read")
        yield b""

    return client.post("/hooks/mlflow", content=nothing(), headers=headers).status_code


def test_a_clock_that_jumps_makes_nothing_stale(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(client)
    service.registry_seen = time.monotonic()
    now = time.time()
    for jump in (-1e6, 1e6):
        monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
        assert not service.stale
        assert client.get("/readyz").json()["registry_age_seconds"] < 60


def test_it_is_unready_and_closes_connections_while_it_drains(client: TestClient, rows: Rows) -> None:
    service_of(client).draining = True
    assert client.get("/readyz").status_code == 503
    answer = client.post("/v1/score", json={"records": rows})
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_a_request_that_began_before_the_end_closes_its_connection_too(client: TestClient, rows: Rows) -> None:
    def sending() -> Iterator[bytes]:
        yield b'{"records": '
        service_of(client).draining = True
        yield json.dumps(rows).encode() + b"}"

    answer = post(client, sending(), "application/json")
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_without_a_model_it_is_unready(client: TestClient, rows: Rows) -> None:
    service_of(client).served = None
    assert [client.get(path).status_code for path in ("/livez", "/readyz", "/startupz")] == [200, 503, 503]
    assert client.post("/v1/score", json={"records": rows}).status_code == 503


@pytest.mark.parametrize(("sent", "kept"), [("abc-1", True), ('x"} secret', False), ("a" * 65, False)])
def test_a_request_id_is_taken_over_if_it_is_harmless(client: TestClient, sent: str, kept: bool) -> None:
    assert (client.get("/livez", headers={"X-Request-ID": sent}).headers["x-request-id"] == sent) == kept


def test_explanations_name_what_was_given_and_what_was_expected(client: TestClient, rows: Rows) -> None:
    odd = {**rows[0], "amount": 900.0}
    answer = client.post("/v1/score?explain=2", json={"records": [odd, rows[1]]})
    first, second = (row["features"] for row in answer.json()["predictions"])
    assert len(first) == len(second) == 2
    assert first[0]["column"] == "amount"
    assert first[0]["given"] == 900.0
    assert 20 < first[0]["expected"] < 100
    assert 0 < first[1]["share"] <= first[0]["share"] <= 1


def test_what_is_expected_of_a_column_is_less_abnormal_or_what_was_given(client: TestClient, rows: Rows) -> None:
    answers = client.post("/v1/score?explain=5", json={"records": rows}).json()["predictions"]
    told = [(at, feature) for at, row in enumerate(answers) for feature in row["features"]]
    assert all(type(feature["given"]) is bool for _, feature in told if feature["column"] == "paid")
    changed = [{**rows[at], feature["column"]: feature["expected"]} for at, feature in told]
    scored = client.post("/v1/score", json={"records": changed}).json()["predictions"]
    kept = 0
    for (at, feature), row in zip(told, scored, strict=True):
        if feature["expected"] == feature["given"]:
            kept += 1
        else:
            assert row["score"] < answers[at]["score"]
    assert 0 < kept < len(told)


@pytest.mark.parametrize(("query", "status"), [("explain=x", 422), ("explain=-1", 422), ("explain=9999", 413)])
def test_an_explanation_that_cannot_be_given_is_refused(
    client: TestClient, rows: Rows, query: str, status: int
) -> None:
    assert client.post(f"/v1/score?{query}", json={"records": rows}).status_code == status


def test_params_explain_an_invocation_as_the_logged_model_does(client: TestClient, rows: Rows) -> None:
    model = PyFuncDetector(service_of(client).current().bundle)
    given = [{**row, "day": None, "amount": row["amount"] or 1.0} for row in rows]
    plain, told = (model.predict(pd.DataFrame(given), params).to_dict("records") for params in (None, {"explain": 2}))
    for wrong in (-1, None, "2"):
        with pytest.raises(MlflowException, match=f"explain must be a whole number from 0, got {wrong!r}"):
            model.predict(pd.DataFrame(given), {"explain": wrong})
    for params, wanted in ((None, plain), ({}, plain), ({"explain": 0}, plain), ({"explain": 2}, told)):
        answer = client.post("/invocations", json={"dataframe_records": given, "params": params})
        assert answer.json() == {"predictions": wanted}
    both = client.post("/invocations?explain=1", json={"dataframe_records": given, "params": {"explain": 2}}).json()
    for row, explained in zip(both["predictions"], told, strict=True):
        assert [feature["column"] for feature in row.pop("features")] == row["contributors"][:1]
        assert row == explained


@pytest.mark.parametrize("params", [[], "explain", {"explain": None}, {"explain": -1}, {"explain": True}, {"k": 1}])
def test_params_that_the_model_does_not_have_are_refused(client: TestClient, rows: Rows, params: Any) -> None:
    answer = client.post("/invocations", json={"dataframe_records": rows, "params": params})
    assert answer.status_code == 422
    assert "params" in answer.json()["detail"]


@pytest.mark.parametrize(("explain", "accept", "status"), [(2, "text/csv", 406), (9999, "*/*", 413)])
def test_params_that_cannot_be_answered_are_refused(
    client: TestClient, rows: Rows, explain: int, accept: str, status: int
) -> None:
    asked = {"dataframe_records": rows, "params": {"explain": explain}}
    assert client.post("/invocations", json=asked, headers={"Accept": accept}).status_code == status


def tensors(rows: Rows) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": [len(rows)], "datatype": "BYTES", "data": [row[name] for row in rows]} for name in KINDS
    ]


@pytest.mark.parametrize("accept", ["text/csv", PARQUET, ARROW])
def test_the_inference_protocol_answers_in_json_alone(client: TestClient, rows: Rows, accept: str) -> None:
    asked = {"inputs": tensors(rows)}
    refused = client.post("/v2/models/payments/infer", json=asked, headers={"Accept": accept})
    assert refused.status_code == 406
    answer = client.post("/v2/models/payments/infer", json=asked, headers={"Accept": f"{accept}, */*;q=0.1"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["model_name"] == "payments"


def test_the_inference_protocol_scores_as_json_does(client: TestClient, rows: Rows) -> None:
    wanted = client.post("/v1/score", json={"records": rows}).json()["predictions"]
    answer = client.post("/v2/models/payments/infer", json={"id": "42", "inputs": tensors(rows)}).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "payments", "7")
    outputs = {tensor["name"]: tensor["data"] for tensor in answer["outputs"]}
    assert [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)] == wanted


def test_the_inference_protocol_answers_the_outputs_that_are_asked_for(client: TestClient, rows: Rows) -> None:
    asked = {"inputs": tensors(rows), "outputs": [{"name": "region"}, {"name": "score"}]}
    answer = client.post("/v2/models/payments/infer", json=asked).json()
    assert {tensor["name"] for tensor in answer["outputs"]} == {"score", "region"}
    wrong_ones: list[Any] = ["score", ["score"], [{"name": "loss"}], [{"name": []}]]
    for wrong in wrong_ones:
        assert client.post("/v2/models/payments/infer", json={**asked, "outputs": wrong}).status_code == 422


def test_the_inference_protocol_takes_columns_of_shape_n_1_and_a_matrix(client: TestClient, rows: Rows) -> None:
    wanted = client.post("/v2/models/payments/infer", json={"inputs": tensors(rows)}).json()["outputs"]
    upright = [{**t, "shape": [len(rows), 1], "data": [[value] for value in t["data"]]} for t in tensors(rows)]
    assert client.post("/v2/models/payments/versions/7/infer", json={"inputs": upright}).json()["outputs"] == wanted
    values = [value for row in rows for value in row.values()]
    matrix = {"name": "rows", "shape": [len(rows), len(KINDS)], "datatype": "BYTES", "data": values}
    assert client.post("/v2/models/payments/infer", json={"inputs": [matrix]}).json()["outputs"] == wanted


UNEVEN = {
    "name": "rows",
    "shape": [2, len(KINDS)],
    "data": [[None] * (len(KINDS) - 1), [None] * (len(KINDS) + 1)],
}
"""As many values as the shape says, but not in each row: a value would slip into the next row's column."""


@pytest.mark.parametrize(
    ("path", "document", "status"),
    [
        ("/v2/models/other/infer", {"inputs": []}, 404),
        ("/v2/models/payments/versions/8/infer", {"inputs": []}, 404),
        ("/v2/models/payments/infer", {}, 422),
        ("/v2/models/payments/infer", {"inputs": []}, 422),
        ("/v2/models/payments/infer", {"inputs": [{"name": "amount"}]}, 422),
        ("/v2/models/payments/infer", {"inputs": [{"name": "amount", "shape": [2], "data": [1]}]}, 422),
        ("/v2/models/payments/infer", {"inputs": [{"name": "amount", "shape": ["x"], "data": [1]}]}, 422),
        ("/v2/models/payments/infer", {"inputs": [{"name": "x", "shape": [1, 0], "data": []}]}, 422),
        ("/v2/models/payments/infer", {"inputs": [UNEVEN]}, 422),
    ],
)
def test_the_inference_protocol_refuses_in_its_own_words(
    client: TestClient, path: str, document: Any, status: int
) -> None:
    answer = client.post(path, json=document)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("path", ["/v2/models/payments", "/v2/models/payments/ready"])
def test_the_inference_protocol_tells_of_the_version_that_is_served_alone(client: TestClient, path: str) -> None:
    start, name, end = path.partition("payments")
    assert client.get(f"{start}{name}/versions/7{end}").json() == client.get(path).json()
    assert client.get(f"{start}{name}/versions/8{end}").status_code == 404
    assert client.get(f"{start}other{end}").status_code == 404


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/payments/ready"])
def test_the_inference_protocol_tells_how_it_is(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_the_inference_protocol_tells_the_models_tensors(client: TestClient) -> None:
    model = client.get("/v2/models/payments").json()
    assert [tensor["name"] for tensor in model["inputs"]] == list(KINDS)
    assert [tensor["name"] for tensor in model["outputs"]] == ["score", "confidence", "region"]


def test_the_documented_examples_run(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert list(document["components"]["schemas"]["Row"]["properties"]) == list(KINDS)
    for path in ("/v1/score", "/invocations", "/v2/models/payments/infer"):
        example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert client.post(path, json=example).status_code == 200, path


def test_every_format_and_what_a_refusal_looks_like_is_documented(client: TestClient, rows: Rows) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    post_score = paths["/v1/score"]["post"]
    assert set(post_score["requestBody"]["content"]) == {"application/json", *bodies(rows)}
    assert set(post_score["responses"]["200"]["content"]) == {"application/json", "text/csv", PARQUET, ARROW}
    refusal = client.post("/v1/score", json={"records": [{**rows[0], "amount": "x"}]})
    (told,) = post_score["responses"]["422"]["content"]
    assert refusal.headers["content-type"] == told
    assert set(post_score["responses"]["422"]["content"][told]["schema"]["properties"]) <= set(refusal.json())
    assert {"401", "429", "503"} <= set(paths["/v1/model"]["get"]["responses"])
    assert set(paths["/metrics"]["get"]["responses"]) == {"200", "401"}
    assert set(paths["/hooks/mlflow"]["post"]["responses"]) == {"202", "401", "408", "413", "503"}
    assert "sign" in paths["/hooks/mlflow"]["post"]["responses"]["401"]["description"]
    assert set(paths["/admin/reload"]["post"]["responses"]) == {"202", "403"}
    assert set(paths["/livez"]["get"]["responses"]) == {"200"}
    for unready in ("/readyz", "/startupz", "/ping", "/health", "/v2/health/ready"):
        assert set(paths[unready]["get"]["responses"]) == {"200", "503"}, unready
    assert [layout["required"] for layout in _json(post_score)["oneOf"]] == [["records"], ["columns", "rows"]]
    assert len(_json(paths["/invocations"]["post"])["oneOf"]) == 4


def _json(operation: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
    return schema


def test_the_secrets_of_a_models_address_are_told_to_nobody(bundle_folder: Path, tmp_path: Path) -> None:
    address = "http://bob:secret@registry/model?token=secret"
    service = Service(read_settings(cache=tmp_path, model=address, allowed_models=("another",)))
    client = TestClient(app_around(service, Follower(service)))
    for path in ("/openapi.json", "/docs"):
        assert "ssad: http://registry/model" in client.get(path).text
        assert "secret" not in client.get(path).text
    with pytest.raises(SettingsError, match=r"^http://registry/model may not be served"):
        Follower(service).load_first()


def test_the_documentation_is_framed_by_nobody(client: TestClient) -> None:
    headers = client.get("/docs").headers
    assert headers["content-security-policy"] == "frame-ancestors 'none'"
    assert headers["x-content-type-options"] == "nosniff"


def test_the_cache_is_for_its_owner_alone(tmp_path: Path) -> None:
    Follower(Service(read_settings(cache=tmp_path / "cache", model="models:/payments@champion")))
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in tmp_path.glob("cache/**")} == {0o700}


def test_a_client_can_be_written_from_the_documentation(client: TestClient) -> None:
    """Those who write clients take no array that says nothing of its items, and no part of a path that may be null."""
    document = client.get("/openapi.json").json()
    assert [found for found in parts(document) if found.get("type") == "array" and "items" not in found] == []
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    parameters = [parameter for operation in operations for parameter in operation.get("parameters", [])]
    in_paths = [parameter["schema"]["type"] for parameter in parameters if parameter["in"] == "path"]
    assert in_paths == ["string"] * 6
    assert [parameter["name"] for parameter in parameters if parameter["in"] == "query"] == ["explain"]


def parts(document: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON document."""
    if isinstance(document, dict):
        yield document
    values = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    for value in values:
        yield from parts(value)


def test_what_needs_no_key_is_documented_so(client_of: Client) -> None:
    document = client_of(api_keys=(hashed("one"),)).get("/openapi.json").json()
    row = document["components"]["schemas"]["Row"]["properties"]
    assert {key for column in row.values() for key in column} == {"type", "format"}  # no training row's value
    assert document["security"] == [{"key": []}]
    opened = {path for path, methods in document["paths"].items() for one in methods.values() if "security" in one}
    assert opened == set(document["paths"]) & OPEN
    assert {"/livez", "/hooks/mlflow"} <= opened


def test_the_documentation_is_written_once_for_what_is_served(
    client: TestClient, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Mock(wraps=openapi.openapi)
    monkeypatch.setattr("serving.openapi.openapi", wanted)
    first = client.get("/openapi.json").json()
    assert client.get("/openapi.json").json() == first
    assert wanted.call_count == 1
    service_of(client).serve(Bundle(bundle_folder), Source("models:/other/1", "other", "1"))
    assert "/v2/models/other/infer" in client.get("/openapi.json").json()["paths"]


def metric(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_what_happened_is_counted(client: TestClient, rows: Rows) -> None:
    client.post("/v1/score", json={"records": rows})
    client.post("/v1/score", json={"records": []})
    client.get("/invented/by/a/client")
    assert metric(client, "ssad_predictions_total") == len(rows)
    assert metric(client, "ssad_score_training_quantile_count") == len(rows)
    assert metric(client, 'http_requests_total{handler="/v1/score",method="POST",status="200"}') == 1
    assert metric(client, 'ssad_requests_rejected_total{reason="rows"}') == 1
    assert metric(client, 'http_requests_total{handler="other"') == 1
    assert metric(client, 'ssad_stage_duration_seconds_count{stage="decode"}') == 1
    assert metric(client, "ssad_model_info{") == 1


def test_what_was_told_of_another_version_is_not_told_of_this_one(client: TestClient, bundle_folder: Path) -> None:
    service = service_of(client)
    service.metrics.set_drift(Drift(10, 0.1, 0.1, {"of the other version": 1.0}, {}, {}))
    assert "of the other version" in service.metrics.exposition().decode()
    service.serve(Bundle(bundle_folder), Source("models:/payments@champion", "payments", "8", "champion", "run"))
    told = client.get("/metrics").text
    assert "of the other version" not in told
    assert 'version="8"' in told
    assert 'version="7"' not in told


DRIFTING_WORKER = """
from serving.metrics import Metrics
from ssad.bundle import Drift

metrics = Metrics()
for columns in ({"gone": 9.0, "kept": 1.0}, {"kept": 0.5}):
    metrics.set_drift(Drift(10, 0.1, 0.1, columns, {}, {}))
print(metrics.exposition().decode())
"""


def test_a_worker_tells_no_old_drift_of_a_column_that_drifts_no_longer(tmp_path: Path) -> None:
    """In workers' shared files a series stays: it must not keep its last number for ever."""
    told = run_python("-c", DRIFTING_WORKER, cwd=PROJECT, env={**os.environ, MULTIPROCESS: str(tmp_path)})
    assert 'ssad_drift_column_psi{column="kept"} 0.5' in told.stdout, told.stderr
    assert 'ssad_drift_column_psi{column="gone"} NaN' in told.stdout


def test_a_recalibration_is_told_apart_from_the_training(client: TestClient) -> None:
    service = service_of(client)
    bundle = service.current().bundle
    assert client.get("/v1/model").json()["recalibrated_rows"] is None
    bundle.manifest["recalibrated_rows"] = 40
    service.serve(bundle, Source("models:/payments/8", trained_at=0, recalibrated_at=86_400_000))
    told = client.get("/v1/model").json()
    assert (told["trained_at"], told["training_rows"]) == ("1970-01-01T00:00:00+00:00", 250)
    assert (told["recalibrated_at"], told["recalibrated_rows"]) == ("1970-01-02T00:00:00+00:00", 40)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/score"), ("GET", "/v1/drift"), ("POST", "/v2/models/payments/infer")]
)
def test_a_failure_is_told_without_its_words(
    client: TestClient, rows: Rows, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    service_of(client).current().window = Mock(
        add=Mock(side_effect=ZeroDivisionError("4111-1111")), drift=Mock(side_effect=ZeroDivisionError("4111-1111"))
    )
    document = {"inputs": tensors(rows)} if "infer" in path else {"records": rows}
    answer = client.request(method, path, json=document, headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
    assert answer.headers["content-type"].endswith("json")
    assert "report the X-Request-ID" in answer.text
    assert "request mine failed: ZeroDivisionError at " in caplog.text
    assert "4111-1111" not in answer.text + caplog.text


def test_the_training_rows_spread_evenly_over_the_score_buckets(client: TestClient, bundle_folder: Path) -> None:
    served = service_of(client).current()
    edges = np.asarray(served.bundle.histogram["edges"])
    training = np.repeat(edges[1:], served.bundle.histogram["counts"])
    quantiles = served.bundle.reference.quantiles(training)
    assert (quantiles <= 0.5).mean() == pytest.approx(0.5, abs=0.02)
    assert quantiles.max() == 1


def test_rows_that_moved_are_drift(client: TestClient, rows: Rows) -> None:
    for _ in range(10):
        client.post("/v1/score", json={"records": rows})
    before = client.get("/v1/drift").json()
    for _ in range(30):
        client.post("/v1/score", json={"records": [{**row, "amount": 500} for row in rows]})
    after = client.get("/v1/drift").json()
    assert after["rows"] == 40 * len(rows)
    assert after["column_psi"]["amount"] > before["column_psi"]["amount"] + 0.25
    assert after["column_psi"]["kind"] == pytest.approx(before["column_psi"]["kind"], abs=0.01)
    assert after["score_psi"] > before["score_psi"]
    assert metric(client, 'ssad_drift_column_psi{column="amount"}') == pytest.approx(after["column_psi"]["amount"])


def test_the_drift_window_forgets_the_oldest_rows(client_of: Client, rows: Rows) -> None:
    client = client_of(drift_rows=60)
    client.post("/v1/score", json={"records": [{**row, "amount": 500} for row in rows]})
    for _ in range(3):
        client.post("/v1/score", json={"records": rows})
    drift = client.get("/v1/drift").json()
    assert drift["rows"] == 60
    assert drift["column_psi"]["amount"] < 2


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSAD_SERVE_MAX_ROWS", "12")
    monkeypatch.setenv("SSAD_SERVE_ALLOWED_MODELS", "a, b")
    assert (read_settings().max_rows, read_settings().allowed_models) == (12, ("a", "b"))


def test_settings_that_cannot_be_used_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSAD_SERVE_MAX_ROWS", "many")
    monkeypatch.setenv("SSAD_SERVE_API_KEYS", "in clear")
    monkeypatch.setenv("SSAD_SERVE_RATE_LIMIT", "lots")
    monkeypatch.setenv("SSAD_SERVE_TRACES_ENDPOINT", "collector")
    named = (
        "SSAD_SERVE_API_KEYS: each must .*SSAD_SERVE_MAX_ROWS.*SSAD_SERVE_RATE_LIMIT: must .*such as 100/second.*"
        "SSAD_SERVE_TRACES_ENDPOINT: must be a URL"
    )
    with pytest.raises(SettingsError, match=named) as raised:
        read_settings()
    assert "in clear" not in str(raised.value)


@pytest.mark.parametrize("limit", ["0/second", "1/second; 20/minute", "5 per fortnight"])
def test_a_rate_limit_is_one_and_lets_somebody_in(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setenv("SSAD_SERVE_RATE_LIMIT", limit)
    with pytest.raises(SettingsError, match=r"SSAD_SERVE_RATE_LIMIT: .*(one number of requests|at least one request)"):
        read_settings()


@pytest.mark.parametrize("name", ["POLL", "REGISTRY_TIMEOUT", "FETCH_TIMEOUT", "TIMEOUT", "DRAIN"])
def test_a_time_without_end_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"SSAD_SERVE_{name}_SECONDS", "inf")
    with pytest.raises(SettingsError, match=f"SSAD_SERVE_{name}_SECONDS: .*less than or equal to 86400"):
        read_settings()


def test_a_setting_that_is_empty_is_at_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    default = read_settings()
    for name in ("TLS_CERTIFICATE", "API_KEYS_FILE", "WORKERS", "API_KEYS"):
        monkeypatch.setenv(f"SSAD_SERVE_{name}", "")
    assert read_settings() == default


def test_a_list_of_keys_that_names_none_does_not_open_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSAD_SERVE_API_KEYS", " , ")
    with pytest.raises(SettingsError, match=r"SSAD_SERVE_API_KEYS: .*must name something"):
        read_settings()


@pytest.mark.parametrize("home", ["/", "/data/somebody"])
def test_every_setting_is_documented(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", home)
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    for name, default, meaning in listing():
        assert f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |" in page


def test_a_table_is_read_beside_the_event_loop_whatever_its_size(
    client: TestClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = Mock(wraps=service_of(client).pool.submit)
    monkeypatch.setattr(service_of(client).pool, "submit", submit)
    assert client.post("/v1/score", json={"records": rows}).status_code == 200
    assert submit.call_count == 0
    assert post(client, packed(table(rows)), PARQUET).status_code == 200
    assert submit.call_count == 1


@pytest.mark.parametrize("word", ["nan", "NAN", "+nan", "-NAN"])
def test_a_word_for_nan_is_no_number_in_any_format(client: TestClient, rows: Rows, word: str) -> None:
    odd = table(rows).set_column(0, "amount", pa.array([word, *["1"] * (len(rows) - 1)]))
    assert odd.schema.names == table(rows).schema.names
    for body, content_type in ((packed(odd), PARQUET), (arrow(odd), ARROW)):
        answer = post(client, body, content_type)
        assert (answer.status_code, answer.json()["errors"][0]["column"]) == (422, "amount")
    as_text = table(rows).to_pandas().astype({"amount": object})
    as_text.loc[0, "amount"] = word
    status = post(client, as_text.to_csv(index=False), "text/csv").status_code
    assert status == (200 if word in MISSING_WORDS else 422)


def test_rows_of_a_body_that_is_refused_at_its_end_are_not_remembered(
    client: TestClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.tables.PART_ROWS", 2)
    whole = table(rows * 10)
    bad = pa.concat_tables([whole, whole.slice(0, 1).set_column(0, "amount", pa.array([math.nan]))])
    assert post(client, packed(bad), PARQUET).status_code == 422
    assert client.get("/v1/drift").json()["rows"] == 0
    assert post(client, packed(whole), PARQUET).status_code == 200
    assert client.get("/v1/drift").json()["rows"] == len(whole)


def test_a_new_version_is_told_no_shares_of_the_old_ones_rows(
    client: TestClient, rows: Rows, bundle_folder: Path
) -> None:
    client.post("/v1/score", json={"records": rows})
    recent = 'ssad_region_share{region="normal",rows="recent"}'
    assert 0 <= metric(client, recent) <= 1
    service_of(client).serve(Bundle(bundle_folder), Source("models:/payments@champion", "payments", "8"))
    assert math.isnan(metric(client, recent))


def test_a_column_that_no_longer_drifts_most_loses_its_metric(
    client: TestClient, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.metrics.MAX_DRIFT_COLUMNS", 1)
    for odd in ("amount", "count"):
        service_of(client).serve(service_of(client).current().bundle, Source("models:/payments/7", "payments", "7"))
        client.post("/v1/score", json={"records": [{**row, odd: 1e6} for row in rows]})
        lines = [line for line in client.get("/metrics").text.splitlines() if "ssad_drift_column_psi{" in line]
        client.get("/metrics")
        assert [odd in line for line in lines] == [True]


@pytest.mark.parametrize(
    "headers", [[("Accept", "application/json"), ("Accept", "text/html")], [("Content-Encoding", "Identity")]]
)
def test_a_header_may_come_twice_and_be_written_in_any_case(
    client: TestClient, rows: Rows, headers: list[tuple[str, str]]
) -> None:
    body = json.dumps({"records": rows})
    sent = [*headers, ("Content-Type", "application/json")]
    assert client.post("/v1/score", content=body, headers=sent).status_code == 200


def test_a_path_with_a_slash_too_many_is_no_path(client: TestClient, rows: Rows) -> None:
    assert client.post("/v1/score/", json={"records": rows}, follow_redirects=False).status_code == 404


def test_no_names_are_not_all_names(client: TestClient, rows: Rows) -> None:
    split = {"columns": [], "data": [list(row.values()) for row in rows]}
    assert client.post("/invocations", json={"dataframe_split": split}).status_code == 422


def test_csv_with_semicolons_is_told_so(client: TestClient, rows: Rows) -> None:
    answer = post(client, pd.DataFrame(rows).to_csv(index=False, sep=";"), "text/csv")
    assert answer.status_code == 422
    assert "separated by ';'" in answer.json()["detail"]
