"""Every example runs, as a reader would run it."""

from __future__ import annotations

from pathlib import Path

import mlflow
import nbformat
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from nbclient import NotebookClient

from tests.conftest import PROJECT, small_table
from tests.ssad.workflows.support import PROCESS_SECONDS, QUIET_LIBRARIES, environment, run_python

pytestmark = [
    *QUIET_LIBRARIES,
    pytest.mark.slow,
    # nbclient 0.11 leaves its kernel's channels to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Jupyter asks for a setting of its own future.
    pytest.mark.filterwarnings("ignore:.*JUPYTER_PLATFORM_DIRS"),
]

EXAMPLES = PROJECT / "examples"


@pytest.mark.parametrize("name", ["radon", "grand"])
def test_a_paper_s_detector_is_built_from_its_parts_and_tested(name: str, tmp_path: Path) -> None:
    done = run_python(str(EXAMPLES / f"{name}.py"), cwd=tmp_path, env=environment("sqlite://"))
    assert done.returncode == 0, done.stderr
    assert "test_auc" in done.stdout
    client = MlflowClient(f"sqlite:///{tmp_path / 'digits' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name({"radon": "RADON", "grand": "GRAnD"}[name])
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["test_auc"] > 0.7


def test_an_own_detector_is_tracked_registered_and_scores_without_its_code(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    table = small_table()
    table.to_csv(tmp_path / "small.csv", index=False)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    arguments = ["-m", "ssad.cli", "train", "--dataset", "small.csv", "--detector", "examples.own_detector:OWN"]
    done = run_python(*arguments, "--model-name", "own", cwd=tmp_path, env=environment(uri))
    assert done.returncode == 0, done.stderr
    assert "own version 1" in done.stdout

    mlflow.set_tracking_uri(uri)
    try:
        answers = mlflow.pyfunc.load_model("models:/own@champion").predict(table.drop(columns="label"))
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type] # back to the default, which its types forget
    assert isinstance(answers, pd.DataFrame)
    far = table["label"] == "attack"
    assert answers["score"][far].median() > answers["score"][~far].median()
    assert np.isfinite(answers[["score", "confidence"]]).all(axis=None)


def test_the_quickstart_notebook_runs_from_its_first_cell_to_its_last() -> None:
    notebook = nbformat.read(  # type: ignore[no-untyped-call]  # nbformat does not type it
        EXAMPLES / "quickstart.ipynb", as_version=4
    )
    resources = {"metadata": {"path": str(EXAMPLES)}}
    NotebookClient(notebook, timeout=PROCESS_SECONDS, startup_timeout=PROCESS_SECONDS, resources=resources).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
