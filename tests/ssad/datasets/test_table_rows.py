"""Rows in files are the rows of the same table in memory, however they are cut into batches."""

from __future__ import annotations

import os
from collections.abc import Callable
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
from ssad.datasets import parquet, stream, table_rows
from ssad.datasets import schema as schemas
from ssad.datasets.labels import split_labels, split_row_labels
from ssad.datasets.schema import Survey, survey_rows
from ssad.datasets.table_rows import TableRows, frame_digest, open_rows
from ssad.datasets.tables import read_table
from ssad.errors import DatasetError
from ssad.models import TableEncoder

ROWS = 300


def mixed() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "number": generator.normal(size=ROWS),
            "late gap": np.where(np.arange(ROWS) == ROWS - 1, np.nan, generator.normal(size=ROWS)),
            "whole": generator.integers(0, 9, ROWS),
            "counter": np.arange(ROWS) + 7,
            "user_id": generator.permutation(10_000)[:ROWS],
            "flag": pd.Series(generator.random(ROWS) < 0.5, dtype=object).where(np.arange(ROWS) != 5, None),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(generator.integers(0, 99, ROWS), unit="h"),
            "written day": [f"2024-01-{1 + at % 28:02}" for at in range(ROWS)],
            "number until late": [*map(str, range(ROWS - 1)), "many"],
            "word": pd.Series(generator.choice(["a", "b", "c"], ROWS, p=[0.6, 0.3, 0.1])).mask(np.arange(ROWS) < 70),
            "text": [f"message {at}" for at in range(ROWS)],
            "one": 1,
            "label": np.where(np.arange(ROWS) % 9, "normal", "attack"),
        }
    )


