"""The documentation says what the code says."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from inspect import get_annotations, getdoc, isabstract, signature
from pathlib import Path

import pytest
import typer

from ssad.cli import app
from tests.conftest import PROJECT

DOCS = PROJECT / "docs"


def messages() -> Iterator[str]:
    """Every message of an error that the project raises, with … for its values."""
    for folder in ("ssad", "serving"):
        for path in (PROJECT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.JoinedStr, ast.Constant, ast.BinOp)):
                    yield _template(node)


def _template(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _template(node.left) + _template(node.right)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


def test_troubleshooting_quotes_messages_as_the_code_has_them() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    ours, _, _ = page.partition("## From other programs")
    known = set(messages())
    quoted = re.findall(r"^### `(.+)`$", ours, re.MULTILINE)
    assert len(quoted) > 20
    wrong = [message for message in quoted if not any(message in template for template in known)]
    assert not wrong


DIAGRAMS = sorted((DOCS / "diagrams").glob("*.plantuml"))


def diagram_classes(source: str) -> dict[str, tuple[type, list[str]]]:
    """Classes of a diagram by name, as the code has them, with the members that the diagram gives them."""
    found: dict[str, tuple[type, list[str]]] = {}
    module, members = "", None
    for line in (line.strip() for line in source.splitlines()):
        if package := re.fullmatch(r'package "([\w.]+)" \{', line):
            module = package[1]
        elif kind := re.fullmatch(r"(?:interface|abstract class|class) (\w+)( \{)?", line):
            owner = getattr(import_module(module), kind[1])
            listed: list[str] = []
            found[kind[1]] = owner, listed
            members = listed if kind[2] else None
        elif line == "}":
            members = None
        elif members is not None:
            members.append(line)
    return found


def has_member(owner: type, member: str) -> bool:
    """Whether a class has the attribute, or the method with these parameters."""
    name, _, parameters = member.rstrip(")").partition("(")
    if "(" in member:
        taken = [p for p in signature(getattr(owner, name)).parameters if p != "self"]
        return taken[: len(wanted)] == wanted if (wanted := [p for p in parameters.split(", ") if p]) else True
    documented = re.search(rf"^\s+{name}: ", getdoc(owner) or "", re.MULTILINE)
    return name in get_annotations(owner) or hasattr(owner, name) or bool(documented)


@pytest.mark.parametrize("path", DIAGRAMS, ids=lambda path: path.stem)
def test_a_diagram_names_what_the_code_has(path: Path) -> None:
    source = path.read_text()
    classes = diagram_classes(source)
    missing = [f"{name}.{m}" for name, (owner, members) in classes.items() for m in members if not has_member(owner, m)]
    assert not missing
    for child, parent in re.findall(r"^(\w+) (?:--|\.\.)\|> (\w+)", source, re.MULTILINE):
        known, ancestor = classes[child][0], classes[parent][0]
        assert ancestor in known.__mro__ or issubclass(known, ancestor), f"{child} is no {parent}"
    for kind in ("interface", "abstract class"):
        for name in re.findall(rf"^\s*{kind} (\w+)", source, re.MULTILINE):
            owner = classes[name][0]
            assert getattr(owner, "_is_protocol", False) if kind == "interface" else isabstract(owner), name


def test_every_package_with_public_classes_has_a_diagram() -> None:
    packages = {path.parent.name for path in (PROJECT / "ssad").glob("*/__init__.py")}
    assert packages | {"ssad", "serving"} <= {path.stem for path in DIAGRAMS}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `ssad` command of the documentation, as its words, with where it stands."""
    for page in [PROJECT / "README.md", *DOCS.rglob("*.md")]:
        for block in re.findall(r"^```bash\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("ssad "):
                    yield page.name, shlex.split(line, comments=True)


@pytest.mark.parametrize(
    ("page", "words"), list(commands()), ids=lambda value: value if isinstance(value, str) else None
)
def test_a_documented_command_has_options_that_exist(page: str, words: list[str]) -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    known = {option for parameter in verbs[words[1]].params for option in parameter.opts}
    assert {word for word in words[2:] if word.startswith("--")} <= known
