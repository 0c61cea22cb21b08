"""Who is champion: the aliases move together, and for one promotion at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from ssad.errors import RefusedError, TrackingError
from ssad.workflows.cut_off import end_if_gone
from ssad.workflows.registry import CHAMPION, CLAIM, PREVIOUS, alias_version
from ssad.workflows.tracking_store import explained

CLAIM_SECONDS = 3600
"""A claim older than this is of a promoter that was killed, on another machine; one as far in the future, or of no
time, is of none."""

NO_SUCH_MODEL = "RESOURCE_DOES_NOT_EXIST"
"""How a registry says that there is no such model."""


@contextmanager
def claimed(client: MlflowClient, name: str, run_id: str) -> Iterator[None]:
    """Hold off other promotions of a model meanwhile.

    MLflow's registry has no compare-and-set, so each promoter writes a tag of its own and then reads those of
    the others. Of two at once at least one reads what the other wrote, and stops.

    Raises:
        RefusedError: another run has a claim.
        TrackingError: there is no such model, or the registry lets this account write nothing on it.
    """
    own = f"{CLAIM}{run_id}"
    try:
        client.set_registered_model_tag(name, own, str(int(time.time())))
    except MlflowException as error:
        if error.error_code != NO_SUCH_MODEL:
            raise explained(error) from error
        raise TrackingError(f"there is no registered model {name!r}; train one, or name another.") from error
    try:
        tags = client.get_registered_model(name).tags
        held = [key for key, since in tags.items() if key.startswith(CLAIM) and _is_recent(since)]
        others = sorted(key for key in set(held) - {own} if not _left_behind(client, name, key))
        if others:
            left = (int(tags[others[0]]) + CLAIM_SECONDS - time.time()) / 60
            raise RefusedError(
                f"run {others[0].removeprefix(CLAIM)} is promoting {name} at this moment; wait for its end and run "
                f"again, or if that run is dead, in {left:.0f} min or when you deleted the model's tag {others[0]}."
            )
        yield
    finally:
        client.delete_registered_model_tag(name, own)


def _left_behind(client: MlflowClient, name: str, claim: str) -> bool:
    """Whether a claim is of a process of this machine that was killed; then it goes, and its run has ended."""
    with suppress(MlflowException):  # the run is in another store, or another promoter was sooner
        if end_if_gone(client, client.get_run(claim.removeprefix(CLAIM))):
            client.delete_registered_model_tag(name, claim)
            return True
    return False


def _is_recent(since: str) -> bool:
    """Whether a claim holds: its time, by the clock of another machine, is near this one's."""
    return since.isdecimal() and abs(time.time() - int(since)) < CLAIM_SECONDS


def move_champion(client: MlflowClient, name: str, version: str, former: ModelVersion | None) -> None:
    """Make a version the champion, and the former champion `previous`; both aliases move or none does.

    Raises:
        RefusedError: the champion is no longer the one that was compared with.
    """
    now = alias_version(client, name, CHAMPION)
    if (now and now.version) != (former and former.version):
        raise RefusedError(
            f"the champion of {name} changed from {former and former.version} to {now and now.version} meanwhile; "
            "nothing was moved, run again to compare with the new one."
        )
    before = alias_version(client, name, PREVIOUS)
    was, previous = (None if found is None else str(found.version) for found in (former, before))
    moves = [(PREVIOUS, previous, was), (CHAMPION, was, version)]
    if previous == version:  # a rollback: killed between the two it has happened, and not lost where to go back to
        moves.reverse()
    done = []
    try:
        for alias, at, to in moves:
            _point(client, name, alias, at, to)
            done.append((alias, to, at))
    except BaseException:
        for alias, at, to in done:
            _point(client, name, alias, at, to)
        raise


def _point(client: MlflowClient, name: str, alias: str, at: str | None, to: str | None) -> None:
    """Let an alias that means one version, or none, mean another one, or none."""
    if to == at:
        return
    if to is None:
        client.delete_registered_model_alias(name, alias)
    else:
        client.set_registered_model_alias(name, alias, to)