Write = Callable[[pd.DataFrame], Path]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Write a table as a folder of files of 100 rows, in row groups of 40."""

    def write(table: pd.DataFrame) -> Path:
        folder = tmp_path / "table"
        folder.mkdir(exist_ok=True)
        for start in range(0, len(table), 100):
            part = table.iloc[start : start + 100]
            part.to_parquet(folder / f"part-{start:05}.parquet", row_group_size=40, index=False)
        return folder

    return write


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (parquet, stream, table_rows):
        monkeypatch.setattr(module, "BATCH_ROWS", 32)


@pytest.mark.usefixtures("small_batches")
def test_the_rows_of_a_folder_are_those_that_pandas_reads(written: Write) -> None:
    folder = written(mixed())
    rows = open_rows(str(folder))
    assert len(rows) == ROWS
    assert max(len(batch) for batch in rows.batches()) <= 32
    pd.testing.assert_frame_equal(rows.frame(), pd.read_parquet(folder))
    pd.testing.assert_frame_equal(rows.frame(), read_table(str(folder)))


@given(st.sets(st.integers(0, 19)), st.data())
def test_rows_chosen_twice_are_those_that_pandas_chooses(first: set[int], data: st.DataObject) -> None:
    table = pd.DataFrame({"x": np.arange(20), "y": np.arange(20) * 2.0})
    rows = table_rows.table_rows(table).at(np.asarray(sorted(first), dtype=np.int64))
    second = np.asarray(sorted(data.draw(st.sets(st.integers(0, 19))) & set(range(len(first)))), dtype=np.int64)
    found = rows.at(second).only(["y"])
    assert len(rows) == len(first)
    values = [value for batch in found.batches() for value in batch["y"].tolist()]
    assert values == [2 * sorted(first)[at] for at in second]


@pytest.mark.parametrize(("name", "columns"), [(None, ("x",)), ("sensor", ("x", "sensor"))])
def test_an_index_that_pandas_wrote_is_a_column_if_it_has_a_name(
    name: str | None, columns: tuple[str, ...], tmp_path: Path
) -> None:
    table = pd.DataFrame({"x": [1.0, 2.0, 3.0]}, index=pd.Index([7, 8, 9], name=name))
    table.to_parquet(tmp_path / "t.parquet")
    assert open_rows(str(tmp_path / "t.parquet")).columns == columns


def same_survey(found: Survey, expected: Survey) -> None:
    assert (found.schema, found.gaps) == (expected.schema, expected.gaps)
    np.testing.assert_array_equal(found.sampled, expected.sampled)
    np.testing.assert_array_equal(found.sample.numeric, expected.sample.numeric)
    np.testing.assert_array_equal(found.sample.categorical, expected.sample.categorical)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("sampled", [1000, 90])
def test_a_folder_is_surveyed_as_the_table_in_memory(
    written: Write, sampled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "SAMPLE_ROWS", sampled)
    folder = written(mixed())
    monkeypatch.setattr(table_rows, "BATCH_ROWS", ROWS)
    survey = survey_rows(open_rows(str(folder)))
    same_survey(survey, survey_rows(table_rows.table_rows(read_table(str(folder)))))
    kinds = {column.name: column.kind for column in survey.schema.columns}
    assert kinds == {
        "number": "numeric",
        "late gap": "numeric",
        "whole": "numeric",
        "flag": "boolean",
        "day": "date",
        "written day": "date",
        "word": "categorical",
        "label": "categorical",
    }
    assert survey.gaps == {"late gap", "flag"}
    assert list(survey.schema.dropped) == ["counter", "user_id", "number until late", "text", "one"]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("in_files", [True, False])
def test_what_counts_the_rows_of_a_table_is_dropped_where_some_of_them_are_trained_on(
    written: Write, in_files: bool
) -> None:
    table = pd.DataFrame({"Unnamed: 0": np.arange(ROWS), "sorted": np.arange(ROWS) * 2, "x": np.linspace(0, 1, ROWS)})
    table["breaks"] = np.arange(ROWS) + (np.arange(ROWS) > 200)
    rows = open_rows(str(written(table))) if in_files else table_rows.table_rows(table)
    train = rows.at(np.flatnonzero(np.arange(ROWS) % 7 > 1))
    for some in (rows, train, train.at(np.arange(40, len(train)))):
        assert list(survey_rows(some).schema.dropped) == ["Unnamed: 0"]


def test_a_batch_is_indexed_by_the_positions_of_its_rows_in_the_whole_table() -> None:
    table = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]}, index=[7, 7, 8, 9])
    (batch,) = table_rows.table_rows(table).at(np.asarray([0, 2, 3])).at(np.asarray([1, 2])).batches()
    pd.testing.assert_frame_equal(batch, pd.DataFrame({"x": [3.0, 4.0]}, index=[2, 3]))


@pytest.mark.usefixtures("small_batches")
def test_labels_of_a_folder_are_those_of_the_table_in_memory(written: Write) -> None:
    table = mixed()
    rows, anomalous = split_row_labels(open_rows(str(written(table))))
    features, expected = split_labels(table)
    assert rows.columns == tuple(features.columns)
    assert anomalous is not None
    assert expected is not None
    assert anomalous.tolist() == expected.tolist()


def test_a_column_is_what_all_of_its_batches_are(written: Write) -> None:
    words = [*["1"] * 100, *["2024-01-01"] * 100, *["x"] * 100]
    (found,) = survey_rows(open_rows(str(written(pd.DataFrame({"x": words}))))).schema.columns
    assert (found.kind, found.categories) == ("categorical", ("1", "2024-01-01", "x"))


@pytest.mark.usefixtures("small_batches")
def test_the_most_frequent_words_stay_when_there_are_too_many_to_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "COUNTED_WORDS", 40)
    words = [("often", f"rare {at % 1000}")[at % 2] for at in range(4000)]
    words[1::10] = ["sometimes"] * 400
    (found,) = survey_rows(table_rows.table_rows(pd.DataFrame({"word": words}))).schema.columns
    assert found.categories[:2] == ("often", "sometimes")


def test_medians_of_many_rows_are_those_of_a_sample_within_its_stated_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "SAMPLE_ROWS", 2_000)
    values = np.sort(np.random.default_rng(0).exponential(size=50_000))  # in the worst order
    values[0] = np.nan
    survey = survey_rows(table_rows.table_rows(pd.DataFrame({"x": values})))
    median = float(TableEncoder(survey.schema, survey.sample, survey.gaps).median[0])
    error = np.sqrt(np.log(2 / 0.001) / (2 * 2_000))  # of Dvoretzky, Kiefer & Wolfowitz
    assert np.searchsorted(values[1:], median) / len(values) == pytest.approx(0.5, abs=error)


def read_all(rows: TableRows) -> int:
    return sum(map(len, rows.batches()))


def break_pages(path: Path) -> None:
    """Overwrite a file's first pages, not what stands at its end."""
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(500) + content[504:])


def test_a_broken_file_in_the_middle_is_named(written: Write) -> None:
    folder = written(mixed())
    break_pages(folder / "part-00100.parquet")
    with pytest.raises(DatasetError, match=r"part-00100\.parquet cannot be read to its end .*repair it"):
        read_all(open_rows(str(folder)))


def test_a_file_that_lacks_its_end_is_named(written: Write) -> None:
    folder = written(mixed())
    path = folder / "part-00100.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"part-00100\.parquet"):
        open_rows(str(folder))


