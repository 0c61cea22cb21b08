"""What the site shows that is written elsewhere: docstrings, diagrams, equations. Called by MkDocs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[1]
DIAGRAMS = PROJECT / "docs" / "diagrams"

EQUATIONS_PAGE = "how-it-works.md"
EQUATION = re.compile(r"(?m)^\$\$\n(.+?)\n\$\$$|(?<![`\w$])\$([^$\n]+?)\$(?![\w$])", re.DOTALL)
"""A block between lines of two dollar signs, or words between single ones, as GitHub reads them."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each package of the library, and each diagram as SVG where PlantUML is there."""
    for name in packages():
        page = f"# {name}\n\n::: {name}\n"
        files.append(File.generated(config, f"api/{name}.md", content=page))
    for path in rendered_diagrams(PROJECT / "build" / "diagrams"):
        files.append(File.generated(config, f"diagrams/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show the diagrams on their page, and equations as MathML, which browsers draw without a script."""
    if page.file.src_uri == "diagrams/index.md":
        sources = sorted(DIAGRAMS.glob("*.plantuml"), key=lambda path: (path.stem != "ssad", path.stem))
        markdown += "".join(_diagram(source, files) for source in sources)
    return EQUATION.sub(_equation, markdown) if page.file.src_uri == EQUATIONS_PAGE else markdown


def packages() -> list[str]:
    """The library's packages with something public, and the modules beside them."""
    found = [path.parent.name for path in (PROJECT / "ssad").glob("*/__init__.py") if "__all__" in path.read_text()]
    return [f"ssad.{name}" for name in sorted([*found, "errors", "metrics", "testing"])]


def rendered_diagrams(folder: Path) -> list[Path]:
    """Every diagram as SVG in a folder; none where PlantUML, or Graphviz that it draws by, is not installed."""
    if shutil.which("plantuml") is None or shutil.which("dot") is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    sources = [str(path) for path in sorted(DIAGRAMS.glob("*.plantuml"))]
    subprocess.run(["plantuml", "-tsvg", "-failfast2", "-o", str(folder), *sources], check=True)
    return sorted(folder.glob("*.svg"))


def _diagram(source: Path, files: Files) -> str:
    drawn = files.get_file_from_path(f"diagrams/{source.stem}.svg")
    shown = f"![{source.stem}]({source.stem}.svg)" if drawn else f"```text\n{source.read_text()}```"
    return f"\n\n## {source.stem}\n\n{shown}\n"


def _equation(match: re.Match[str]) -> str:
    block, inline = match.groups()
    return convert(block or inline, display="block" if block else "inline")
