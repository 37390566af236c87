"""What a site allows, whatever a recipe asks for. Without a policy of its own it allows little."""

from __future__ import annotations

from dataclasses import dataclass

from fedtl.errors import PrivacyError
from fedtl.privacy.ledger import Budget


@dataclass(frozen=True, slots=True)
class SitePolicy:
    """A site's own rules; a request that breaks one is refused with a code, and nothing is paid.

    Attributes
    ----------
    budget : Budget or None
        What any record may spend, over all runs; None: what the plans of the runs say.
    unprotected : bool
        Whether updates may leave that are neither private by a plan nor hidden in a sum: a raw
        gradient of one example gives away its features and its label.
    only_sealed : bool
        Whether updates may leave only hidden in a sum, also those that are private by a plan.
    clear_metrics : bool
        Whether held-out results and counts of labels may leave without noise.
    suppress_below : int
        Held-out units below which nothing is told in clear.
    """

    budget: Budget | None = None
    unprotected: bool = False
    only_sealed: bool = False
    clear_metrics: bool = False
    suppress_below: int = 5

    def __post_init__(self) -> None:
        if self.suppress_below < 0:
            raise PrivacyError(
                f"suppress_below = {self.suppress_below} of a policy is below 0.",
                next_step="Give the least number of held-out units, or 0.",
            )
        if self.unprotected and self.only_sealed:
            raise PrivacyError(
                "A policy allows unprotected updates and wants all updates sealed.",
                next_step="Set one of unprotected and only_sealed to false.",
            )

    def check_update(self, site: str, *, private: bool, shared: bool, sealed: bool) -> None:
        """Refuse an update that must not leave the site as it is.

        Parameters
        ----------
        private : bool
            Whether a plan covers it.
        shared : bool
            Whether its noise is shared out, so that only the sum is private.
        sealed : bool
            Whether it leaves hidden in a sum.

        Raises
        ------
        PrivacyError
            With code ``secagg.required`` or ``policy.unprotected``.
        """
        if sealed:
            return
        if self.only_sealed or shared:
            raise PrivacyError(
                f"{site} was asked for an update that is not hidden in a sum.",
                next_step="Set transport.secure = true: the plan or the site's policy needs it.",
                code="secagg.required",
            )
        if not private and not self.unprotected:
            raise PrivacyError(
                f"{site} was asked for an update that is neither private nor hidden in a sum.",
                next_step="Set privacy.enabled or transport.secure to true in the recipe, or allow "
                "unprotected updates in the site's policy.",
                code="policy.unprotected",
            )

    def check_clear(self, site: str) -> None:
        """Refuse numbers about examples that carry no noise.

        Raises
        ------
        PrivacyError
            With code ``policy.metrics``.
        """
        if not self.clear_metrics:
            raise PrivacyError(
                f"{site} was asked for metrics without noise, and its policy does not allow that.",
                next_step="Set privacy.metrics = 'noised' or 'off' in the recipe, or allow clear "
                "metrics in the site's policy.",
                code="policy.metrics",
            )


STRICT = SitePolicy()
"""Of a site that names no policy."""
SIMULATED = SitePolicy(unprotected=True, clear_metrics=True, suppress_below=0)
"""Of a simulated site, whose records are the simulator's own."""
