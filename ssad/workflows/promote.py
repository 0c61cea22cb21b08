"""Promote a challenger, or roll back: the champion's alias moves only if every check passes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from ssad.aside import fetching_folder
from ssad.bundle import Bundle
from ssad.datasets.labels import AUTO
from ssad.datasets.tables import LABEL
from ssad.errors import RefusedError, SsadError, check_settings, reason_of
from ssad.model_uri import ModelUri
from ssad.workflows.champion import claimed, move_champion
from ssad.workflows.promotion_checks import Check, find_checks
from ssad.workflows.registry import CHAMPION, PREVIOUS, alias_version, fetch_model, registered_name
from ssad.workflows.scored_table import ANOTHER_POPULATION, limit_problems
from ssad.workflows.stopping import too_late_to_stop
from ssad.workflows.tracking import log_new_params, tracked_run
from ssad.workflows.tracking_store import FAILURES

logger = logging.getLogger(__name__)

HEADING = "### Promotion checks"

ROLLED_BACK = "rolled_back_by"
"""Tag of a version that was champion, and the run that took the alias from it."""


@dataclass(frozen=True)
class PromoteSettings:
    """What `promote` takes.

    Attributes:
        candidate: URI of a registered version; with `rollback` its name alone is used.
        dataset: rows to compare on, labelled or not; empty compares what needs none.
        label: name of the label column.
        normal: label values that mean normal.
        min_gain: least gain in average precision; the lower end of its interval must reach it.
        max_drift: stability index up to which unlabelled rows are those the candidate was made for.
        max_abnormal: share of unlabelled rows that the candidate may call abnormal.
        dry_run: only tell.
        rollback: give the alias back to the previous champion.
    """

    candidate: str = "models:/ssad@challenger"
    dataset: str = ""
    label: str = LABEL
    normal: str = AUTO
    min_gain: float = 0.0
    max_drift: float = ANOTHER_POPULATION
    max_abnormal: float = 0.25
    dry_run: bool = False
    rollback: bool = False

    def __post_init__(self) -> None:
        problems = []
        if not -1 <= self.min_gain <= 1:
            problems.append(f"min_gain must be in [-1, 1], got {self.min_gain}")
        check_settings(problems + limit_problems(self.max_drift, self.max_abnormal))


@dataclass(frozen=True)
class PromoteResult:
    """What a promotion did.

    Attributes:
        name: the registered model.
        version: the version that is, or would be, champion.
        former: the champion until then; None if there was none.
        checks: every check.
        moved: whether the alias moved.
    """

    name: str
    version: str
    former: str | None
    checks: list[Check]
    moved: bool


def promote(settings: PromoteSettings) -> PromoteResult:
    """Compare a candidate with the champion as one run, and move the alias if every check passes.

    Raises:
        RefusedError: a check did not pass, or another promotion is under way; nothing moved.
        SsadError: a mistake of the user; likewise.
    """
    name = registered_name(settings.candidate)
    with tracked_run("promote", system_metrics=False) as run, fetching_folder() as folder:
        log_new_params(run, vars(settings))
        client = MlflowClient()
        with nullcontext() if settings.dry_run else claimed(client, name, run.info.run_id):
            former = alias_version(client, name, CHAMPION)
            if settings.rollback and alias_version(client, name, PREVIOUS) is None:
                raise RefusedError(f"{name} has no previous champion to roll back to; promote another version first.")
            uri = f"models:/{name}@{PREVIOUS}" if settings.rollback else settings.candidate
            candidate = fetch_model(uri, folder / "candidate")
            assert candidate.version is not None  # a registered name has versions alone
            if not settings.rollback:
                _check_not_rolled_back(client, name, candidate.version, uri)
            champion = None if settings.rollback else _champion_bundle(former, folder / "champion")
            if former and str(former.version) == candidate.version:
                raise RefusedError(f"{candidate.uri} is the champion already; name another version.")
            checks = find_checks(candidate.bundle, champion, settings)
            _log_checks(checks, candidate.uri)
            if not settings.dry_run:
                if not settings.rollback:
                    _write_checks(client, name, candidate.version, checks, run.info.run_id)
                _check_passed(name, candidate.version, checks)
                left = former if settings.rollback else None
                too_late_to_stop()
                with _marked(client, name, candidate.version, left, run.info.run_id):
                    move_champion(client, name, candidate.version, former)
    was = str(former.version) if former else None
    return PromoteResult(name, candidate.version, was, checks, not settings.dry_run)


def _champion_bundle(former: ModelVersion | None, folder: Path) -> Bundle | None:
    """What a candidate is compared with.

    Raises:
        RefusedError: the champion cannot be loaded.
    """
    if former is None:
        return None
    try:
        return fetch_model(f"models:/{former.name}/{former.version}", folder).bundle
    except SsadError as error:
        raise RefusedError(
            f"there is nothing to compare with, {str(error).rstrip('.')}; roll back, or delete the alias {CHAMPION} of "
            f"{former.name} to promote without a comparison."
        ) from error


def _log_checks(checks: list[Check], candidate: str) -> None:
    mlflow.set_tags({"candidate": candidate, "promotion": "passed" if all(c.passed for c in checks) else "refused"})
    mlflow.log_table(pd.DataFrame([asdict(check) for check in checks]), "checks.json")
    mlflow.log_text(_markdown(checks), "checks.md")


def _check_not_rolled_back(client: MlflowClient, name: str, version: str, uri: str) -> None:
    """Refuse a version that was rolled back unless it is named by its number: the next scheduled promotion names none.

    Raises:
        RefusedError: it was.
    """
    run_id = client.get_model_version(name, version).tags.get(ROLLED_BACK)
    if run_id and ModelUri.of(uri) != ModelUri(name, version=version):
        raise RefusedError(
            f"version {version} of {name}, which {uri} means, was rolled back by run {run_id}; train again, or "
            f"promote it by its number, as models:/{name}/{version}."
        )


@contextmanager
def _marked(client: MlflowClient, name: str, version: str, left: ModelVersion | None, run_id: str) -> Iterator[None]:
    """Mark the version that a rollback leaves before the alias moves, and unmark the one that is champion after.

    A rollback to a marked version undoes one, and marks none.
    """
    undone = ROLLED_BACK in client.get_model_version(name, version).tags
    if left and not undone:
        client.set_model_version_tag(name, left.version, ROLLED_BACK, run_id)
    try:
        yield
    except BaseException:
        if left and not undone:
            client.delete_model_version_tag(name, left.version, ROLLED_BACK)
        raise
    if undone:
        try:
            client.delete_model_version_tag(name, version, ROLLED_BACK)
        except FAILURES as error:  # the alias has moved: what was asked for is done
            logger.warning("version %s of %s keeps its tag %s (%s)", version, name, ROLLED_BACK, reason_of(error))


def _write_checks(client: MlflowClient, name: str, version: str, checks: list[Check], run_id: str) -> None:
    """Write the checks on the version."""
    failed = [check for check in checks if not check.passed]
    kept = str(client.get_model_version(name, version).description or "").split(HEADING)[0].rstrip()
    client.update_model_version(name, version, description=f"{kept}\n\n{_markdown(checks)}".lstrip())
    client.set_model_version_tag(name, version, "promotion", "refused" if failed else "passed")
    client.set_model_version_tag(name, version, "promotion_run", run_id)


def _check_passed(name: str, version: str, checks: list[Check]) -> None:
    """Refuse a version that fails a check.

    Raises:
        RefusedError: it does.
    """
    failed = [check for check in checks if not check.passed]
    if failed:
        reasons = "; ".join(f"{check.name}: {check.value}, expected {check.limit}" for check in failed)
        raise RefusedError(f"version {version} of {name} is not promoted ({reasons}); the champion stays.")


def _markdown(checks: list[Check]) -> str:
    cells = [(c.name, c.value, c.limit, "yes" if c.passed else "**no**") for c in checks]
    rows = ["| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join([HEADING, "", "| check | found | expected | passed |", "|---|---|---|---|", *rows])
