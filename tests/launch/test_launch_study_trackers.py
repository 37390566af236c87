"""What trackers are told is what they show: read back by their own readers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from studies import invented

from fedtl.errors import CacheError, RecipeError
from fedtl.launch.study.trackers import require_tracker, run_name, to_mlflow, to_tensorboard
from fedtl.report.study_result import StudyResult


def small() -> StudyResult:
    return invented(seeds=(1,), partitions=(0.1,), rounds=3, private=True)


def test_tensorboard_shows_every_cell_as_a_run(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = small()
    for _ in range(2):  # what is written again is not shown twice
        to_tensorboard(result, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {run_name(c) for c in result.cells}
    for cell in result.cells:
        events = EventAccumulator(str(tmp_path / run_name(cell)))
        events.Reload()
        shown = [(e.step, e.value) for e in events.Scalars("accuracy")]
        assert shown == [(r.round, pytest.approx(r.accuracy)) for r in cell.rounds]
        assert [e.value for e in events.Scalars("bytes")] == [r.n_bytes for r in cell.rounds]
        assert "epsilon" in events.Tags()["scalars"]


def test_mlflow_shows_every_cell_as_a_run_once(tmp_path: Path) -> None:
    result, uri = small(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    to_mlflow(result, uri, tmp_path / "mlruns")
    to_mlflow(result, uri, tmp_path / "mlruns")
    first = _runs(uri)
    assert first.keys() == {run_name(c) for c in result.cells}
    for cell in result.cells:
        run, history = first[run_name(cell)]
        assert run.data.params == {**cell.labels, "seed": "1"}
        assert history == [(r.round, r.accuracy) for r in cell.rounds]
        assert run.info.status == "FINISHED"
    cell = result.cells[0]
    shorter = replace(cell, rounds=cell.rounds[:1])
    to_mlflow(replace(result, cells=(shorter, *result.cells[1:])), uri, tmp_path / "mlruns")
    again = _runs(uri)
    assert len(again[run_name(cell)][1]) == 1
    kept = run_name(result.cells[1])
    assert again[kept][0].info.run_id == first[kept][0].info.run_id


def _runs(uri: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy's, of what MLflow still uses
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("invented")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id])
        assert len({run.info.run_name for run in found}) == len(found)
        return {
            str(run.info.run_name): (
                run,
                [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "accuracy")],
            )
            for run in found
        }


def test_a_place_that_mlflow_does_not_take_is_an_error_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"MLflow cannot write to .*sqlite:///mlflow.db"):
        to_mlflow(small(), f"nonsense://{tmp_path}", tmp_path)


def test_a_library_that_is_not_there_is_named_with_the_extra() -> None:
    require_tracker("tensorboard")
    with pytest.raises(RecipeError, match=r"needs the package 'absent'.*fedtl\[tracking\]"):
        require_tracker("absent")
