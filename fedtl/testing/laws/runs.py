"""Laws about whole runs: the real loop over real sites, disturbed in one way each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from fedtl.apps.client import make_client_app
from fedtl.errors import StrategyError, TransportError
from fedtl.rounds import State
from fedtl.rounds.checkpoint import load, save
from fedtl.strategies.declared import Declared
from fedtl.testing.bench import (
    NAMES,
    SEED,
    NumberedGrid,
    Sites,
    local_grid,
    other_generators,
    play,
    stacked_grid,
)
from fedtl.testing.recording import changed, failed
from fedtl.testing.trial import TOLERANCE, Trial, expect_same
from fedtl.testing.verdict import Broken, DoesNotApply, given
from fedtl.transport.ray import run_on_ray
from fedtl.transport.wrappers import DropoutGrid, WrappedGrid
from fedtl.types import Arrays
from fedtl.wire.arrays import unpack
from fedtl.wire.messages import ADDITIVE, TRAIN, records

_COHORT = len(NAMES) - 1
_RATE = 0.35


def runs(trial: Trial) -> None:
    """Run at real sites, ask them for something, and get somewhere."""
    steps = trial.recorded()
    what = f"{trial.rounds} rounds at {len(NAMES)} sites"
    if not steps:
        raise Broken(what, expected="messages to sites", seen="none in any round")
    last = steps[-1].after
    if all(np.array_equal(last[name], values) for name, values in steps[0].head.items()):
        raise Broken(what, expected="another head than before", seen="the head as it was")


class SpoiledGrid(WrappedGrid):
    """Replaces what one site sends, whatever it was asked for in training."""

    def __init__(self, inner: Grid, spoil: Callable[[Message], Message | None]) -> None:
        super().__init__(inner)
        self._node, self._spoil = list(inner.get_node_ids())[2], spoil

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Pass messages on, and spoil one reply."""
        kinds = (TRAIN, *ADDITIVE)
        for reply in self.inner.send_and_receive(messages, timeout=timeout):
            its = reply.metadata.src_node_id == self._node
            given = self._spoil(reply) if its and reply.metadata.message_type in kinds else reply
            if given is not None:
                yield given


def _filled(value: float) -> Callable[[Message], Message]:
    def spoil(reply: Message) -> Message:
        return changed(reply, arrays={n: np.full_like(v, value) for n, v in _arrays(reply).items()})

    return spoil


def _shortened(reply: Message) -> Message:
    return changed(reply, arrays={n: v[..., :-1] for n, v in _arrays(reply).items()})


def _renamed(reply: Message) -> Message:
    return changed(reply, arrays={f"{n}.more": v for n, v in _arrays(reply).items()})


def _arrays(reply: Message) -> Arrays:
    return {n: v for r in records(reply.content, ArrayRecord) for n, v in unpack(r).items()}


def _refused(reply: Message) -> Message:
    return failed(reply.metadata.src_node_id, reply.metadata.message_type)


SPOILED: dict[str, Callable[[Message], Message | None]] = {
    "sends NaN": _filled(float("nan")),
    "sends infinities": _filled(float("-inf")),
    "sends a wrong shape": _shortened,
    "sends one tensor more": _renamed,
    "sends nothing": lambda reply: None,
}


def bad_replies(trial: Trial) -> None:
    """Let a site that sends NaN, a wrong shape or nothing cost itself alone."""
    _ = trial.steps
    rounds = min(trial.rounds, len(Declared.of(trial.new()).mechanisms) + 1)
    law = "the head of a run in which that site says that it failed"
    with given(f"{NAMES[2]} fails in every round", expected="a head"):
        expected = _played(trial, SpoiledGrid(local_grid(), _refused), rounds)
    for what, spoil in SPOILED.items():
        text = f"{NAMES[2]} {what} in every round"
        with given(text, expected=law):
            head = _played(trial, SpoiledGrid(local_grid(), spoil), rounds)
        expect_same(head, expected, given=text, what=law)


def _played(trial: Trial, grid: Grid, rounds: int = 0, cohort: int = 0) -> Arrays:
    return play(trial.new(), grid, rounds=rounds, sites_per_round=cohort).head


def missing_sites(trial: Trial) -> None:
    """Count a lost site as little as one that is not there (strategies of sums)."""
    _ = trial.steps
    sums = [m for m in Declared.of(trial.new()).mechanisms if m in ADDITIVE.values()]
    if not sums:
        raise DoesNotApply("it asks for no sums; see 'fixed point'")
    what = f"{NAMES[2]} sends nothing"
    law = f"the head of a federation without {NAMES[2]}"
    with given(what, expected=law):
        lost = _played(trial, SpoiledGrid(local_grid(), lambda _: None), len(sums))
        without = _played(trial, local_grid((*NAMES[:2], *NAMES[3:])), len(sums))
    expect_same(lost, without, given=what, what=law, tolerance=TOLERANCE)


