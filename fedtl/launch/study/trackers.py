"""Studies in the trackers that a group may use already: each cell is a run of theirs.

What is written again replaces what was written of the same cell before.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from fedtl.errors import CacheError, RecipeError
from fedtl.report.study_result import CellResult, CellRound, StudyResult

_CELL, _CONTENT = "fedtl.cell", "fedtl.content"


def require_tracker(name: str) -> None:
    """Refuse a tracker whose library is not installed.

    Parameters
    ----------
    name : {"tensorboard", "mlflow"}
        The library.

    Raises
    ------
    RecipeError
        It is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise RecipeError(
            f"--{name} needs the package '{name}', which is not installed.",
            next_step="Run `pip install 'fedtl[tracking]'`.",
        )


def run_name(cell: CellResult) -> str:
    """Return the name of a cell's run.

    Examples
    --------
    >>> run_name(CellResult({"partition": "alpha 0.1", "strategy": "FedAvg"}, 3, ()))
    'alpha 0.1, FedAvg, seed 3'
    """
    return ", ".join([*cell.labels.values(), f"seed {cell.seed}"])


def metrics_of(r: CellRound) -> dict[str, float]:
    """Return what a tracker is told of a round; what was not measured is left out."""
    named = {
        "accuracy": r.accuracy,
        "loss": r.loss,
        "worst_accuracy": r.worst_accuracy,
        "bytes": float(r.n_bytes),
        "epsilon": r.epsilon,
        "seconds": r.seconds,
        "failures": float(r.failures),
    }
    return {name: value for name, value in named.items() if value is not None}


def to_tensorboard(result: StudyResult, folder: Path) -> None:
    """Write event files, one run per cell, by ``torch.utils.tensorboard``.

    Parameters
    ----------
    folder : Path
        What ``tensorboard --logdir`` is given. Earlier runs of the same cells in it are replaced.

    Raises
    ------
    CacheError
        The folder cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    for cell in result.cells:
        place = folder / run_name(cell).replace("/", "-")
        try:
            shutil.rmtree(place, ignore_errors=True)
            writer = SummaryWriter(str(place))
            writer.add_text("cell", json.dumps({**cell.labels, "seed": cell.seed}))
            for r in cell.rounds:
                for name, value in metrics_of(r).items():
                    writer.add_scalar(name, value, r.round)
            writer.close()
        except OSError as error:
            raise CacheError(
                f"TensorBoard's folder '{place}' cannot be written ({error.strerror}).",
                next_step="Check its permissions.",
            ) from error


def to_mlflow(result: StudyResult, uri: str, artifacts: Path) -> None:
    """Write runs of an experiment of the study's name, one per cell, by MLflow's client.

    Parameters
    ----------
    uri : str
        A database (``sqlite:///file.db``) or a server's address.
    artifacts : Path
        Folder for the artifacts of a new experiment in a database.

    Raises
    ------
    CacheError
        MLflow cannot write there.
    """
    with _own_terms():
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            client = MlflowClient(tracking_uri=uri)
            experiment = _experiment(client, result.name, uri, artifacts)
            known = {run.data.tags.get(_CELL): run for run in _runs(client, experiment)}
            for cell in result.cells:
                _write_run(client, experiment, cell, known.get(run_name(cell)))
        except MlflowException as error:
            raise CacheError(
                f"MLflow cannot write to '{uri}': {' '.join(str(error).split())[:300]}",
                next_step="Name a database such as sqlite:///mlflow.db, or a server's address.",
            ) from error


@contextmanager
def _own_terms() -> Iterator[None]:
    """Let MLflow neither report home, nor warn of its use of SQLAlchemy, nor tell of its tables."""
    name, log = "MLFLOW_DISABLE_TELEMETRY", logging.getLogger("mlflow")
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        with warnings.catch_warnings():
            # MLflow's models of its tables use what SQLAlchemy 2 deprecates
            warnings.simplefilter("ignore")
            import_module("mlflow.tracking")  # which sets the level of its log
            level = log.level
            log.setLevel(logging.WARNING)
            try:
                yield
            finally:
                log.setLevel(level)
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _experiment(client: Any, name: str, uri: str, artifacts: Path) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = uri.startswith("sqlite:")
    place = artifacts.absolute().as_uri() if local else None
    return str(client.create_experiment(name, artifact_location=place))


def _runs(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _write_run(client: Any, experiment: str, cell: CellResult, known: Any) -> None:
    from mlflow.entities import Metric, Param

    content = hashlib.sha256(json.dumps([asdict(r) for r in cell.rounds]).encode()).hexdigest()
    if known is not None:
        if known.data.tags.get(_CONTENT) == content:
            return
        client.delete_run(known.info.run_id)
    tags = {_CELL: run_name(cell), _CONTENT: content}
    run = client.create_run(experiment, run_name=run_name(cell), tags=tags)
    at = run.info.start_time
    metrics = [
        Metric(name, value, at + round(1000 * r.seconds), r.round)
        for r in cell.rounds
        for name, value in metrics_of(r).items()
    ]
    params = [Param(axis, label) for axis, label in cell.labels.items()]
    client.log_batch(run.info.run_id, params=[*params, Param("seed", str(cell.seed))])
    for start in range(0, len(metrics), 1000):  # the most that MLflow takes at once
        client.log_batch(run.info.run_id, metrics=metrics[start : start + 1000])
    client.set_terminated(run.info.run_id)
