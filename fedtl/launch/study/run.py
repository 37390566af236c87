"""A study from plan to result: check, find what is kept, run the rest, keep every cell at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path

from fedtl import __version__
from fedtl.errors import RecipeError
from fedtl.home import only_one, write_atomic
from fedtl.launch.opening import cut
from fedtl.launch.plans import cautions
from fedtl.launch.progress import Progress, silent
from fedtl.launch.study.bench import Bench, data_key, is_paced
from fedtl.launch.study.check import check_cells, named
from fedtl.launch.study.digest import cell_digest, look_again
from fedtl.launch.study.folder import LOGS, cell_file, check_folder, claim_study, load_cell
from fedtl.launch.study.folder import save_cell as keep
from fedtl.launch.study.pool import Done, Event, Failed, run_cells
from fedtl.launch.study.scales import scales_of
from fedtl.recipe.study import Cell, StudyPlan
from fedtl.report.study_result import CellResult, StudyResult

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StudyState:
    """How far a study is.

    Attributes
    ----------
    kept : dict of Cell to CellResult
        Cells whose results are there, of this very recipe and code.
    left : list of Cell
        Cells to run.
    """

    kept: dict[int, CellResult] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)


def state_of(plan: StudyPlan, folder: Path) -> StudyState:
    """Return which cells of a plan (by their place in it) are finished in a folder.

    Raises
    ------
    CacheError
        The folder holds something else.
    """
    known = check_folder(folder, plan)
    look_again()
    kept = {
        at: found
        for at, cell in enumerate(plan.cells)
        if known and (found := load_cell(folder, cell, cell_digest(cell.recipe))) is not None
    }
    return StudyState(kept, [at for at in range(len(plan.cells)) if at not in kept])


def run_study(
    plan: StudyPlan, folder: Path, *, jobs: int = 0, progress: Progress = silent
) -> StudyResult:
    """Run the cells of a study that are not finished, and return the result of all.

    Every cell is kept as soon as it is finished; Ctrl-C raises ``KeyboardInterrupt``, and the same
    call goes on. A cell that fails is named in the result and does not stop the others.

    Parameters
    ----------
    folder : Path
        New, empty, or the folder of an earlier run of a plan of this name. Cells whose recipe,
        data or code have not changed since are not run again.
    jobs : int
        Processes, one core each; 0: as many as there are cores. With 1, the cells run in this one.
    progress : callable
        Told of features, and of all cells' rounds together as phase ``"rounds"``.

    Raises
    ------
    FedtlError
        A cell that cannot be, data or a backbone that cannot be used, or a folder that is in use
        or holds something else. Nothing ran then.
    """
    if jobs < 0:
        raise RecipeError(f"--jobs is {jobs}.", next_step="Give 1 or more; 0 takes all cores.")
    rounds = check_cells(plan.cells)
    check_folder(folder, plan)
    with only_one(folder):
        state = state_of(plan, folder)
        claim_study(folder, plan)
        if state.left:
            _prepare([plan.cells[at] for at in state.left], progress)
        failed = _run(plan, state, folder, rounds=rounds, jobs=jobs, progress=progress)
    return result_of(plan, state, failed)


def _prepare(cells: Sequence[Cell], progress: Progress) -> None:
    """Open and cut every data set, and make the features that the cache lacks."""
    bench = Bench()
    by_data = sorted(cells, key=lambda cell: data_key(cell.recipe))
    for _, group in groupby(by_data, key=lambda cell: data_key(cell.recipe)):
        first, *others = group
        with named(first.title):
            manifest = bench.manifest(first.recipe)
            rows = cut(first.recipe, manifest)
            bench.features(first.recipe, progress)
        for cell in (first, *others):
            for caution in cautions(cell.recipe, manifest, rows):
                _log.warning("%s", caution)


def _run(
    plan: StudyPlan,
    state: StudyState,
    folder: Path,
    *,
    rounds: Sequence[int],
    jobs: int,
    progress: Progress,
) -> dict[str, str]:
    """Run what is left, keep what is finished, and return what failed."""
    cells = [plan.cells[at] for at in state.left]
    places = {id(plan.cells[at]): at for at in state.left}
    failed: dict[str, str] = {}
    done = {at: rounds[at] for at in state.kept}
    progress("rounds", sum(done.values()), sum(rounds))
    workers = min(jobs or cores(), max(len(cells), 1))
    with closing(run_cells(cells, jobs=workers, logs=folder / LOGS)) as events:
        for event in events:
            at = places[id(event.cell)]
            _take_in(event, at, state, folder, failed)
            done[at] = rounds[at] if isinstance(event, Done | Failed) else event.done
            progress("rounds", sum(done.values()), sum(rounds))
    return failed


def _take_in(
    event: Event, at: int, state: StudyState, folder: Path, failed: dict[str, str]
) -> None:
    if isinstance(event, Done):
        state.kept[at] = keep(folder, event.cell, cell_digest(event.cell.recipe), event.rounds)
    elif isinstance(event, Failed):
        failed[event.cell.title] = event.problem
        if event.trace:
            name, trace = cell_file(folder, event.cell).stem, event.trace.encode()
            write_atomic(folder / LOGS / f"{name}.txt", lambda file: file.write(trace))


def result_of(plan: StudyPlan, state: StudyState, failed: dict[str, str]) -> StudyResult:
    """Return what is known of a study."""
    return StudyResult(
        name=plan.name,
        version=__version__,
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        axes={axis.name: axis.labels for axis in plan.axes},
        baseline=plan.baseline,
        seeds=plan.seeds,
        cells=tuple(state.kept[at] for at in sorted(state.kept)),
        wanted=len(plan.cells),
        failed=failed,
        scales=tuple(scales_of(plan)),
        virtual=any(is_paced(cell.recipe) for cell in plan.cells),
    )


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
