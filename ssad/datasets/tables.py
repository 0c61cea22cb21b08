"""Reading a table from wherever it is, in whichever format people have it."""

from __future__ import annotations

import csv
import io
import lzma
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import requests

from ssad.aside import fetching_folder
from ssad.bundle.delimited import other_separator
from ssad.datasets import catalogue
from ssad.datasets.parquet import parquet_files
from ssad.errors import DatasetError, SsadError, listed, name_problem, reason_of, without_secrets

LABEL = "label"
"""The label column of tables that this project makes itself."""

HTTP_SCHEMES = ("http://", "https://")
FETCHED_SCHEMES = (*HTTP_SCHEMES, "runs:/", "models:/", "mlflow-artifacts:/")
"""How a URI begins that nothing but this project reads; other stores Spark reaches itself."""

SEPARATORS, PARQUET, ARRAYS = {".csv": ",", ".tsv": "\t"}, (".parquet", ".pq"), ".npz"
"""Suffixes of tables, those of text with what separates its values."""

FORMATS = "CSV or TSV in UTF-8 with a header, Parquet, a folder of Parquet files, or .npz with X and y"

STREAMED_COMPRESSION = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
"""Suffixes of compressed text that Arrow opens, and its names for them."""

SILENT_SECONDS = 30.0
"""How long a web server may send nothing before that is an error."""


def read_table(location: str, words: Collection[str] = ()) -> pd.DataFrame:
    """Read a whole table.

    Args:
        location: a name of the catalogue, a path or a URI. CSV and TSV files (also compressed), Parquet files,
            a folder of them, `.npz` with `X` and optionally `y`.
        words: names of columns that hold words: in a file of text 007 and TRUE are read as they are written.

    Raises:
        DatasetError: there is no such table, it cannot be read, or it is empty.
    """
    with fetched(location) as here:
        path = local_path(here)
        return catalogue.load(here) if path is None else _read(path, words)


def _read(path: Path, words: Collection[str]) -> pd.DataFrame:
    kind = _kind(path)
    try:
        if kind in PARQUET:
            table = parquet_files(path, words).frame()
        else:
            table = _read_text(path, SEPARATORS[kind], words) if kind in SEPARATORS else _read_npz(path)
    except DatasetError:
        raise
    except Exception as error:  # each reader has exceptions of its own; all mean a damaged or foreign file
        raise DatasetError(f"{path} cannot be read ({reason_of(error)}); expected {FORMATS}.") from error
    check_shape(path, len(table), list(table.columns))
    return table


def _kind(path: Path) -> str:
    """The last suffix of a file that is one of a table's; a folder is of Parquet."""
    if path.is_dir():
        return PARQUET[0]
    for suffix in reversed(path.suffixes):
        if suffix.lower() in (*SEPARATORS, *PARQUET, ARRAYS):
            return suffix.lower()
    raise DatasetError(f"{path} is of no known format; expected {FORMATS}.")


@contextmanager
def fetched(location: str) -> Iterator[str]:
    """Where on this machine a table is: what lies elsewhere is copied there, and the copy is removed at the end.

    Args:
        location: a name of the catalogue, a path or a URI.

    Raises:
        DatasetError: it cannot be fetched.
    """
    if location.startswith("file://") or not ("://" in location or location.startswith(FETCHED_SCHEMES)):
        yield location
        return
    shown = without_secrets(location)
    with fetching_folder() as folder:
        copy = _fetch(location, folder)
        try:
            yield copy
        except SsadError as error:
            if copy not in str(error):
                raise
            raise type(error)(str(error).replace(copy, shown)) from error  # the copy is of no use to the user


def _fetch(location: str, folder: Path) -> str:
    """Copy what a URI names into a folder, under its name, whose ending says what it is."""
    try:
        if not location.startswith(HTTP_SCHEMES):
            return str(mlflow.artifacts.download_artifacts(artifact_uri=location, dst_path=str(folder)))
        copy = folder / PurePosixPath(unquote(urlparse(location).path)).name
        packed = copy.suffix.lower() in (*STREAMED_COMPRESSION, ".xz", ".zip")  # then it is not unpacked on the way
        with requests.get(location, stream=True, timeout=SILENT_SECONDS) as answer, copy.open("wb") as file:
            answer.raise_for_status()
            file.writelines(answer.raw.stream(1 << 20, decode_content=not packed))
        return str(copy)
    except Exception as error:  # each store has exceptions of its own
        raise DatasetError(
            f"{without_secrets(location)} cannot be fetched ({without_secrets(reason_of(error))}); "
            "check the address and its credentials."
        ) from error


def names_in(text: str) -> list[str]:
    """Names separated by commas, each once; one that holds a comma is in double quotes, as in a line of CSV."""
    lines = csv.reader(text.splitlines(), skipinitialspace=True)
    return list(dict.fromkeys(name.strip() for names in lines for name in names if name.strip()))


