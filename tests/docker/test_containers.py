"""No container engine is needed: the files are linted, and the service's build steps run in a folder of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from compose_spec import PyCompose

from serving.main import KEEP_ALIVE_SECONDS
from serving.settings import listing
from tests.conftest import PROJECT
from tests.serving.support import Registry, certificate, running_service

DOCKER = PROJECT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))

ENVIRONMENT = {"POSTGRES_PASSWORD": "p", "S3_KEY": "k", "S3_SECRET": "s"}


def steps(name: str) -> list[tuple[str, str]]:
    """Instructions of a Dockerfile with what they say, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (DOCKER / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in lines if line.strip()]


def compose() -> str:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    return re.sub(r"\$\{(\w+)(?::\?[^}]*)?\}", lambda found: ENVIRONMENT[found[1]], text)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_linter_finds_nothing(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert hadolint is not None
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_package_of_the_images_is_pinned() -> None:
    pinned = set(re.findall(r"^([\w.-]+)==", (PROJECT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    lines = (DOCKER / "serving.txt").read_text(encoding="utf-8").splitlines()
    named = {line for line in lines if not line.startswith("#")}
    for path in DOCKERFILES:
        (installed,) = re.findall(r"-c constraints.txt (.*?)(?: \\\n|\n)", path.read_text(encoding="utf-8"))
        words = [word for word in installed.split() if word not in ("-r", "serving.txt", ".")]
        named |= {word.strip('"').partition("[")[0] for word in words}
    assert {"boto3", "psycopg", "uvicorn"} <= named
    assert named <= pinned


def test_the_services_image_has_every_package_that_the_service_imports() -> None:
    lines = (DOCKER / "serving.txt").read_text(encoding="utf-8").splitlines()
    named = {line for line in lines if not line.startswith("#")}
    brought = [said for name in named for said in requires(name) or [] if "extra ==" not in said]
    installed = {plain(name) for name in (*named, *(re.split(r"[^\w.-]", said)[0] for said in brought))}
    code = "\n".join(file.read_text(encoding="utf-8") for file in (PROJECT / "serving").rglob("*.py"))
    packages = packages_distributions()
    imported = packages.keys() & set(re.findall(r"^ *(?:from|import) (\w+)", code, re.MULTILINE)) - {"serving", "ssad"}
    assert {"fastapi", "prometheus_client"} <= imported
    assert [name for name in sorted(imported) if not installed.intersection(map(plain, packages[name]))] == []


def plain(name: str) -> str:
    """A distribution's name, as all spellings of it are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_compose_fits_its_specification() -> None:
    found = PyCompose.from_yaml(yaml.safe_dump(yaml.safe_load(compose())))  # it does not know YAML's merge keys
    found.validate()
    assert {"database", "store", "mlflow", "serving", "prometheus"} <= set(yaml.safe_load(compose())["services"])


def test_compose_builds_what_is_there_and_sets_what_exists() -> None:
    services = yaml.safe_load(compose())["services"]
    for service in services.values():
        if "build" in service:
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    serving = services["serving"]
    known = {name for name, _, _ in listing()} | {"MLFLOW_TRACKING_URI"}
    assert set(serving["environment"]) <= known
    assert serving["read_only"] is True
    assert serving["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_nothing_runs_as_root(path: Path) -> None:
    users = [said for name, said in steps(path.name) if name == "USER"]
    assert users == ["10001"]


def test_the_service_stops_by_the_signal_it_drains_at() -> None:
    said = dict(steps("serving.Dockerfile"))
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert "HEALTHCHECK" in said
    assert KEEP_ALIVE_SECONDS > 60


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_health_check_asks_as_the_service_listens(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    said = dict(steps("serving.Dockerfile"))["HEALTHCHECK"]
    code = json.loads(said[said.index("[") :])[2]
    settings: dict[str, Any] = certificate(tmp_path) if scheme == "https" else {}
    if scheme == "https":
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    settings["SSAD_SERVE_MODEL"] = str(bundle_folder)
    with running_service("", tmp_path, scheme=scheme, **settings) as service:
        asked = code.replace("8000", str(service.client.base_url.port))
        for path, status in (("/readyz", 0), ("/nowhere", 1)):
            found = subprocess.run(
                [sys.executable, "-c", asked.replace("/readyz", path)],
                env=os.environ | settings,
                capture_output=True,
                check=False,
            )
            assert found.returncode == status, found.stderr


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the service's build stage leaves: its COPY and RUN steps, carried out in a folder."""
    folder = tmp_path_factory.mktemp("image")
    source, target = folder / "src", folder / "opt"
    source.mkdir()
    built = steps("serving.Dockerfile")
    second = [at for at, (name, _) in enumerate(built) if name == "FROM"][1]
    carry_out(built[:second], source, {"/opt/ssad": str(target)})
    yield target
    shutil.rmtree(folder)


def carry_out(built: list[tuple[str, str]], source: Path, changes: dict[str, str]) -> None:
    """COPY and RUN in a folder, some of the words of the commands changed."""
    for name, said in built:
        if name == "COPY":
            *files, place = said.split()
            for file in files:
                copy(PROJECT / file, source / (Path(file).name if place == "./" else place))
        elif name == "RUN":
            for old, new in (changes | {"python -m venv": f"{sys.executable} -m venv"}).items():
                said = said.replace(old, new)
            done = subprocess.run(["bash", "-ec", said], cwd=source, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]


def copy(file: Path, place: Path) -> None:
    if file.is_dir():
        shutil.copytree(file, place, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(file, place)


installs = pytest.mark.skipif(
    "SSAD_TEST_IMAGE" not in os.environ, reason="installs for minutes; set SSAD_TEST_IMAGE to run it"
)


@pytest.mark.slow
@installs
def test_the_training_image_can_be_installed(tmp_path: Path) -> None:
    # Everything is found and fits together; gigabytes are left where they are, and this machine without a new user.
    changes = {"/opt/venv": str(tmp_path / "venv"), "pip install": "pip install --dry-run", "&& useradd": "&& true"}
    source = tmp_path / "src"
    source.mkdir()
    carry_out(steps("training.Dockerfile"), source, changes)


@pytest.mark.slow
@installs
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_image_has_nothing_of_training_and_serves(image: Path, registry: Registry, tmp_path: Path) -> None:
    python = image / "bin" / "python"
    program = "import importlib.metadata as m, json; print(json.dumps([d.name.lower() for d in m.distributions()]))"
    installed = json.loads(subprocess.run([python, "-c", program], capture_output=True, check=True).stdout)
    assert {"onnxruntime", "mlflow-skinny"} <= set(installed)
    assert not {"torch", "lightning", "scikit-learn", "matplotlib", "mlflow", "pip"} & set(installed)
    registry.promote("first")
    bin_first = f"{image / 'bin'}:/usr/bin:/bin"
    with running_service(registry.uri, tmp_path, PATH=bin_first, PYTHONPATH="", program=str(python)) as running:
        assert running.version == registry.versions["first"]
