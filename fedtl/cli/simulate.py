"""``fedtl simulate``: a whole federation on this machine."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtl.cli.flags import BackboneName, Epsilon, Flags, Rounds, Settings, StrategyName
from fedtl.cli.progress import Reached, progress
from fedtl.cli.screen import err, leave_now, out, print_json, stoppable, warnings_shown
from fedtl.errors import FedtlError, RecipeError

if TYPE_CHECKING:
    from fedtl.launch.simulate import Finished
    from fedtl.recipe import Recipe
    from fedtl.report.result import RunResult

MOST_PROBLEMS = 20
"""Files left out that the terminal names."""
EXAMPLES = (
    "Examples:\n\n"
    "fedtl simulate\n\n"
    "fedtl simulate --data photos/ --sites 10 --partition dirichlet:0.1 --epsilon 3\n\n"
    "fedtl simulate my.toml --strategy fedadam --set strategy.options.eta=0.1\n\n"
    "fedtl simulate --strategy my_strategy.py:Mine --epsilon none --dry-run\n\n"
    "fedtl simulate --resume runs/digits-20260101-120000"
)


def simulate(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE.toml", help="Default: digits at five sites.")
    ] = None,
    sites: Annotated[int | None, typer.Option(help="Number of sites.")] = None,
    rounds: Rounds = None,
    strategy: StrategyName = None,
    epsilon: Epsilon = None,
    backbone: BackboneName = None,
    data: Annotated[
        str | None, typer.Option(help="digits, fashion-mnist, a folder, a .csv or a .npz.")
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(help="iid, dirichlet:0.1, classes:2, group, quantity or natural."),
    ] = None,
    via: Annotated[str | None, typer.Option(help="stacked, local or ray.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same head.")] = None,
    settings: Settings = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Run folder; default runs/NAME-TIME.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a run that was stopped.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show recipe and cost, then stop.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Train a private head across simulated sites, compare it, and write a report.

    Without a RECIPE.toml: handwritten digits at five sites (fedtl recipe show). Flags override it.
    """
    flags = Flags(
        sites=sites,
        rounds=rounds,
        strategy=strategy,
        epsilon=epsilon,
        backbone=backbone,
        data=data,
        partition=partition,
        via=via,
        seed=seed,
        settings=tuple(settings or ()),
    )
    resolved, folder = _settle(recipe, flags.overrides(), to=to, resume=resume)
    if dry_run:
        from fedtl.cli.dry_run import show

        show(resolved, as_json=as_json)
        return
    finished = _run(resolved, folder, fresh=resume is None, quiet=quiet)
    _conclude(finished, quiet=quiet, as_json=as_json)


def _settle(
    path: Path | None, overrides: dict[str, Any], *, to: Path | None, resume: Path | None
) -> tuple[Recipe, Path]:
    """Return the recipe to run and the folder to run it in."""
    from fedtl.recipe import load_recipe

    if resume is not None:
        return _resumed(path, overrides, to=to, run=resume), resume
    recipe = load_recipe(path, overrides)
    if to is not None:
        _check_empty(to)
        return recipe, to
    from fedtl.launch.run_folder import new_folder

    return recipe, new_folder(recipe)


def _check_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if not (folder.exists() or folder.is_symlink()):
        return
    known = (folder / "recipe.toml").is_file()
    raise RecipeError(
        f"--out '{folder}' is {'the folder of another run' if known else 'not an empty folder'}.",
        next_step=f"Go on with it by --resume {shlex.quote(str(folder))}, or name a new folder."
        if known
        else "Name a new folder.",
    )


def _resumed(path: Path | None, overrides: dict[str, Any], *, to: Path | None, run: Path) -> Recipe:
    """Return the recipe of a run, after checking that nothing else was asked for."""
    from fedtl.launch.run_folder import recipe_of
    from fedtl.recipe import load_recipe

    kept = recipe_of(run)
    asked = load_recipe(path or run / "recipe.toml", overrides)
    changed = [
        f"{key} is {old!r} there and {new!r} here"
        for (key, old), (_, new) in zip(_flat(kept), _flat(asked), strict=True)
        if old != new
    ]
    if to is not None and to.absolute() != run.absolute():
        changed.append(f"--out is '{to}'")
    if not changed:
        return kept
    raise RecipeError(
        f"--resume '{run}' goes on with that run's own recipe, but {'; '.join(changed[:3])}.",
        next_step="Leave the other arguments out, or start a new run without --resume.",
    )


def _flat(recipe: Recipe) -> list[tuple[str, Any]]:
    tables = recipe.model_dump()
    return [
        (f"{name}.{key}" if key else name, value)
        for name, table in tables.items()
        for key, value in (table.items() if isinstance(table, dict) else [("", table)])
    ]


def _run(recipe: Recipe, folder: Path, *, fresh: bool, quiet: bool) -> Finished:
    from fedtl.cli.ahead import check_start
    from fedtl.launch.simulate import simulate as launch

    console, reached = err(), None
    try:
        with (
            stoppable(),
            warnings_shown(console),
            progress(console, quiet=quiet) as reached,
        ):
            check_start(recipe)
            return launch(recipe, folder, progress=reached)
    except KeyboardInterrupt:
        console.print(_kept(folder, reached), style="yellow", markup=False, soft_wrap=True)
        leave_now()
    except FedtlError:
        if fresh:
            _sweep(folder)
        raise


def _kept(folder: Path, reached: Reached | None) -> str:
    """Say what an interrupt left, and how to go on."""
    if not (folder / "recipe.toml").is_file():
        return "Stopped before anything was begun."
    done, total = (reached.phases if reached else {}).get("rounds", (0, 0))
    state = f"after round {done} of {total}; every finished round" if done else "before round 1"
    what = f"{state} and the features are" if done else f"{state}; the features made so far are"
    command = f"fedtl simulate --resume {shlex.quote(str(folder))}"
    return f"Stopped {what} kept. Go on with: {command}"


def _sweep(folder: Path) -> None:
    """Remove the folder of a run that could not begin."""
    if folder.is_dir() and [path.name for path in folder.iterdir()] == ["recipe.toml"]:
        (folder / "recipe.toml").unlink()
        folder.rmdir()


def _conclude(finished: Finished, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        print_json(summary(finished))
        return
    from fedtl.report.table import print_summary

    console = out()
    print_summary(finished.result, console, finished.folder)
    _print_problems(finished)
    run = shlex.quote(str(finished.folder))
    lines = [f"Report: {finished.folder / 'report.html'}"]
    if not quiet:
        lines += ["Next:", f"  fedtl report {run} --open", f"  fedtl predict {run} IMAGE..."]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _print_problems(finished: Finished) -> None:
    """Name the files that were left out, to the person at whose side they lie."""
    from fedtl.report.words import clean, count

    for problem in finished.problems[:MOST_PROBLEMS]:
        line = f"Left out: {clean(problem.path)} ({problem.reason})"
        err().print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if (more := len(finished.problems) - MOST_PROBLEMS) > 0:
        err().print(f"Left out: {count(more)} more files", style="yellow", markup=False)


_LONG = ("history", "confusion", "recipe", "backbone", "classes")


def summary(finished: Finished) -> dict[str, Any]:
    """Return what ``--json`` prints: the result without its histories, and where the run lies."""
    return {"run": str(finished.folder), **short_result(finished.result)}


def short_result(result: RunResult) -> dict[str, Any]:
    """Return a result without what is long."""
    return {key: value for key, value in asdict(result).items() if key not in _LONG}
