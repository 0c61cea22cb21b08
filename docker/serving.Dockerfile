# The service: no torch, no build tools, no root, nothing to write but the cache.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
COPY docker/serving.txt constraints.txt ./
RUN python -m venv /opt/ssad \
    && /opt/ssad/bin/pip install --no-cache-dir -c constraints.txt -r serving.txt
COPY pyproject.toml README.md LICENSE ./
COPY ssad ssad
COPY serving serving
RUN /opt/ssad/bin/pip install --no-cache-dir --no-deps . \
    && /opt/ssad/bin/pip uninstall --yes pip

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin ssad \
    && install --directory --mode 700 --owner ssad /var/cache/ssad
COPY --from=build /opt/ssad /opt/ssad
ENV PATH=/opt/ssad/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    SSAD_SERVE_CACHE=/var/cache/ssad
USER 10001
# Not the cache: it can be written, and Python may look for modules where it starts.
WORKDIR /
VOLUME /var/cache/ssad
EXPOSE 8000
STOPSIGNAL SIGTERM
# Unverified, as a certificate names the host and not its own address.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, ssl; from urllib.request import urlopen; tls = 's' if os.environ.get('SSAD_SERVE_TLS_CERTIFICATE') else ''; urlopen(f'http{tls}://127.0.0.1:8000/readyz', timeout=2, context=ssl._create_unverified_context())"]
CMD ["ssad", "serve", "--host", "0.0.0.0", "--port", "8000"]
