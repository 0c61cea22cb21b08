"""Settings of the service, all from the environment; `ssad serve --help` lists them from here."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ssad.errors import SettingsError, without_secrets

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The folder by which worker processes share their metrics; prometheus_client reads it when it is imported."""

PREFIX = "SSAD_SERVE_"

SHA256 = re.compile(r"[0-9a-f]{64}")
"""A key as it is kept: its SHA-256 in hexadecimal."""

DAY = 86_400
"""Seconds, at most, of any time: clocks know no number for an endless one."""

Words = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """What may be set, each as `SSAD_SERVE_<NAME>`; `model`, `host` and `port` are options too."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    model: str = Field(
        "models:/ssad@champion",
        min_length=1,
        description="model URI of MLflow, or a bundle's folder; one with an alias is followed",
    )
    host: str = Field("127.0.0.1", description="address to listen at")
    port: int = Field(8000, ge=0, le=65535, description="port to listen at")
    workers: int = Field(1, ge=1, description="processes; each follows the registry by itself")
    registry_uri: str = Field(
        "",
        validation_alias=AliasChoices("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"),
        description="where the registry is; or MLFLOW_TRACKING_URI",
    )
    cache: Path = Field(
        default_factory=lambda: Path.home() / ".cache/ssad/serving",
        description="folder where the last good bundle is kept",
    )
    allowed_models: Words = Field(
        (), description="registered names that may be served, separated by commas; empty: all"
    )
    allow_new_columns: bool = Field(False, description="accept a version that needs columns the served one does not")
    poll_seconds: float = Field(5.0, gt=0, le=DAY, description="time between two looks at the alias, +-20 %")
    registry_timeout_seconds: float = Field(3.0, gt=0, le=DAY, description="how long the registry may take to answer")
    fetch_timeout_seconds: float = Field(
        120.0, gt=0, le=DAY, description="how long fetching a version may take, or checking it"
    )
    webhook_secret: str = Field("", repr=False, description="secret of MLflow's registry webhook; empty: no webhook")
    api_keys: Words = Field(
        (), repr=False, description="SHA-256 of each API key, separated by commas; none here and no file: open"
    )
    api_keys_file: Path | None = Field(None, description="file with more, one a line, read again when it changes")
    admin_key: str = Field("", repr=False, description="SHA-256 of the admin key; empty: /admin is closed")
    max_body_bytes: int = Field(256 * 2**20, ge=1, description="largest body")
    max_json_bytes: int = Field(32 * 2**20, ge=1, description="largest JSON body: its rows take far more")
    max_rows: int = Field(1_000_000, ge=1, description="most rows in a body")
    max_explained: int = Field(2000, ge=1, description="most explained columns in an answer: rows x explain")
    max_concurrency: int = Field(64, ge=1, description="requests in progress; more are answered 503")
    rate_limit: str = Field("", description="requests of one client, such as 100/second; more are answered 429")
    timeout_seconds: float = Field(30.0, gt=0, le=DAY, description="how long a request may take")
    tls_certificate: Path | None = Field(None, description="certificate chain, PEM")
    tls_key: Path | None = Field(
        None, validate_default=True, description="its private key, PEM; empty: in the same file"
    )
    drain_seconds: float = Field(
        5.0, ge=0, le=DAY, description="time from SIGTERM to closing the port; unready meanwhile"
    )
    shutdown_seconds: int = Field(30, ge=0, le=DAY, description="time requests in progress have after that")
    drift_rows: int = Field(10_000, ge=1, description="recent rows that are compared with the training rows")
    threads: int = Field(0, ge=0, description="cores that score large bodies; 0: all")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    traces_endpoint: str = Field("", description="where traces go, by OTLP over HTTP; empty: none are made")

    @property
    def told_model(self) -> str:
        """The model URI as anybody may read it: without user, password and query."""
        return without_secrets(self.model)

    @field_validator("allowed_models", "api_keys", mode="before")
    @classmethod
    def _by_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        words = tuple(word.strip() for word in value.split(",") if word.strip())
        if not words:  # else a lone comma would mean that all may
            raise ValueError("must name something; unset it to leave it at its default")
        return words

    @field_validator("api_keys")
    @classmethod
    def _hashed(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if not all(SHA256.fullmatch(key) for key in keys):
            raise ValueError("each must be the SHA-256 of a key, 64 hexadecimal digits")
        return keys

    @field_validator("admin_key")
    @classmethod
    def _hashed_or_empty(cls, key: str) -> str:
        if key and not SHA256.fullmatch(key):
            raise ValueError("must be the SHA-256 of the key, 64 hexadecimal digits")
        return key

    @field_validator("rate_limit")
    @classmethod
    def _readable_rate(cls, limit: str) -> str:
        if limit:
            from limits import parse_many

            try:
                (rate,) = parse_many(limit)
            except ValueError:
                raise ValueError("must be one number of requests and a time, such as 100/second") from None
            if not rate.amount:
                raise ValueError("must allow at least one request; empty for any number")
        return limit

    @field_validator("tls_certificate")
    @classmethod
    def _readable_certificate(cls, certificate: Path | None) -> Path | None:
        if certificate is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
            except OSError:  # ssl.SSLError is one
                raise ValueError(f"must be a readable file of PEM certificates, got {str(certificate)!r}") from None
        return certificate

    @field_validator("tls_key")
    @classmethod
    def _fits_certificate(cls, key: Path | None, others: ValidationInfo) -> Path | None:
        if "tls_certificate" not in others.data:
            return key  # which has been refused
        certificate = others.data["tls_certificate"]
        if key is not None and certificate is None:
            raise ValueError("needs SSAD_SERVE_TLS_CERTIFICATE beside it")
        if certificate is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            except OSError:
                raise ValueError("must be the readable PEM key of SSAD_SERVE_TLS_CERTIFICATE") from None
        return key

    @field_validator("traces_endpoint")
    @classmethod
    def _url_or_empty(cls, endpoint: str) -> str:
        if endpoint and not re.match(r"https?://[^/]", endpoint):
            raise ValueError(f"must be a URL such as http://collector:4318/v1/traces, got {endpoint!r}")
        return endpoint

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, level: str) -> str:
        if level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
        return level.upper()


def read_settings(**given: object) -> Settings:
    """Settings from the environment, and what is given instead.

    Raises:
        SettingsError: values cannot be used; one error names them all.
    """
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        told = ((str(part["loc"][0]), part["msg"].removeprefix("Value error, ")) for part in error.errors())
        problems = [f"{variable(name)}: {message}" for name, message in told]
        raise SettingsError("; ".join(problems) + ".") from None


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return name.upper() if name.upper().startswith("MLFLOW_") else f"{PREFIX}{name.upper()}"


def listing() -> list[tuple[str, str, str]]:
    """Every setting: its variable, its default and what it means."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Path):
            default = Path("~", default.relative_to(Path.home()))
        shown = ",".join(default) if isinstance(default, tuple) else str(default if default is not None else "")
        alias = field.validation_alias
        rows.append(
            (
                str(alias.choices[0]) if isinstance(alias, AliasChoices) else variable(name),
                shown,
                field.description or "",
            )
        )
    return rows
