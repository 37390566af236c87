"""From flags to a recipe's dotted keys."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fedtl.errors import RecipeError, nearest

Rounds = Annotated[int | None, typer.Option(help="Rounds of training.")]
StrategyName = Annotated[
    str | None, typer.Option(help="A known strategy or path/to/file.py:Class.")
]
Epsilon = Annotated[
    str | None, typer.Option(help="Privacy budget of a site, or 'none' for no privacy.")
]
BackboneName = Annotated[str | None, typer.Option(help="A timm model; see fedtl backbones.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe; repeatable."),
]

_PARTITION_NUMBERS = {"dirichlet": "partition.alpha", "classes": "partition.classes_per_site"}
_SIMPLE = {
    "sites": "partition.sites",
    "rounds": "train.rounds",
    "strategy": "strategy.name",
    "backbone": "backbone.name",
    "data": "data.source",
    "via": "transport.via",
    "seed": "seed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags of ``fedtl simulate`` that change a recipe; None where one was not given.

    Attributes
    ----------
    epsilon : str or None
        A number, or ``"none"`` for a run without privacy.
    partition : str or None
        A kind, or a kind and its number: ``"dirichlet:0.1"``, ``"classes:2"``.
    settings : tuple of str
        ``KEY=VALUE`` with a dotted key and a TOML value.

    Examples
    --------
    >>> Flags(rounds=3, epsilon="none").overrides()
    {'train.rounds': 3, 'privacy.enabled': False}
    """

    sites: int | None = None
    rounds: int | None = None
    strategy: str | None = None
    backbone: str | None = None
    data: str | None = None
    via: str | None = None
    seed: int | None = None
    epsilon: str | None = None
    partition: str | None = None
    settings: tuple[str, ...] = ()

    def overrides(self) -> dict[str, Any]:
        """Return dotted keys and values for :func:`fedtl.recipe.load_recipe`.

        Raises
        ------
        RecipeError
            A flag cannot be read.
        """
        given = {key: getattr(self, flag) for flag, key in _SIMPLE.items()}
        values = {key: value for key, value in given.items() if value is not None}
        values |= _epsilon(self.epsilon) | _partition(self.partition)
        values |= dict(map(_setting, self.settings))
        return {key: _anchored(key, value) for key, value in values.items()}


def _epsilon(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if text.lower() == "none":
        return {"privacy.enabled": False}
    try:
        return {"privacy.enabled": True, "privacy.epsilon": float(text)}
    except ValueError as error:
        raise RecipeError(
            f"--epsilon is {text!r}.",
            next_step="Give a number such as 8, or 'none' for a run without privacy.",
        ) from error


def _partition(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    kind, colon, number = text.partition(":")
    if not colon:
        return {"partition.kind": kind}
    if kind not in _PARTITION_NUMBERS:
        raise RecipeError(
            f"--partition is {text!r}, but {kind!r} takes no number.",
            next_step=nearest(kind, _PARTITION_NUMBERS).replace("Known", "With a number"),
        )
    return {"partition.kind": kind, _PARTITION_NUMBERS[kind]: toml_value(number)}


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise RecipeError(
            f"--set is {text!r}.", next_step="Write KEY=VALUE, for example --set train.lr=10."
        )
    return key.strip(), toml_value(value.strip())


def toml_value(text: str) -> Any:
    """Read a TOML value; what is none is a text without its quotes, which shells take away."""
    try:
        values = tomllib.loads(f"x = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return values["x"] if len(values) == 1 else text


def _anchored(key: str, value: Any) -> Any:
    """Make a path absolute: the run folder's recipe has to mean the same thing from anywhere."""
    if not isinstance(value, str) or "\0" in value:
        return value
    if key == "strategy.name" and ".py:" in value:
        file, _, attribute = value.rpartition(":")
        return f"{Path(file).expanduser().absolute()}:{attribute}"
    if key in ("data.source", "backbone.weights", "backbone.name") and not _is_name(key, value):
        path = Path(value).expanduser()
        return str(path.absolute()) if path.exists() else value
    return value


def _is_name(key: str, value: str) -> bool:
    if key == "data.source":
        from fedtl.data.named import SOURCES

        return value in SOURCES
    return not value or (key == "backbone.name" and "/" not in value)
