"""How a site stands to a run before the first round: what it has left, and what it would refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedtl.errors import FedtlError, PrivacyError
from fedtl.privacy.ledger import epsilon_spent
from fedtl.privacy.plan import PrivacyPlan
from fedtl.site.origin import check_asker, check_origin
from fedtl.wire.messages import MECHANISMS, TRAIN, Request

if TYPE_CHECKING:
    from fedtl.privacy.ledger import Budget
    from fedtl.site.account import Account
    from fedtl.site.site import Site


def told_left(site: Site) -> float | None:
    """Return what a site tells of its budget; None where its policy keeps that."""
    budget = site.rules.budget if site.rules.tell_budget else None
    if budget is None or site.ledger is None or site.dataset is None:
        return None
    return max(budget.epsilon - epsilon_spent(site.ledger, [site.dataset], budget), 0.0)


def objection(site: Site, request: Request, run: str = "") -> str:
    """Return the code with which a site would refuse a run; empty if it would take part.

    Nothing is computed and nothing is paid. What a run has paid for already is not counted again.

    Parameters
    ----------
    request : Request
        With the run's charter and plan, as far as there are any.
    run : str
        Flower's run id.
    """
    try:
        _check(site, request, run)
    except FedtlError as error:
        return error.code
    return ""


def _check(site: Site, request: Request, run: str) -> None:
    plan, charter, rules = request.plan, request.charter, site.rules
    if charter is None and plan is None:
        return
    if charter is not None:
        if plan is None and charter.recipe.privacy.enabled:  # it is not made yet
            check_asker(site.name, rules, charter)
            return
        check_origin(site.name, rules, request)
        rules.check_update(
            site.name,
            private=plan is not None,
            shared=plan is not None and plan.model == "distributed",
            sealed=charter.recipe.transport.secure,
        )
    for release in plan.releases if plan is not None else ():
        rules.check_release(site.name, release.mechanism)
    account = site.account(request, TRAIN, run) if plan is not None else None
    rules.check_size(site.name, len(site.examples[0]))
    if plan is not None and account is not None and account.budget is not None:
        _check_budget(site.name, plan, account, account.budget)


def _check_budget(name: str, plan: PrivacyPlan, account: Account, budget: Budget) -> None:
    """Refuse a plan whose releases, without those made already, are more than is left."""
    kinds = {mechanism: kind for kind, mechanism in MECHANISMS.items()}
    run, counts = account.key.run, dict[str, int]()
    for release in plan.releases:
        made = account.ledger.releases(run, kinds[release.mechanism])
        counts[release.mechanism] = max(release.count - made, 0)
    after = epsilon_spent(account.ledger, [account.dataset], budget, more=plan.event(counts))
    if after > budget.epsilon:
        raise PrivacyError(
            f"{name} has too little of its budget left for the whole run.",
            next_step="Ask for less, or raise the budget in the site's policy.",
            code="privacy.budget",
        )
