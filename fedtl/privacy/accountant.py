"""What events cost: accountants that read an event and refuse what they do not know.

Every accountant obeys one law, held by a shared contract test: the epsilon it returns is an upper
bound; it is 0 only where nothing was released; it does not depend on the order of events; it grows
with ``count`` and ``sampling_rate`` and falls with ``noise_multiplier``. The Gaussian-DP (central
limit) approximation is not offered: it under-reports.

========== ======================================================== ==============================
name       method                                                   error
========== ======================================================== ==============================
gaussian   exact, full batches only (Balle & Wang 2018)             1e-9
pld        privacy loss distribution (dp-accounting)                about 2e-4 of the value, above
prv        privacy random variables (Opacus; Gopi et al. 2021)      0.02, above
rdp        Rényi (Opacus; Mironov et al. 2019, Balle et al. 2020)   6 % and more, above
auto       gaussian where it applies, pld otherwise
========== ======================================================== ==============================
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fedtl.errors import PrivacyError, nearest
from fedtl.privacy.events import Event, Releases, releases_of
from fedtl.privacy.gaussian import gaussian_delta, gaussian_epsilon
from fedtl.privacy.pld import (
    full_batch_mu,
    pld_delta,
    pld_epsilon,
    rounding_of_delta,
    unresolved,
)

LEAST_EPSILON = 1e-9
LEAST_DELTA = 1e-300
MAX_PRV_CELLS = 5e6


class Accountant(Protocol):
    """Turns an event into its cost. See the law in this module's docstring."""

    def epsilon(self, event: Event, delta: float) -> float:
        """Return an upper bound of epsilon at ``delta`` in (0, 1); infinite without noise."""

    def delta(self, event: Event, epsilon: float) -> float:
        """Return an upper bound of delta at ``epsilon`` >= 0, or refuse."""


class GaussianAccountant:
    """The exact cost of full-batch Gaussian releases; refuses sampled ones."""

    def epsilon(self, event: Event, delta: float) -> float:
        """Return the exact epsilon (to 1e-9)."""
        return _epsilon(event, delta, lambda rs: gaussian_epsilon(self._mu(rs), delta))

    def delta(self, event: Event, epsilon: float) -> float:
        """Return the exact delta."""
        return _delta(event, epsilon, lambda rs: gaussian_delta(self._mu(rs), epsilon))

    def _mu(self, releases: Sequence[Releases]) -> float:
        if not _all_full(releases):
            raise PrivacyError(
                "The accountant 'gaussian' knows full batches only, and a release is sampled.",
                next_step="Set accountant = 'auto' or 'pld'.",
                code="privacy.event-unsupported",
            )
        return full_batch_mu(releases)


class PldAccountant:
    """Tight upper bounds for every event, from privacy loss distributions."""

    def epsilon(self, event: Event, delta: float) -> float:
        """Return epsilon, exact for full batches."""
        return _epsilon(event, delta, lambda rs: pld_epsilon(rs, delta))

    def delta(self, event: Event, epsilon: float) -> float:
        """Return delta, exact for full batches."""
        return _delta(event, epsilon, lambda rs: pld_delta(rs, epsilon))


class PrvAccountant:
    """Opacus' accountant of privacy random variables, to compare with other people's figures."""

    def epsilon(self, event: Event, delta: float) -> float:
        """Return the upper end of Opacus' interval, 0.01 above its estimate."""
        return _epsilon(event, delta, lambda rs: _prv_epsilon(rs, delta))

    def delta(self, event: Event, epsilon: float) -> float:
        """Refuse: this accountant bounds epsilon only."""
        raise _no_delta("prv")


class RdpAccountant:
    """Opacus' Rényi accountant: loose, fast, and good for any delta."""

    def epsilon(self, event: Event, delta: float) -> float:
        """Return epsilon at the best of a fixed list of Rényi orders."""
        return _epsilon(event, delta, lambda rs: _rdp_epsilon(rs, delta))

    def delta(self, event: Event, epsilon: float) -> float:
        """Refuse: this accountant bounds epsilon only."""
        raise _no_delta("rdp")


class AutoAccountant:
    """Exact where every release is a full batch, privacy loss distributions otherwise."""

    def epsilon(self, event: Event, delta: float) -> float:
        """Return epsilon from the tightest accountant that knows the event."""
        return self._tightest(event).epsilon(event, delta)

    def delta(self, event: Event, epsilon: float) -> float:
        """Return delta from the tightest accountant that knows the event."""
        return self._tightest(event).delta(event, epsilon)

    def _tightest(self, event: Event) -> Accountant:
        return GaussianAccountant() if _all_full(releases_of(event)) else PldAccountant()


