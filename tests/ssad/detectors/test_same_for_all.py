"""Processes that were not given the same refuse to train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning as L
import pandas as pd
import pytest
from torch import distributed

from ssad.datasets.table_rows import table_rows
from ssad.detectors import FitSettings, Plan
from ssad.detectors.same_for_all import SameForAll
from ssad.errors import DatasetError

FILE = Path(__file__)
PLAN = Plan.of(FitSettings("radon", max_epochs=2), 200)


def given(count: int = 200, first: float = 0.0, **other: Any) -> SameForAll:
    rows = pd.DataFrame({"x": [first, *range(1, count)]})
    same: dict[str, Any] = {"plan": PLAN, "precision": "32-true", "confidence": None, "checkpoint": None}
    return SameForAll(table_rows(rows), **(same | other))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"first": 1.0}, r"digest of the rows: \w{12} in process 0, \w{12} in process 1"),
        ({"count": 201}, "rows: 200 in process 0, 201 in process 1; digest of the rows: .*"),
        ({"plan": replace(PLAN, max_epochs=3)}, "max_epochs: 2 in process 0, 3 in process 1"),
        ({"precision": "bf16-mixed"}, "precision: 32-true in process 0, bf16-mixed in process 1"),
        ({"confidence": FILE}, r"first confidence: none in process 0, \w{12} in process 1"),
        ({"checkpoint": FILE}, r"checkpoint: none in process 0, \w{12} in process 1"),
    ],
)
def test_every_process_says_what_differs(
    other: dict[str, Any], difference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    def gather(found: list[object], own: object) -> None:
        told.append(own)
        found[:] = told[:2]

    monkeypatch.setattr(distributed, "all_gather_object", gather)
    trainer, module = Mock(L.Trainer, world_size=2), Mock(L.LightningModule)
    given().setup(trainer, module, "fit")  # the first one, while nobody has told anything else
    with pytest.raises(DatasetError, match=f"were not given the same: {difference}; give every machine"):
        given(**other).setup(trainer, module, "fit")
