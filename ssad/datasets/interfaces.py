"""What a dataset must offer."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class DatasetWithLabels(Protocol):
    """A map-style dataset whose items are (data, label)."""

    def __len__(self) -> int: ...

    def __getitem__(self, idx: int) -> tuple[Any, Any]: ...


@runtime_checkable
class DatasetWithInputDim(Protocol):
    """A dataset that knows how many features a row has."""

    def input_dim(self) -> int:
        """Number of features of a row."""
        ...
