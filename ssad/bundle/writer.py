"""Writing a bundle's plain files; what torch has to do with it is done before, by the detectors."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ssad import __version__
from ssad.bundle import bundle as files
from ssad.bundle.drift import reference_document
from ssad.bundle.intervals import ConfidenceCurve, Floats
from ssad.bundle.schema import GraphInputs, TableSchema

RECORDED_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")


def write_bundle(
    path: Path,
    network: Mapping[str, bytes],
    schema: TableSchema,
    curve: ConfidenceCurve,
    training_scores: Floats,
    training_inputs: GraphInputs,
    golden: tuple[Mapping[str, list[Any]], Floats],
    facts: Mapping[str, Any],
) -> None:
    """Write every file of a bundle, the manifest with their digests last.

    The same arguments give the same bytes: no date, no path, nothing of the machine.

    Args:
        path: an empty or missing folder.
        network: content of the files `NETWORK`: both graphs as ONNX models, the weights by safetensors.
        schema: the columns.
        curve: thresholds and confidence of the final weights.
        training_scores: scores of the training rows, shape (n,).
        training_inputs: the training rows as the graph takes them; drift is measured against both.
        golden: a few rows by column, and their scores.
        facts: what the manifest says besides: the detector's name and settings.
    """
    path.mkdir(parents=True, exist_ok=True)
    for name in files.NETWORK:
        (path / name).write_bytes(network[name])
    _write_json(path / files.COLUMNS, schema.to_json())
    _write_json(path / files.INTERVALS, curve.to_json())
    _write_json(path / files.HISTOGRAM, reference_document(training_scores, training_inputs, schema, curve))
    rows, scores = golden
    _write_json(path / files.GOLDEN, {"rows": dict(rows), "scores": scores.tolist()})
    manifest = {
        "format_version": files.FORMAT_VERSION,
        **facts,
        "versions": {"python": platform.python_version(), "ssad": __version__}
        | {name: metadata.version(name) for name in RECORDED_PACKAGES},
        "files": {name: files.file_digest(path / name) for name in files.FILES},
    }
    _write_json(path / files.MANIFEST, manifest)


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
