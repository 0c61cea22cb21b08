"""The entry points as `ssad <verb>`; a user's mistake is one sentence and exit status 2."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from ssad.errors import USER_MISTAKE, SettingsError, SsadError, name_problem, on_one_line, without_secrets
from ssad.loggers.logging_config import setup_logging
from ssad.workflows.stopping import Stopped, end_soon, leave_stopping_to_another, stop_by_signals

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From an unlabelled table to a registered detector that answers over REST.",
)

CHAMPION_URI = "models:/ssad@champion"

Dataset = Annotated[str, typer.Option(help="A name of the catalogue, a path or a URI.")]
Model = Annotated[str, typer.Option(help="A model URI of MLflow, or a bundle's folder.")]
Label = Annotated[str, typer.Option(help="The label column; one not called label must be there.")]
Normal = Annotated[str, typer.Option(help="Label values that mean normal, separated by commas.")]
"""Options of several entry points."""


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


def _switch(name: str, text: str) -> bool:
    """An option that is on or off; `mlflow run` passes every one with a value."""
    if text.lower() not in ("true", "false"):
        raise SettingsError(f"{name} must be true or false, got {text!r}.")
    return text.lower() == "true"


def _tell(*lines: str) -> None:
    """Print what a command found in one piece: a reader that leaves after the first line is not found gone."""
    typer.echo("\n".join(lines))


def _importable(detectors: str) -> None:
    """Let a detector of the user's own be found in this folder, after what is installed: it may hold others' files."""
    if ":" in detectors:
        sys.path.append("")


@app.callback()
def _setup(context: typer.Context) -> None:
    if context.invoked_subcommand != "serve":  # which ends by itself
        stop_by_signals() if os.environ.get("LOCAL_RANK", "0") == "0" else leave_stopping_to_another()
    setup_logging("WARNING")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it tells about hardware and other products
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs tracebacks of what is raised


@app.command()
def train(
    dataset: Dataset,
    test_dataset: Annotated[str, typer.Option(help="Likewise; empty holds out a part of a labelled table.")] = "",
    label: Annotated[str, typer.Option(help="The label column; used for evaluation alone.")] = "label",
    normal: Normal = "auto",
    confidence: Annotated[str, typer.Option(help="A CSV with the initial confidence of each training row.")] = "",
    detector: Annotated[str, typer.Option(help="ssad, radon, grand, or your own Preset as module:attribute.")] = "ssad",
    contamination: Annotated[
        str, typer.Option(metavar="auto|X", help="Thin training anomalies to this share.")
    ] = "auto",
    max_epochs: Annotated[str, typer.Option(metavar="auto|N", help="Epochs at most.")] = "auto",
    every_n_epochs: Annotated[str, typer.Option(metavar="auto|N", help="Epochs between recalibrations.")] = "auto",
    batch_size: Annotated[str, typer.Option(metavar="auto|N", help="Rows in a batch.")] = "auto",
    learning_rate: Annotated[str, typer.Option(metavar="auto|X", help="Of Adam.")] = "auto",
    seed: Annotated[int, typer.Option(help="Fixes the result.")] = 0,
    alpha: Annotated[
        str, typer.Option(metavar="auto|X", help="Call at most this share of normal rows abnormal.")
    ] = "auto",
    model_name: Annotated[str, typer.Option(help="Name in the registry.")] = "ssad",
    resume: Annotated[str, typer.Option(help="Id of a run that was cut off, to go on from.")] = "",
    devices: Annotated[int, typer.Option(help="Processes on each machine, with a GPU each where there are any.")] = 1,
    strategy: Annotated[str, typer.Option(help="auto or ddp.")] = "auto",
    num_nodes: Annotated[int, typer.Option(help="Machines.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true, 16-mixed or bf16-mixed.")] = "32-true",
) -> None:
    """Train on a table, track the run and register the detector."""
    from ssad.detectors import FitSettings, Hardware
    from ssad.workflows.summary import show
    from ssad.workflows.train import TrainSettings
    from ssad.workflows.train import train as run

    _importable(detector)
    fit = FitSettings(
        detector,
        _parsed("max_epochs", max_epochs, int),
        _parsed("every_n_epochs", every_n_epochs, int),
        _parsed("batch_size", batch_size, int),
        _parsed("learning_rate", learning_rate, float),
        seed,
        _parsed("alpha", alpha, float),
    )
    settings = TrainSettings(
        dataset,
        test_dataset,
        label,
        normal,
        confidence,
        _parsed("contamination", contamination, float),
        model_name,
        resume,
        fit,
        Hardware(devices, strategy, num_nodes, precision),
    )
    show(settings, run(settings))


@app.command()
def evaluate(
    dataset: Dataset,
    model: Model = CHAMPION_URI,
    label: Label = "label",
    normal: Normal = "auto",
) -> None:
    """Measure a model on a table, labelled or not."""
    from ssad.workflows.evaluate import EvaluateSettings
    from ssad.workflows.evaluate import evaluate as run

    result = run(EvaluateSettings(model, dataset, label, normal))
    figures = {name: value if isinstance(value, int) else f"{value:.4g}" for name, value in result.metrics.items()}
    figures["max_column_psi"] = f"{figures['max_column_psi']}, of {result.drift.moved[0][0]}"
    _tell(
        f"{result.model} on {without_secrets(dataset)}, run {result.run_id}\n",
        result.regions.round(4).to_string(index=False) + "\n",
        *(f"{name:24} {figure}" for name, figure in figures.items()),
    )


@app.command()
def recalibrate(
    dataset: Annotated[str, typer.Option(help="New rows: a name of the catalogue, a path or a URI.")],
    model: Model = CHAMPION_URI,
    max_drift: Annotated[float, typer.Option(help="Stability index beyond which rows are refused.")] = 1.0,
    max_abnormal: Annotated[float, typer.Option(help="Share of the rows that may be abnormal.")] = 0.25,
    force: Annotated[str, typer.Option(metavar="true|false", help="Go on beyond max_drift.")] = "false",
    model_name: Annotated[str, typer.Option(help="Name in the registry; empty: the model's own.")] = "",
    detector: Annotated[str, typer.Option(help="The model's module:attribute, again; empty: it has none.")] = "",
) -> None:
    """Register the same weights with new intervals."""
    from ssad.bundle.intervals import told
    from ssad.workflows.recalibrate import RecalibrateSettings
    from ssad.workflows.recalibrate import recalibrate as run
    from ssad.workflows.summary import next_step

    _importable(detector)
    switched = _switch("force", force)
    settings = RecalibrateSettings(model, dataset, max_drift, max_abnormal, switched, model_name, detector)
    result = run(settings)
    old, new = result.old, result.new
    registered = result.registered
    aliases = ", ".join(registered.aliases)
    _tell(
        f"{registered.name} version {registered.version} ({aliases}): {result.parent} with new intervals",
        f"normal up to {told(new.normal)} (was {told(old.normal)})",
        f"abnormal from {told(new.abnormal)} (was {told(old.abnormal)})",
        ", ".join(f"{region} {share:.1%}" for region, share in result.shares.items()),
        f"\n{next_step(registered, result.project)}",
    )


@app.command()
def promote(
    candidate: Annotated[str, typer.Option(help="A registered version.")] = "models:/ssad@challenger",
    dataset: Annotated[str, typer.Option(help="Rows to compare on, labelled or not; may be empty.")] = "",
    label: Label = "label",
    normal: Normal = "auto",
    min_gain: Annotated[float, typer.Option(help="Minimum gain in average precision, on labelled rows.")] = 0.0,
    max_drift: Annotated[float, typer.Option(help="Stability index up to which rows are the candidate's.")] = 0.25,
    max_abnormal: Annotated[float, typer.Option(help="Share of unlabelled rows that may be abnormal.")] = 0.25,
    dry_run: Annotated[str, typer.Option(metavar="true|false", help="Report the checks; move nothing.")] = "false",
    rollback: Annotated[str, typer.Option(metavar="true|false", help="Back to the previous champion.")] = "false",
) -> None:
    """Move the champion's alias to a version that passes every check, or back."""
    from ssad.workflows.promote import PromoteSettings
    from ssad.workflows.promote import promote as run

    switches = _switch("dry_run", dry_run), _switch("rollback", rollback)
    result = run(PromoteSettings(candidate, dataset, label, normal, min_gain, max_drift, max_abnormal, *switches))
    checks = [
        f"{'passed' if check.passed else 'FAILED'}  {check.name}: {on_one_line(check.value)}, expected {check.limit}"
        for check in result.checks  # whose values may name columns
    ]
    was = f"was version {result.former}" if result.former else "there was none"
    told = "is" if result.moved else "would be" if all(check.passed for check in result.checks) else "would not be"
    _tell(*checks, f"version {result.version} of {result.name} {told} champion ({was})")


