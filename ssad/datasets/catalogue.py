"""Data sets by name: those scikit-learn carries, those fetched with a known checksum, and two placed by hand.

NSL-KDD and UNSW-NB15 have no public address that answers without a form and no checksum from their
owners, so the catalogue says where to put the file. scikit-learn is imported when one of its own is asked for: that
takes a second, and most tables are the user's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pooch

from ssad.errors import DatasetError, reason_of


@dataclass(frozen=True)
class HandPlaced:
    """A public file that its owners give out behind a form: people place it, and it is read from there."""

    filename: str
    home: str
    read: Callable[[Path], pd.DataFrame]


def names() -> list[str]:
    """Names of the catalogue, sorted."""
    return sorted([*_FETCHED, *_HAND_PLACED])


def cache_folder() -> Path:
    """Where files are kept: `SSAD_DATA`, or the user's cache folder."""
    return Path(os.environ.get("SSAD_DATA") or pooch.os_cache("ssad"))


def load(name: str) -> pd.DataFrame:
    """The table of that name, with its labels in column `label`.

    Raises:
        DatasetError: it cannot be fetched, or is not where it should be; says where to put it.
    """
    if name in _HAND_PLACED:
        source = _HAND_PLACED[name]
        path = cache_folder() / source.filename
        if not path.exists():
            raise DatasetError(
                f"data set {name!r} is not at {path}; download {source.filename} from {source.home} and put it there, "
                "or name a table of your own."
            )
        try:
            return source.read(path)
        except Exception as error:  # a page that was saved in its place, or half of the file
            raise DatasetError(
                f"{path} cannot be read ({reason_of(error)}); download {source.filename} again from {source.home}."
            ) from error
    try:
        return _FETCHED[name]()
    except Exception as error:  # urllib, OpenML and a wrong checksum each raise their own
        raise DatasetError(
            f"data set {name!r} cannot be fetched ({reason_of(error, 160)}); connect this machine, put its files "
            f"into {cache_folder()}, or name a table of your own."
        ) from error


BREAST_CANCER_ANOMALIES = 39
"""Malignant tumours kept: a tenth of the table, where the hospital's 212 beside 357 are no anomalies."""


def _breast_cancer() -> pd.DataFrame:
    """Wisconsin diagnostic breast cancer: benign is normal, the first malignant tumours are the anomalies."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer(as_frame=True)
    malignant = bunch.target == 0
    table: pd.DataFrame = bunch.data.assign(label=malignant.map({True: "malignant", False: "benign"}))
    kept: pd.DataFrame = table[~malignant | (malignant.cumsum() <= BREAST_CANCER_ANOMALIES)]
    return kept.reset_index(drop=True)


DIGITS_ANOMALIES = 20
"""Other digits among the 178 zeros: a tenth, as in RADON's experiments [Najari et al., SIN 2021]."""


def _digits() -> pd.DataFrame:
    """8 x 8 images of digits: zeros are normal, the first others are the anomalies."""
    from sklearn.datasets import load_digits

    bunch = load_digits(as_frame=True)
    return _zeros_are_normal(bunch, DIGITS_ANOMALIES)


MNIST_ANOMALIES = 767
"""A tenth beside the 6,903 zeros, likewise."""


def _zeros_are_normal(bunch: Any, anomalies: int) -> pd.DataFrame:
    other: pd.Series = bunch.target.astype(int) != 0
    table: pd.DataFrame = bunch.data.assign(label=other.map({True: "other digit", False: "normal"}))
    return table[~other | (other.cumsum() <= anomalies)].reset_index(drop=True)


_KDD_COLUMNS = [
    "duration",
    "protocol_type",
    "service",
    "flag",
    "src_bytes",
    "dst_bytes",
    "land",
    "wrong_fragment",
    "urgent",
    "hot",
    "num_failed_logins",
    "logged_in",
    "num_compromised",
    "root_shell",
    "su_attempted",
    "num_root",
    "num_file_creations",
    "num_shells",
    "num_access_files",
    "num_outbound_cmds",
    "is_host_login",
    "is_guest_login",
    "count",
    "srv_count",
    "serror_rate",
    "srv_serror_rate",
    "rerror_rate",
    "srv_rerror_rate",
    "same_srv_rate",
    "diff_srv_rate",
    "srv_diff_host_rate",
    "dst_host_count",
    "dst_host_srv_count",
    "dst_host_same_srv_rate",
    "dst_host_diff_srv_rate",
    "dst_host_same_src_port_rate",
    "dst_host_srv_diff_host_rate",
    "dst_host_serror_rate",
    "dst_host_srv_serror_rate",
    "dst_host_rerror_rate",
    "dst_host_srv_rerror_rate",
    "label",
]


KDDCUP99_FILE = "kddcup99_10_data.gz"
KDDCUP99_URL = "https://ndownloader.figshare.com/files/5976042"
KDDCUP99_SHA256 = "8045aca0d84e70e622d1148d7df782496f6333bf6eb979a1b0837c42a9fd9561"
"""Those of scikit-learn's fetcher."""


def _kddcup99() -> pd.DataFrame:
    """Ten percent of the KDD Cup 1999 connections; scikit-learn's fetcher would keep them as a pickle."""
    return _read_kdd(Path(pooch.retrieve(KDDCUP99_URL, KDDCUP99_SHA256, KDDCUP99_FILE, cache_folder())))


def _mnist() -> pd.DataFrame:
    """28 x 28 images from OpenML, checked against its digest; zeros are normal."""
    from sklearn.datasets import fetch_openml

    bunch = fetch_openml("mnist_784", version=1, data_home=cache_folder(), as_frame=True)
    return _zeros_are_normal(bunch, MNIST_ANOMALIES)


def _read_kdd(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, header=None).iloc[:, : len(_KDD_COLUMNS)]
    return table.set_axis(_KDD_COLUMNS, axis=1)


def _read_unsw(path: Path) -> pd.DataFrame:
    return pd.read_csv(path).drop(columns=["id", "attack_cat"], errors="ignore")


_FETCHED: dict[str, Callable[[], pd.DataFrame]] = {
    "breast-cancer": _breast_cancer,
    "digits": _digits,
    "kddcup99": _kddcup99,
    "mnist": _mnist,
}
_HAND_PLACED = {
    "nsl-kdd": HandPlaced("KDDTrain+.txt", "https://www.unb.ca/cic/datasets/nsl.html", _read_kdd),
    "unsw-nb15": HandPlaced(
        "UNSW_NB15_training-set.csv", "https://research.unsw.edu.au/projects/unsw-nb15-dataset", _read_unsw
    ),
}
