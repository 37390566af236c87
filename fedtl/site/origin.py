"""Whether a request may be asked by who asks it, and is what the coordinator signed."""

from __future__ import annotations

from fedtl.errors import FedtlError
from fedtl.privacy.plan import PrivacyPlan
from fedtl.recipe import Recipe
from fedtl.site.policy import SitePolicy
from fedtl.train.task import TrainTask
from fedtl.wire.charter import Charter
from fedtl.wire.messages import Request

_ROUNDING = 1 + 1e-9


def check_asker(site: str, rules: SitePolicy, charter: Charter | None) -> None:
    """Refuse whoever a policy does not name, or asks for a recipe that it does not name.

    Raises
    ------
    PrivacyError
        With code ``policy.coordinator`` or ``policy.recipe``.
    """
    rules.check_origin(
        site,
        coordinator=charter.coordinator if charter else "",
        recipe=charter.digest if charter else "",
    )


def check_origin(site: str, rules: SitePolicy, request: Request) -> None:
    """Refuse whoever the policy does not name, and what is not in the recipe that he signed.

    Without a charter nobody is known to ask, which a policy that names nobody allows.

    Raises
    ------
    FedtlError
        With code ``policy.coordinator``, ``policy.recipe``, ``charter.task`` or ``charter.plan``.
    """
    charter = request.charter
    check_asker(site, rules, charter)
    if charter is None:
        return
    if request.task is not None and request.task != TrainTask.of(charter.recipe):
        raise _other("task")
    if not _covers(charter.recipe, request.plan):
        raise _other("plan")


def _covers(recipe: Recipe, plan: PrivacyPlan | None) -> bool:
    """Say whether a plan promises no less than a recipe."""
    privacy = recipe.privacy
    if plan is None:
        return not privacy.enabled
    return (
        privacy.enabled
        and plan.epsilon <= privacy.epsilon * _ROUNDING
        and plan.delta <= privacy.delta * _ROUNDING
        and plan.unit == privacy.unit
        and plan.model == privacy.model
    )


def _other(what: str) -> FedtlError:
    return FedtlError(
        f"A request's {what} is not the one of the recipe that the coordinator signed.",
        next_step="Nothing was computed; ask the coordinator who changed the message.",
        code=f"charter.{what}",
    )
