"""The privacy plan: one frozen value that says what a site releases, and what that costs.

A plan is made once for the whole run (:func:`plan_for`), travels with every task, and is printed in
every report. It never says "per round": its noise is calibrated for all releases of the run
together.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

from fedtl.errors import PrivacyError, nearest
from fedtl.privacy.accountant import ACCOUNTANTS, epsilon_of
from fedtl.privacy.calibrate import calibrate, check_budget
from fedtl.privacy.events import Event, GaussianEvent, PoissonGaussianEvent

MECHANISMS = ("gradients", "statistics")
SAMPLINGS = ("full", "poisson")
UNITS = ("example", "group")


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """What every site of a run releases under differential privacy.

    Attributes
    ----------
    epsilon, delta : float
        The budget of one site over the whole run.
    clip_norm : float
        L2 bound of one unit's contribution to one release.
    noise_multiplier : float
        Noise standard deviation divided by ``clip_norm``.
    releases : int
        Largest number of releases of one site in the whole run.
    sampling_rate : float
        Probability that a unit takes part in a release; 1.0 is a full batch.
    mechanism : {"gradients", "statistics"}
        Sums of per-example clipped gradients, or sums of clipped sufficient statistics.
    unit : {"example", "group"}
        Whose presence is hidden: one example, or all examples of a group such as a patient.
        Neighbouring data sets differ by one unit added or removed.
    unit_cap : int
        How a group is bounded. 0: its summed gradient is clipped (linear heads). Above 0: at most
        so many examples of a group are used, each clipped to ``clip_norm / unit_cap``. For
        statistics every example of a group of m counts 1 / m.
    model : {"site"}
        Each site's release is private by itself, against everyone who sees it.
    accountant : str
        Name in :data:`fedtl.privacy.accountant.ACCOUNTANTS`, or ``"auto"``.
    public_size : float
        Publicly known number of training units of a typical site. Gradient sums are divided by
        it, so that the true size of a site is never released.

    Examples
    --------
    >>> plan = plan_for(epsilon=8, delta=1e-5, clip_norm=1.0, releases=1)
    >>> round(plan.noise_multiplier, 4), round(plan.epsilon_after(1), 2)
    (0.6002, 8.0)
    """

    epsilon: float
    delta: float
    clip_norm: float
    noise_multiplier: float
    releases: int
    sampling_rate: float = 1.0
    mechanism: Literal["gradients", "statistics"] = "gradients"
    unit: Literal["example", "group"] = "example"
    model: Literal["site"] = "site"
    accountant: str = "auto"
    public_size: float = 1.0
    unit_cap: int = 0

    def __post_init__(self) -> None:
        check_budget(self.epsilon, self.delta)
        _positive("clip_norm", self.clip_norm)
        _positive("noise_multiplier", self.noise_multiplier)
        _positive("public_size", self.public_size)
        if not 0 < self.sampling_rate <= 1:
            raise PrivacyError(
                f"sampling_rate = {self.sampling_rate} is not in (0, 1].",
                next_step="Choose a batch_size between 1 and the public size of a site.",
            )
        if not isinstance(self.releases, int) or self.releases < 1:
            raise PrivacyError(
                f"releases = {self.releases}: a plan covers a whole number of releases, from 1.",
                next_step="Check train.rounds and train.local_steps.",
            )
        _one_of("mechanism", self.mechanism, MECHANISMS)
        _one_of("unit", self.unit, UNITS)
        if not isinstance(self.unit_cap, int) or self.unit_cap < 0:
            raise PrivacyError(
                f"unit_cap = {self.unit_cap} is not a whole number from 0.",
                next_step="Give the most examples of a group that are used, or 0.",
            )
        if self.unit_cap and (self.unit == "example" or self.mechanism == "statistics"):
            raise PrivacyError(
                f"unit_cap = {self.unit_cap} does not go with unit = '{self.unit}' and mechanism = "
                f"'{self.mechanism}': it bounds the gradients of groups.",
                next_step="Leave unit_cap out.",
            )
        _one_of("model", self.model, ("site",))
        _one_of("accountant", self.accountant, ("auto", *ACCOUNTANTS))

    @property
    def example_clip(self) -> float | None:
        """L2 bound of one example's gradient; None where sums over a group are clipped."""
        if self.unit == "example":
            return self.clip_norm
        return self.clip_norm / self.unit_cap if self.unit_cap else None

    def event(self, releases: int | None = None) -> Event:
        """Return what happened after ``releases`` releases (default: all of them)."""
        count = self.releases if releases is None else releases
        if self.sampling_rate < 1:
            return PoissonGaussianEvent(self.noise_multiplier, self.sampling_rate, count)
        return GaussianEvent(self.noise_multiplier, count)

    def epsilon_after(self, releases: int) -> float:
        """Return the epsilon that one site has spent after ``releases`` releases."""
        if releases == 0:
            return 0.0
        return epsilon_of(self.event(releases), self.delta, accountant=self.accountant)

    def describe(self) -> str:
        """Say in one sentence what is promised."""
        capped = f" by at most {self.unit_cap} examples each" if self.unit_cap else ""
        batch = "full batches" if self.sampling_rate == 1 else f"Poisson {self.sampling_rate:.3g}"
        return (
            f"({self.epsilon:g}, {self.delta:g})-DP per {self.unit} at each site, add or remove "
            f"one; {self.mechanism} clipped to {self.clip_norm:g}{capped}, noise multiplier "
            f"{self.noise_multiplier:.4g}, {self.releases} releases, {batch}"
        )

    def to_json(self) -> str:
        """Return the plan as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PrivacyPlan:
        """Read a plan; anything that is not exactly a plan is refused."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise PrivacyError(
                "The message carries no readable privacy plan.",
                next_step="Server and site must run the same version of fedtl.",
                code="privacy.plan-unreadable",
            ) from error


