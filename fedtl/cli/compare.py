"""``fedtl compare``: a study of many runs, and what can be concluded from it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtl.cli.progress import Reached, progress
from fedtl.cli.screen import err, leave_now, out, print_json, say, stoppable, warnings_shown

if TYPE_CHECKING:
    from fedtl.recipe.study import StudyPlan
    from fedtl.report.study_result import StudyResult

EXAMPLES = (
    "Examples:\n\n"
    "fedtl compare simulations/studies/example.toml\n\n"
    "fedtl compare my.toml --list\n\n"
    "fedtl compare my.toml --out studies/skew --jobs 8 --tensorboard --mlflow"
)


def compare(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="The study's plan.")],
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder; default runs/study-NAME.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes; 0 takes all cores.")] = 0,
    list_: Annotated[bool, typer.Option("--list", help="List the cells, then stop.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write every cell for TensorBoard as well.")
    ] = False,
    mlflow: Annotated[
        bool,
        typer.Option(
            "--mlflow",
            help="Write every cell to MLflow as well: $MLFLOW_TRACKING_URI, or a file in the "
            "folder.",
        ),
    ] = False,
    mlflow_uri: Annotated[
        str, typer.Option(metavar="URI", help="Where MLflow is: sqlite:///FILE or http(s)://...")
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Run every combination of a plan, and compare: table, tests, plots, report.html.

    Finished cells are kept: the same command goes on after Ctrl-C, and runs again only what
    changed in recipe, data or code.
    """
    from fedtl.launch.study import state_of
    from fedtl.launch.study.folder import usual_folder
    from fedtl.launch.study.trackers import require_tracker
    from fedtl.recipe.study import load_plan

    study = load_plan(plan)
    folder = to or usual_folder(study)
    wanted = {"tensorboard": tensorboard, "mlflow": mlflow or bool(mlflow_uri)}
    for tracker in [name for name, chosen in wanted.items() if chosen]:
        require_tracker(tracker)
    if list_:
        _print_cells(study, set(state_of(study, folder).kept), as_json=as_json)
        return
    result = _run(study, folder, plan=plan, jobs=jobs, quiet=quiet)
    _conclude(result, folder, as_json=as_json)
    _track(result, folder, tensorboard=tensorboard, mlflow=wanted["mlflow"], uri=mlflow_uri)
    if result.failed:
        raise typer.Exit(1)


def _print_cells(study: StudyPlan, kept: set[int], *, as_json: bool) -> None:
    """List the cells after checking that each can be."""
    from fedtl.launch.study.check import check_cells

    rounds = check_cells(study.cells)
    if as_json:
        print_json(
            [
                {**dict(c.labels), "seed": c.seed, "rounds": n, "finished": at in kept}
                for at, (c, n) in enumerate(zip(study.cells, rounds, strict=True))
            ]
        )
        return
    for at, cell in enumerate(study.cells):
        say(f"{'finished' if at in kept else 'to do'}: {cell.title}")
    say(f"{len(study.cells)} cells, {len(kept)} finished; {sum(rounds)} rounds in all.")


def _run(study: StudyPlan, folder: Path, *, plan: Path, jobs: int, quiet: bool) -> StudyResult:
    from fedtl.launch.study import run_study
    from fedtl.report.study_page import write_study

    console, reached = err(), None
    try:
        with (
            stoppable(),
            warnings_shown(console),
            progress(console, quiet=quiet) as reached,
        ):
            result = run_study(study, folder, jobs=jobs, progress=reached)
            write_study(result, folder)
            return result
    except KeyboardInterrupt:
        console.print(_kept(folder, plan, reached), style="yellow", markup=False, soft_wrap=True)
        leave_now()


def _kept(folder: Path, plan: Path, reached: Reached | None) -> str:
    """Say what an interrupt left, and how to go on."""
    done, total = (reached.phases if reached else {}).get("rounds", (0, 0))
    state = f"after {done:,} of {total:,} rounds" if total else "before the first round"
    command = f"fedtl compare {shlex.quote(str(plan))} --out {shlex.quote(str(folder))}"
    return f"Stopped {state}; finished cells are kept. Go on with: {command}"


def _track(result: StudyResult, folder: Path, *, tensorboard: bool, mlflow: bool, uri: str) -> None:
    from fedtl.launch.study.trackers import to_mlflow, to_tensorboard

    if tensorboard:
        to_tensorboard(result, folder / "tensorboard")
    if mlflow:
        here = f"sqlite:///{(folder / 'mlflow.db').absolute()}"
        to_mlflow(result, uri or os.environ.get("MLFLOW_TRACKING_URI") or here, folder / "mlruns")


def _conclude(result: StudyResult, folder: Path, *, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        from fedtl.report.study_stats import table_of

        rows = [asdict(row) for row in table_of(result)]
        print_json({"study": str(folder), "rows": rows, "failed": dict(result.failed)})
        return
    from fedtl.report.study_table import print_study

    console = out()
    print_study(result, console, folder)
    console.print(f"Report: {folder / 'report.html'}", markup=False, soft_wrap=True)
