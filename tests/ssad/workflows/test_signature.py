"""The table that trained a detector scores as it is, by the model's signature."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.utils.proto_json_utils import parse_inputs_data

from ssad.datasets import parquet
from ssad.datasets.tables import read_table
from ssad.detectors import FitSettings
from ssad.workflows.registry import fetch_model
from ssad.workflows.train import TrainSettings, train
from tests.ssad.workflows.support import QUIET_LIBRARIES

pytestmark = QUIET_LIBRARIES

BATCH = 1100
"""Rows of a batch, more than the signature is made from; the table has two of them."""


def columns() -> dict[str, pa.Array]:
    """One column of each type, with its type in the signature before the colon."""
    counts = np.random.default_rng(0).integers(0, 100, 2 * BATCH).tolist()
    moments = [datetime(2024, 1, 1) + timedelta(hours=count) for count in counts]
    gaps = [None if count % 7 == 0 else count for count in counts]
    late_gap = [*counts[:-1], None]
    return {
        **{f"long: {kind}": pa.array(counts, kind) for kind in ("int8", "uint8", "int16", "int32", "uint32", "int64")},
        **{f"double: {kind}": pa.array(np.asarray(counts) / 7).cast(kind) for kind in ("float", "double")},
        "double: halffloat": pa.array(np.asarray(counts, np.float16) / 7),
        "double: late gap": pa.array(late_gap, "int64"),
        "double: late gap without a sign": pa.array(late_gap, "uint64"),
        "double: gaps": pa.array(gaps, "int32"),
        "double: decimal": pa.array([None if count is None else Decimal(count) / 4 for count in gaps]),
        "any: uint64": pa.array([2**57 * count for count in counts], "uint64"),
        "any: bool": pa.array([count > 50 for count in counts]),
        "any: bool with gaps": pa.array([None if count is None else count > 50 for count in gaps]),
        "datetime: timestamp": pa.array(moments, pa.timestamp("us")),
        "datetime: nanoseconds": pa.array(moments, pa.timestamp("ns")),
        "datetime: date": pa.array([None if m.hour == 0 else m.date() for m in moments], "date32"),
        "any: time zone": pa.array(moments, pa.timestamp("ms", "Europe/Paris")),
        "any: for ever": pa.array([date(9999, 12, 31) if m.hour else m.date() for m in moments], "date32"),
        "string: text": pa.array([None if count is None else str(count % 5) + "th" for count in gaps]),
        "string: numbers": pa.array([str(count) for count in counts]),
        "string: gaps among numbers": pa.array([None if count is None else str(count) for count in gaps]),
        "string: <NA>": pa.array(["<NA>" if count > 90 else str(count % 2) + "st" for count in counts]),
        "string: dates": pa.array([m.isoformat() for m in moments], "large_string"),
        "string: words": pa.array([str(count % 3) + "rd" for count in counts]).dictionary_encode(),
        "string: bytes": pa.array([bytes([65 + count % 3]) for count in counts]),
        "string: time": pa.array([time(count % 24) for count in counts], "time64[us]"),
    }


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(parquet, "BATCH_ROWS", BATCH)
    pq.write_table(pa.table(columns()), tmp_path / "table.parquet")
    return str(tmp_path / "table.parquet")


def test_a_table_with_a_column_of_every_type_scores_as_it_is(table: str, tracking: str, tmp_path: Path) -> None:
    trained = train(TrainSettings(table, fit=FitSettings("radon", max_epochs=1)), progress=False)
    assert trained.detector.schema.dropped == {}
    fetched = fetch_model("models:/ssad@champion", tmp_path / "fetched")
    model = mlflow.pyfunc.load_model(str(fetched.logged))
    types = model.metadata.get_input_schema()
    said = {column.name: getattr(column.type, "name", "any") for column in types.inputs}
    assert said == {name: name.partition(":")[0] for name in columns()}
    rows = read_table(table)
    expected = fetched.bundle.score(rows)
    pd.testing.assert_frame_equal(model.predict(rows), pd.DataFrame(expected.columns()))
    words = ["string: text", "string: gaps among numbers", "string: numbers", "string: <NA>"]
    arrow = rows.astype(dict.fromkeys(words, pd.ArrowDtype(pa.string())))
    pd.testing.assert_frame_equal(model.predict(arrow), pd.DataFrame(expected.columns()))
    sent = {name: [None if pd.isna(word) else word for word in rows[name]] for name in words}
    read: Any = parse_inputs_data  # as MLflow's server reads them; it leaves this without types
    inputs = rows.assign(**read(sent, types))
    pd.testing.assert_frame_equal(model.predict(inputs), pd.DataFrame(expected.columns()))
    assert expected.score == pytest.approx(trained.detector.training_scores, rel=1e-5)
    example = model.predict(model.metadata.load_input_example(str(fetched.logged)))
    assert np.isin(example["score"], expected.score).all()