def plan_for(
    *,
    epsilon: float,
    delta: float,
    clip_norm: float,
    releases: int,
    sampling_rate: float = 1.0,
    mechanism: Literal["gradients", "statistics"] = "gradients",
    accountant: str = "auto",
    public_size: float = 1.0,
    unit: Literal["example", "group"] = "example",
    unit_cap: int = 0,
    noise_multiplier: float | None = None,
) -> PrivacyPlan:
    """Make the plan with the smallest noise that meets a budget over all releases of a run.

    Parameters
    ----------
    noise_multiplier : float, optional
        Use this noise instead of calibrating; refused if it costs more than ``epsilon``.

    Raises
    ------
    PrivacyError
        The budget is out of range, or the given noise does not meet it.
    """
    check_budget(epsilon, delta)
    draft = PrivacyPlan(
        epsilon=float(epsilon),
        delta=float(delta),
        clip_norm=clip_norm,
        noise_multiplier=1.0 if noise_multiplier is None else noise_multiplier,
        releases=releases,
        sampling_rate=sampling_rate,
        mechanism=mechanism,
        accountant=accountant,
        public_size=public_size,
        unit=unit,
        unit_cap=unit_cap,
    )
    if noise_multiplier is None:
        sigma = calibrate(
            lambda s: replace(draft, noise_multiplier=s).event(),
            epsilon=epsilon,
            delta=delta,
            accountant=accountant,
        )
        return replace(draft, noise_multiplier=sigma)
    if (spent := draft.epsilon_after(releases)) > epsilon:
        raise PrivacyError(
            f"noise_multiplier = {noise_multiplier} costs epsilon {spent:.3f} over {releases} "
            f"releases, more than epsilon = {epsilon}.",
            next_step="Leave noise_multiplier out to have it calibrated, or raise epsilon.",
        )
    return draft


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise PrivacyError(
            f"{name} = {value} is not a positive number.", next_step=f"Give {name} a value above 0."
        )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise PrivacyError(f"{name} = '{value}' is unknown.", next_step=nearest(value, known))
