"""The entry points as `ssad <verb>`; a user's mistake is one sentence and exit status 2."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from ssad.errors import SettingsError, SsadError
from ssad.loggers.logging_config import setup_logging

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From an unlabelled table to a registered detector that answers over REST.",
)

CHAMPION = "models:/ssad@champion"

USER_MISTAKE = 2
"""Exit status of a mistake the user can mend: argparse's and click's own."""


Parsed = TypeVar("Parsed", int, float)


def _parsed(name: str, text: str, kind: type[Parsed]) -> Parsed | None:
    """The value of an option that may be `auto`; None for that."""
    if text == "auto":
        return None
    try:
        return kind(text)
    except ValueError as error:
        expected = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{name} must be auto or {expected}, got {text!r}.") from error


@app.callback()
def _setup() -> None:
    setup_logging("WARNING")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it tells about hardware and other products
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs tracebacks of what is raised


@app.command()
def train(
    dataset: Annotated[str, typer.Option(help="A name of the catalogue, a path or a URI.")],
    test_dataset: Annotated[str, typer.Option(help="Likewise; empty holds out a part of a labelled table.")] = "",
    label: Annotated[str, typer.Option(help="The label column; used for evaluation alone.")] = "label",
    normal: Annotated[str, typer.Option(help="Label values that mean normal, by commas.")] = "auto",
    confidence: Annotated[str, typer.Option(help="A CSV with the initial confidence of each row.")] = "",
    detector: Annotated[str, typer.Option(help="ssad, radon, grand, or your own Preset as module:attribute.")] = "ssad",
    contamination: Annotated[
        str, typer.Option(metavar="auto|X", help="Thin training anomalies to this share.")
    ] = "auto",
    max_epochs: Annotated[str, typer.Option(metavar="auto|N", help="Epochs.")] = "auto",
    every_n_epochs: Annotated[str, typer.Option(metavar="auto|N", help="Epochs between recalibrations.")] = "auto",
    batch_size: Annotated[str, typer.Option(metavar="auto|N", help="Rows in a batch.")] = "auto",
    learning_rate: Annotated[str, typer.Option(metavar="auto|X", help="Of Adam.")] = "auto",
    seed: Annotated[int, typer.Option(help="Fixes the result.")] = 0,
    model_name: Annotated[str, typer.Option(help="Name in the registry.")] = "ssad",
) -> None:
    """Train on a table, track the run and register the detector."""
    from ssad.detectors import FitSettings
    from ssad.workflows.summary import show
    from ssad.workflows.train import TrainSettings
    from ssad.workflows.train import train as run

    fit = FitSettings(
        detector,
        _parsed("max_epochs", max_epochs, int),
        _parsed("every_n_epochs", every_n_epochs, int),
        _parsed("batch_size", batch_size, int),
        _parsed("learning_rate", learning_rate, float),
        seed,
    )
    settings = TrainSettings(
        dataset,
        test_dataset,
        label,
        normal,
        confidence,
        _parsed("contamination", contamination, float),
        model_name,
        fit,
    )
    show(settings, run(settings))


@app.command()
def score(
    dataset: Annotated[str, typer.Option(help="A name of the catalogue, a path or a URI.")],
    output: Annotated[str, typer.Option(help="Folder of Parquet to write; must not exist.")],
    model: Annotated[str, typer.Option(help="A model URI of MLflow, or a bundle's folder.")] = CHAMPION,
    engine: Annotated[str, typer.Option(help="local or spark.")] = "local",
    explain: Annotated[int, typer.Option(help="Write so many of the columns that contribute most.")] = 0,
    keep: Annotated[str, typer.Option(help="Columns to write along, by commas.")] = "",
    spark_master: Annotated[str, typer.Option(help="Where Spark runs.")] = "local[*]",
) -> None:
    """Score a table of any size to Parquet."""
    from ssad.workflows.score import ScoreSettings
    from ssad.workflows.score import score as run

    result = run(ScoreSettings(model, dataset, output, engine, explain, keep, spark_master))
    counts = ", ".join(f"{region} {rows:,}" for region, rows in result.rows.items())
    typer.echo(f"{sum(result.rows.values()):,} rows scored by {result.model} to {result.output}: {counts}")


@app.command()
def benchmark(
    suite: Annotated[str, typer.Option(help="adbench or nsl-kdd.")],
    data: Annotated[str, typer.Option(help="Folder with the suite's files.")],
    peers: Annotated[str, typer.Option(help="all, none, or names of PyOD's detectors by commas.")] = "all",
    detectors: Annotated[str, typer.Option(help="Presets by commas.")] = "ssad",
    seeds: Annotated[str, typer.Option(help="Seeds by commas.")] = "1,2,3",
    results: Annotated[str, typer.Option(help="CSV file to go on with.")] = "benchmark.csv",
) -> None:
    """Compare the presets with other libraries' detectors."""
    from ssad.workflows.benchmark import BenchmarkSettings, summarize
    from ssad.workflows.benchmark import benchmark as run

    table = run(BenchmarkSettings(suite, Path(data), peers, detectors, seeds, Path(results)))
    typer.echo(summarize(table).round(4).to_string())


@app.command()
def serve(
    model: Annotated[str, typer.Option(help="A model URI of MLflow.")] = CHAMPION,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8000,
) -> None:
    """Answer over REST: score, confidence and region for every row."""
    from serving.main import run

    run(model, host, port)


def main() -> None:
    """Run the command line; the console script's entry."""
    sys.path.insert(0, "")  # a detector of the user's own is found here, as `python -m ssad.cli` does
    warnings.simplefilter("ignore")  # libraries' deprecations are not the user's to mend
    try:
        app()
    except SsadError as error:
        typer.echo(f"ssad: {error}", err=True)
        sys.exit(USER_MISTAKE)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