@app.command()
def score(
    dataset: Dataset,
    output: Annotated[str, typer.Option(help="Folder of Parquet to write; must not exist.")],
    model: Model = CHAMPION_URI,
    engine: Annotated[str, typer.Option(help="local or spark.")] = "local",
    explain: Annotated[int, typer.Option(help="Write this many of the columns that contribute most.")] = 0,
    keep: Annotated[str, typer.Option(help="Columns to copy into the output, separated by commas.")] = "",
    spark_master: Annotated[str, typer.Option(help="Where Spark runs.")] = "local[*]",
) -> None:
    """Score a table of any size to Parquet."""
    from ssad.workflows.score import ScoreSettings
    from ssad.workflows.score import score as run

    result = run(ScoreSettings(model, dataset, output, engine, explain, keep, spark_master))
    folder = without_secrets(result.output)
    counts = ", ".join(f"{region} {rows:,}" for region, rows in result.rows.items())
    typer.echo(f"{sum(result.rows.values()):,} rows scored by {result.model} to {folder}: {counts}")


@app.command()
def benchmark(
    suite: Annotated[str, typer.Option(help="adbench, nsl-kdd or thresholds.")],
    data: Annotated[str, typer.Option(help="Folder with the suite's files.")],
    peers: Annotated[
        str, typer.Option(help="all, none, or names separated by commas: detectors, or thresholds.")
    ] = "all",
    detectors: Annotated[str, typer.Option(help="Presets, separated by commas.")] = "ssad",
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "1,2,3",
    results: Annotated[str, typer.Option(help="Folder to keep scores in, and to go on with.")] = "benchmark-results",
) -> None:
    """Compare the presets with other libraries' detectors, or our intervals with other thresholds."""
    from ssad.workflows.benchmark import BenchmarkSettings
    from ssad.workflows.benchmark import benchmark as run

    _importable(detectors)
    report = run(BenchmarkSettings(suite, Path(data), peers, detectors, seeds, Path(results)))
    typer.echo(report.tables["summary"].round(4).to_string())