@pytest.mark.parametrize(("first", "second"), [(1.5, "a"), ("a", 1), (True, 5)])
def test_a_file_of_other_types_is_named_before_a_row_is_read(tmp_path: Path, first: object, second: object) -> None:
    for at, value in enumerate((first, second)):
        pq.write_table(pa.table({"x": [value, value]}), tmp_path / f"{at}.parquet")
    with pytest.raises(DatasetError, match=r"1\.parquet has columns of another type .*Field x .*same types"):
        open_rows(str(tmp_path))


PARTS = {
    "whole numbers, then fractions": ([1, 2], [0.5, None], [1.0, 2.0, 0.5, np.nan]),
    "nothing, then words": ([None, None], ["a", "b"], [None, None, "a", "b"]),
    "nothing, then numbers": ([None, None], [1.5, 2.5], [np.nan, np.nan, 1.5, 2.5]),
    "words, then categories": (["a", "b"], pd.Categorical(["c", "a"]), ["a", "b", "c", "a"]),
    "categories, then others": (pd.Categorical(["a", "b"]), pd.Categorical(["c", "d"]), ["a", "b", "c", "d"]),
}


@pytest.mark.parametrize("name", PARTS)
def test_files_that_know_half_of_a_column_make_the_whole_of_it(tmp_path: Path, name: str) -> None:
    *parts, whole = PARTS[name]
    for at, values in enumerate(parts):
        pd.DataFrame({"x": values}).to_parquet(tmp_path / f"{at}.parquet")
    for found in (open_rows(str(tmp_path)).frame(), read_table(str(tmp_path))):
        pd.testing.assert_frame_equal(found, pd.DataFrame({"x": whole}), check_dtype=False)


@pytest.mark.parametrize(("with_it", "without"), [("0", "1"), ("1", "0")])
def test_a_column_that_only_one_file_has_is_read_with_gaps_in_the_other_which_is_told(
    with_it: str, without: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pd.DataFrame({"x": [1.0]}).to_parquet(tmp_path / f"{without}.parquet")
    pd.DataFrame({"y": [3.0], "x": [2.0]}).to_parquet(tmp_path / f"{with_it}.parquet")
    found = open_rows(str(tmp_path)).frame().sort_values("x", ignore_index=True)
    pd.testing.assert_frame_equal(found, pd.DataFrame({"x": [1.0, 2.0], "y": [np.nan, 3.0]}), check_like=True)
    (told,) = caplog.messages
    assert told.startswith("not every file has the columns y (the first without:")
    assert f"{without}.parquet" in told


def test_an_index_that_pandas_wrote_into_one_file_is_no_column(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pd.DataFrame({"x": [1.0]}).to_parquet(tmp_path / "0.parquet")
    pd.DataFrame({"x": [2.0]}, index=[7]).to_parquet(tmp_path / "1.parquet")
    assert open_rows(str(tmp_path)).frame().columns.tolist() == ["x"]
    assert not caplog.text


def test_a_folder_whose_name_is_a_word_is_read_as_it_is_written(tmp_path: Path) -> None:
    for zone in ("01", "007"):
        (tmp_path / f"zone={zone}" / f"day={zone}").mkdir(parents=True)
        pd.DataFrame({"x": [float(zone)]}).to_parquet(tmp_path / f"zone={zone}" / f"day={zone}" / "0.parquet")
    expected = pd.DataFrame({"x": [7.0, 1.0], "zone": ["007", "01"], "day": [7, 1]})
    for found in (open_rows(str(tmp_path), ["zone"]).frame(), read_table(str(tmp_path), ["zone"])):
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_like=True)
    (batch,) = stream.open_stream(
        str(tmp_path), TableSchema((Column("x", "numeric"), Column("zone", "categorical")))
    ).batches()
    assert batch.column("zone").to_pylist() == ["007", "01"]


def test_the_name_of_a_folder_says_what_its_files_hold(tmp_path: Path) -> None:
    (tmp_path / "zone=p").mkdir()
    pq.write_table(pa.table({"x": [1.0], "zone": ["own"]}), tmp_path / "zone=p" / "0.parquet")
    assert open_rows(str(tmp_path)).frame()["zone"].tolist() == ["p"]


def test_a_table_of_labels_alone_has_its_rows(tmp_path: Path) -> None:
    pd.DataFrame({"label": [0, 1] * 50}).to_parquet(tmp_path / "t.parquet")
    features, anomalous = split_row_labels(open_rows(str(tmp_path / "t.parquet")))
    assert anomalous is not None
    assert anomalous.sum() == 50
    with pytest.raises(DatasetError, match="no numeric or categorical column"):
        survey_rows(features)


def test_a_column_of_an_extension_type_is_read_as_it_is_stored(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0], "id": pa.array([b"0123456789abcdef"], pa.uuid())}), tmp_path / "t.parquet")
    assert open_rows(str(tmp_path / "t.parquet")).frame()["id"].tolist() == [b"0123456789abcdef"]


