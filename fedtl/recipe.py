"""The recipe: one TOML file that describes a run, checked before anything starts.

Unknown keys and values are refused with the nearest known one. Relative paths in a recipe resolve
against the recipe's own folder.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedtl.errors import RecipeError, nearest

LINEAR_RATE, MLP_RATE = 20.0, 3.0
"""Learning rates that suit features of unit length: ``simulations/benchmarks/accuracy.py``."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(_Table):
    """Where the examples come from, and how they are split."""

    source: str = Field("digits", description="digits, fashion-mnist, a folder, a .csv or a .npz")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share held out, by hash")
    classes: tuple[str, ...] = Field((), description="fixed class list; allows single-site classes")
    tolerate_unreadable: int = Field(0, ge=0, description="unreadable files accepted")
    limit: int = Field(0, ge=0, description="use so many training images; 0 is all")


class Partition(_Table):
    """How a simulation spreads the examples over sites."""

    kind: Literal["iid", "dirichlet", "classes", "group", "quantity", "natural"] = Field(
        "dirichlet", description="how examples are spread over sites"
    )
    sites: int = Field(5, ge=1, description="number of sites")
    alpha: float = Field(0.5, gt=0, description="Dirichlet concentration: small is skewed")
    classes_per_site: int = Field(2, ge=1, description="for kind 'classes'")
    min_examples: int = Field(10, ge=1, description="least training examples of a site")


class Backbone(_Table):
    """Which frozen backbone makes the features, and how."""

    name: str = Field("tf_efficientnet_lite0", description="any timm model")
    weights: str = Field("", description="safetensors file or folder; empty: package or hub")
    taps: str | tuple[str, ...] = Field("auto", description="auto, final, or a list of stages")
    image_size: int = Field(0, ge=0, description="input side in pixels; 0 is the backbone's own")
    engine: Literal["auto", "onnx", "torch", "reference"] = Field("auto", description="engine")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16 only where asked for")


class Head(_Table):
    """What is trained on top."""

    kind: Literal["linear", "mlp"] = Field("linear", description="what is trained")
    hidden: int = Field(64, ge=1, description="hidden units of an MLP")


class Train(_Table):
    """Local training."""

    rounds: int = Field(10, ge=1, description="server rounds")
    sites_per_round: int = Field(0, ge=0, description="sites drawn in each round; 0 is all")
    local_steps: int = Field(5, ge=1, description="optimiser steps per round")
    sampling: Literal["full", "poisson", "shuffle"] = Field(
        "full", description="how batches are drawn; shuffle cannot be private"
    )
    batch_size: int = Field(32, ge=1, description="(expected) batch; not for full batches")
    optimizer: Literal["sgd", "adam"] = Field("sgd", description="at the sites")
    lr: float = Field(
        LINEAR_RATE,
        gt=0,
        description=f"learning rate of the first step; an MLP's default is {MLP_RATE:g}",
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum of sgd")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty on the head")
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "constant", description="of the learning rate over the whole run"
    )
    averaging: float = Field(0.0, ge=0, lt=1, description="decay of the average of iterates")


class Privacy(_Table):
    """The budget of each site for the whole run."""

    enabled: bool = Field(True, description="false trains without privacy")
    epsilon: float = Field(8.0, gt=0, description="budget of a site over the whole run")
    delta: float = Field(1e-5, gt=0, lt=1, description="well below 1 / examples of a site")
    clip_norm: float = Field(0.5, gt=0, description="largest gradient norm of one example")
    noise_multiplier: float | None = Field(None, gt=0, description="default: calibrated")
    accountant: Literal["auto", "gaussian", "pld", "prv", "rdp"] = Field(
        "auto", description="auto: exact for full batches, else pld"
    )
    public_size: int = Field(0, ge=0, description="public units of a typical site; 0: mean number")
    unit: Literal["example", "group"] = Field("example", description="whose presence is hidden")
    unit_cap: int = Field(
        0, ge=0, description="examples of a group used at most; 0: its summed gradient is clipped"
    )


class Strategy(_Table):
    """How updates are combined."""

    name: str = Field("fedavg", description="a known strategy or path/to/file.py:Class")
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="keyword arguments of the strategy class"
    )


class Transport(_Table):
    """How messages travel in a simulation."""

    via: Literal["stacked", "local", "ray"] = Field("stacked", description="the Grid")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of training replies lost")
    timeout: float | None = Field(None, gt=0, description="seconds per round")


class Compare(_Table):
    """What the run is compared with at the end."""

    without_privacy: bool = Field(True, description="run again without privacy")
    local_only: bool = Field(True, description="train each site alone")


