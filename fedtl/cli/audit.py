"""``fedtl audit``: attack a run's privacy, and say what was proved beside what is claimed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtl.cli.flags import Flags
from fedtl.cli.progress import progress
from fedtl.cli.screen import err, leave_now, out, stoppable, warnings_shown
from fedtl.errors import RecipeError

if TYPE_CHECKING:
    from fedtl.recipe import Recipe

EXAMPLES = (
    "Examples:\n\nfedtl audit\n\nfedtl audit runs/digits-20260101-120000\n\n"
    "fedtl audit my.toml --canaries 8000 --out audits/mine\n\n"
    "fedtl audit my.toml --set privacy.enabled=false"
)
BROKEN = 1


def audit(
    what: Annotated[
        Path | None,
        typer.Argument(metavar="RUN|RECIPE.toml", help="Default: the embedded recipe."),
    ] = None,
    canaries: Annotated[int, typer.Option(min=100, max=10_000, help="Invented records.")] = 4000,
    shadows: Annotated[int, typer.Option(min=16, help="Shadow heads.")] = 256,
    seed: Annotated[int, typer.Option(help="Of canaries and noise, not of the sites.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of a recipe; repeatable."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder; default RUN, or runs/NAME-audit-TIME.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Attack a run's privacy: canaries, membership inference and inversion of single updates.

    Prints the claimed epsilon beside the lower bound that was proved, and writes audit.json and
    audit.html. The exit code is 1 if the promise is broken.
    """
    recipe = _recipe(what, tuple(settings or ()))
    console = err()
    try:
        with stoppable(), warnings_shown(console), progress(console, quiet=quiet) as reached:
            from fedtl.cli.ahead import check_names
            from fedtl.launch.audit import audit as launch

            check_names(recipe)
            result = launch(recipe, canaries=canaries, shadows=shadows, seed=seed, progress=reached)
    except KeyboardInterrupt:
        console.print("Stopped. Nothing was written; features that were made are kept.")
        leave_now()
    from fedtl.report.audit_page import facts, verdict, write_audit

    page = write_audit(result, to or _folder(what, recipe))
    if as_json:
        print(result.to_json())
    else:
        rows = facts(result)
        widest = max(len(label) for label, _ in rows)
        lines = [f"{label:<{widest}}  {value}" for label, value in rows]
        out().print("\n".join(lines), markup=False, soft_wrap=True)
        style = "red bold" if result.broken else "bold"
        out().print(verdict(result), style=style, markup=False, soft_wrap=True)
        out().print(f"Audit: {page}", markup=False, soft_wrap=True)
    if result.broken:
        raise typer.Exit(BROKEN)


def _recipe(what: Path | None, settings: tuple[str, ...]) -> Recipe:
    from fedtl.recipe import load_recipe

    if what is None or not what.is_dir():
        return load_recipe(what, Flags(settings=settings).overrides())
    if settings:
        raise RecipeError(
            f"--set {settings[0]} would audit another recipe than that of '{what}'.",
            next_step="Leave it out, or audit a recipe: fedtl audit my.toml --set ...",
        )
    from fedtl.launch.run_folder import recipe_of

    return recipe_of(what)


def _folder(what: Path | None, recipe: Recipe) -> Path:
    if what is not None and what.is_dir():
        return what
    from fedtl.launch.run_folder import new_folder

    return new_folder(recipe.model_copy(update={"name": f"{recipe.name}-audit"}))
