"""What is written twice in this project says the same in both places."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ssad
from ssad.cli import app
from tests.conftest import PROJECT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def text(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def constraints() -> list[Requirement]:
    lines = [line for line in text("constraints.txt").splitlines() if line and not line.startswith("#")]
    return [Requirement(line) for line in lines]


def pinned() -> dict[str, str]:
    """Version of each package that this machine's constraints pin."""
    here = [entry for entry in constraints() if entry.marker is None or entry.marker.evaluate()]
    return {canonicalize_name(entry.name): str(entry.specifier).removeprefix("==") for entry in here}


def project() -> dict[str, Any]:
    document: dict[str, Any] = tomllib.loads(text("pyproject.toml"))["project"]
    return document


def dependencies() -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in project()["dependencies"]}


def conda_pins() -> dict[str, str]:
    entries = yaml.safe_load(text("conda.yaml"))["dependencies"]
    (pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in pip)}


def entry_points() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text("MLproject"))["entry_points"]
    return found


def options(verb: str) -> dict[str, str]:
    """Options of a verb by their parameter's name, with their defaults as text."""
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]  # it is a group
    return {option.opts[0].removeprefix("--").replace("-", "_"): str(option.default) for option in command.params}


def test_the_readme_has_exactly_two_commands() -> None:
    commands = [line for line in text("README.md").splitlines() if line.startswith("pip install -c constraints.txt")]
    assert len(commands) == 2
    assert commands[0].endswith("mlflow run . --env-manager local -P dataset=breast-cancer")
    assert commands[1].endswith("pytest")


def test_the_citation_and_the_changelog_know_the_version() -> None:
    assert yaml.safe_load(text("CITATION.cff"))["version"] == ssad.__version__
    assert re.search(rf"^## \[({re.escape(ssad.__version__)}|Unreleased)\]", text("CHANGELOG.md"), re.MULTILINE)


def test_every_constraint_is_one_exact_version() -> None:
    for entry in constraints():
        assert re.fullmatch(r"==[^,*]+", str(entry.specifier)), entry


def test_torch_is_held_where_pip_fetches_no_other_cuda() -> None:
    assert pinned()["torch"] == "2.13.0"


def test_constraints_pin_every_dependency_and_every_extra() -> None:
    known = pinned()
    wanted = list(project()["dependencies"])
    for extra in project()["optional-dependencies"].values():
        wanted += extra
    for line in wanted:
        requirement = Requirement(line)
        if requirement.name == "ssad":
            continue
        name = canonicalize_name(requirement.name)
        assert name in known, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(known[name]), f"{known[name]} is not within {line}"


def test_conda_installs_every_dependency_at_the_constrained_version() -> None:
    pins, known = conda_pins(), pinned()
    assert dependencies() <= set(pins)
    assert pins == {name: known[name] for name in pins}


def test_conda_and_constraints_are_for_the_python_that_the_project_allows() -> None:
    (line,) = [
        entry
        for entry in yaml.safe_load(text("conda.yaml"))["dependencies"]
        if isinstance(entry, str) and entry.startswith("python=")
    ]
    requirement = Requirement(f"python{project()['requires-python']}")
    assert requirement.specifier.contains(line.removeprefix("python="))


VERBS = [("main", "train"), *((verb, verb) for verb in ("evaluate", "recalibrate", "promote", "score", "serve"))]


@pytest.mark.parametrize(("entry_point", "verb"), VERBS)
def test_an_entry_point_has_the_parameters_and_defaults_of_its_verb(entry_point: str, verb: str) -> None:
    parameters = entry_points()[entry_point]["parameters"]
    expected = options(verb)
    assert set(parameters) == set(expected)
    for name, parameter in parameters.items():
        if "default" in parameter:
            assert str(parameter["default"]) == expected[name], name
        else:
            assert name in ("dataset", "output")


@pytest.mark.parametrize(("entry_point", "verb"), VERBS)
def test_an_entry_point_passes_every_parameter_to_its_option(entry_point: str, verb: str) -> None:
    command = entry_points()[entry_point]["command"]
    assert command.startswith(f"python -m ssad.cli {verb} ")
    passed = dict(re.findall(r"--([a-z-]+) \{([a-z_]+)\}", command))
    assert {option.replace("-", "_"): name for option, name in passed.items()} == {name: name for name in options(verb)}


def test_the_stub_and_the_package_export_the_same_names() -> None:
    import ssad

    stub = re.findall(r"import \w+ as (\w+)", text("ssad/__init__.pyi"))
    assert sorted(stub) == sorted(vars(ssad)["__all__"])


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    return [name for name in listed.stdout.split("\0") if name]


def test_no_tracked_file_names_a_folder_of_one_machine() -> None:
    folders = re.compile("|".join(f"/{name}/" for name in ("work", "root")).encode())
    guilty = [name for name in tracked_files() if (PROJECT / name).is_file()]
    guilty = [name for name in guilty if folders.search((PROJECT / name).read_bytes())]
    assert guilty == []


def test_a_source_distribution_holds_every_tracked_file(tmp_path: Path) -> None:
    tracked = {name for name in tracked_files() if (PROJECT / name).is_file()}
    for name in tracked:
        copy = tmp_path / "checkout" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / name, copy)
    build = ("-c", f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})")
    subprocess.run([sys.executable, *build], cwd=tmp_path / "checkout", capture_output=True, check=True)
    (distribution,) = tmp_path.glob("ssad-*.tar.gz")
    with tarfile.open(distribution) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked - held == set()
