"""What tests of whole paths share: quiet libraries, real servers, one training for a session."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from filelock import FileLock
from onnx import helper, numpy_helper

from ssad.bundle.bundle import MANIFEST, file_digest

QUIET_LIBRARIES = [
    # Lightning suggests more loader workers and a smaller logging interval; both are advice on speed.
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    # Lightning 2.6 walks trees with a torch call that torch 2.13 renamed.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
    # Lightning asks whether an empty list of validation loaders is meant; it is.
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),
    # Lightning asks whether a GPU is forgotten where a test says that it trains on the CPU.
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    # Lightning says that its default logger is the CSV one.
    pytest.mark.filterwarnings("ignore:.*`tensorboardX` has been removed"),
    # MLflow 3.17 warns of type hints of its own when its pyfunc is imported.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
    # MLflow 3.17 compares a column of strings with a range when it saves an input example.
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
    # Matplotlib measures how long placing a legend takes, which is long on a busy machine.
    pytest.mark.filterwarnings("ignore:Creating legend with loc"),
    # MLflow 3.17 looks for columns of text in a way that pandas 3 deprecates.
    pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes"),
    # MLflow 3.17 uses an SQLAlchemy loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]

QUIET_SPARK = [
    *QUIET_LIBRARIES,
    # MLflow's clients and pyspark leave sockets and a JVM to the end of the process.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # pyspark and MLflow's UDF call pandas and Arrow in ways these deprecate.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
"""Likewise where Spark runs."""

PROCESS_SECONDS = 1800.0
"""How long a process may take to its end, or a server to its first answer, on a busy machine."""


@dataclass(frozen=True)
class Store:
    """A tracking store of its own.

    Attributes:
        folder: what lies beside the store, artifacts among them.
        uri: `MLFLOW_TRACKING_URI`.
        output: what the training that filled it printed.
    """

    folder: Path
    uri: str
    output: str


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], str]) -> tuple[Path, str]:
    """A folder that `make` fills, and what it says of it; of several workers the first makes it, the others find it."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder, told = folder / name, folder / f"{name}.txt"
    with FileLock(f"{told}.lock"):
        if not told.exists():
            folder.mkdir(exist_ok=True)
            told.write_text(make(folder))
    return folder, told.read_text()


def environment(uri: str, **more: str) -> dict[str, str]:
    """A process's environment with this tracking store."""
    return os.environ | {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"} | more


def run_python(*arguments: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `python ...` to its end."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=PROCESS_SECONDS, check=False
    )


def permission_denied(*_: object, **__: object) -> None:
    """A call of MLflow's client, refused to this account."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)


_HELD: list[socket.socket] = []


def free_port() -> int:
    """A port that nothing listens at, for a server that sets SO_REUSEADDR, as all do here.

    It is held to this process's end by a socket that does not listen: nobody is given it before the server is there.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _HELD.append(held)
    port: int = held.getsockname()[1]
    return port


@contextmanager
def file_server(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server of a folder's files: its address, and what it was asked for so far."""
    asked: list[str] = []

    class Files(SimpleHTTPRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            asked.append(self.path)

        def log_message(self, *_: object) -> None:
            """Nothing on the way to standard error."""

    with web_server(partial(Files, directory=str(folder))) as address:
        yield address, asked


@contextmanager
def web_server(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """A web server in a thread: its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def real_server(command: list[str], url: str, cwd: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process, from its first answer at `url` on; stopped with its children at the end."""
    log = cwd / f"server-{url.rsplit(':', 1)[1].split('/')[0]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(process, url, log)
            yield process
        finally:
            _stop(process)


@contextmanager
def tracking_server(
    port: int, options: list[str], folder: Path, more: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A real `mlflow server` before what its options name; `more` is added to its environment."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = environment("", PATH=path, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", **more)
    with real_server([*command, *options], f"http://127.0.0.1:{port}/health", folder, env) as process:
        yield process


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + PROCESS_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")
        with suppress(httpx.TransportError):
            if httpx.get(url, timeout=60).status_code == 200:
                return
        time.sleep(0.05)  # between two polls; the deadline decides
    raise AssertionError(f"nothing answered at {url}: {log.read_text(errors='replace')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and its group: MLflow's servers have workers of their own."""
    try:
        os.killpg(process.pid, 15)
        process.wait(20)
    except ProcessLookupError:
        return
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


def sign(folder: Path, name: str) -> None:
    """Write a file's digest into its bundle's manifest."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = file_digest(folder / name)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def endless(graph: onnx.GraphProto) -> bytes:
    """A scoring graph with the same inputs that goes on for ever."""
    truth, scores = onnx.TensorProto.BOOL, helper.make_tensor_value_info("score", onnx.TensorProto.DOUBLE, ["n"])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["one"], ["same"])],
        "body",
        [
            helper.make_tensor_value_info("at", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("go", truth, []),
            helper.make_tensor_value_info("one", onnx.TensorProto.DOUBLE, ["n"]),
        ],
        [
            helper.make_tensor_value_info("on", truth, []),
            helper.make_tensor_value_info("same", onnx.TensorProto.DOUBLE, ["n"]),
        ],
    )
    loop = [
        helper.make_node("ReduceSum", ["numeric", "axis"], ["sum"], keepdims=0),
        helper.make_node("Loop", ["", "true", "sum"], ["score"], body=body),
    ]
    constants = [numpy_helper.from_array(np.array([1]), "axis"), numpy_helper.from_array(np.array(True), "true")]
    made = helper.make_graph(loop, "endless", list(graph.input), [scores], constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    serialized: bytes = model.SerializeToString()
    return serialized
