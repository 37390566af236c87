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
    tell_budget : bool
        Whether the coordinator is told how much of the budget is left.
    unprotected : bool
        Whether updates may leave that are neither private by a plan nor hidden in a sum: a raw
        gradient of one example gives away its features and its label.
    only_sealed : bool
        Whether updates may leave only hidden in a sum, also those that are private by a plan.
    clear_metrics : bool
        Whether held-out results and counts of labels may leave without noise.
    suppress_below : int
        Held-out units below which nothing is told in clear.
    least_examples : int
        Training examples below which the site takes no part; 0: any number.
    least_sites : int
        Sites that a sum must keep to its end for this site's update to be hidden in it; 0: what
        the session says.
    accept_backbones : bool
        Whether the coordinator may send a backbone: a file that is checked by its digest, read as
        tensors and never run as code.
    releases : tuple of str
        Kinds of releases that a plan may contain; empty: any.
    objectives : tuple of str
        Client-side steps, sums and personal heads beside the built-in ones that a strategy may ask
        for: names of the entry point groups, such as ``fedtl.objectives``, or
        ``path/to/file.py:Class`` at this site. Their code runs on the site's examples, so it has to
        be trusted.
    coordinators, recipes : tuple of str
        SHA-256 digests (hex): who may ask, and for which runs. Empty: anybody, and any. A site that
        is not told who asks refuses where its policy names some.
    """

    budget: Budget | None = None
    tell_budget: bool = False
    unprotected: bool = False
    only_sealed: bool = False
    clear_metrics: bool = False
    suppress_below: int = 5
    least_examples: int = 0
    least_sites: int = 0
    accept_backbones: bool = True
    releases: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    coordinators: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("suppress_below", "least_examples", "least_sites"):
            if (value := getattr(self, name)) < 0:
                raise PrivacyError(
                    f"{name} = {value} of a policy is below 0.",
                    next_step="Give the least number, or 0.",
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

    def check_sum(self, site: str, sites: int) -> None:
        """Refuse to be hidden in a sum that may end with fewer sites than the policy wants.

        Raises
        ------
        PrivacyError
            With code ``policy.sites``.
        """
        if sites < self.least_sites:
            raise PrivacyError(
                f"{site} was asked to hide in a sum of {sites} sites, and its policy wants "
                f"{self.least_sites}.",
                next_step="Invite more sites, raise transport.secure_threshold, or lower the "
                "number in the site's policy.",
                code="policy.sites",
            )

    def check_release(self, site: str, mechanism: str) -> None:
        """Refuse a kind of release that the policy does not name.

        Raises
        ------
        PrivacyError
            With code ``policy.release``.
        """
        if self.releases and mechanism not in self.releases:
            raise PrivacyError(
                f"{site} was asked for {mechanism}, and its policy allows "
                f"{', '.join(self.releases)}.",
                next_step="Choose another strategy or other metrics, or add it to the releases of "
                "the site's policy.",
                code="policy.release",
            )

    def check_size(self, site: str, examples: int) -> None:
        """Refuse to train on fewer examples than the policy wants.

        Raises
        ------
        PrivacyError
            With code ``policy.examples``.
        """
        if examples < self.least_examples:
            raise PrivacyError(
                f"{site} has fewer training examples than its policy wants.",
                next_step="Add examples, or lower the number in the site's policy.",
                code="policy.examples",
            )

    def check_origin(self, site: str, *, coordinator: str, recipe: str) -> None:
        """Refuse a request from a coordinator, or of a recipe, that the policy does not name.

        Parameters
        ----------
        coordinator, recipe : str
            Digests; empty where they are not known.

        Raises
        ------
        PrivacyError
            With code ``policy.coordinator`` or ``policy.recipe``.
        """
        for noun, known, found in (
            ("coordinator", self.coordinators, coordinator),
            ("recipe", self.recipes, recipe),
        ):
            if known and found not in known:
                raise PrivacyError(
                    f"{site} was asked by a {noun} ({found[:12] or 'not known'}) that its policy "
                    "does not name.",
                    next_step=f"Add its fingerprint to the {noun}s of the site's policy.",
                    code=f"policy.{noun}",
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