def local_path(location: str) -> Path | None:
    """The path of a table on this machine; None for a name of the catalogue.

    Raises:
        DatasetError: no table is named, by a name that is no text, or there is none there.
    """
    if not location:
        raise DatasetError("no dataset was named; give a path, a URI or one of " + ", ".join(catalogue.names()) + ".")
    if problem := name_problem(location):
        raise DatasetError(problem)
    if location in catalogue.names():
        return None
    is_uri = location.startswith("file://")
    path = Path(url2pathname(urlparse(location).path)) if is_uri else Path(location).expanduser()
    if not path.exists():
        raise DatasetError(
            f"there is no file {path.absolute()} and no data set of that name in the catalogue "
            f"({', '.join(catalogue.names())}); give an absolute path if you started from another folder."
        )
    return path


def _read_text(path: Path, separator: str, words: Collection[str]) -> pd.DataFrame:
    # A column may be called NA.
    first = pd.read_csv(_opened(path), sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False)
    header = first.iloc[0]
    check_separator(path, header.tolist())
    unnamed = [str(at) for at, name in enumerate(header, start=1) if not name]
    if unnamed:
        raise DatasetError(
            f"{path} has no name for column {listed(unnamed)}; name it, or leave it out, as pandas does by "
            "to_csv(index=False)."
        )
    table = pd.read_csv(_opened(path), sep=separator, low_memory=False, dtype=dict.fromkeys(words, str))
    check_fields(path, table)
    _check_short_rows(path, separator, table)
    # pandas makes x.1 of a second x.
    return table.set_axis(header, axis=1) if header.duplicated().any() else table


def _opened(path: Path) -> Path | pa.NativeFile:
    """What pandas reads a file of text from: it does not know every compression that Arrow does."""
    return open_text(path) if path.suffix.lower() in STREAMED_COMPRESSION else path


def _unpacked(path: Path, files: ExitStack) -> IO[bytes]:
    """A file of text as pandas reads it, whatever compressed it; `files` closes what it lies in."""
    if path.suffix.lower() == ".xz":
        return files.enter_context(lzma.open(path))
    if path.suffix.lower() == ".zip":
        archive = files.enter_context(zipfile.ZipFile(path))
        return archive.open(archive.namelist()[0])  # pandas takes no archive of several
    text: IO[bytes] = open_text(path)
    return text


def open_text(path: Path) -> pa.NativeFile:
    """A file of text as it was before it was compressed, if it was; its suffix may be in any case."""
    return pa.input_stream(path, compression=STREAMED_COMPRESSION.get(path.suffix.lower()))


def check_fields(path: Path, table: pd.DataFrame) -> None:
    """Refuse what pandas read from text whose rows have more fields than there are names.

    Pandas takes the first fields of such rows for an index, and puts each name over the values of another.

    Raises:
        DatasetError: they have.
    """
    if not isinstance(table.index, pd.RangeIndex):
        names = table.shape[1]
        raise DatasetError(
            f"{path} names {names} columns, but its rows have {names + table.index.nlevels} fields; name every field, "
            "or take off the separator at the end of each row."
        )


def _check_short_rows(path: Path, separator: str, table: pd.DataFrame) -> None:
    """Refuse text with a row of fewer fields than there are names, which pandas fills up: a file may be cut off.

    Raises:
        DatasetError: there is one; says on which line.
    """
    if not table.iloc[:, -1:].isna().any(axis=None):
        return
    with ExitStack() as files, io.TextIOWrapper(_unpacked(path, files), encoding="utf-8-sig", newline="") as text:
        rows = csv.reader(text, delimiter=separator)
        try:
            short = next((row for row in rows if 0 < len(row) < table.shape[1]), None)
        except csv.Error:  # a field too long for it; pandas has read the rows
            return
        if short:
            raise DatasetError(
                f"{path} names {table.shape[1]} columns, but the row that ends on its line {rows.line_num} has "
                f"{len(short)} field(s), as where a file was cut off; write it whole."
            )


def check_separator(path: Path, names: Sequence[str]) -> None:
    """Refuse a header that was read as one name and holds what others separate names by.

    Raises:
        DatasetError: it is one.
    """
    if other := other_separator(names):
        raise DatasetError(
            f"{path} seems to be separated by {other!r}, expected what its suffix says (.csv: commas, .tsv: tabs); "
            "write it so, or as Parquet."
        )


def _read_npz(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as arrays:
        matrix = arrays.get("X")  # each access reads it
        if matrix is None or matrix.ndim != 2:
            raise DatasetError(f"{path} holds {', '.join(arrays)}; expected a matrix X and, if labelled, a vector y.")
        table = pd.DataFrame(matrix).add_prefix("x")
        if "y" in arrays:
            table[LABEL] = np.asarray(arrays["y"]).ravel()
    return table


def no_rows(table: str | Path) -> DatasetError:
    """What is said of a table without rows."""
    return DatasetError(f"{table} holds no rows; bring a table with data in it.")


def check_shape(path: Path, rows: int, columns: Sequence[str]) -> None:
    """Refuse a table that is empty, or whose columns cannot be told apart by their names.

    Raises:
        DatasetError: it is.
    """
    if not rows or not columns:
        raise no_rows(path)
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise DatasetError(f"{path} has columns of the same name: {', '.join(twice)}; rename them.")
