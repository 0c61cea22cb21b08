"""ONNX graphs from raw columns to score and to per-column errors."""

from __future__ import annotations

import copy
import logging

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor
from torch import nn

from ssad.bundle import TableSchema
from ssad.bundle.bundle import (
    CATEGORICAL_INPUT,
    ERRORS_GRAPH,
    ERRORS_OUTPUT,
    GRAPH,
    NUMERIC_INPUT,
    SCORE_OUTPUT,
)
from ssad.bundle.schema import GraphInputs
from ssad.errors import SettingsError, reason_of
from ssad.loggers.logging_config import quiet
from ssad.models import TableEncoder, column_matrix
from ssad.modules import SelfSupervisionModule
from ssad.modules.self_supervision_module import SCORING_ROWS

CODES = "codes"
LABEL_ENCODER_OPSET = 3


LEAST_ERROR = 1e-6
"""Of a column on training rows, as a share of the columns' mean: one that is always as expected is divided by it."""


class ScoringGraph(nn.Module):
    """Encoder and network: what is exported.

    Attributes:
        columns: from errors by feature to errors by column, each in units of its mean on training rows, shape
            (features, columns). Else a column of many features, or one that nothing foretells, would seem to be
            what is wrong with every row.
    """

    columns: torch.Tensor

    def __init__(self, encoder: TableEncoder, module: SelfSupervisionModule, sample: GraphInputs) -> None:
        """Take the columns' mean errors from training rows."""
        super().__init__()
        self.encoder = encoder
        self.module = module
        columns = column_matrix(encoder.feature_columns, len(encoder.schema.columns))
        with torch.inference_mode():
            features = encoder.encode(sample).to(module.scoring_dtype)
            errors = [module.feature_errors(rows).double().sum(dim=0) for rows in torch.split(features, SCORING_ROWS)]
            mean = torch.stack(errors).sum(dim=0) @ columns / len(features)
        floor = LEAST_ERROR * float(mean.mean()) or 1.0
        self.register_buffer("columns", columns / mean.clamp_min(floor))

    def forward(
        self, numeric: torch.Tensor | None = None, codes: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score (n,) and errors by column (n, columns) of rows; see `TableEncoder.forward`."""
        features = self.encoder(numeric, codes).to(self.module.scoring_dtype)
        errors = self.module.feature_errors(features)
        # A sum with nothing, so that it is a Gemm: of a transpose and a MatMul onnxruntime makes an operator
        # of its own, which it has had in double precision since 1.26.
        by_column = torch.addmm(self.columns.new_zeros(()), errors.double(), self.columns)
        return self.module.score(features).double(), by_column


def export_onnx(encoder: TableEncoder, module: SelfSupervisionModule, sample: GraphInputs) -> dict[str, bytes]:
    """The serialized graphs, by the name of their file; `sample` are training rows.

    Inputs are `numeric` (n, p) float64 and `categorical` (n, q) strings, either left out when the schema
    has no such column; the outputs are `score` (n,) and, in a graph of its own because a row is seldom
    explained, `errors` (n, columns), float64.
    """
    model = _exported(encoder, module, sample)
    _forget_sources(model)
    _read_strings(model, encoder.schema)
    outputs = {GRAPH: SCORE_OUTPUT, ERRORS_GRAPH: ERRORS_OUTPUT}
    graphs = {file: _serialized(model, output) for file, output in outputs.items()}
    for graph in graphs.values():
        _check_runs(graph, sample[:1], module.scoring_dtype)
    return graphs


def _check_runs(graph: bytes, row: GraphInputs, dtype: torch.dtype) -> None:
    """Score a row by onnxruntime, which lacks some operators that torch has, of float64 above all.

    Raises:
        SettingsError: it cannot.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is said below
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        feed = {NUMERIC_INPUT: row.numeric, CATEGORICAL_INPUT: row.categorical}
        session.run(None, {node.name: feed[node.name] for node in session.get_inputs()})
    except Exception as error:  # onnxruntime raises its own types, not exported by name
        remedy = "set scoring_dtype = torch.float32 in its module, or " if dtype == torch.float64 else ""
        raise SettingsError(
            f"onnxruntime cannot run the detector's network in {dtype} ({reason_of(error)}); {remedy}build it of other "
            "layers."
        ) from error


def _serialized(model: onnx.ModelProto, output: str) -> bytes:
    """The part of a model that makes one of its outputs."""
    part = Extractor(model).extract_model([value.name for value in model.graph.input], [output])
    onnx.checker.check_model(part)
    serialized: bytes = part.SerializeToString(deterministic=True)
    return serialized


def _exported(encoder: TableEncoder, module: SelfSupervisionModule, sample: GraphInputs) -> onnx.ModelProto:
    graph = ScoringGraph(encoder, copy.deepcopy(module).to(module.scoring_dtype).eval(), sample).eval()
    graph.requires_grad_(False)  # or what a gradient would need is traced too
    example = {}
    if encoder.schema.numeric:
        example[NUMERIC_INPUT] = torch.zeros(2, len(encoder.schema.numeric), dtype=torch.float64)
    if encoder.schema.categorical:
        example[CODES] = torch.zeros(2, len(encoder.schema.categorical), dtype=torch.int64)
    rows = {0: torch.export.Dim("rows")}
    with quiet("torch.onnx", logging.ERROR):  # that torchvision is not installed, and deprecations of its own
        program = torch.onnx.export(
            graph,
            kwargs=example,
            dynamo=True,
            dynamic_shapes=dict.fromkeys(example, rows),
            input_names=list(example),
            output_names=[SCORE_OUTPUT, ERRORS_OUTPUT],
            verbose=False,
        )
    assert program is not None  # only the non-dynamo export returns None
    return program.model_proto


def _forget_sources(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes on where in which file each node came from: paths of a machine."""
    for holder in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        del holder.metadata_props[:]
        holder.doc_string = ""


def _read_strings(model: onnx.ModelProto, schema: TableSchema) -> None:
    """Replace the input of category codes, if there is one, by strings."""
    if not schema.categorical:
        return
    inputs = {value.name: value for value in model.graph.input}
    model.graph.input.remove(inputs[CODES])
    shape: list[str | int | None] = ["rows", len(schema.categorical)]
    model.graph.input.append(helper.make_tensor_value_info(CATEGORICAL_INPUT, TensorProto.STRING, shape))
    for position, node in enumerate(_label_encoders(model, schema)):
        model.graph.node.insert(position, node)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", LABEL_ENCODER_OPSET))


def _label_encoders(model: onnx.ModelProto, schema: TableSchema) -> list[onnx.NodeProto]:
    """Nodes from the strings (n, q) to the codes (n, q): each column through its list of categories."""
    nodes, codes = [], []
    for at, column in enumerate(schema.categorical):
        index, strings, code = (f"{CATEGORICAL_INPUT}_{at}_{part}" for part in ("index", "strings", "code"))
        model.graph.initializer.append(numpy_helper.from_array(np.asarray([at], dtype=np.int64), index))
        nodes.append(helper.make_node("Gather", [CATEGORICAL_INPUT, index], [strings], axis=1))
        nodes.append(
            helper.make_node(
                "LabelEncoder",
                [strings],
                [code],
                domain="ai.onnx.ml",
                keys_strings=list(column.categories),
                values_int64s=list(range(len(column.categories))),
                default_int64=len(column.categories),
            )
        )
        codes.append(code)
    nodes.append(helper.make_node("Concat", codes, [CODES], axis=1))
    return nodes