def test_periods_are_left_out_of_files_as_they_are_of_a_table_in_memory(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [0.5, 1.5, 9.0], "month": pd.PeriodIndex(["2024-01", None, "2024-03"], freq="M")})
    table.to_parquet(tmp_path / "0.parquet")
    table[["x"]].to_parquet(tmp_path / "1.parquet")
    for rows in (table_rows.table_rows(table), open_rows(str(tmp_path))):
        assert survey_rows(rows).schema.dropped == {"month": "holds periods: write each as text or as its first day"}


def test_lengths_of_time_are_left_out_with_what_to_write_instead(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [0.5, 1.5, 9.0], "took": pd.to_timedelta([3, None, 7], unit="s")})
    table.to_parquet(tmp_path / "0.parquet")
    for rows in (table_rows.table_rows(table), open_rows(str(tmp_path / "0.parquet"))):
        reason = "holds lengths of time: write each as a number, such as its seconds"
        assert survey_rows(rows).schema.dropped == {"took": reason}


@pytest.mark.parametrize(
    "values",
    [
        pa.array([19_000, 2_932_928], pa.date32()),
        pa.array([10**12, 7], pa.time64("ns")),
        pa.array([10**15, 7], pa.timestamp("us", tz="Mars/Base")),
    ],
    ids=["beyond the year 9999", "time in nanoseconds", "unknown zone"],
)
def test_a_column_of_values_that_pandas_lacks_is_named(tmp_path: Path, values: pa.Array) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": [1.0, 2.0], "until": values}), path)
    for read in (lambda: list(open_rows(str(path)).batches()), lambda: read_table(str(path))):
        with pytest.raises(DatasetError, match=r"t\.parquet: the column until holds values that pandas does not have"):
            read()


def test_a_folder_whose_name_is_a_value_is_part_of_the_digest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for day in (1, 2, 4):
        (tmp_path / f"day={day}").mkdir()
        pd.DataFrame({"x": [float(day)]}).to_parquet(tmp_path / f"day={day}" / "0.parquet")
    before = open_rows(str(tmp_path)).digest()
    (tmp_path / "day=2").rename(tmp_path / "day=3")
    assert open_rows(str(tmp_path)).digest() != before
    assert not caplog.text  # what the folders say is in no file, and no gap


def test_a_file_that_changes_while_it_is_read_is_named(written: Write) -> None:
    folder = written(mixed())
    rows = open_rows(str(folder))
    assert read_all(rows) == ROWS
    (folder / "part-00200.parquet").write_bytes((folder / "part-00000.parquet").read_bytes())
    with pytest.raises(DatasetError, match=r"part-00200\.parquet changed while it was being read"):
        read_all(rows)
    with pytest.raises(DatasetError, match="changed"):
        rows.digest()


def test_a_file_that_is_rewritten_while_a_table_is_opened_is_named(
    written: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opens = written(mixed()), parquet.Fragment

    def rewritten(path: Path, *said: Any) -> Any:
        mixed().to_parquet(path)  # after its footer was read, which tells of fewer rows
        return opens(path, *said)

    monkeypatch.setattr(parquet, "Fragment", rewritten)
    with pytest.raises(DatasetError, match=r"part-00000\.parquet, .* changed while it was being read"):
        read_all(open_rows(str(folder)))


def test_a_digest_is_of_the_content_and_of_the_chosen_rows(written: Write) -> None:
    folder = written(mixed())
    rows = open_rows(str(folder))
    assert rows.digest() == open_rows(str(folder)).digest()
    assert len({rows.digest(), rows.at(np.arange(9)).digest(), rows.only(["number"]).digest()}) == 3
    before, path = rows.digest(), folder / "part-00100.parquet"
    times, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:9] + bytes([content[9] ^ 1]) + content[10:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert open_rows(str(folder)).digest() != before


@pytest.mark.parametrize("rows", [0, 3])
def test_a_folder_without_rows_or_columns_is_refused(tmp_path: Path, rows: int) -> None:
    table = pd.DataFrame({"x": []}) if not rows else pd.DataFrame(index=range(rows))
    table.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DatasetError, match="no rows"):
        open_rows(str(tmp_path / "t.parquet"))


def test_a_column_of_lists_is_told_apart_by_what_is_in_them() -> None:
    one, same, other = (frame_digest(pd.DataFrame({"x": [1, 2], "tags": [[1], tags]})) for tags in ([2, 3], [2, 3], []))
    assert one == same
    assert one != other
