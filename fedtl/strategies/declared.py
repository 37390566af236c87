"""What a strategy says of itself in attributes, looked at before anything relies on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial

from flwr.serverapp.strategy import Strategy

from fedtl.errors import StrategyError, nearest
from fedtl.privacy.release import MECHANISMS, Mechanism
from fedtl.train.objectives import ObjectiveName, make_statistic
from fedtl.train.random_features import RandomMap
from fedtl.train.task import HEADS

_NOT_UPDATES = ("labels", "metrics")
"""Releases that fedtl asks for by itself."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What a strategy may say of itself, each in an attribute of that name.

    One that says nothing, as all of Flower's, asks for gradients of a linear or an MLP head in as
    many rounds as the recipe has.

    Attributes
    ----------
    mechanisms : tuple of str
        What sites release to it; gradients come after sums of any kind.
    shares : mapping of str to float, optional
        How the privacy budget is split over the mechanisms; by default alike.
    rounds : int, optional
        How many rounds there are, whatever the recipe says.
    statistic : ObjectiveName, optional
        What the ``sums`` among its mechanisms are of.
    sums_norm : float
        What the rows of these are clipped to.
    sums_rounds : callable, optional
        Of a number of rounds, how many ask for sums; by default one.
    directions, feature_map
        What the head says of the features it looks at: :func:`fedtl.train.heads.initial_head`.
    head_kind : str, optional
        The one kind of heads that it makes.
    personal : ObjectiveName, optional
        How sites make heads of their own (:mod:`fedtl.train.personal`).
    needs_updates, needs_evaluations : bool
        Whether it looks at single updates, and at single sites' held-out results.
    """

    mechanisms: tuple[Mechanism, ...] = ("gradients",)
    shares: Mapping[str, float] | None = None
    rounds: int | None = None
    statistic: ObjectiveName | None = None
    sums_norm: float = 1.0
    sums_rounds: Callable[[int], int] | None = None
    directions: int | None = None
    feature_map: RandomMap | None = None
    head_kind: str | None = None
    personal: ObjectiveName | None = None
    needs_updates: bool = False
    needs_evaluations: bool = False

    @classmethod
    def of(cls, strategy: object) -> Declared:
        """Read what a strategy says."""
        names = [field.name for field in fields(cls) if hasattr(strategy, field.name)]
        return cls(**{name: getattr(strategy, name) for name in names})

    @property
    def gradients(self) -> bool:
        """Whether sites train heads for it."""
        return "gradients" in self.mechanisms

    @property
    def only_gradients(self) -> bool:
        """Whether it asks for nothing else."""
        return tuple(self.mechanisms) == ("gradients",)

    def asked(self, rounds: int) -> dict[Mechanism, int]:
        """Return in how many of a run's rounds it asks for what.

        Anything but gradients is asked for once, in a round of its own before them; sums in as many
        as :attr:`sums_rounds` says, wherever they are.
        """
        asked = dict.fromkeys(self.mechanisms, 1)
        if "sums" in asked and self.sums_rounds is not None:
            asked["sums"] = max(self.sums_rounds(rounds), 1)
        if "gradients" in asked:
            asked["gradients"] = rounds - sum(n for m, n in asked.items() if m != "gradients")
        return asked

    def sums_size(self, width: int, classes: int) -> int:
        """Return how many numbers its ``statistic`` has; 0 if it has none."""
        return make_statistic(self.statistic).size(width, classes) if self.statistic else 0

    def beside_sums(self, width: int, classes: int) -> int:
        """Return how many numbers go to a site with a request for its ``statistic``."""
        sent = make_statistic(self.statistic).sends(width, classes) if self.statistic else {}
        return sum(math.prod(shape) for shape in sent.values())


def check_declared(strategy: Strategy, name: str) -> None:
    """Refuse what cannot be, and properties that raise.

    Parameters
    ----------
    name : str
        What the user called it.

    Raises
    ------
    StrategyError
        With code ``strategy.declared``: names the attribute, its value, and what it should be.
    """
    try:
        says = Declared.of(strategy)
    except Exception as error:  # a property may raise anything
        raise StrategyError(
            f"Strategy '{name}' fails when it is asked for what it needs: "
            f"{type(error).__name__}: {error}.",
            next_step=f"Mend its properties: {', '.join(f.name for f in fields(Declared))}.",
            code="strategy.declared",
        ) from error
    if wrong := _of_mechanisms(says.mechanisms):
        raise _wrong(name, "mechanisms", says.mechanisms, wrong)
    shared = partial(_is_shared, frozenset(says.mechanisms))
    for attribute, wanted, fits in (
        ("shares", "a dict with a share above 0 for each of its mechanisms", shared),
        ("rounds", "a whole number of at least 1", _is_count),
        ("sums_norm", "a number above 0", _is_positive),
        ("sums_rounds", "a method of a number of rounds", callable),
        ("statistic", "an ObjectiveName: ObjectiveName.of(...)", _is_name),
        ("personal", "an ObjectiveName: ObjectiveName.of(...)", _is_name),
        ("directions", "a whole number of at least 1", _is_count),
        ("feature_map", "a RandomMap", _is_map),
        ("head_kind", f"one of {', '.join(HEADS)}", HEADS.__contains__),
        ("needs_updates", "True or False", _is_truth),
        ("needs_evaluations", "True or False", _is_truth),
    ):
        value = getattr(says, attribute)
        if value is not None and not fits(value):
            raise _wrong(name, attribute, value, f"Give {wanted}.")


def _wrong(name: str, attribute: str, value: object, cure: str) -> StrategyError:
    return StrategyError(
        f"{attribute} = {value!r} of strategy '{name}' cannot be.",
        next_step=cure,
        code="strategy.declared",
    )


def _of_mechanisms(asked: object) -> str:
    """Say what should be in the place of mechanisms, or nothing."""
    known = [m for m in MECHANISMS if m not in _NOT_UPDATES]
    if not isinstance(asked, tuple | list) or not asked:
        return f"Give a tuple of at least one of {', '.join(known)}."
    unknown = [m for m in asked if m not in known]
    return nearest(str(unknown[0]), known) if unknown else ""


def _is_shared(mechanisms: frozenset[str], value: object) -> bool:
    covers = isinstance(value, Mapping) and value.keys() >= mechanisms
    return covers and all(map(_is_positive, value.values()))  # type: ignore[attr-defined]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def _is_name(value: object) -> bool:
    return isinstance(value, ObjectiveName)


def _is_map(value: object) -> bool:
    return isinstance(value, RandomMap)


def _is_truth(value: object) -> bool:
    return isinstance(value, bool)
