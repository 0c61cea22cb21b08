"""Some of many rows."""

from __future__ import annotations

import torch


def spread_rows(rows: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many of the rows, evenly spread over their order; shape (m, ...), m at most `most`."""
    if len(rows) <= most:
        return rows
    # In float64: in single precision the last position would be rounded up to one that is not there.
    return rows[torch.linspace(0, len(rows) - 1, most, dtype=torch.float64).long().to(rows.device)]
