"""Data sets by name, without a network."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from pathlib import Path

import pytest

from ssad.datasets import catalogue
from ssad.datasets.labels import split_labels
from ssad.datasets.tables import read_table
from ssad.errors import DatasetError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSAD_DATA", str(tmp_path))
    return tmp_path


def test_the_catalogue_has_the_names_of_the_design() -> None:
    assert catalogue.names() == ["breast-cancer", "digits", "kddcup99", "mnist", "nsl-kdd", "unsw-nb15"]


@pytest.mark.parametrize(
    ("name", "rows", "columns", "anomalies"), [("breast-cancer", 396, 30, 39), ("digits", 198, 64, 20)]
)
def test_an_offline_set_has_a_tenth_of_anomalies_and_labels_that_auto_knows(
    name: str, rows: int, columns: int, anomalies: int
) -> None:
    features, anomalous = split_labels(read_table(name))
    assert anomalous is not None
    assert features.shape == (rows, columns)
    assert anomalous.sum() == anomalies
    assert features.index.tolist() == list(range(rows))


def test_an_offline_set_is_the_same_every_time() -> None:
    assert catalogue.load("digits").equals(catalogue.load("digits"))


@pytest.mark.parametrize(
    ("name", "filename"), [("nsl-kdd", "KDDTrain+.txt"), ("unsw-nb15", "UNSW_NB15_training-set.csv")]
)
def test_a_set_that_people_place_is_an_error_that_says_where_to_put_it(name: str, filename: str, cache: Path) -> None:
    with pytest.raises(DatasetError) as raised:
        read_table(name)
    assert str(cache / filename) in str(raised.value)
    assert "download" in str(raised.value)
    assert "https://" in str(raised.value)


def test_nsl_kdd_is_read_from_its_place_without_the_difficulty(cache: Path) -> None:
    row = ",".join(["0", "tcp", "http", "SF", *["0"] * 37])
    (cache / "KDDTrain+.txt").write_text(f"{row},normal,21\n{row},neptune,18\n")
    features, anomalous = split_labels(read_table("nsl-kdd"))
    assert anomalous is not None
    assert anomalous.tolist() == [False, True]
    assert features.shape == (2, 41)
    assert features.columns[[0, 1, -1]].tolist() == ["duration", "protocol_type", "dst_host_srv_rerror_rate"]


class Planted:
    """What leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_kddcup99_is_read_as_text_of_a_known_digest_and_never_as_a_pickle(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("samples", "targets"):  # where scikit-learn would look for what it had fetched
        (cache / "kddcup99_10-py3").mkdir(exist_ok=True)
        (cache / "kddcup99_10-py3" / name).write_bytes(pickle.dumps(Planted(cache / "executed")))
    row = ",".join(["0", "tcp", "http", "SF", *["0"] * 37])
    file = cache / catalogue.KDDCUP99_FILE
    file.write_bytes(gzip.compress(f"{row},normal.\n{row},smurf.\n".encode()))
    monkeypatch.setattr(catalogue, "KDDCUP99_URL", "http://127.0.0.1:1/")
    monkeypatch.setattr(catalogue, "KDDCUP99_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    table = read_table("kddcup99")
    assert table["label"].tolist() == ["normal.", "smurf."]
    assert table.columns[[0, 1, -2]].tolist() == ["duration", "protocol_type", "dst_host_srv_rerror_rate"]
    file.write_bytes(gzip.compress(b"another file"))
    with pytest.raises(DatasetError, match="'kddcup99' cannot be fetched"):
        read_table("kddcup99")
    assert not (cache / "executed").exists()


def test_unsw_nb15_is_read_from_its_place_without_the_kind_of_attack(cache: Path) -> None:
    (cache / "UNSW_NB15_training-set.csv").write_text("id,dur,attack_cat,label\n1,0.5,Normal,0\n2,0.7,DoS,1\n")
    assert read_table("unsw-nb15").columns.tolist() == ["dur", "label"]


def test_a_page_saved_in_place_of_a_set_is_told(cache: Path) -> None:
    (cache / "KDDTrain+.txt").write_text("<html>\n<body>a form, to be filled in, first</body>\n</html>\n")
    with pytest.raises(
        DatasetError, match=r"KDDTrain\+.txt cannot be read .*; download KDDTrain\+.txt again from https"
    ):
        read_table("nsl-kdd")
