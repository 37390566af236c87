"""``fedtl run``: a recipe at real sites, by the coordinator."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtl.cli.flags import BackboneName, Epsilon, Flags, Rounds, Settings, StrategyName
from fedtl.cli.screen import clean_line, err, leave_now, out, print_json, stoppable, warnings_shown
from fedtl.errors import FedtlError, RecipeError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fedtl.launch.remote import Remote
    from fedtl.launch.watch import RunProgress

EXAMPLES = (
    "Examples:\n\n"
    "fedtl run recipe.toml --on coordinator/\n\n"
    "fedtl run --on coordinator/ --rounds 3 --set privacy.public_size=300\n\n"
    "fedtl run --on coordinator/ --resume coordinator/runs/digits-20260101-120000\n\n"
    "fedtl run --on coordinator/ --stop coordinator/runs/digits-20260101-120000"
)


def run(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE.toml", help="Default: that of fedtl simulate.")
    ] = None,
    on: Annotated[
        Path, typer.Option("--on", metavar="SERVER", help="The coordinator's folder.")
    ] = Path("coordinator"),
    rounds: Rounds = None,
    strategy: StrategyName = None,
    epsilon: Epsilon = None,
    backbone: BackboneName = None,
    settings: Settings = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Follow a run, and go on with it if it was cut."),
    ] = None,
    stop: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Stop a run; finished rounds are kept.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start, and do not follow.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run a recipe at the sites of a federation, follow it, and write a report.

    On the coordinator's machine, after `fedtl server up`. The recipe's data and partition are not
    looked at: every site has its own data. Ctrl-C stops following, and the run goes on.
    """
    from fedtl.launch.remote import Remote

    if stop is not None:
        Remote(on, stop).stop()
        err().print(clean_line(f"Stopped; go on with --resume {stop}"), markup=False)
        return
    flags = Flags(
        rounds=rounds,
        strategy=strategy,
        epsilon=epsilon,
        backbone=backbone,
        settings=tuple(settings or ()),
    )
    remote = _resumed(on, resume, recipe, flags) if resume else _new(on, recipe, flags)
    _follow(remote, detach=detach, quiet=quiet, as_json=as_json)


def _new(on: Path, path: Path | None, flags: Flags) -> Remote:
    from fedtl.cli.ahead import check_start
    from fedtl.launch.coordinator.config import read_server
    from fedtl.launch.coordinator.link import check_up
    from fedtl.launch.federate import check_deployable
    from fedtl.launch.remote import Remote
    from fedtl.launch.run_folder import claim, new_folder
    from fedtl.recipe import load_recipe

    coordinator = read_server(on)
    check_up(on)
    recipe = load_recipe(path, flags.overrides())
    check_start(recipe)
    check_deployable(recipe)
    folder = new_folder(recipe, coordinator.folder / "runs")
    claim(folder, recipe, again=f"fedtl run --on {shlex.quote(str(coordinator.folder))}")
    remote = Remote(on, folder)
    remote.start()
    return remote


def _resumed(on: Path, folder: Path, path: Path | None, flags: Flags) -> Remote:
    from fedtl.launch.remote import Remote
    from fedtl.launch.run_folder import recipe_of

    if path is not None or flags.overrides():
        raise RecipeError(
            f"--resume '{folder}' goes on with that run's own recipe.",
            next_step="Leave the recipe and its flags out, or start a new run without --resume.",
        )
    recipe_of(folder)
    remote = Remote(on, folder)
    if not remote.alive():
        remote.start()
    return remote


def _follow(remote: Remote, *, detach: bool, quiet: bool, as_json: bool) -> None:
    run = shlex.quote(str(remote.folder))
    again = f"fedtl run --on {shlex.quote(str(remote.coordinator))} --resume {run}"
    console = err()
    if detach:
        out().print(f"Started. Follow it with: {again}", markup=False, soft_wrap=True)
        return
    try:
        with stoppable(), warnings_shown(console):
            _show(remote, console, quiet=quiet)
    except KeyboardInterrupt:
        said = f"The run goes on without you. Follow it with: {again}\nStop it with --stop {run}."
        console.print(said, style="yellow", markup=False, soft_wrap=True)
        leave_now()
    except FedtlError:
        said = f"Finished rounds are kept. Once it is mended, go on with: {again}"
        console.print(said, markup=False, soft_wrap=True)
        raise
    _conclude(remote.folder, as_json=as_json)


def _show(remote: Remote, console: Console, *, quiet: bool) -> None:
    """Follow a run to its end: a live table on a terminal, else a line for every round."""
    if quiet or not console.is_terminal:
        said = ""
        for told in remote.follow():
            line = _line(told)
            if not quiet and line != said:
                console.print(clean_line(line), markup=False, soft_wrap=True)
            said = line
        return
    from rich.live import Live

    with Live(console=console, refresh_per_second=4, transient=True) as live:
        for told in remote.follow():
            live.update(table(told))


def _line(told: RunProgress) -> str:
    from fedtl.report.words import percent

    if told.state == "waiting":
        return told.said or "Waiting for the sites."
    line = f"rounds: {told.round} of {told.rounds}"
    line += f", accuracy {percent(told.accuracy)}" if told.accuracy is not None else ""
    failed = [f"{site.name} ({site.detail})" for site in told.sites if site.detail]
    line += f"; without {', '.join(failed)}" if failed else ""
    return f"{line}; {told.said}" if told.said else line


def table(told: RunProgress) -> Table:
    """Return what a terminal shows of a run that goes on: one row per site."""
    from rich.table import Table

    from fedtl.report.words import duration, percent, privacy, short, size

    accuracy = f", accuracy {percent(told.accuracy)}" if told.accuracy is not None else ""
    title = f"Round {min(told.round + 1, told.rounds)} of {told.rounds}{accuracy}"
    made = Table(title=title, caption=clean_line(told.said) or None)
    for heading in ("site", "state", "seconds", "received", "sent", "epsilon", "left"):
        made.add_column(heading, justify="left" if heading in ("site", "state") else "right")
    for site in told.sites:
        state = f"{site.state} ({site.detail})" if site.detail else site.state
        made.add_row(
            short(site.name, 24),
            clean_line(state)[:60],
            duration(site.seconds) if site.seconds else "-",
            size(site.down),
            size(site.up),
            privacy(site.epsilon),
            privacy(site.left),
        )
    return made


def _conclude(folder: Path, *, as_json: bool) -> None:
    from fedtl.cli.simulate import short_result
    from fedtl.report.result import RunResult
    from fedtl.report.table import print_summary

    result = RunResult.from_json((folder / "report.json").read_text("utf-8"))
    if as_json:
        print_json({"run": str(folder), **short_result(result)})
        return
    console = out()
    print_summary(result, console, folder)
    quoted = shlex.quote(str(folder))
    lines = [
        f"Report: {folder / 'report.html'}",
        "Next:",
        f"  fedtl report {quoted} --open",
        f"  fedtl predict {quoted} IMAGE...",
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)
