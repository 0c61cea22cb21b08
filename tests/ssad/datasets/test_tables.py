"""Tables as people have them."""

from __future__ import annotations

import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ssad.datasets.tables import read_table
from ssad.errors import DatasetError
from tests.ssad.workflows.support import QUIET_LIBRARIES, file_server, web_server

pytestmark = QUIET_LIBRARIES

TABLE = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, None, 2.5], "c": ["x", "y", None]})


def zipped(text: bytes) -> bytes:
    """An archive of one file, the same at any time."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("t.csv"), text)
    return packed.getvalue()


def write_folder(path: Path) -> None:
    path.mkdir()
    TABLE.iloc[:2].to_parquet(path / "one.parquet")
    TABLE.iloc[2:].to_parquet(path / "two.parquet")


WRITERS: dict[str, Callable[[Path], None]] = {
    "t.csv": lambda path: TABLE.to_csv(path, index=False),
    "t.csv.gz": lambda path: TABLE.to_csv(path, index=False),
    "t.CSV": lambda path: TABLE.to_csv(path, index=False),
    "t.tsv": lambda path: TABLE.to_csv(path, index=False, sep="\t"),
    "t.parquet": lambda path: TABLE.to_parquet(path),
    "folder": write_folder,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_reads_back_from_every_format(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    found = read_table(str(tmp_path / name))
    assert found["a"].tolist() == [1, 2, 3]
    assert found["b"].isna().tolist() == [False, True, False]
    assert found["c"].isna().tolist() == [False, False, True]


def test_a_file_uri_is_a_path(tmp_path: Path) -> None:
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    assert len(read_table(f"file://{tmp_path}/t.csv")) == 3


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "my t.tsv"])
def test_a_table_is_fetched_from_the_web_once_and_its_copy_is_removed(
    name: str, tmp_path: Path, temporary: Path
) -> None:
    (tmp_path / "web").mkdir()
    WRITERS[name.removeprefix("my ")](tmp_path / "web" / name)
    with file_server(tmp_path / "web") as (address, asked):
        found = read_table(f"{address}/{quote(name)}?version=2")
    assert found["a"].tolist() == [1, 2, 3]
    assert asked == [f"/{quote(name)}?version=2"]
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("name", ["t.csv", "folder"])
def test_an_artifact_of_a_run_is_fetched_and_its_copy_is_removed(
    name: str, tracking: str, tmp_path: Path, temporary: Path
) -> None:
    WRITERS[name](tmp_path / name)
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(tmp_path / name), "tables")
    assert read_table(f"runs:/{run.info.run_id}/tables/{name}")["a"].tolist() == [1, 2, 3]
    assert (tmp_path / name).exists()
    assert not list(temporary.iterdir())


def test_the_password_of_an_address_is_in_no_message(tmp_path: Path) -> None:
    with file_server(tmp_path) as (address, _), pytest.raises(DatasetError) as raised:
        read_table(address.replace("//", "//user:s3cret@") + "/none.csv")
    assert str(raised.value).startswith(f"{address}/none.csv cannot be fetched")
    assert "s3cret" not in str(raised.value)


def test_a_column_may_have_the_name_of_a_gap(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("NA,null,None,x\n1,2,3,\n4,5,6,7\n")
    assert list(read_table(str(tmp_path / "t.csv"))) == ["NA", "null", "None", "x"]


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "csv.xz", "csv.zst", "tsv"])
def test_words_are_read_as_they_are_written(tmp_path: Path, suffix: str) -> None:
    words = ["007", "TRUE", "1.10", "+1", None]
    path, separator = tmp_path / f"t.{suffix}", "\t" if suffix == "tsv" else ","
    text = pd.DataFrame({"w": words, "x": range(5)}).to_csv(index=False, sep=separator).encode()
    if suffix == "csv.zst":
        with pa.output_stream(path) as file:
            file.write(text)
    else:
        pd.DataFrame({"w": words, "x": range(5)}).to_csv(path, index=False, sep=separator)
    found = read_table(str(path), ["w", "a column that is not there"])
    assert found["w"].fillna("").tolist() == ["007", "TRUE", "1.10", "+1", ""]
    assert found["x"].tolist() == list(range(5))


class CutOff(BaseHTTPRequestHandler):
    """Ends before all that it promised is sent."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"a,b\n1,2\n")

    def log_message(self, *_: object) -> None:
        """Nothing on the way to standard error."""