ACCOUNTANTS: dict[str, type[Accountant]] = {
    "auto": AutoAccountant,
    "gaussian": GaussianAccountant,
    "pld": PldAccountant,
    "prv": PrvAccountant,
    "rdp": RdpAccountant,
}


def accountant_of(name: str) -> Accountant:
    """Return the accountant of a name in :data:`ACCOUNTANTS`.

    Raises
    ------
    PrivacyError
        There is none; the known ones are listed.
    """
    if name not in ACCOUNTANTS:
        raise PrivacyError(
            f"accountant = {name!r} is unknown.", next_step=nearest(str(name), ACCOUNTANTS)
        )
    return ACCOUNTANTS[name]()


def epsilon_of(event: Event, delta: float, *, accountant: str = "auto") -> float:
    """Return what an event costs.

    Parameters
    ----------
    event : Event
        What was released; compose events to learn their joint cost.
    delta : float
        In (0, 1).
    accountant : str
        Name in :data:`ACCOUNTANTS`.

    Returns
    -------
    float
        Epsilon: 0 where nothing was released, infinite where something was released without noise.

    Raises
    ------
    PrivacyError
        An argument is out of range, or the accountant does not know the event.

    Examples
    --------
    >>> from fedtl.privacy.events import GaussianEvent
    >>> round(epsilon_of(GaussianEvent(4.0, 100), 1e-5), 6)
    13.206712
    """
    return accountant_of(accountant).epsilon(event, delta)


def check_delta(delta: float) -> None:
    """Refuse a delta outside (0, 1)."""
    if not 0 < delta < 1:
        raise PrivacyError(
            f"delta = {delta} is not in (0, 1).",
            next_step="Choose a delta well below 1 / number of units, for example 1e-5.",
        )


def _epsilon(event: Event, delta: float, of: Callable[[Sequence[Releases]], float]) -> float:
    check_delta(delta)
    releases = releases_of(event)
    if not releases:
        return 0.0
    silent = any(r.noise_multiplier == 0 for r in releases)
    return math.inf if silent else max(of(releases), LEAST_EPSILON)


def _delta(event: Event, epsilon: float, of: Callable[[Sequence[Releases]], float]) -> float:
    if not 0 <= epsilon < math.inf:
        raise PrivacyError(
            f"epsilon = {epsilon} is not a finite number from 0.", next_step="Give epsilon >= 0."
        )
    releases = releases_of(event)
    if not releases:
        return 0.0
    if any(r.noise_multiplier == 0 for r in releases):
        return 1.0
    return min(1.0, max(of(releases), LEAST_DELTA))


def _all_full(releases: Sequence[Releases]) -> bool:
    return all(r.sampling_rate == 1 for r in releases)


def _prv_epsilon(releases: Sequence[Releases], delta: float) -> float:
    # Opacus sets aside delta / 1000 for all numerical errors.
    if rounding_of_delta(releases) > delta / 1000:
        raise unresolved(delta, releases)
    from opacus.accountants import PRVAccountant

    # Opacus' own grid: half-width from Rényi orders, step from the number of releases.
    steps_per_epsilon = 100 * math.sqrt(sum(r.count for r in releases) * math.log(12e3 / delta) / 2)
    if 2 * (_rdp_epsilon(releases, delta / 4000) + 3) * steps_per_epsilon > MAX_PRV_CELLS:
        raise _no_bound("prv", releases, delta, "its grid would not fit in memory")
    return _opacus_epsilon(PRVAccountant(), releases, delta)


def _rdp_epsilon(releases: Sequence[Releases], delta: float) -> float:
    from opacus.accountants import RDPAccountant

    return _opacus_epsilon(RDPAccountant(), releases, delta)


def _opacus_epsilon(judge: Any, releases: Sequence[Releases], delta: float) -> float:
    import numpy as np

    judge.history = [(r.noise_multiplier, r.sampling_rate, r.count) for r in releases]
    try:
        # An overflow would spoil the bound silently, so it is an error here.
        with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise", divide="ignore"):
            # At the first or last Rényi order the bound is loose, not wrong.
            warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
            return float(judge.get_epsilon(delta))
    except (ArithmeticError, RuntimeError, ValueError, MemoryError) as error:
        raise _no_bound(judge.mechanism(), releases, delta, str(error)) from error


def _no_bound(name: str, releases: Sequence[Releases], delta: float, why: str) -> PrivacyError:
    return PrivacyError(
        f"The accountant '{name}' finds no bound at delta = {delta:g} for {releases[0]}: {why}.",
        next_step="Set accountant = 'pld', or add noise.",
        code="privacy.no-bound",
    )


def _no_delta(name: str) -> PrivacyError:
    return PrivacyError(
        f"The accountant '{name}' gives epsilon at a delta, not the other way round.",
        next_step="Set accountant = 'auto' or 'pld'.",
        code="privacy.event-unsupported",
    )
