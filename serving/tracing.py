"""Traces of requests by OpenTelemetry, where they are wanted: nothing of it is imported otherwise."""

from __future__ import annotations

from starlette.types import ASGIApp

from serving.gate import PROBES
from ssad import __version__
from ssad.errors import SettingsError


def traced(app: ASGIApp, endpoint: str) -> ASGIApp:
    """The application with a span for each request but probes, sent to an OTLP collector; itself without one.

    A span has method, path and status, no body and no header; it continues the trace of a `traceparent`.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    if not endpoint:
        return app
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.util.http import ExcludeList
    except ImportError as error:
        raise SettingsError(
            "SSAD_SERVE_TRACES_ENDPOINT is set but OpenTelemetry is not installed; "
            'pip install -c constraints.txt -e ".[otel]".'
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "ssad", "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    probes = ExcludeList([f"{path}$" for path in (*PROBES, "/metrics")])
    middleware: ASGIApp = OpenTelemetryMiddleware(
        app, excluded_urls=probes, tracer_provider=provider, exclude_spans=["receive", "send"]
    )
    return middleware
