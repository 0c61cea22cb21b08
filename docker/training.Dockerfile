# Training and every other entry point: the whole library, not root.
FROM python:3.11.14-slim-bookworm
WORKDIR /opt/ssad
COPY constraints.txt pyproject.toml README.md LICENSE MLproject ./
COPY ssad ssad
COPY serving serving
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt boto3 "psycopg[binary]" . \
    && useradd --system --uid 10001 --home-dir /var/lib/ssad --create-home --shell /usr/sbin/nologin ssad
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /var/lib/ssad
ENTRYPOINT ["ssad"]
CMD ["--help"]
