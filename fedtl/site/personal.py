"""A site's own head after a round: made, compared with the others, chosen or not, and kept here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from fedtl.site.objective import own_key
from fedtl.site.site import Site
from fedtl.train.batches import Examples
from fedtl.train.counts import evaluate
from fedtl.train.heads import initial_head, map_key, trained_part
from fedtl.train.personal import MOST_STEPS, Made, PersonalHead, Turn, make_personal, trained
from fedtl.train.personal.choice import Chosen, answers_of, choose
from fedtl.train.task import TrainTask
from fedtl.types import ALONE, GLOBAL, Arrays, Evaluation, Personal
from fedtl.wire.messages import Request, unreadable

_ROUND = "round"


@dataclass(frozen=True, slots=True)
class Own:
    """A site's heads after a round, and what its held-out examples say of them.

    Attributes
    ----------
    heads : sequence of mapping of str to NDArray
        What the method made, of which held-out examples choose.
    used : mapping of str to NDArray
        The head that the site uses from now on, by its own choice; it goes with the received one's
        map of features, if it is one.
    """

    rule: PersonalHead
    heads: tuple[Arrays, ...]
    held_out: Examples
    chosen: Chosen
    told: Personal
    used: Arrays = field(repr=False)

    def evaluation(self, classes: int, *, confusion: bool) -> Evaluation:
        """Return the personal head's result; of several, each half's is by the other half's."""
        if len(self.heads) == 1:
            whole = evaluate(self.heads[0], self.held_out, classes, confusion=confusion)
            return replace(whole, personal=self.told)
        parts = []
        for half, member in enumerate(self.chosen.members):
            rows = torch.from_numpy(np.flatnonzero(self.chosen.halves == half))
            x = self.held_out
            part = Examples(x.x[rows], x.y[rows], x.norms[rows])
            parts.append(evaluate(self.heads[member], part, classes, confusion=confusion))
        one, two = parts
        cells = None
        if one.confusion is not None and two.confusion is not None:
            cells = one.confusion + two.confusion
        return Evaluation(
            one.wrong + two.wrong,
            one.right + two.right,
            one.losses + two.losses,
            cells,
            personal=self.told,
        )


def own_head(site: Site, request: Request, run: str) -> Own | None:
    """Make a site's personal head, if a request asks for one, and keep it.

    Parameters
    ----------
    run : str
        Flower's run id.

    Raises
    ------
    FedtlError
        The method is unknown or not allowed here, does not take its options, or the request is not
        whole.
    """
    if request.personal is None:
        return None
    train, held_out = site.whitened(request.arrays)
    if request.task is None or (task := request.task.at(len(train))).steps > MOST_STEPS:
        raise unreadable()
    allowed = None if site.simulated else site.rules.objectives
    rule = make_personal(request.personal, allowed=allowed)
    head, run = trained_part(request.arrays), site.run_of(request, run)
    alone = _alone(site, request, task, run)
    made = _turn(site, request, request.personal.to_json(), rule, task, alone, run)
    heads = tuple(made.heads)
    of_row = np.arange(len(held_out))
    if held_out.units is not None:
        of_row = held_out.units.of_row.numpy()
    own = [answers_of(one, held_out) for one in heads]
    by_itself, received = (answers_of(one, held_out).right for one in (alone(), head))
    chosen = choose(by_itself, received, own, of_row, confidence=request.confidence)
    told = Personal(
        right_alone=int(by_itself.sum()),
        right_global=int(received.sum()),
        right_used=chosen.right,
        gained_global=chosen.global_ahead[0],
        lost_global=chosen.global_ahead[1],
        gained_personal=chosen.personal_ahead[0],
        lost_personal=chosen.personal_ahead[1],
        units=len(np.unique(of_row)),
        choice=chosen.choice,
    )
    used = {ALONE: alone(), GLOBAL: head}.get(chosen.choice, heads[chosen.member])
    mapping = {k: v for k, v in request.arrays.items() if k not in head}
    result = Own(rule, heads, held_out, chosen, told, {**mapping, **used})
    if site.keep_personal is not None:
        site.keep_personal(run, request.round, result.used, told)
    return result


def _turn(
    site: Site,
    request: Request,
    name: str,
    rule: PersonalHead,
    task: TrainTask,
    alone: Callable[[], Arrays],
    run: str,
) -> Made:
    """Let the method make its head, with what it kept after its last turn."""
    head, train = trained_part(request.arrays), site.whitened(request.arrays)[0]
    if request.objective is not None and rule.private:  # what this round's training has left
        kept = dict(site.memory.before(run, own_key(request), request.round + 1))
    else:
        kept = dict(site.memory.before(run, name, request.round))
    last = int(kept.pop(_ROUND, np.array(0.0)))
    made = rule.make(
        Turn(
            head=head,
            kept=kept,
            steps=task.steps * max(request.round - last, 1),
            rate=task.lr_at(request.round, 0),
            alone=alone,
            examples=train,
            task=task,
            streams=site.streams(request, "personal"),
        )
    )
    if made.kept:
        now = {**made.kept, _ROUND: np.array(float(request.round))}
        site.memory.keep(run, name, request.round, now)
    return made


def _alone(site: Site, request: Request, task: TrainTask, run: str) -> Callable[[], Arrays]:
    """Return what trains the site alone, for all rounds of the run, or remembers it."""
    train, head = site.whitened(request.arrays)[0], trained_part(request.arrays)
    looks = b"".join(map_key(request.arrays))
    name = "alone " + hashlib.sha256(task.to_json().encode() + looks).hexdigest()

    def make() -> Arrays:
        if kept := site.memory.before(run, name, 1):
            return kept
        made = _initial(head, len(site.classes), request.seed or 0)
        streams = site.streams(replace(request, round=0), "personal")
        for round_ in range(1, min(task.rounds, MOST_STEPS // task.steps + 1) + 1):
            made = trained(made, train, task, streams, round_=round_)
        site.memory.keep(run, name, 0, made)
        return made

    return make


def _initial(head: Arrays, classes: int, seed: int) -> Arrays:
    """Return the beginning of a head in the shape of another."""
    if "weight" in head:
        return {"weight": np.zeros_like(head["weight"])}
    hidden, width = head["hidden.weight"].shape
    return initial_head("mlp", width, classes, hidden=hidden, seed=seed)
