"""Traces of requests by OpenTelemetry, where they are wanted: nothing of it is imported otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.gate import PROBES, handler_of, known_method
from ssad import __version__
from ssad.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

UNTRACED = PROBES | {"/metrics"}


def traced(app: ASGIApp, endpoint: str) -> ASGIApp:
    """The application with a span for each request but probes, sent to an OTLP collector; itself without one.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    if not endpoint:
        return app
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(
            "SSAD_SERVE_TRACES_ENDPOINT is set but OpenTelemetry is not installed; "
            'pip install -c constraints.txt -e ".[otel]".'
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "ssad", "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Traced(app, provider.get_tracer("serving", __version__))


class Traced:
    """An application whose requests are spans: method, path as in metrics, status and time, and nothing else.

    OpenTelemetry's own instrumentation adds address, query and headers of the client.
    """

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._app, self._tracer = app, tracer
        self._kind, self._failed = SpanKind.SERVER, StatusCode.ERROR
        self._parent = TraceContextTextMapPropagator().extract

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request within a span."""
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
            return
        span = self._begun(scope)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= 500:
                    span.set_status(self._failed)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            span.end()

    def _begun(self, scope: Scope) -> Span:
        """A span of a request; it continues the trace of a `traceparent`."""
        parents = [value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"]
        method, handler = known_method(scope["method"]), handler_of(scope["path"])
        return self._tracer.start_span(
            f"{method} {handler}",
            self._parent({"traceparent": parents[0]} if parents else {}),
            self._kind,
            {"http.request.method": method, "http.route": handler},
        )
