"""What the entry point `benchmark` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssad.datasets.tables import names_in
from ssad.detectors.presets import preset
from ssad.errors import SettingsError, check_settings, nearest
from ssad.workflows.benchmark.competitors import PEERS
from ssad.workflows.benchmark.suites import SUITES
from ssad.workflows.benchmark.thresholding import METHODS


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is compared, and on what.

    Attributes:
        suite: `adbench` or `thresholds` for a folder of `.npz` files, `nsl-kdd` for one with train and test Parquet.
        data: that folder.
        peers: names separated by commas, `all` or `none`: detectors, or methods of thresholding in suite `thresholds`.
        detectors: names of presets, separated by commas.
        seeds: whole numbers, separated by commas.
        results: folder of what was measured; what it holds is not measured again.
    """

    suite: str
    data: Path
    peers: str = "all"
    detectors: str = "ssad"
    seeds: str = "1,2,3"
    results: Path = Path("benchmark-results")

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise SettingsError(f"there is no suite {self.suite!r}; {nearest(self.suite, SUITES)}.")
        known = self.known_peers()
        problems = [
            f"there is no peer {name!r}; {nearest(name, known)}" for name in self.peer_names() if name not in known
        ]
        for name in self.detector_names():
            try:
                preset(name)
            except SettingsError as error:
                problems.append(str(error).removesuffix("."))
        if not self.detector_names():
            problems.append("detectors must name at least one preset")
        words = names_in(self.seeds)
        if not words or not all(word.isdecimal() and int(word) < 2**32 for word in words):
            problems.append(f"seeds must be whole numbers below 2**32 separated by commas, got {self.seeds!r}")
        check_settings(problems)

    def known_peers(self) -> tuple[str, ...]:
        """What `all` means in this suite."""
        return METHODS if self.suite == "thresholds" else tuple(PEERS)

    def peer_names(self) -> list[str]:
        """The peers to compare with, perhaps none."""
        return list(self.known_peers()) if self.peers == "all" else [w for w in names_in(self.peers) if w != "none"]

    def detector_names(self) -> list[str]:
        """Our presets to compare."""
        return names_in(self.detectors)

    def seed_numbers(self) -> list[int]:
        """The seeds, at least one."""
        return list(dict.fromkeys(map(int, names_in(self.seeds))))

    def kept_of(self, name: str) -> Path:
        """The folder of what was measured on the data set of that name."""
        return self.results / self.suite / name
