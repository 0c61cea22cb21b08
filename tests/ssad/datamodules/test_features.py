"""Features in a mapped file are those in memory, and the file is complete or not there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ssad.datamodules import features
from ssad.datamodules.features import feature_rows
from ssad.datasets.schema import survey_rows
from ssad.datasets.table_rows import TableRows, open_rows
from ssad.errors import DatasetError
from ssad.models import TableEncoder


@pytest.fixture
def folder(tmp_path: Path, blobs: pd.DataFrame) -> Path:
    """A table in three files."""
    path = tmp_path / "table"
    path.mkdir()
    for at in range(3):
        blobs.iloc[at * 100 : at * 100 + 100].to_parquet(path / f"{at}.parquet")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where features are mapped from, however small they are."""
    monkeypatch.setattr(features, "IN_MEMORY_BYTES", 0)
    monkeypatch.setenv("SSAD_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def encoder(rows: TableRows) -> TableEncoder:
    survey = survey_rows(rows)
    return TableEncoder(survey.schema, survey.sample, survey.gaps)


def found(folder: Path) -> torch.Tensor:
    rows = open_rows(str(folder))
    return feature_rows(rows, encoder(rows))


def test_mapped_features_are_those_in_memory(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = found(folder)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(features, "IN_MEMORY_BYTES", 1 << 20)
    torch.testing.assert_close(mapped, found(folder), rtol=0, atol=0)


def test_the_same_rows_find_their_features_again(folder: Path, cache: Path) -> None:
    first = found(folder)
    (path,) = cache.iterdir()
    written = path.stat().st_mtime_ns
    torch.testing.assert_close(found(folder), first)
    assert [file.stat().st_mtime_ns for file in cache.iterdir()] == [written]


def test_features_may_be_read_by_those_who_may_read_other_files(folder: Path, cache: Path) -> None:
    found(folder)
    (path,) = cache.iterdir()
    (folder / "ordinary").touch()
    assert path.stat().st_mode == (folder / "ordinary").stat().st_mode


def test_features_of_files_that_changed_are_made_anew(folder: Path, cache: Path, blobs: pd.DataFrame) -> None:
    before = found(folder)
    blobs.iloc[:100].assign(kind="a").to_parquet(folder / "0.parquet")
    after = found(folder)
    assert not torch.equal(before, after)
    assert len(list(cache.iterdir())) == 2


def test_another_choice_of_the_rows_has_features_of_its_own(folder: Path, cache: Path) -> None:
    rows = open_rows(str(folder))
    made = encoder(rows)
    every_other = feature_rows(rows.at(np.arange(0, 300, 2)), made)
    torch.testing.assert_close(every_other, feature_rows(rows, made)[::2])


def test_a_broken_file_leaves_nothing_half_written(folder: Path, cache: Path) -> None:
    rows = open_rows(str(folder))
    made = encoder(rows)
    (folder / "1.parquet").unlink()
    with pytest.raises(DatasetError, match=r"1\.parquet changed"):
        feature_rows(rows, made)
    assert not cache.exists() or list(cache.iterdir()) == []


@pytest.mark.parametrize("left", [b"", b"cut", b"PK\x03\x04", None], ids=["nothing", "others", "an archive's", "half"])
def test_a_mapped_file_that_is_not_whole_is_written_anew(folder: Path, cache: Path, left: bytes | None) -> None:
    whole = found(folder).clone()
    (path,) = cache.iterdir()
    content = path.read_bytes()
    path.unlink()  # or the map above would change with it
    path.write_bytes(content[: len(content) // 2] if left is None else left)
    torch.testing.assert_close(found(folder), whole)
    assert path.read_bytes() == content


def test_a_mapped_file_of_other_numbers_is_written_anew(folder: Path, cache: Path) -> None:
    whole = found(folder).clone()
    (path,) = cache.iterdir()
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content.replace(b"<f4", b"<i4", 1))
    torch.testing.assert_close(found(folder), whole)


def test_what_a_killed_process_had_half_written_goes_with_the_next_features(folder: Path, cache: Path) -> None:
    abandoned, growing = cache / "incoming-abandoned", cache / "incoming-growing"
    for path in (abandoned, growing):
        path.mkdir(parents=True)
        (path / "features").write_bytes(b"half")
    for path in (abandoned, abandoned / "features", growing):  # a folder is as old as the first file in it
        os.utime(path, (0, 0))
    found(folder)
    assert not abandoned.exists()
    assert growing.exists()


@pytest.mark.usefixtures("cache")
def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    folder: Path, full_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSAD_DATA", str(full_disk))
    with pytest.raises(DatasetError, match=r"cannot be written \(No space left on device\); make room .*SSAD_DATA"):
        found(folder)
    assert [path for path in full_disk.rglob("*") if path.is_file()] == []
