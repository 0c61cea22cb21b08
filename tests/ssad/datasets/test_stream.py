"""A streamed table is the same table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssad.bundle import Column, TableSchema
from ssad.datasets import stream as streams
from ssad.datasets.parquet import after
from ssad.datasets.stream import TableStream, open_stream
from ssad.datasets.tables import read_table
from ssad.errors import DatasetError, RowsError

SCHEMA = TableSchema(
    (
        Column("amount", "numeric"),
        Column("count", "numeric"),
        Column("paid", "boolean"),
        Column("day", "date"),
        Column("kind", "categorical", categories=("a", "b")),
    )
)


def table(rows: int = 500) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    amounts = pd.Series(generator.normal(size=rows)).mask(generator.random(rows) < 0.2)
    kinds = pd.Series(generator.choice(["a", "b", "NA", " ", "None", "07"], rows))
    return pd.DataFrame(
        {
            "amount": amounts,
            "count": np.arange(rows),
            "paid": generator.random(rows) < 0.5,
            "day": (pd.Timestamp("2025-01-01") + pd.to_timedelta(np.arange(rows), unit="D")).strftime("%Y-%m-%d"),
            "kind": kinds.mask(generator.random(rows) < 0.1),
            "more": "x",
        }
    )


def same_inputs(stream: TableStream, expected: pd.DataFrame) -> None:
    """What the graph gets from the stream is what it gets from the table in pandas."""
    arrow = pa.Table.from_batches(list(stream.batches()))
    columns = {name: arrow.column(name).to_numpy() for name in arrow.schema.names}
    found, wanted = SCHEMA.inputs(columns), SCHEMA.inputs(expected)
    assert found.numeric == pytest.approx(wanted.numeric, nan_ok=True)
    assert found.categorical.tolist() == wanted.categorical.tolist()


WRITERS: dict[str, Any] = {
    "table.csv": lambda rows, path: rows.to_csv(path, index=False),
    "table.tsv": lambda rows, path: rows.to_csv(path, index=False, sep="\t"),
    "table.csv.gz": lambda rows, path: rows.to_csv(path, index=False),
    "table.parquet": lambda rows, path: rows.to_parquet(path, row_group_size=130),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_streams_what_pandas_reads(name: str, tmp_path: Path) -> None:
    WRITERS[name](table(), tmp_path / name)
    same_inputs(open_stream(str(tmp_path / name), SCHEMA), read_table(str(tmp_path / name)))


def test_a_folder_streams_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    rows = table()
    for at, start in enumerate(range(0, 500, 100)):
        rows.iloc[start : start + 100].to_parquet(tmp_path / f"part-{at}.parquet")
    stream = open_stream(str(tmp_path), SCHEMA)
    assert stream.rows == 500
    same_inputs(stream, rows)


def test_a_table_of_another_format_is_streamed_whole(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", X=np.arange(12.0).reshape(6, 2))
    schema = TableSchema((Column("x1", "numeric"),))
    (batch,) = open_stream(str(tmp_path / "t.npz"), schema).batches(2)
    assert batch.to_pydict() == {"x1": [5.0, 7.0, 9.0, 11.0]}


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(0, 100), st.integers(1, 20))
def test_batches_are_even_and_skipping_leaves_the_rest(groups: list[int], skip: int, size: int) -> None:
    total = sum(groups)
    starts = np.cumsum([0, *groups])
    batches = [pa.RecordBatch.from_pydict({"x": np.arange(a, a + n)}) for a, n in zip(starts, groups, strict=False)]
    stream = TableStream(("x",), total, lambda skipped: after(iter(batches), skipped))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BATCH_ROWS", size)
        found = list(stream.batches(skip))
    assert [x for batch in found for x in batch.column("x").to_pylist()] == list(range(skip, total))
    assert all(len(batch) == size for batch in found[:-1])


def test_only_the_wanted_columns_are_read(tmp_path: Path) -> None:
    for name in ("table.csv", "table.parquet"):
        WRITERS[name](table(), tmp_path / name)
        batch = next(open_stream(str(tmp_path / name), TableSchema((Column("count", "numeric"),)), ["kind"]).batches())
        assert batch.schema.names == ["count", "kind"]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "T.CSV.GZ", "t.csv.zip"])
def test_what_is_kept_of_text_is_as_it_was_written_and_read_as_before(name: str, tmp_path: Path) -> None:
    written = ["010", "144544786940945582", "1e2"]
    pd.DataFrame({"count": written, "kind": ["07", "a", "b"]}).to_csv(tmp_path / name.lower(), index=False)
    (tmp_path / name.lower()).rename(tmp_path / name)
    schema = TableSchema((Column("count", "numeric"), Column("kind", "categorical", categories=("a", "b"))))
    (kept,), (plain,) = (open_stream(str(tmp_path / name), schema, keep).batches() for keep in (["count", "kind"], []))
    assert kept.column("count").to_pylist() == written
    assert kept.column("kind").to_pylist() == ["07", "a", "b"]
    found, expected = (
        schema.inputs({column: batch.column(column).to_numpy(zero_copy_only=False) for column in ("count", "kind")})
        for batch in (kept, plain)
    )
    assert found.numeric.tolist() == expected.numeric.tolist() == [[10.0], [144544786940945582.0], [100.0]]


def test_a_number_that_arrow_cannot_read_is_left_to_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 1 << 12)
    counts = [f"{count / 7}" for count in range(5000)]
    counts[3000:3003] = ["  ", "\u00a01", "many"]
    (tmp_path / "t.csv").write_text("\n".join(["count,kind", *(f"{count},a" for count in counts)]), encoding="utf-8")
    schema = TableSchema((Column("count", "numeric"),))
    whole = pa.Table.from_batches(list(open_stream(str(tmp_path / "t.csv"), schema).batches()))
    with pytest.raises(RowsError, match=r"^row 3002, column 'count': expected a number or null"):
        schema.inputs({"count": whole.column("count").to_pylist()})
    read = schema.inputs({"count": [*whole.column("count").to_pylist()[:3002], "2"]}).numeric[:, 0]
    assert read[:3000].tolist() == [count / 7 for count in range(3000)]
    assert np.isnan(read[3000])
    assert read[3001:].tolist() == [1.0, 2.0]


def test_words_of_several_lines_and_long_ones_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 1 << 12)
    rows = pd.DataFrame({"count": np.arange(5000), "kind": ["one\ntwo", "three"] * 2500})
    rows.to_csv(tmp_path / "t.csv", index=False)
    schema = TableSchema((Column("count", "numeric"), Column("kind", "categorical")))
    found = pa.Table.from_batches(list(open_stream(str(tmp_path / "t.csv"), schema).batches()))
    assert found.column("kind").to_pylist() == rows["kind"].tolist()
    assert found.column("count").to_pylist() == rows["count"].tolist()
    monkeypatch.undo()
    pd.DataFrame({"count": [1], "kind": ["w" * 3_000_000]}).to_csv(tmp_path / "t.csv", index=False)
    (batch,) = open_stream(str(tmp_path / "t.csv"), schema).batches()
    assert len(batch.column("kind")[0].as_py()) == 3_000_000


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("columns", [["count"], ["count", "kind"]])
@pytest.mark.parametrize(("name", "separator"), [("t.csv", ","), ("t.tsv", "\t")])
def test_the_last_row_of_text_is_read_however_it_ends(
    tmp_path: Path, name: str, separator: str, columns: list[str], end: str
) -> None:
    values = [["1", "a"], ["", ""], ["3", "b"], ["", ""]]
    rows = [columns, *([f'"{value}"' for value in row[: len(columns)]] for row in values)]
    (tmp_path / name).write_text("\n".join(map(separator.join, rows)) + end, newline="")
    found = pa.Table.from_batches(list(open_stream(str(tmp_path / name), SCHEMA).batches()))
    assert found.column("count").to_pylist() == [1.0, None, 3.0, None]


def test_text_of_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("count,kind\n")
    assert list(open_stream(str(tmp_path / "t.csv"), SCHEMA).batches()) == []


@pytest.mark.parametrize("rows", ['1,"a\n2,b\n3,c\n', '1,a\n2,b\n3,"c', '1,a\n2,"b\n'])
@pytest.mark.parametrize("wanted", ["count", "kind"])
def test_text_that_ends_within_quotes_is_refused(tmp_path: Path, rows: str, wanted: str) -> None:
    (tmp_path / "t.csv").write_text("count,kind\n" + rows)
    stream = open_stream(str(tmp_path / "t.csv"), TableSchema((Column("count", "numeric"),)), [wanted])
    with pytest.raises(DatasetError, match=r"t\.csv ends within a quoted field"):
        list(stream.batches())


def test_text_with_a_quote_that_is_left_open_for_long_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", 1 << 12)
    lines = [f"{count},a" for count in range(5000)]
    lines[2000] = '2000,"a'
    (tmp_path / "t.csv").write_text("\n".join(["count,kind", *lines]))
    with pytest.raises(DatasetError, match="close a quote that is left open and run again"):
        list(open_stream(str(tmp_path / "t.csv"), SCHEMA).batches())


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_file_that_is_replaced_while_it_is_read_is_told_of(tmp_path: Path, name: str) -> None:
    WRITERS[name](table(), tmp_path / name)
    batches = open_stream(str(tmp_path / name), SCHEMA).batches()
    next(batches)
    WRITERS[name](table(400), tmp_path / "other")
    (tmp_path / "other").replace(tmp_path / name)
    with pytest.raises(DatasetError, match=r"changed while it was being read; wait until it is written"):
        list(batches)


def test_text_in_another_encoding_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("count,kind\n1,a\n2,é\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"UTF8 data.*; write it in UTF-8"):
        list(open_stream(str(tmp_path / "t.csv"), TableSchema((Column("count", "numeric"),)), ["kind"]).batches())


@pytest.mark.parametrize("rows", ["1,a,\n2,b,\n", "1,a\n2,b,x\n", "1,a\n2\n"])
def test_rows_of_more_or_fewer_fields_than_names_are_refused(tmp_path: Path, rows: str) -> None:
    (tmp_path / "t.csv").write_text("count,kind\n" + rows)
    with pytest.raises(DatasetError, match=r"t\.csv .*Expected 2 columns, got [13]\);"):
        open_stream(str(tmp_path / "t.csv"), TableSchema((Column("count", "numeric"),)))


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1 and no more PAR1"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(DatasetError, match=r"t\.parquet"):
        open_stream(str(tmp_path / "t.parquet"), SCHEMA)


def test_columns_twice_and_columns_to_keep_that_are_missing_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("count,count\n1,2\n")
    with pytest.raises(DatasetError, match=r"same name \(count\) and no column 'id' to keep"):
        open_stream(str(tmp_path / "t.csv"), TableSchema((Column("count", "numeric"),)), ["id"])


def test_a_row_group_is_read_only_when_it_is_needed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"count": np.arange(1000)}), tmp_path / "t.parquet", row_group_size=100)
    stream = open_stream(str(tmp_path / "t.parquet"), TableSchema((Column("count", "numeric"),)))
    assert stream.rows == 1000
    assert next(stream.batches(950)).column("count").to_pylist() == list(range(950, 1000))
