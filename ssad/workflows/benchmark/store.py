"""Where measurements are kept: a file for each, whole or absent, so that a benchmark can go on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from ssad.aside import written_aside

Record = TypeVar("Record")


def keep(record: object, path: Path) -> None:
    """Write a dataclass of arrays, numbers and text; a process killed meanwhile leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path.parent) as folder:
        np.savez_compressed(folder / path.name, **vars(record))
        (folder / path.name).replace(path)


def kept(path: Path, kind: Callable[..., Record]) -> Record:
    """The inverse of `keep`."""
    with np.load(path, allow_pickle=False) as arrays:
        return kind(**{name: array if array.ndim else array.item() for name, array in arrays.items()})
