"""Every command and snippet of the README does what it says there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ssad.workflows.registry import Registered
from ssad.workflows.summary import next_step
from tests.conftest import PROJECT
from tests.ssad.workflows.support import (
    PROCESS_SECONDS,
    QUIET_LIBRARIES,
    Store,
    environment,
    free_port,
    real_server,
)

pytestmark = [*QUIET_LIBRARIES, pytest.mark.slow]

README = (PROJECT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def flows() -> pd.DataFrame:
    """Connections, a tenth of them far larger and by a rare service."""
    generator = np.random.default_rng(0)
    rare = np.arange(200) % 10 == 9
    sizes = generator.lognormal(np.where(rare, 11, 8.3), np.where(rare, 0.3, 0.5)).round()
    return pd.DataFrame({"bytes": sizes, "service": np.where(rare, "telnet", generator.choice(["http", "dns"], 200))})


def shell(command: str, cwd: Path, uri: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a reader does who has installed the project."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=cwd,
        env=environment(uri, PATH=path, SSAD_SERVE_CACHE=str(cwd / "cache")),
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS,
        check=False,
    )


def test_nothing_of_the_readme_is_left_out_here() -> None:
    kinds = re.findall(r"^```(\w+)$", README, re.MULTILINE)
    assert sorted(kinds) == ["bash", "bash", "bash", "bash", "json", "python", "text"]
    commands = blocks("bash")
    assert [command for command in commands if command.startswith("pip install -c constraints.txt -e ")] == commands[:2]
    assert "grep '^pip install -c constraints.txt' README.md" in (PROJECT / ".ci" / "run").read_text()


def test_the_summary_has_the_lines_that_the_readme_shows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = blocks("text")
    label = re.compile(r"^(\w[\w ]*?)(?:  +|:  )", re.MULTILINE)
    summary = store.output[store.output.index("data set") :]
    assert label.findall(shown) == label.findall(summary)
    monkeypatch.chdir(PROJECT)  # as `mlflow run .` is
    first = Registered("ssad", "1", ("challenger", "champion"))
    assert shown.strip().splitlines()[-1] == next_step(first)


def test_own_data_in_four_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flows().to_parquet("flows.parquet")
    (snippet,) = blocks("python")
    exec(compile(snippet, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count("telnet") > 10


def test_own_data_trained_served_and_asked_by_curl(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    flows().to_parquet(tmp_path / "flows.parquet")
    train, serve = blocks("bash")[2].splitlines()
    trained = shell(train, tmp_path, uri)
    assert trained.returncode == 0, trained.stderr
    assert "flows version 1" in trained.stdout

    port = free_port()
    command = [str(Path(sys.executable).parent / "ssad"), *serve.split()[1:], "--port", str(port)]
    env = environment(uri, SSAD_SERVE_CACHE=str(tmp_path / "cache"))
    with real_server(command, f"http://127.0.0.1:{port}/health", tmp_path, env):
        asked = shell(blocks("bash")[3].replace("localhost:8000", f"127.0.0.1:{port}"), tmp_path, uri)
    assert asked.returncode == 0, asked.stderr
    (shown,) = map(json.loads, blocks("json"))
    found = json.loads(asked.stdout)
    assert found["model"] == shown["model"] | {"name": "flows"}  # the README shows the first command's model
    (prediction,), (expected,) = found["predictions"], shown["predictions"]
    assert prediction.keys() == expected.keys()
    assert prediction["confidence"] > 0  # a usual row of these connections is rather normal


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 15
    assert not [link for link in links if "://" not in link and not (PROJECT / link).exists()]
