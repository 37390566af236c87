"""One kind of release of a site: what bounds it, what noise it carries, and how often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fedtl.errors import PrivacyError, nearest
from fedtl.privacy.events import Event, GaussianEvent, PoissonGaussianEvent

Mechanism = Literal["gradients", "statistics", "mean", "covariance", "sums", "labels", "metrics"]

MECHANISMS = ("gradients", "statistics", "mean", "covariance", "sums", "labels", "metrics")
UNITS = ("example", "group")
ABOUT_HELD_OUT = ("metrics",)
"""Mechanisms that read held-out records; the others read training records."""

_ANY = 1.0
"""Noise multiplier of a release that :func:`plan_for` is going to calibrate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One kind of release of a site, and how often it is made in a run.

    Attributes
    ----------
    mechanism : {"gradients", "statistics", "mean", "covariance", "sums", "labels", "metrics"}
        Sums of clipped gradients; sums of clipped sufficient statistics, features, outer products
        of features, or rows of a scripted statistic (:mod:`fedtl.train.additive`); counts of
        training records per class; or counts of right and wrong answers on held-out records.
    clip_norm : float
        L2 bound of one unit's contribution to one release.
    noise_multiplier : float
        Noise standard deviation divided by the L2 sensitivity.
    count : int
        Largest number of such releases of one site in the whole run.
    sampling_rate : float
        Probability that a unit takes part in a release; 1.0 is a full batch.
    unit : {"example", "group"}
        Whose presence is hidden: one example, or all examples of a group such as a patient.
    unit_cap : int
        How a group is bounded. 0: its summed gradient is clipped (linear heads). Above 0: at most
        so many examples of a group are used, each clipped to ``clip_norm / unit_cap``. For
        statistics and counts every example of a group of m counts 1 / m.
    public_size : float
        Publicly known number of training units of a typical site. Gradient sums are divided by
        it, so that the true size of a site is never released.
    honest_sites : int
        0: every site adds all of the noise. Above 0: so many sites share it out, and only their
        securely aggregated sum is private.
    """

    mechanism: Mechanism
    clip_norm: float = 1.0
    noise_multiplier: float = _ANY
    count: int = 1
    sampling_rate: float = 1.0
    unit: Literal["example", "group"] = "example"
    unit_cap: int = 0
    public_size: float = 1.0
    honest_sites: int = 0

    def __post_init__(self) -> None:
        one_of("mechanism", self.mechanism, MECHANISMS)
        one_of("unit", self.unit, UNITS)
        for name in ("clip_norm", "noise_multiplier", "public_size"):
            positive(name, getattr(self, name))
        if not 0 < self.sampling_rate <= 1:
            raise PrivacyError(
                f"sampling_rate = {self.sampling_rate} is not in (0, 1].",
                next_step="Choose a batch_size between 1 and the public size of a site.",
            )
        if self.sampling_rate < 1 and self.mechanism != "gradients":
            raise PrivacyError(
                f"sampling_rate = {self.sampling_rate} does not go with {self.mechanism}: they are "
                "computed from all records.",
                next_step="Leave sampling_rate out.",
            )
        whole("count", self.count, 1, "a plan covers a whole number of releases, from 1")
        whole("unit_cap", self.unit_cap, 0, "it is the most examples of a group used, or 0")
        whole("honest_sites", self.honest_sites, 0, "it is a number of sites, or 0")
        if self.unit_cap and (self.unit == "example" or self.mechanism != "gradients"):
            raise PrivacyError(
                f"unit_cap = {self.unit_cap} does not go with unit = '{self.unit}' and mechanism = "
                f"'{self.mechanism}': it bounds the gradients of groups.",
                next_step="Leave unit_cap out.",
            )
        if self.honest_sites and (self.mechanism == "metrics" or self.sampling_rate < 1):
            raise PrivacyError(
                f"honest_sites = {self.honest_sites} goes with full batches of gradients and with "
                "statistics only.",
                next_step="Set train.sampling = 'full', or privacy.model = 'site'.",
            )

    @property
    def example_clip(self) -> float | None:
        """L2 bound of one example's gradient; None where sums over a group are clipped."""
        if self.unit == "example":
            return self.clip_norm
        return self.clip_norm / self.unit_cap if self.unit_cap else None

    def event(self, count: int | None = None) -> Event:
        """Return what happened after ``count`` releases (default: all of them)."""
        n = self.count if count is None else count
        if self.sampling_rate < 1:
            return PoissonGaussianEvent(self.noise_multiplier, self.sampling_rate, n)
        return GaussianEvent(self.noise_multiplier, n)

    def describe(self) -> str:
        """Say in one clause what is released."""
        capped = f" by at most {self.unit_cap} examples each" if self.unit_cap else ""
        batch = "full batches" if self.sampling_rate == 1 else f"Poisson {self.sampling_rate:.3g}"
        times = f"{self.count} release" + ("s" if self.count > 1 else "")
        about = " of held-out records" if self.mechanism in ABOUT_HELD_OUT else ""
        shared = f" shared out over {self.honest_sites} sites" if self.honest_sites else ""
        return (
            f"{self.mechanism}{about} clipped to {self.clip_norm:g}{capped}, noise multiplier "
            f"{self.noise_multiplier:.4g}{shared}, {times}, {batch}"
        )


def positive(name: str, value: float) -> None:
    """Refuse what is not a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise PrivacyError(
            f"{name} = {value} is not a positive number.", next_step=f"Give {name} a value above 0."
        )


def whole(name: str, value: int, least: int, meaning: str) -> None:
    """Refuse what is not a whole number from ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise PrivacyError(
            f"{name} = {value}: {meaning}.", next_step="Check train.rounds and [privacy]."
        )


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse an unknown name; the nearest known one is named."""
    if value not in known:
        raise PrivacyError(f"{name} = '{value}' is unknown.", next_step=nearest(value, known))
