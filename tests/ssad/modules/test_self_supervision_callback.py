"""What a callback leaves for after a crash, of every process that trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.ssad.workflows.support import PROCESS_SECONDS

TWO_PROCESSES = """
import sys
from types import SimpleNamespace

import torch
from torch import distributed

from ssad.modules import self_supervision_callback
from ssad.modules import SelfSupervisionCallback

rank, store = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
trainer = SimpleNamespace(global_rank=rank)
torch.manual_seed(rank)  # as processes differ that have drawn another number of random numbers
states = self_supervision_callback._random_states()
drawn = torch.rand(3)
resumed = SelfSupervisionCallback()
resumed.load_state_dict({"codes": None, "settled": 0, "history": [], "random_states": states})
torch.manual_seed(9)
resumed.on_train_epoch_start(trainer, None)
assert torch.equal(torch.rand(3), drawn)
"""


def test_every_process_draws_on_as_it_would_have(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TWO_PROCESSES]
    both = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")]) for rank in range(2)]
    assert [process.wait(timeout=PROCESS_SECONDS) for process in both] == [0, 0]
