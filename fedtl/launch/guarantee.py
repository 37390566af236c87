"""What may be claimed about the privacy of a run, in a few sentences that are true of it."""

from __future__ import annotations

from fedtl.launch.compare import Comparison
from fedtl.launch.labels import Labels
from fedtl.privacy.plan import PrivacyPlan
from fedtl.recipe import Recipe
from fedtl.report.result import GLOBAL_HEAD, PERSONAL_HEADS
from fedtl.report.words import plural
from fedtl.strategies import strategy_of
from fedtl.strategies.declared import Declared
from fedtl.train.personal import PersonalHead, make_personal

NOT_EVALUATED = "The head was not evaluated (privacy.metrics = off)."
_SIMULATED = (
    "No guarantee: this is a simulation, its noise comes from the run's seed. Deployed sites "
    "draw their noise from the operating system; the epsilon shown is what the same recipe would "
    "spend there."
)
_CLAIM = (
    "Every {unit} of a site is protected with ({epsilon:g}, {delta:g})-differential privacy over "
    "the whole run{shared}, as far as the site runs fedtl's agent: it draws its noise from its own "
    "operating system and pays in its own ledger."
)
_SHARED = " by the sum over the sites, of which {honest} are counted on to add their noise"
_NOT_PRIVATE = "No privacy: the updates of this run were neither clipped nor noised."
_METRICS = {
    "clear": "Held-out accuracies are shown without noise.",
    "noised": "Held-out accuracies are made of noised counts, which held-out records pay for with "
    "a budget of their own.",
    "off": NOT_EVALUATED,
}
_LABELS = {
    "off": "Numbers of examples are what the simulation knows; deployed sites do not tell them.",
    "noised": "Counts of labels carry noise; numbers of examples are what the simulation knows, "
    "and deployed sites do not tell them.",
}
_COMPARED = "What the run is compared with was made without privacy and is shown without noise."


_PERSONAL = {
    "clear": " Personal heads were trained without noise and stay at their sites; what is shown of "
    "them is not covered.",
    "noised": " Personal heads were trained without noise, so they and their results stay at their "
    "sites; what is shown is of the global head.",
    "off": " Personal heads and their results stay at their sites.",
}


def _personal(recipe: Recipe) -> PersonalHead | None:
    named = Declared.of(strategy_of(recipe)).personal
    return None if named is None else make_personal(named)


def heads_of(recipe: Recipe) -> str:
    """Return whose accuracies a run with such a recipe shows."""
    personal = _personal(recipe)
    hidden = recipe.privacy.enabled and recipe.privacy.metrics == "noised"
    shown = personal is not None and (personal.private or not hidden)
    return PERSONAL_HEADS if shown else GLOBAL_HEAD


def _kept_at_sites(recipe: Recipe) -> str:
    personal = _personal(recipe)
    return "" if personal is None or personal.private else _PERSONAL[recipe.privacy.metrics]


def claim_of(recipe: Recipe, plan: PrivacyPlan | None) -> str:
    """Return what may be claimed of a run with real sites."""
    metrics = recipe.privacy.metrics
    if plan is None:
        return _not_private(metrics)
    honest = max(release.honest_sites for release in plan.releases)
    shared = _SHARED.format(honest=honest) if honest else ""
    said = _CLAIM.format(unit=plan.unit, epsilon=plan.epsilon, delta=plan.delta, shared=shared)
    return f"{said} {_METRICS[metrics]}{_kept_at_sites(recipe)}"


def _not_private(metrics: str) -> str:
    return _NOT_PRIVATE if metrics != "off" else f"{_NOT_PRIVATE} {NOT_EVALUATED}"


def guarantee_of(recipe: Recipe, plan: PrivacyPlan | None, comparison: Comparison) -> str:
    """Return the claim.

    Parameters
    ----------
    comparison : Comparison
        Whether there is anything to compare with.
    """
    metrics = recipe.privacy.metrics
    if plan is None:
        return _not_private(metrics)
    told = _METRICS[metrics] + _kept_at_sites(recipe)
    said = [_SIMULATED, told, _LABELS[recipe.privacy.labels]]
    if comparison.without_privacy is not None or comparison.local_own:
        said.append(_COMPARED)
    return " ".join(said)


def notes_of(recipe: Recipe, hidden: int, labels: Labels) -> list[str]:
    """Return what a reader has to know about numbers that are noised, or not there.

    Parameters
    ----------
    hidden : int
        Sites with too few held-out units to tell a clear result.
    """
    privacy, notes = recipe.privacy, []
    if privacy.metrics == "off":
        notes.append(NOT_EVALUATED)
    if privacy.metrics == "clear" and hidden:
        notes.append(
            f"{plural(hidden, 'site')} with fewer than {privacy.suppress_below} held-out examples "
            "or groups told no result."
        )
    if labels.failures:
        silent = ", ".join(f"{site} ({code})" for site, code in sorted(labels.failures.items()))
        notes.append(f"Sites that told no counts of labels: {silent}.")
    if privacy.enabled and privacy.unit == "group":
        if privacy.metrics == "noised":
            notes.append("Held-out results count each group once, whatever its size.")
        if labels.counts:
            notes.append("Counts of labels count each group once, whatever its size.")
    return notes