def dropouts(trial: Trial) -> None:
    """Work under dropouts: end in a head, the same one on every Grid."""
    _ = trial.steps
    what, law = f"a third of the replies is lost at random, over {trial.rounds} rounds", "a head"
    heads = []
    for make in (local_grid, stacked_grid):
        inner = make()
        names = dict(zip(inner.get_node_ids(), NAMES, strict=True))
        grid = DropoutGrid(inner, rate=_RATE, seed=SEED, names=names)
        with given(what, expected=law):
            try:
                heads.append(_played(trial, grid))
            except TransportError as error:
                if error.code == "round.empty":
                    raise DoesNotApply("every site that it asked was lost in a round") from error
                raise
    expect_same(heads[1], heads[0], given=f"{what}, stacked", what="the head of the local Grid")


def one_site(trial: Trial) -> None:
    """Make a head of a single site, or say in an error why not."""
    _ = trial.steps
    with given("one site", expected="a head, or a StrategyError"):
        try:
            head = _played(trial, local_grid(NAMES[:1]))
        except StrategyError as error:
            raise DoesNotApply(f"it says: {error.problem}") from error
    if not all(np.isfinite(values).all() for values in head.values()):
        raise Broken("one site", expected="a finite head", seen="one that is not")


def repeat(trial: Trial) -> None:
    """Make the same head of the same seed and cohorts, whatever else the process drew."""
    _ = trial.steps
    heads = []
    for seed in (1, 2):
        with given("a run", expected="a head"), other_generators(seed):
            heads.append(_played(trial, local_grid(), cohort=_cohort(trial)))
    what = "the same run again, with other states of random, numpy.random and torch"
    expect_same(heads[1], heads[0], given=what, what="the same head, to the bit")


def _cohort(trial: Trial) -> int:
    """Return sites per round: fewer than all, where the strategy does not need every one."""
    return 0 if getattr(trial.new(), "min_train_nodes", 1) > _COHORT else _COHORT


def node_numbers(trial: Trial) -> None:
    """Make the same head whatever numbers Flower draws for nodes, and whenever it draws others."""
    _ = trial.steps
    what, law = "nodes with other numbers in every round", "the same head, to the bit"
    ran = partial(play, sites_per_round=_cohort(trial), evaluate_every=1)
    with given(what, expected=law):
        expected = ran(trial.new(), local_grid()).head
        grid = NumberedGrid(NAMES)
        head = ran(trial.new(), grid, sites=grid.renumbered).head
    expect_same(head, expected, given=what, what=law)


def stacked(trial: Trial) -> None:
    """Make the same head, to the bit, where sites are trained all at once."""
    _ = trial.steps
    what, law = "the stacked Grid", "the head of the local Grid, to the bit"
    with given(what, expected=law):
        expected = _played(trial, local_grid(), cohort=_cohort(trial))
        head = _played(trial, stacked_grid(), cohort=_cohort(trial))
    expect_same(head, expected, given=what, what=law)


def ray(trial: Trial) -> None:
    """Make the same head on Ray, in many processes (asked for by name only: it takes a minute)."""
    _ = trial.steps
    what, law, heads = "Flower's simulation on Ray", "the head of the local Grid, to the bit", []
    with tempfile.TemporaryDirectory() as folder, given(what, expected=law):
        expected = _played(trial, local_grid(), cohort=_cohort(trial))
        run_on_ray(
            make_client_app(Sites(Path(folder))),
            len(NAMES),
            lambda grid: heads.append(_played(trial, grid, cohort=_cohort(trial))),
        )
    expect_same(heads[0], expected, given=what, what=law)


def resume(trial: Trial) -> None:
    """Keep all state through save and load, after any round."""
    _ = trial.steps
    if trial.rounds < 2:
        raise DoesNotApply("it is done after one round")
    with given("a run", expected="a head"):
        whole = play(trial.new(), stacked_grid(), evaluate_every=1).head
    for round_ in range(1, trial.rounds):
        what = f"saved after round {round_}, loaded into a new one, and gone on with"
        law = "the head of a run that was not stopped, to the bit"
        with given(what, expected=law):
            head = _stopped(trial, round_)
        expect_same(head, whole, given=what, what=law)


class _Stop(Exception):
    """Ends a run, as Ctrl-C does."""


def _stopped(trial: Trial, round_: int) -> Arrays:
    """Return the head of a run whose server is started anew; its sites stay up."""
    grid, first, second = stacked_grid(), trial.new(), trial.new()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def stop(state: State, _: object) -> None:
            save(folder, state, first)
            if state.round == round_:
                raise _Stop

        with suppress(_Stop):
            play(first, grid, evaluate_every=1, on_round=stop)
        return play(second, grid, start=load(folder, second), evaluate_every=1).head