class ServeCommand(TyperCommand):
    """The serve command; its help lists the settings that have no option, too."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Every setting by its variable, default and meaning, below the options."""
        from serving.settings import listing

        super().format_help(ctx, formatter)
        typer.echo("Settings, from the environment (default):")
        for name, default, meaning in listing():
            typer.echo(f"  {name} ({default or 'empty'}): {meaning}")


@app.command(cls=ServeCommand)
def serve(
    model: Annotated[
        str, typer.Option(envvar="SSAD_SERVE_MODEL", help="Model URI, or a bundle's folder.")
    ] = CHAMPION_URI,
    host: Annotated[str, typer.Option(envvar="SSAD_SERVE_HOST", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="SSAD_SERVE_PORT", min=0, max=65535, help="Port to listen at.")] = 8000,
) -> None:
    """Answer over REST: score, confidence and region for every row."""
    from serving.main import run

    run(model, host, port)


def main() -> None:
    """Run the command line; the console script's entry."""
    _mend_surroundings()
    warnings.simplefilter("ignore")  # libraries' deprecations are not the user's to mend
    try:
        if _folder() not in sys.path:  # as it is for `python -m ssad.cli`
            os.environ.setdefault("PYTHONSAFEPATH", "1")  # processes that this one starts import nothing from here
        for argument in sys.argv[1:]:
            if problem := name_problem(argument):  # a run that is opened could not be told of it
                raise SettingsError(problem)
        app()
    except SsadError as error:
        typer.echo(f"ssad: {on_one_line(without_secrets(str(error)))}", err=True)
        sys.exit(USER_MISTAKE)
    except Stopped as stop:
        typer.echo(f"ssad: {stop}", err=True)
        end_soon(stop)
        raise
    except OSError as error:
        if not _output_fails():
            raise
        typer.echo(f"ssad: standard output cannot be written ({error.strerror}).", err=True)
        sys.exit(USER_MISTAKE)


def _folder() -> str:
    """The folder that the command runs in.

    Raises:
        SettingsError: it was deleted.
    """
    try:
        return str(Path.cwd())
    except FileNotFoundError as error:
        raise SettingsError("the folder that this runs in was deleted; go to one that is there.") from error


def _mend_surroundings() -> None:
    """Give this process, and those that it starts, what libraries take for granted: three streams and a home."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed; the next file that is opened would get its number
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115  # to the end of the process
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
    try:
        Path.home()
    except RuntimeError:  # a user whom the system does not know; such a one's home is / in a container
        os.environ["HOME"] = "/"


def _output_fails() -> bool:
    """Whether standard output is what cannot be written; nothing is written to it any more if so."""
    try:
        print(flush=True)  # what failed is no longer held, so that a flush alone would say nothing
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


if __name__ == "__main__":
    main()
