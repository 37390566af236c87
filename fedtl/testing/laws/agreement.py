"""Laws about sites that agree, and about their weights; they look at the first trained heads."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import ArrayRecord, Message

from fedtl.errors import StrategyError
from fedtl.rounds.summable import check_summable
from fedtl.testing.bench import NAMES, differs
from fedtl.testing.recording import Step, aggregated, changed, copy_of, echoed, values_of
from fedtl.testing.trial import TOLERANCE, Trial, expect_same
from fedtl.testing.verdict import DoesNotApply, given
from fedtl.types import Arrays
from fedtl.wire.messages import records

_LEAST = ("min_train_nodes", "min_available_nodes")
"""Attributes of Flower's strategies, which wait for so many nodes."""
_HEAVY = 2.0**24
"""A weight beside which the others vanish in rounding."""


def fixed_point(trial: Trial) -> None:
    """Keep the head where all sites return it: all of them, some, at any weight."""
    step = trial.steps[trial.training]
    still = [echoed(reply, step.head) for reply in step.replies]
    for what, replies in (
        ("all sites return the head", still),
        ("two sites are missing, the others return the head", still[:-2] or still),
        ("all return the head, with equal weights", [changed(r, weight=1.0) for r in still]),
    ):
        with given(what, expected="the head as it was"):
            head = aggregated(trial.ready(trial.training), step, [copy_of(r) for r in replies])
        expect_same(head, step.head, given=what, what="the head as it was", tolerance=TOLERANCE)


def agreement(trial: Trial) -> None:
    """Go where all sites agree, whatever their number and weights."""
    step = trial.steps[trial.training]
    few = max(3, *(getattr(trial.new(), least, 1) for least in _LEAST))
    law = f"the head that {len(step.replies)} sites make who agree"
    with given("all sites return the same new head", expected="a head"):
        expected = aggregated(trial.ready(trial.training), step, _agreed(step))
    uneven = [changed(r, weight=1.0 + 5 * at) for at, r in enumerate(_agreed(step))]
    for what, replies, names in (
        (f"{few} sites take part, and agree", _agreed(step)[:few], NAMES[:few]),
        ("all sites agree, with other weights", uneven, NAMES),
    ):
        with given(what, expected=law):
            head = aggregated(trial.ready(trial.training, names), step, replies)
        expect_same(head, expected, given=what, what=law, tolerance=TOLERANCE)


def _agreed(step: Step, at: int = 0) -> list[Message]:
    """Return replies that all say what one of them says."""
    said = _said(step.replies[at])
    return [changed(reply, arrays=said) for reply in step.replies]


def _said(reply: Message) -> Arrays:
    found = [values_of(record) for record in records(reply.content, ArrayRecord)]
    return {name: values for part in found for name, values in part.items()}


def weights(trial: Trial) -> None:
    """Weigh sites by their examples, and only by how these compare (strategies of a mean)."""
    step, at = trial.steps[trial.training], trial.training
    try:
        check_summable(trial.new(), trial.start())
    except StrategyError as error:
        raise DoesNotApply("it is none of a mean: see 'secure aggregation'") from error
    if len(step.replies) < 2:
        raise DoesNotApply("it asks one site a round")
    what, law = "all weights times 8", "the head of the weights as they were"
    with given(what, expected=law):
        head = aggregated(trial.ready(at), step, _weighted(step, [8.0] * len(step.replies)))
        plain = aggregated(trial.ready(at), step, _weighted(step, [1.0] * len(step.replies)))
    expect_same(head, plain, given=what, what=law, tolerance=TOLERANCE)
    what, law = f"{NAMES[1]} has {_HEAVY:.0f} times the examples of the others", "the head of "
    law += f"{NAMES[1]} agreeing with itself"
    heavy = [_HEAVY if place == 1 else 1.0 for place in range(len(step.replies))]
    with given(what, expected=law):
        head = aggregated(trial.ready(at), step, _weighted(step, heavy))
        expected = aggregated(trial.ready(at), step, _agreed(step, 1))
    expect_same(head, expected, given=what, what=law, tolerance=TOLERANCE)


def _weighted(step: Step, weights: Sequence[float]) -> list[Message]:
    return [changed(r, weight=w) for r, w in zip(step.replies, weights, strict=True)]


def averages(trial: Trial) -> str:
    """Say whether it returns the head that all sites agree on, as averages do."""
    step = trial.steps[trial.training]
    with given("all sites return the same new head", expected="a head"):
        head = aggregated(trial.ready(trial.training), step, _agreed(step))
    said = {**step.head, **{k: v for k, v in _said(step.replies[0]).items() if k in step.head}}
    if not differs(head, said, tolerance=TOLERANCE):
        return "yes: it returns the head that all sites agree on"
    return "no: it takes a step of its own"
