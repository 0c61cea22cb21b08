"""RADON from its parts, as a reader of the paper would build it [Najari et al., SIN 2021].

Digits of one kind are normal; other digits, a tenth of the training images, are the anomalies.
Run it with `python examples/radon.py`; what it logged shows
`mlflow ui --backend-store-uri sqlite:///digits/mlflow.db`.
"""

from pathlib import Path

import lightning as L
import pandas as pd
from lightning.pytorch.loggers import MLFlowLogger
from sklearn.datasets import load_digits

import ssad


class Digits(ssad.GeneralTabularDataModule):
    """Images of zeros, and of other digits as anomalies."""

    def prepare_data(self) -> None:
        """Write the images as a labelled CSV file."""
        digits = load_digits(as_frame=True)
        table: pd.DataFrame = digits.data.assign(label=(digits.target != 0).astype(int))
        self.dataset_path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(self.dataset_path, index=False)


def digits(folder: Path) -> ssad.SelfSupervisionDataModule:
    """The images split, a tenth of the training ones and half of the test ones anomalous."""
    return ssad.SelfSupervisionDataModule(
        Digits(
            folder / "original" / "digits.csv",
            preprocessed_dir=folder / "preprocessed",
            batch_size=32,
            n_rows=250,
            p_train=0.5,
            p_val=0.1,
            pa_train=0.1,
            pa_val=0.5,
            pa_test=0.5,
            shuffling=True,
        )
    )


def main(folder: Path = Path("digits")) -> None:
    """Train and test."""
    L.seed_everything(42, workers=True)
    data = digits(folder)
    model = ssad.CosineReconstructionModule(
        ssad.Autoencoder(data.input_dim, encoder_dims=[32], latent_dim=16),
        every_n_epochs=3,
        confidence_estimator=ssad.BinaryConfidence(),
        distr_analyzer=ssad.TriangularThresholding(bin_estimator="knuth"),
    )
    logger = MLFlowLogger(experiment_name="RADON", tracking_uri=f"sqlite:///{folder}/mlflow.db")
    trainer = L.Trainer(max_epochs=10, logger=logger, log_every_n_steps=1, enable_checkpointing=False)
    trainer.fit(model=model, datamodule=data)
    trainer.test(model=model, datamodule=data)


if __name__ == "__main__":
    main()
