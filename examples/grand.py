"""GRAnD from its parts, as a reader of the paper would build it [Najari et al., AINA 2022].

Digits of one kind are normal; other digits, a tenth of the training images, are the anomalies.
Run it with `python examples/grand.py`; what it logged shows
`mlflow ui --backend-store-uri sqlite:///digits/mlflow.db`.
"""

from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import MLFlowLogger
from radon import digits

import ssad


def main(folder: Path = Path("digits")) -> None:
    """Train and test."""
    L.seed_everything(42, workers=True)
    data = digits(folder)
    model = ssad.FreeEnergyScoringModule(
        ssad.VariationalAutoencoder(data.input_dim, num_flows=3, encoder_dims=[32], latent_dim=4),
        m=100,
        every_n_epochs=3,
        confidence_estimator=ssad.BinaryConfidence(),
        distr_analyzer=ssad.EVTThresholding(),
    )
    logger = MLFlowLogger(experiment_name="GRAnD", tracking_uri=f"sqlite:///{folder}/mlflow.db")
    trainer = L.Trainer(max_epochs=10, logger=logger, log_every_n_steps=1, enable_checkpointing=False)
    trainer.fit(model=model, datamodule=data)
    trainer.test(model=model, datamodule=data)


if __name__ == "__main__":
    main()
