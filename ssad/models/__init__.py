"""Networks: plain torch modules that know nothing of training."""

from ssad.models.autoencoder import Autoencoder
from ssad.models.autoencoder_ensemble import AutoencoderEnsemble, ClippedStandardizer
from ssad.models.table_encoder import TableEncoder, column_matrix
from ssad.models.variational_autoencoder import NormalizingFlow, PlanarFlow, VariationalAutoencoder

__all__ = [
    "Autoencoder",
    "AutoencoderEnsemble",
    "ClippedStandardizer",
    "NormalizingFlow",
    "PlanarFlow",
    "TableEncoder",
    "VariationalAutoencoder",
    "column_matrix",
]
