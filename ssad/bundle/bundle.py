"""A trained detector as a folder of plain files, and scoring with it. No torch, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from ssad.bundle.drift import Drift, Reference
from ssad.bundle.intervals import REGIONS, ConfidenceCurve, Floats, region_names, same_scores
from ssad.bundle.schema import GraphInputs, Table, TableSchema
from ssad.errors import BundleError

FORMAT_VERSION = 4

MANIFEST = "manifest.json"
GRAPH = "detector.onnx"
ERRORS_GRAPH = "errors.onnx"
WEIGHTS = "weights.safetensors"
INTERVALS = "intervals.json"
COLUMNS = "columns.json"
HISTOGRAM = "histogram.json"
GOLDEN = "golden.json"
NETWORK = (GRAPH, ERRORS_GRAPH, WEIGHTS)
"""Files that only training changes."""

FILES = (*NETWORK, INTERVALS, COLUMNS, HISTOGRAM, GOLDEN)

NUMERIC_INPUT, CATEGORICAL_INPUT = "numeric", "categorical"
SCORE_OUTPUT, ERRORS_OUTPUT = "score", "errors"

CHUNK_ROWS = 512
"""Rows that go through the graph at once: what an ensemble makes of so many stays in the processor's cache."""

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Cores that this process may use: as many calls are worth making at a time, each of which uses one."""


@dataclass(frozen=True)
class Scores:
    """What a detector says of rows, one entry a row.

    Attributes:
        score: shape (n,), float64, higher is more abnormal.
        confidence: shape (n,), float64 in [-1, 1].
        codes: shape (n,), index of the region into `REGIONS`.
    """

    score: Floats
    confidence: Floats
    codes: npt.NDArray[np.int8]

    def __getitem__(self, rows: slice) -> Scores:
        return Scores(self.score[rows], self.confidence[rows], self.codes[rows])

    @property
    def region(self) -> npt.NDArray[np.str_]:
        """Shape (n,), `normal`, `unknown` or `abnormal`."""
        return region_names(self.codes)

    def columns(self) -> dict[str, list[Any]]:
        """The three columns as lists, in the order every answer of this project has them."""
        return {
            "score": self.score.tolist(),
            "confidence": self.confidence.tolist(),
            "region": [REGIONS[code] for code in self.codes.tolist()],
        }

    def records(self) -> list[dict[str, Any]]:
        """One dict a row."""
        columns = zip(*self.columns().values(), strict=True)
        return [{"score": score, "confidence": confidence, "region": region} for score, confidence, region in columns]


class Bundle:
    """A detector read from its folder.

    Attributes:
        manifest: versions, digests and what was trained, as in `manifest.json`.
        schema: the columns it expects.
        curve: thresholds and confidence, those of the final weights.
        histogram: the training rows as counts, `histogram.json`.
        reference: the same, to compare recent rows with.
        golden: a few training rows by column, with their scores.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the bundle at `path`.

        Raises:
            BundleError: a file is missing, damaged or of a version this code does not read.
        """
        self.path = path = Path(path)
        self.manifest = _read_json(path, MANIFEST)
        check_files(path, self.manifest)
        self.schema = TableSchema.from_json(_read_json(path, COLUMNS))
        self.curve = ConfidenceCurve.from_json(_read_json(path, INTERVALS))
        self.histogram = _read_json(path, HISTOGRAM)
        self.reference = Reference(self.histogram, self.schema, self.curve.thresholds)
        self.golden = _read_json(path, GOLDEN)
        self._session = _session(path / GRAPH)
        self._inputs = {node.name for node in self._session.get_inputs()}

    def score(self, table: Table) -> Scores:
        """Score rows given by column.

        Raises:
            RowsError: a column is missing or holds values of the wrong kind.
        """
        return self.decide(self.score_inputs(self.schema.inputs(table)))

    def decide(self, score: Floats) -> Scores:
        """Confidence and region of given scores."""
        codes = self.curve.thresholds.codes(score)
        return Scores(score, self.curve.of_codes(score, codes), codes)

    def score_inputs(self, inputs: GraphInputs) -> Floats:
        """The scores alone of rows that are graph inputs already, shape (n,), float64."""
        return self._run(self._session, inputs)

    def errors_of_inputs(self, inputs: GraphInputs) -> Floats:
        """How far each column is from what is expected of it, in units of its mean on training rows.

        Returns:
            Shape (n, columns), at least 0, in `schema.graph_order`.
        """
        return self._run(self._errors_session, inputs)

    def errors(self, table: Table) -> Floats:
        """What `errors_of_inputs` says of rows given by column."""
        return self.errors_of_inputs(self.schema.inputs(table))

    def drift(self, scores: Floats, inputs: GraphInputs) -> Drift:
        """How far rows, with their scores, have moved from the training rows."""
        return self.reference.drift(self.reference.count(scores, inputs))

    def check_golden(self) -> None:
        """Score the golden rows again.

        Raises:
            BundleError: their scores are not those of training time.
        """
        expected = np.asarray(self.golden["scores"], dtype=np.float64)
        found = self.score(self.golden["rows"]).score
        if not same_scores(found, expected):
            worst = float(np.max(np.abs(found - expected)))
            raise BundleError(
                f"the golden rows of {self.path} score differently from training time (by up to {worst:.3g}); "
                "the scoring graph or its runtime has changed: train again or restore the bundle."
            )

    @cached_property
    def _errors_session(self) -> onnxruntime.InferenceSession:
        """Apart from the scores, and loaded when the first explanation is asked for: most rows are only scored."""
        return _session(self.path / ERRORS_GRAPH)

    def _run(self, session: onnxruntime.InferenceSession, inputs: GraphInputs) -> Floats:
        if len(inputs) <= CHUNK_ROWS:
            alone: Floats = session.run(None, self._feed(inputs, slice(None)))[0]
            return alone
        chunks = [
            session.run(None, self._feed(inputs, slice(start, start + CHUNK_ROWS)))[0]
            for start in range(0, len(inputs), CHUNK_ROWS)
        ]
        result: Floats = np.concatenate(chunks)
        return result

    def _feed(self, inputs: GraphInputs, rows: slice) -> dict[str, npt.NDArray[Any]]:
        feed = {NUMERIC_INPUT: inputs.numeric[rows], CATEGORICAL_INPUT: inputs.categorical[rows]}
        return {name: array for name, array in feed.items() if name in self._inputs}


def check_files(path: Path, manifest: dict[str, Any]) -> None:
    """Compare a bundle's files with its manifest.

    Raises:
        BundleError: another format version, a missing file, or a digest that differs.
    """
    written = manifest.get("format_version")
    if written != FORMAT_VERSION:
        newer = type(written) is int and written > FORMAT_VERSION
        own_code = "train again; until then `mlflow models serve` scores with the code that was logged with it"
        raise BundleError(
            f"the bundle {path} has format version {written!r}, this code reads {FORMAT_VERSION}; "
            f"{'upgrade ssad' if newer else own_code}."
        )
    digests = manifest.get("files")
    if not isinstance(digests, dict):
        raise BundleError(f"{MANIFEST} of the bundle {path} lists no files; fetch it again.")
    for name in FILES:
        if not (path / name).is_file():
            raise BundleError(f"the bundle {path} lacks {name}; fetch it again.")
        if file_digest(path / name) != digests.get(name):
            raise BundleError(f"{name} of the bundle {path} does not match its digest; fetch it again.")


def copy_bundle(source: Path, folder: Path) -> Path:
    """Copy what a bundle is made of, and nothing else that lies beside, into a folder.

    Raises:
        BundleError: a file is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*FILES, MANIFEST):  # the manifest last: without it the folder is no bundle
        try:
            shutil.copyfile(source / name, folder / name)
        except FileNotFoundError as error:
            raise BundleError(f"the bundle {source} lacks {name}; fetch it again.") from error
    return folder


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        hasher = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            hasher.update(block)
    return hasher.hexdigest()


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        document = json.loads((path / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{path} is not a bundle: it has no {name}; name a folder that training wrote.") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{name} of the bundle {path} cannot be read ({error}); fetch it again.") from error
    if not isinstance(document, dict):
        raise BundleError(f"{name} of the bundle {path} is not a JSON object; fetch it again.")
    return document


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more cores are used by more calls at a time, each of some rows
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: a warning about an unused initializer helps nobody
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own types, not exported by name
        remedy = "upgrade onnxruntime" if "NOT_IMPLEMENTED" in str(error) else "fetch the bundle again"
        raise BundleError(f"onnxruntime cannot load {path} ({error}); {remedy}.") from error