def test_a_table_that_breaks_off_on_its_way_is_refused(temporary: Path) -> None:
    expected = r"t\.csv cannot be fetched \(.*8 bytes read, 92 more expected"
    with web_server(CutOff) as address, pytest.raises(DatasetError, match=expected):
        read_table(f"{address}/t.csv")
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.csv", r"cannot be fetched \(404 .*check the address"),
        ("t.csv", "cannot be read"),
        ("t", "no known format"),
    ],
)
def test_what_is_wrong_with_a_fetched_table_is_said_of_its_address(
    name: str, message: str, tmp_path: Path, temporary: Path
) -> None:
    for bad in ("t.csv", "t"):
        (tmp_path / bad).touch()
    with file_server(tmp_path) as (address, _), pytest.raises(DatasetError, match=message) as raised:
        read_table(f"{address}/{name}")
    assert str(raised.value).startswith(f"{address}/{name} ")
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("labels", [None, [0, 1, 0]])
def test_npz_gives_columns_and_labels(tmp_path: Path, labels: list[int] | None) -> None:
    arrays = {"X": np.ones((3, 2))} | ({} if labels is None else {"y": np.asarray(labels)})
    np.savez(tmp_path / "t.npz", **arrays)
    found = read_table(str(tmp_path / "t.npz"))
    assert list(found) == ["x0", "x1"] + ([] if labels is None else ["label"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "cannot be read"),
        ("t.csv", b"a,b\n", "no rows"),
        ("t.csv", b"\xff\xfe\x00a\x81", "cannot be read"),
        ("t.csv", b"a,b,label\n0.5,0,1,\n1.5,1,0,\n", "names 3 columns, but its rows have 4 fields"),
        ("t.tsv", b"a\n0.5\t7\t1\n1.5\t8\t0\n", "names 1 columns, but its rows have 3 fields"),
        ("t.csv", b"a,b\n0.5,0\n1.5,1,0\n", "Expected 2 fields in line 3, saw 3"),
        ("t.csv", b"a,b\n0.5,0\n\n1.5,\n2.5", r"names 2 columns.*line 5 has 1 field.*cut off"),
        # Without the time, which would be another in each worker and so in the test's name.
        ("t.tsv.gz", gzip.compress(b"a\tb\n0.5\t0\n1.5", mtime=0), "line 3 has 1 field"),
        ("t.csv.xz", lzma.compress(b"a,b\n0.5,0\n1.5"), "line 3 has 1 field"),
        ("t.csv.zip", zipped(b"a,b\n0.5,0\n1.5"), "line 3 has 1 field"),
        ("t.csv", b",a\n0,0.5\n1,1.5\n", "no name for column 1; name it, or leave it out"),
        ("t.csv", b"a;b\n0,5;0\n1,5;1\n", "seems to be separated by ';'"),
        ("t.tsv", b"a,b\n0.5,0\n1.5,1\n", "seems to be separated by ','"),
        ("t.parquet", b"garbage", "cannot be read"),
        ("t.npz", b"garbage", "cannot be read"),
        ("t.xlsx", b"", "no known format"),
    ],
)
def test_a_table_that_cannot_be_used_is_named_with_what_was_expected(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message) as raised:
        read_table(str(tmp_path / name))
    assert name in str(raised.value)


def test_a_pickled_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", X=np.asarray([[{}]], dtype=object))
    with pytest.raises(DatasetError, match="cannot be read"):
        read_table(str(tmp_path / "t.npz"))


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(DatasetError, match="same name: a"):
        read_table(str(tmp_path / "t.csv"))


def test_a_file_that_is_not_there_is_named_with_the_catalogue() -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.csv.*breast-cancer"):
        read_table("nowhere.csv")


def test_a_word_longer_than_a_reader_of_rows_takes_is_read(tmp_path: Path) -> None:
    pd.DataFrame({"a": ["w" * 200_000, "b", "c"], "z": [1, None, 3]}).to_csv(tmp_path / "t.csv", index=False)
    assert len(read_table(str(tmp_path / "t.csv"))) == 3
