"""``fedtl recipe``: show a recipe with the meaning of every key, or check one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from fedtl.recipe import Recipe

app = typer.Typer(
    name="recipe", help="Show or check recipes.", no_args_is_help=True, rich_markup_mode="rich"
)


@app.command(epilog="Example:\n\nfedtl recipe show > my.toml")
def show(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE.toml", help="Default: the embedded one.")
    ] = None,
) -> None:
    """Print a recipe as TOML: every key, its value and its meaning. Default: the embedded one."""
    from fedtl.recipe import load_recipe

    print(commented(load_recipe(recipe)), end="")


@app.command(epilog="Example:\n\nfedtl recipe check my.toml")
def check(recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml")]) -> None:
    """Check a recipe: its keys and values, and that data, strategy and backbone exist."""
    from fedtl.cli.ahead import check_names
    from fedtl.recipe import load_recipe

    resolved = load_recipe(recipe)
    check_names(resolved)
    print(f"OK: {recipe} ({resolved.name}, {resolved.partition.sites} sites)")


def commented(recipe: Recipe) -> str:
    """Return a recipe as TOML with a comment behind every key; reading it gives an equal recipe."""
    meanings = _meanings(recipe)
    table, lines = "", []
    seen: set[str] = set()
    for line in recipe.to_toml().splitlines():
        if heading := re.fullmatch(r"\[(.+)\]", line):
            lines += _absent(table, meanings, seen)
            table = f"{heading[1]}."
        key = f"{table}{line.partition(' = ')[0]}"
        seen.add(key)
        meaning = meanings.get(key, "") if " = " in line else ""
        lines.append(f"{line}  # {meaning}" if meaning else line)
    return "\n".join([*lines, *_absent(table, meanings, seen)]) + "\n"


def _absent(table: str, meanings: dict[str, str], seen: set[str]) -> list[str]:
    """Return comments for the keys of a table that have no value; TOML cannot write None."""
    inside = [key for key in meanings if key.rpartition(".")[0] == table.rstrip(".")]
    return [
        f"# {key.rpartition('.')[2]} is not set: {meanings[key]}"
        for key in inside
        if table and key not in seen and f"{key}." not in table
    ]


def _meanings(recipe: Recipe) -> dict[str, str]:
    """Return dotted key to meaning, from the descriptions of the fields."""
    found = {}
    for name, field in type(recipe).model_fields.items():
        inner = getattr(type(getattr(recipe, name)), "model_fields", None)
        if inner is None:
            found[name] = _meaning(field)
        else:
            found |= {f"{name}.{key}": _meaning(below) for key, below in inner.items()}
    return {key: meaning for key, meaning in found.items() if meaning}


def _meaning(field: FieldInfo) -> str:
    kind: Any = field.annotation
    choices = ", ".join(map(str, get_args(kind))) if get_origin(kind) is Literal else ""
    return ": ".join(part for part in (field.description, choices) if part)
