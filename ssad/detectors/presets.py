"""Which parts make which detector."""

from __future__ import annotations

import logging
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ssad.confidence_estimators import BinaryConfidence
from ssad.detectors.warm_start import warm_start_confidence
from ssad.distribution_analyzers import ConsensusThresholding, EVTThresholding, TriangularThresholding
from ssad.errors import DatasetError, SettingsError, nearest
from ssad.models import Autoencoder, AutoencoderEnsemble, VariationalAutoencoder
from ssad.modules import (
    CosineReconstructionModule,
    EnsembleModule,
    FreeEnergyScoringModule,
    SelfSupervisionModule,
)
from ssad.modules.ensemble_module import PUSH

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preset:
    """A detector's parts and how long it trains.

    Attributes:
        max_epochs: epochs for a number of training batches an epoch.
        recalibrations: how many of them on the way at least, evenly spread, unless `every_n_epochs` is given.
        learning_rate: of Adam.
        build: the module for (training features, epochs between recalibrations, learning rate).
        first_confidence: of the training rows, from (features, seed); None: all ones.
    """

    max_epochs: Callable[[int], int]
    recalibrations: int
    learning_rate: float
    build: Callable[[torch.Tensor, int, float], SelfSupervisionModule]
    first_confidence: Callable[[torch.Tensor, int], torch.Tensor] | None = None


ENSEMBLE_STEPS = 150
"""Batches after which the ensemble's ranking has settled; small tables see theirs in more epochs."""

ENSEMBLE_MEMBERS = 6
ENSEMBLE_HIDDEN = 32
ENSEMBLE_LATENT = 8


def build_ssad(
    features: torch.Tensor,
    every_n_epochs: int,
    learning_rate: float,
    members: int = ENSEMBLE_MEMBERS,
    push: float = PUSH,
) -> SelfSupervisionModule:
    """An ensemble of `members` small autoencoders; `push` weighs the loss of confident-abnormal rows."""
    latent = max(1, min(ENSEMBLE_LATENT, features.shape[1] // 2))
    return EnsembleModule(
        AutoencoderEnsemble(features, [ENSEMBLE_HIDDEN], latent, members),
        every_n_epochs,
        BinaryConfidence(),
        ConsensusThresholding(),
        push,
        learning_rate=learning_rate,
    )


CLASSIC_STEPS = 280
"""Batches that RADON and GRAnD train for; the papers count epochs. The first recalibration comes after about 50:
what is common is reconstructed by then and what is rare is not yet, so that their scores lie apart."""

RADON_LEARNING_RATE = 2e-3
"""Of 1, 2 and 3 thousandths what ranks the labelled rows held out of NSL-KDD's training part best. At 3, dense
anomalies are learned before the first recalibration."""

RADON_MIN_FEATURES = 2
"""All rows of one feature have the same direction."""

RADON_ZERO_ROWS = 0.05
"""Share of rows without a direction above which radon warns: so many are no anomalies, and it scores them as such."""


def _radon(features: torch.Tensor, every_n_epochs: int, learning_rate: float) -> SelfSupervisionModule:
    """The paper's 784-400-200 in proportion [Najari et al., SIN 2021]."""
    input_dim = features.shape[1]
    if input_dim < RADON_MIN_FEATURES:
        raise DatasetError(
            f"radon compares the directions of rows and needs at least {RADON_MIN_FEATURES} features, got {input_dim} "
            "feature(s) from the table; use detector ssad or grand."
        )
    zeros = 1 - float(features.any(dim=1).float().mean())
    if zeros > RADON_ZERO_ROWS:
        logger.warning(
            "radon compares the directions of rows, and %.0f%% of the training rows have none, as every number in them "
            "is its column's least; they score 1 as if they were abnormal: use detector ssad or grand",
            100 * zeros,
        )
    return CosineReconstructionModule(
        Autoencoder(input_dim, [max(2, input_dim // 2)], max(1, input_dim // 4)),
        every_n_epochs,
        BinaryConfidence(),
        TriangularThresholding(),
        learning_rate=learning_rate,
    )


def _grand(features: torch.Tensor, every_n_epochs: int, learning_rate: float) -> SelfSupervisionModule:
    """Three planar flows on a posterior of four dimensions [Najari et al., AINA 2022]."""
    input_dim = features.shape[1]
    return FreeEnergyScoringModule(
        VariationalAutoencoder(input_dim, 3, [max(16, input_dim // 2)], 4),
        m=100.0,
        every_n_epochs=every_n_epochs,
        confidence_estimator=BinaryConfidence(),
        distr_analyzer=EVTThresholding(),
        learning_rate=learning_rate,
    )


MIN_EPOCHS = 8
"""Of a table however large: time for a recalibration after each that changes what is learned."""


def _steps(steps: int) -> Callable[[int], int]:
    return lambda batches: max(MIN_EPOCHS, math.ceil(steps / batches))


PRESETS = {
    "ssad": Preset(_steps(ENSEMBLE_STEPS), 4, 3e-3, build_ssad, warm_start_confidence),
    "radon": Preset(_steps(CLASSIC_STEPS), 5, RADON_LEARNING_RATE, _radon),
    "grand": Preset(_steps(CLASSIC_STEPS), 5, 1e-3, _grand),
}


def preset(name: str) -> Preset:
    """The preset of that name, or the one of your own at `module:attribute`, which is imported.

    Raises:
        SettingsError: there is none; names the nearest.
    """
    if ":" in str(name):
        return _imported(name)
    if name not in PRESETS:
        raise SettingsError(
            f"there is no detector {name!r}; {nearest(str(name), PRESETS)}, or your own as module:attribute."
        )
    return PRESETS[name]


def _imported(name: str) -> Preset:
    try:
        found = pkgutil.resolve_name(name)
    except Exception as error:  # whatever a module of the user's own does wrong
        raise SettingsError(
            f"detector {name!r} cannot be imported ({error}); name a Preset as module:attribute."
        ) from error
    if not isinstance(found, Preset):
        raise SettingsError(f"detector {name!r} is of type {type(found).__name__}, expected a Preset; name that one.")
    return found
