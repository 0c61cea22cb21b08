"""Training: the self-supervision loop and the ways to score a row."""

from ssad.modules.cosine_reconstruction_module import CosineReconstructionModule
from ssad.modules.ensemble_module import EnsembleModule
from ssad.modules.free_energy_module import FreeEnergyScoringModule
from ssad.modules.score_loss_module import ScoreLossModule
from ssad.modules.self_supervision_callback import SelfSupervisionCallback
from ssad.modules.self_supervision_module import SelfSupervisionModule, SupportsSelfSupervision

__all__ = [
    "CosineReconstructionModule",
    "EnsembleModule",
    "FreeEnergyScoringModule",
    "ScoreLossModule",
    "SelfSupervisionCallback",
    "SelfSupervisionModule",
    "SupportsSelfSupervision",
]
