"""Features of all training rows as one tensor: in memory where they are small, else mapped from a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ssad import __version__
from ssad.aside import written_aside
from ssad.datasets.catalogue import cache_folder
from ssad.datasets.table_rows import TableRows
from ssad.errors import DatasetError
from ssad.models import TableEncoder

IN_MEMORY_BYTES = 1 << 28
"""Features up to this size are held in memory: a file would only cost a digest of the table."""


def feature_rows(rows: TableRows, encoder: TableEncoder) -> torch.Tensor:
    """Features of the rows in their order, shape (n, encoder.output_dim), float32.

    Large ones of a table that lies in files are mapped from a file in the cache, under the digest of the table's
    content and of what the encoder learned: another training on the same rows finds it there.

    Raises:
        DatasetError: a file of the table is damaged or changes meanwhile, or the cache cannot be written.
    """
    shape = (len(rows), encoder.output_dim)
    size = 4 * shape[0] * shape[1]
    digest = rows.digest() if size > IN_MEMORY_BYTES else None
    if digest is None:
        features = torch.empty(shape)
        start = 0
        for part in _encoded(rows, encoder):
            features[start : start + len(part)] = part
            start += len(part)
        return features
    path = cache_folder() / "features" / f"{_key(digest, encoder)}.npy"
    found = _mapped(path, shape)
    if found is None:
        _write(path, rows, encoder, shape)
        found = _mapped(path, shape)
    if found is None:
        raise DatasetError(
            f"{path} does not hold what was written; check the disk, or let SSAD_DATA name another folder."
        )
    return found


def _mapped(path: Path, shape: tuple[int, int]) -> torch.Tensor | None:
    """The features in a file; None if it is not there or not whole, as after a loss of power."""
    try:
        # Copied on write, which nobody does: torch warns of memory that it must not write to.
        features = np.lib.format.open_memmap(path, mode="c")
    except (OSError, ValueError, EOFError):
        return None
    whole = features.shape == shape and features.dtype == np.float32
    return torch.from_numpy(features) if whole else None


def _encoded(rows: TableRows, encoder: TableEncoder) -> Iterator[torch.Tensor]:
    for batch in rows.batches():
        yield encoder.encode(encoder.schema.inputs(batch))


def _key(digest: str, encoder: TableEncoder) -> str:
    """What decides every feature, as one word."""
    learned = {name: tensor.tolist() for name, tensor in encoder.state_dict().items()}
    facts = json.dumps([__version__, digest, encoder.schema.to_json(), learned])
    return hashlib.sha256(facts.encode()).hexdigest()


def _write(path: Path, rows: TableRows, encoder: TableEncoder, shape: tuple[int, int]) -> None:
    """Write the features aside, and under their name when they are complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path.parent) as folder:
            aside = folder / path.name
            # Not through a map: a full disk would kill the process instead of raising.
            with aside.open("xb") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
                for part in _encoded(rows, encoder):
                    file.write(part.numpy().data)
                file.flush()
                os.fsync(file.fileno())  # after a loss of power it would else have its length and zeros
            aside.replace(path)
    except OSError as error:
        raise DatasetError(
            f"the features take {4 * shape[0] * shape[1] / 2**30:.1f} GiB in {path.parent}, which cannot be written "
            f"({error.strerror}); make room there, or let SSAD_DATA name another folder."
        ) from error
