"""The tables of a recipe, with every key's default and meaning."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, model_validator

LINEAR_RATE, MLP_RATE = 20.0, 3.0
"""Learning rates that suit features of unit length: ``simulations/benchmarks/accuracy.py``."""


class Table(BaseModel):
    """A table of a TOML file: unknown keys, infinities and changes are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Table):
    """Where the examples come from, and how they are split."""

    source: str = Field("digits", description="digits, fashion-mnist, a folder, a .csv or a .npz")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share held out, by hash")
    classes: tuple[str, ...] = Field((), description="fixed class list; allows single-site classes")
    tolerate_unreadable: int = Field(0, ge=0, description="unreadable files accepted")
    limit: int = Field(0, ge=0, description="use so many training images; 0 is all")


class Partition(Table):
    """How a simulation spreads the examples over sites."""

    kind: Literal["iid", "dirichlet", "classes", "group", "quantity", "natural"] = Field(
        "dirichlet", description="how examples are spread over sites"
    )
    sites: int = Field(5, ge=1, description="number of sites")
    alpha: float = Field(0.5, gt=0, description="Dirichlet concentration: small is skewed")
    classes_per_site: int = Field(2, ge=1, description="for kind 'classes'")
    min_examples: int = Field(10, ge=1, description="least training examples of a site")


class Backbone(Table):
    """Which frozen backbone makes the features, and how."""

    name: str = Field("tf_efficientnet_lite0", description="any timm model")
    weights: str = Field("", description="safetensors file or folder; empty: package or hub")
    taps: str | tuple[str, ...] = Field("auto", description="auto, final, or a list of stages")
    image_size: int = Field(0, ge=0, description="input side in pixels; 0 is the backbone's own")
    engine: Literal["auto", "onnx", "torch", "reference"] = Field("auto", description="engine")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16 only where asked for")


class Head(Table):
    """What is trained on top."""

    kind: Literal["linear", "mlp"] = Field("linear", description="what is trained")
    hidden: int = Field(64, ge=1, description="hidden units of an MLP")


class Train(Table):
    """Local training."""

    rounds: int = Field(10, ge=1, description="server rounds")
    sites_per_round: int = Field(0, ge=0, description="sites drawn in each round; 0 is all")
    local_steps: int = Field(5, ge=1, description="optimiser steps per round")
    local_epochs: int = Field(
        0, ge=0, description="passes over a site's data instead; 0 is local_steps; not private"
    )
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


class Privacy(Table):
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
    model: Literal["site", "distributed"] = Field(
        "site", description="distributed: the sites share the noise out; needs transport.secure"
    )
    honest_sites: int = Field(
        0, ge=0, description="sites whose noise is counted on; 0: all that must stay to the end"
    )
    metrics: Literal["clear", "noised", "off"] = Field(
        "clear",
        description="held-out results; noised: counts with noise, held-out records have the whole "
        "budget; real sites refuse clear ones unless their policy allows them",
    )
    labels: Literal["off", "noised"] = Field(
        "off", description="noised: sites tell counts of labels, for 2 % of the budget"
    )
    suppress_below: int = Field(
        5, ge=0, description="no clear numbers of fewer units in a private run; 0: all"
    )


class Strategy(Table):
    """How updates are combined."""

    name: str = Field("fedavg", description="a known strategy or path/to/file.py:Class")
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="keyword arguments of the strategy class"
    )
    around: dict[str, dict[str, bool | int | float | str]] = Field(
        default_factory=dict, description="wrappers with their options, the outermost first"
    )


class Attack(Table):
    """What bad sites do; for simulations."""

    kind: Literal[
        "none",
        "sign_flip",
        "scaling",
        "gaussian",
        "alie",
        "ipm",
        "free_rider",
        "label_flip",
    ] = Field("none", description="what bad sites send")
    share: float = Field(0.2, gt=0, lt=1, description="of the sites that are bad, rounded down")
    strength: float | None = Field(None, gt=0, description="default: the attack's own")


class Transport(Table):
    """How messages travel; via and dropout are for simulations."""

    via: Literal["stacked", "local", "ray"] = Field("stacked", description="the Grid")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of training replies lost")
    timeout: float | None = Field(
        None, gt=0, description="seconds per phase; with real sites 600 unless named"
    )
    secure: bool = Field(False, description="secure aggregation: the server learns sums only")
    secure_threshold: float = Field(
        2 / 3, gt=0.5, le=1, description="share of a round's sites that must stay to the end"
    )


class Compress(Table):
    """How small the updates are made on their way to the server."""

    kind: Literal["none", "top_k", "quantise", "low_rank"] = Field(
        "none", description="with error feedback at the sites"
    )
    share: float = Field(0.05, gt=0, le=1, description="for top_k: of the numbers of a head")
    bits: Literal[1, 2, 4, 8] = Field(8, description="for quantise: of every number")
    rank: int = Field(1, ge=1, description="for low_rank")


class Pace(Table):
    """How many a round waits for, and in a simulation how fast sites are, in virtual time."""

    buffer: int = Field(0, ge=0, description="answers that end a round; 0 waits for all sites")
    spread: float = Field(0.0, ge=0, description="how much speeds differ: deviation of their log")
    seconds: float = Field(1.0, gt=0, description="median virtual seconds of a training")


class Federation(Table):
    """What a run with real sites waits for; a simulation does not look at it."""

    least_sites: int = Field(2, ge=1, description="sites without which no round begins")
    least_updates: int = Field(1, ge=1, description="usable updates without which a round is void")
    wait: float = Field(600.0, gt=0, description="longest wait for that many sites, in seconds")
    patience: float = Field(30.0, ge=0, description="seconds to wait for more sites, or lost ones")
    retries: int = Field(3, ge=0, description="times that a void round is tried again")


class Compare(Table):
    """What the run is compared with at the end."""

    without_privacy: bool = Field(True, description="run again without privacy")
    local_only: bool = Field(True, description="train each site alone")


class Recipe(Table):
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
    attack: Attack = Attack()
    transport: Transport = Transport()
    compress: Compress = Compress()
    pace: Pace = Pace()
    federation: Federation = Federation()
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


def replaced(recipe: Recipe, **tables: dict[str, object]) -> Recipe:
    """Return a recipe with some values of its tables replaced."""
    return recipe.model_copy(
        update={
            name: getattr(recipe, name).model_copy(update=values) for name, values in tables.items()
        }
    )