class Recipe(_Table):
    """One run, completely described."""

    name: str = Field(
        "run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$", description="begins the run folder"
    )
    seed: int = Field(1, ge=0, description="the same seed gives the same head")
    evaluate_every: int = Field(1, ge=0, description="rounds between evaluations; 0: at the end")
    data: Data = Data()
    partition: Partition = Partition()
    backbone: Backbone = Backbone()
    head: Head = Head()
    train: Train = Train()
    privacy: Privacy = Privacy()
    strategy: Strategy = Strategy()
    transport: Transport = Transport()
    compare: Compare = Compare()

    @model_validator(mode="before")
    @classmethod
    def _lower_rate_of_an_mlp(cls, values: Any) -> Any:
        head, train = values.get("head", {}), values.get("train", {})
        if isinstance(head, dict) and head.get("kind") == "mlp" and isinstance(train, dict):
            return {**values, "train": {"lr": MLP_RATE, **train}}
        return values

    def digest(self) -> str:
        """Return a sha256 of everything in the recipe."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def to_toml(self) -> str:
        """Return the resolved recipe as TOML; reading it gives an equal recipe."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


DEFAULT: dict[str, Any] = {
    "name": "digits",
    "backbone": {"image_size": 64},
}
"""The embedded default: scikit-learn's digit scans at five sites."""


def load_recipe(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe, or the embedded default, with dotted overrides such as ``train.rounds``.

    Raises
    ------
    RecipeError
        A missing or malformed file, an unknown key, or a value out of range.
    """
    values = (
        _read(path)
        if path
        else {k: dict(v) if isinstance(v, dict) else v for k, v in DEFAULT.items()}
    )
    for dotted, value in (overrides or {}).items():
        _set(values, dotted, value)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, str(path or "the default recipe")) from error
    _check_together(recipe)
    return recipe


def _read(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(
            f"There is no recipe '{path}'.",
            next_step="Check the path; `fedtl recipe show > my.toml` writes one to start from.",
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(
            f"Recipe '{path}' is not readable TOML: {error}.", next_step="Mend the file."
        ) from error
    for dotted in ("data.source", "backbone.weights", "strategy.name"):
        _resolve_path(values, dotted, path.parent)
    return values


def _resolve_path(values: dict[str, Any], dotted: str, folder: Path) -> None:
    table, key = dotted.split(".")
    inner = values.get(table)
    if isinstance(inner, dict) and isinstance(inner.get(key), str) and inner[key]:
        value = inner[key]
        file = value.rpartition(":")[0] if ".py:" in value else value
        here = "/" in file or file.endswith((".csv", ".npz", ".safetensors", ".py"))
        if (here or (folder / file).is_dir()) and not Path(file).expanduser().is_absolute():
            inner[key] = str((folder / file).resolve()) + value[len(file) :]


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *tables, key = dotted.split(".")
    for name in tables:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"'{name}' must be a table.", next_step=f"Write it as [{name}].")
        values = inner
    values[key] = value


def _check_together(recipe: Recipe) -> None:
    privacy, train = recipe.privacy, recipe.train
    if privacy.enabled and train.sampling == "shuffle":
        raise RecipeError(
            "train.sampling = 'shuffle' cannot be private: the accounting covers full batches and "
            "Poisson sampling.",
            next_step="Set train.sampling to 'full' or 'poisson', or privacy.enabled = false.",
        )
    linear_only = train.optimizer == "adam" or train.averaging or train.sampling == "shuffle"
    if recipe.head.kind == "mlp" and linear_only:
        raise RecipeError(
            f"train.optimizer = {train.optimizer!r}, averaging = {train.averaging} and sampling = "
            f"{train.sampling!r} do not go with head.kind = 'mlp'.",
            next_step="An MLP takes 'sgd', averaging 0, and 'full' or 'poisson' batches.",
        )
    if train.sites_per_round > recipe.partition.sites and recipe.partition.kind != "natural":
        raise RecipeError(
            f"train.sites_per_round = {train.sites_per_round} is more than partition.sites = "
            f"{recipe.partition.sites}.",
            next_step="Lower sites_per_round (0 takes all sites) or raise partition.sites.",
        )


def _explain(error: ValidationError, place: str) -> RecipeError:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" ({error.error_count() - 1} more problems follow.)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return RecipeError(
            f"'{where}' in {place} is unknown.{more}",
            next_step=nearest(str(first["loc"][-1]), _known_keys(first["loc"][:-1])),
        )
    if first["type"] == "literal_error":
        expected = str(first.get("ctx", {}).get("expected", ""))
        known = [part.strip(" '") for part in expected.replace(" or ", ",").split(",")]
        return RecipeError(
            f"{where} = {first['input']!r} in {place} is unknown.{more}",
            next_step=nearest(str(first["input"]), known),
        )
    return RecipeError(
        f"{where} = {first['input']!r} in {place}: {first['msg'].lower()}.{more}",
        next_step="Correct the value; `fedtl recipe show` lists keys, defaults and meanings.",
    )


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type):
            return []
        if not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return list(model.model_fields)
