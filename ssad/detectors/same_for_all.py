"""What several processes must have in common to train together."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from torch import distributed

from ssad.bundle.bundle import file_digest
from ssad.datasets.table_rows import TableRows, frame_digest
from ssad.detectors.plan import Plan
from ssad.errors import DatasetError

SHOWN = 12
"""Digits of a digest: enough for two that differ by mistake."""


class SameForAll(L.Callback):
    """Refuses to train where processes were given different rows, settings, first confidences or checkpoints.

    They would train on what nobody meant, or wait for each other without end.
    """

    def __init__(
        self, rows: TableRows, plan: Plan, precision: str | None, confidence: Path | None, checkpoint: Path | None
    ) -> None:
        self.rows, self.plan, self.precision = rows, plan, precision
        self.files = {"first confidence": confidence, "checkpoint": checkpoint}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compare what all processes have, the first place where they can; each of them comes to the same answer.

        Raises:
            DatasetError: it is not the same.
        """
        if trainer.world_size == 1:
            return
        own = self._facts()
        found = [own] * trainer.world_size
        distributed.all_gather_object(found, own)
        first = found[0]
        for rank, facts in enumerate(found):
            differing = [
                f"{name}: {first[name]} in process 0, {facts[name]} in process {rank}"
                for name in facts
                if facts[name] != first[name]
            ]
            if differing:
                raise DatasetError(
                    f"the processes were not given the same: {'; '.join(differing)}; give every machine the same "
                    "files and settings, and begin again when no file is being written."
                )

    def _facts(self) -> dict[str, object]:
        digest = self.rows.digest() or frame_digest(self.rows.frame())
        files = {name: file_digest(path)[:SHOWN] if path else "none" for name, path in self.files.items()}
        rows = {"rows": len(self.rows), "digest of the rows": digest[:SHOWN]}
        return {**rows, **files, **vars(self.plan), "precision": self.precision}
