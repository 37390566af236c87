"""The privacy plan: one frozen value that says what a site releases, and what that costs.

A plan is made once for the whole run (:func:`plan_for`), travels with every task, and is printed in
every report. It never says "per round": its noise is calibrated for all releases of the run
together, of every kind.

**Who pays.** Neighbouring data sets differ by one unit added or removed. Training and held-out
records are different records, so what is released about the ones costs the others nothing
(parallel composition, McSherry 2009), and each has the whole budget. The same holds for the records
of different sites: a record's epsilon is that of its own site, not the sum over sites. It breaks
where one unit is at two places: a patient known to two hospitals pays at both, and is protected by
the composition of both plans only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from fedtl.errors import PrivacyError
from fedtl.privacy.accountant import ACCOUNTANTS, epsilon_of
from fedtl.privacy.calibrate import calibrate, check_budget
from fedtl.privacy.events import ComposedEvent, Event
from fedtl.privacy.release import ABOUT_HELD_OUT, Release, one_of

__all__ = ["PrivacyPlan", "Release", "plan_for"]

NEIGHBOURING = "add or remove one"
"""The relation of all mechanisms here; sensitivities and accountants suppose it."""


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """What every site of a run releases under differential privacy: one composed event.

    Attributes
    ----------
    epsilon, delta : float
        The budget of one record (or group) over the whole run.
    releases : tuple of Release
        Kinds of releases, each at most once.
    accountant : str
        Name in :data:`fedtl.privacy.accountant.ACCOUNTANTS`, or ``"auto"``.
    neighbouring : {"add or remove one"}
        Which data sets must look alike. Replacing one unit is two steps of this relation.

    Examples
    --------
    >>> plan = plan_for(Release(mechanism="gradients"), epsilon=8, delta=1e-5)
    >>> round(plan.release("gradients").noise_multiplier, 4), round(plan.epsilon_after(), 2)
    (0.6002, 8.0)
    """

    epsilon: float
    delta: float
    releases: tuple[Release, ...]
    accountant: str = "auto"
    neighbouring: str = NEIGHBOURING

    def __post_init__(self) -> None:
        check_budget(self.epsilon, self.delta)
        one_of("accountant", self.accountant, ("auto", *ACCOUNTANTS))
        one_of("neighbouring", self.neighbouring, (NEIGHBOURING,))
        kinds = [release.mechanism for release in self.releases]
        if not kinds or len(set(kinds)) < len(kinds):
            raise PrivacyError(
                f"A plan with the releases {kinds} covers nothing, or something twice.",
                next_step="Name every mechanism once, with its count of releases.",
            )
        trained = [r for r in self.releases if r.mechanism not in ABOUT_HELD_OUT]
        if len({r.unit for r in self.releases}) > 1 or len({r.honest_sites for r in trained}) > 1:
            raise PrivacyError(
                "The releases of a plan protect different units, or share out noise differently.",
                next_step="Give all of them the same unit and honest_sites.",
            )

    @property
    def unit(self) -> str:
        """Whose presence is hidden: one example's or one group's."""
        return self.releases[0].unit

    @property
    def model(self) -> Literal["site", "distributed"]:
        """Whether each site's release is private by itself, or only the sum over sites."""
        return "distributed" if any(r.honest_sites for r in self.releases) else "site"

    def covers(self, mechanism: str) -> bool:
        """Say whether there is such a release."""
        return any(r.mechanism == mechanism for r in self.releases)

    def release(self, mechanism: str) -> Release:
        """Return the release of a mechanism.

        Raises
        ------
        PrivacyError
            With code ``plan.mismatch``: the plan does not cover it.
        """
        for one in self.releases:
            if one.mechanism == mechanism:
                return one
        raise PrivacyError(
            f"The plan does not cover a release of {mechanism}.",
            next_step=f"It covers {', '.join(r.mechanism for r in self.releases)}; make the plan "
            "from the recipe that asks for them.",
            code="plan.mismatch",
        )

    def event(self, counts: Mapping[str, int] | None = None, *, held_out: bool = False) -> Event:
        """Return what was released about training (or held-out) records.

        Parameters
        ----------
        counts : mapping of str to int, optional
            Releases made by mechanism; default: all that the plan covers.
        """
        parts = [r for r in self.releases if (r.mechanism in ABOUT_HELD_OUT) == held_out]
        if counts is not None:
            parts = [r for r in parts if counts.get(r.mechanism)]
        events = tuple(r.event(None if counts is None else counts[r.mechanism]) for r in parts)
        return events[0] if len(events) == 1 else ComposedEvent(events)

    def epsilon_after(
        self, counts: Mapping[str, int] | None = None, *, held_out: bool = False
    ) -> float:
        """Return the epsilon that one record has spent after some releases (default: all)."""
        event = self.event(counts, held_out=held_out)
        return epsilon_of(event, self.delta, accountant=self.accountant)

    def costs(self) -> dict[str, float]:
        """Return the epsilon that each kind of release would cost by itself, over the run."""
        return {
            r.mechanism: epsilon_of(r.event(), self.delta, accountant=self.accountant)
            for r in self.releases
        }

    def describe(self) -> str:
        """Say in one sentence what is promised."""
        parts = "; ".join(
            release.describe() + (f" (alone {cost:.3g})" if len(self.releases) > 1 else "")
            for release, cost in zip(self.releases, self.costs().values(), strict=True)
        )
        where = "in the sum over the sites" if self.model == "distributed" else "at each site"
        return (
            f"({self.epsilon:g}, {self.delta:g})-DP per {self.unit} {where}, {self.neighbouring}; "
            f"{parts}"
        )

    def to_json(self) -> str:
        """Return the plan as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PrivacyPlan:
        """Read a plan; anything that is not exactly a plan is refused."""
        try:
            raw: dict[str, Any] = json.loads(text)
            releases = tuple(Release(**one) for one in raw.pop("releases"))
            return cls(releases=releases, **raw)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise PrivacyError(
                "The message carries no readable privacy plan.",
                next_step="Server and site must run the same version of fedtl.",
                code="privacy.plan-unreadable",
            ) from error


def plan_for(
    *releases: Release,
    epsilon: float,
    delta: float,
    shares: Mapping[str, float] | None = None,
    accountant: str = "auto",
    noise_multiplier: float | None = None,
) -> PrivacyPlan:
    """Make the plan with the smallest noise that meets a budget over all releases of a run.

    Parameters
    ----------
    *releases : Release
        What is released, and how often; their noise multipliers are replaced.
    shares : mapping of str to float, optional
        How the budget is split over mechanisms about the same records: shares of mu², the sum of
        squared sensitivities over squared noise, which adds up over full-batch Gaussian releases
        exactly. Default: equal shares.
    noise_multiplier : float, optional
        Use this noise instead of calibrating; refused if it costs more than ``epsilon``, or if
        more than one mechanism is about training records.

    Raises
    ------
    PrivacyError
        The budget is out of range, or the given noise does not meet it.

    Examples
    --------
    >>> parts = Release(mechanism="statistics"), Release(mechanism="gradients", count=9)
    >>> plan = plan_for(*parts, epsilon=1, delta=1e-5, shares={"statistics": 0.1, "gradients": 0.9})
    >>> [round(r.noise_multiplier, 3) for r in plan.releases], round(plan.epsilon_after(), 6)
    ([11.797, 11.797], 1.0)
    """
    check_budget(epsilon, delta)
    draft = PrivacyPlan(float(epsilon), float(delta), releases, accountant)
    for held_out in (False, True):
        about = [r for r in releases if (r.mechanism in ABOUT_HELD_OUT) == held_out]
        if about and (held_out or noise_multiplier is None):
            draft = _calibrated(draft, _ratios(about, shares or {}), held_out=held_out)
    if noise_multiplier is None:
        return draft
    (first, *others) = [r for r in releases if r.mechanism not in ABOUT_HELD_OUT]
    if others:
        raise PrivacyError(
            f"noise_multiplier = {noise_multiplier} does not say how the noise is split over "
            f"{first.mechanism} and {others[0].mechanism}.",
            next_step="Leave noise_multiplier out to have it calibrated.",
        )
    draft = _with_noise(draft, {first.mechanism: noise_multiplier})
    if (spent := draft.epsilon_after()) > epsilon:
        raise PrivacyError(
            f"noise_multiplier = {noise_multiplier} costs epsilon {spent:.3f} over {first.count} "
            f"releases, more than epsilon = {epsilon}.",
            next_step="Leave noise_multiplier out to have it calibrated, or raise epsilon.",
        )
    return draft


def _ratios(releases: Sequence[Release], shares: Mapping[str, float]) -> dict[str, float]:
    """Return noise multipliers up to a common factor: each release gets its share of mu²."""
    given = {r.mechanism: shares.get(r.mechanism, 1 / len(releases)) for r in releases}
    for name, share in given.items():
        if not 0 < share <= 1:
            raise PrivacyError(
                f"The share of {name} in the budget is {share}, not in (0, 1].",
                next_step="Give shares above 0 that add up to 1.",
            )
    total = sum(given.values())
    return {
        r.mechanism: r.sampling_rate * math.sqrt(r.count * total / given[r.mechanism])
        for r in releases
    }


def _calibrated(plan: PrivacyPlan, ratios: Mapping[str, float], *, held_out: bool) -> PrivacyPlan:
    least = min(ratios.values())
    ratios = {name: ratio / least for name, ratio in ratios.items()}

    def scaled(noise: float) -> PrivacyPlan:
        return _with_noise(plan, {name: noise * ratio for name, ratio in ratios.items()})

    smallest = calibrate(
        lambda noise: scaled(noise).event(held_out=held_out),
        epsilon=plan.epsilon,
        delta=plan.delta,
        accountant=plan.accountant,
    )
    return scaled(smallest)


def _with_noise(plan: PrivacyPlan, noise: Mapping[str, float]) -> PrivacyPlan:
    return replace(
        plan,
        releases=tuple(
            replace(r, noise_multiplier=noise.get(r.mechanism, r.noise_multiplier))
            for r in plan.releases
        ),
    )
