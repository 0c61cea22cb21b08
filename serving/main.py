"""Start the service: fetch the model, check it, listen."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

import uvicorn

from serving.app import Served, create_app
from serving.registry import fetch
from ssad.bundle import Bundle


def run(model: str, host: str, port: int) -> None:
    """Serve the model at a URI until the process is told to stop.

    Raises:
        TrackingError: the model cannot be fetched.
        BundleError: it is damaged, or scores differently from training time.
    """
    # uvicorn stops gracefully and then raises the signal again; leaving by an exception cleans up the folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="ssad-serve-") as folder:
        source = fetch(model, Path(folder))
        bundle = Bundle(Path(source.path))
        bundle.check_golden()
        print(f"serving {source.uri} (version {source.version or 'unregistered'}) at http://{host}:{port}/docs")
        uvicorn.run(create_app(Served(bundle, source)), host=host, port=port, log_level="warning")
