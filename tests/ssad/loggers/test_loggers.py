"""Logging set up once, and what the machine is doing."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from types import SimpleNamespace

import pynvml
import pytest
import torch

from ssad import setup_logging
from ssad.loggers.mlflow_logger import gpu_metrics, system_metrics


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The library's logger without handlers; as it was, afterwards."""
    logger = logging.getLogger("ssad")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    logger.handlers.clear()
    yield logger
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


def test_setting_up_twice_writes_a_line_once_from_the_second_level_on_and_names_its_module(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging()
    setup_logging("DEBUG")
    logging.getLogger("ssad.datasets").debug("42 rows")
    assert capsys.readouterr().err.count("DEBUG ssad.datasets: 42 rows") == 1


def test_a_name_with_signs_that_a_terminal_obeys_stays_in_its_line(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging("INFO")
    logging.getLogger("ssad.x").info("the columns %s are ignored", "é\n2026 INFO ssad: forged \x1b[2J")
    assert capsys.readouterr().err.endswith(r"the columns é\n2026 INFO ssad: forged \x1b[2J are ignored" + "\n")


def test_an_unknown_level_is_refused(root: logging.Logger) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        setup_logging("LOUD")


def test_the_library_sets_up_no_handler_by_itself(root: logging.Logger) -> None:
    assert root.handlers == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_there_are_no_gpu_metrics_without_a_gpu() -> None:
    assert gpu_metrics() == {}


def test_a_card_that_tells_some_of_it_only_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def percent(card: int) -> SimpleNamespace:
        if card == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)  # it is cut into parts
        return SimpleNamespace(gpu=50)

    ended: list[bool] = []
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: ended.append(True))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", int)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda card: SimpleNamespace(used=(card + 1) * 2**30))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", percent)
    assert gpu_metrics() == {"gpu_0_memory_mib": 1024, "gpu_1_memory_mib": 2048, "gpu_1_percent": 50}
    assert ended == [True]


def test_system_metrics_say_the_load_of_cpu_and_memory() -> None:
    metrics = system_metrics()
    assert {"cpu_percent", "ram_percent", "ram_process_mib"} <= metrics.keys()
    assert all(math.isfinite(value) and value >= 0 for value in metrics.values())
    assert metrics["ram_percent"] <= 100
    assert metrics["ram_process_mib"] > 1
