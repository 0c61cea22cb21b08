"""Start the service: load a bundle, listen, drain at the end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from serving.logs import setup_logs
from serving.settings import MULTIPROCESS, PREFIX, Settings, read_settings
from serving.wire import GatheringProtocol
from ssad.errors import SettingsError

KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep idle connections (60 s is usual): the side that closes must be theirs."""


def run(model: str, host: str, port: int) -> None:
    """Serve the model at a URI until the process is told to stop.

    Raises:
        SettingsError: a setting cannot be used, the address is in use among them.
        TrackingError: the model cannot be fetched, and none was kept from before.
        BundleError: it is damaged, or scores differently from training time.
    """
    # uvicorn stops gracefully and then raises the signal again; leaving by an exception cleans up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = read_settings(model=model, host=host, port=port)
    setup_logs(settings.log_level)
    os.environ.pop(MULTIPROCESS, None)  # where another program's processes count
    with closing(bound_socket(settings)) as listener:
        if settings.workers > 1:
            _run_workers(settings, listener)
            return
        from serving.app import create_app

        server = uvicorn.Server(server_config(settings, create_app(settings)))
        listen(listener, settings)
        server.run([listener])


def _run_workers(settings: Settings, listener: socket.socket) -> None:
    """Several processes at one port: the first bundle is fetched before they start, each follows by itself.

    Raises:
        SettingsError: there is no room for what they count.
    """
    given = {"MODEL": settings.model, "HOST": settings.host, "PORT": str(settings.port)}
    os.environ.update({f"{PREFIX}{name}": value for name, value in given.items()})
    from serving.app import fetch_first
    from serving.metrics import SHARED, SHARED_BYTES, make_files

    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ssad-metrics-"))
            for place in range(settings.workers):
                make_files(Path(folder), str(place))
        except OSError as error:
            needed = settings.workers * len(SHARED) * SHARED_BYTES >> 20
            raise SettingsError(
                f"the files in which {settings.workers} workers count cannot be made in the temporary folder "
                f"({error.strerror}); make room for {needed} MiB there, or set TMPDIR to another."
            ) from error
        fetch_first(settings)
        os.environ[MULTIPROCESS] = folder  # of the workers: what this process counts is nobody's
        listen(listener, settings)
        Multiprocess(server_config(settings, "serving.main:worker_app"), sockets=[listener]).run()


def bound_socket(settings: Settings) -> socket.socket:
    """A socket that has the address, and does not listen yet: nobody is to wait while a bundle is fetched.

    Raises:
        SettingsError: it cannot be had.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.set_inheritable(True)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as error:
        bound.close()
        raise _taken(settings, error) from error
    return bound


def listen(bound: socket.socket, settings: Settings) -> None:
    """Let clients come, and tell where.

    Raises:
        SettingsError: another process has begun to listen there meanwhile.
    """
    try:
        bound.listen()
    except OSError as error:
        raise _taken(settings, error) from error
    scheme = "https" if settings.tls_certificate else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"serving {settings.told_model} at {scheme}://{host}:{bound.getsockname()[1]}/docs", flush=True)


def _taken(settings: Settings, error: OSError) -> SettingsError:
    place = f"{settings.host}, port {settings.port}"
    return SettingsError(f"nothing can listen at {place} ({error.strerror}); choose another by --host or --port.")


def worker_app() -> Any:
    """The application of a worker process, whose settings are in its environment."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    from serving.metrics import share_metrics

    share_metrics()
    from serving.app import create_app

    settings = read_settings()
    setup_logs(settings.log_level)
    return create_app(settings)


def _end_with_parent() -> None:
    """End like one that is told to, once the parent is gone: nobody else would tell it, and it holds the port."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def server_config(settings: Settings, app: Any) -> uvicorn.Config:
    """How uvicorn serves an application, or what the name of a factory makes."""
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http=GatheringProtocol,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
