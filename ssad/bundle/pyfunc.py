"""A bundle as an MLflow pyfunc: the `loader_module` of a logged model."""

from __future__ import annotations

from numbers import Integral
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_string_dtype

from ssad.bundle.bundle import Bundle
from ssad.bundle.explain import contributors
from ssad.bundle.schema import TableSchema
from ssad.errors import SettingsError, SsadError

NOTHING = (str(pd.NA), str(None))
"""What MLflow makes of a missing value that it casts to the signature's strings: of pandas' Arrow strings, and of the
null of a row that its server is sent as `inputs` or `instances`."""


class PyFuncDetector:
    """Scores a DataFrame; what MLflow calls."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score, confidence and region of every row, with the index of the input.

        Params `explain=k` adds the names of the k columns that contribute most, and their shares.

        Raises:
            MlflowException: a column is missing or holds values of the wrong kind, or `explain` is no number from 0;
                of any other kind MLflow's server would not tell what it says.
        """
        try:
            return self._predict(model_input, (params or {}).get("explain", 0))
        except SsadError as error:
            from mlflow.exceptions import MlflowException  # takes a second to import, and is seldom needed

            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _predict(self, model_input: pd.DataFrame, explained: Any) -> pd.DataFrame:
        if not isinstance(explained, Integral) or int(explained) < 0:
            raise SettingsError(f"explain must be a whole number from 0, got {explained!r}.")
        inputs = self.bundle.schema.inputs(_with_gaps(model_input, self.bundle.schema))
        answer: dict[str, Any] = self.bundle.decide(self.bundle.score_inputs(inputs)).columns()
        if explained:
            answer |= contributors(self.bundle, inputs, int(explained))
        return pd.DataFrame(answer, index=model_input.index)


def _with_gaps(rows: pd.DataFrame, schema: TableSchema) -> pd.DataFrame:
    """The rows with a gap where MLflow made `NOTHING` of it; a column in which training saw such a word keeps that."""
    words = {column.name: set(NOTHING).difference(column.categories) for column in schema.columns}
    found = {name: rows[name].isin(words[name]) for name in words if name in rows and is_string_dtype(rows[name])}
    return rows.assign(**{name: rows[name].mask(gaps) for name, gaps in found.items() if gaps.any()})


def _load_pyfunc(path: str) -> PyFuncDetector:
    """MLflow's hook: the object to call `predict` of, from the folder it logged."""
    return PyFuncDetector(Bundle(Path(path)))
