"""Laws about single rounds: what a strategy does with replies, and with what it is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedtl.testing.bench import NAMES, cohort_grid, config_of, local_grid
from fedtl.testing.recording import Step, aggregated, configured, failed, values_of
from fedtl.testing.trial import TOLERANCE, Trial, expect_same
from fedtl.testing.verdict import Broken, given
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack

Snapshot = dict[str, object]


def tensors(trial: Trial) -> None:
    """Return finite float32 in tensors of the head's names and shapes."""
    strategy = trial.new()
    for step in trial.steps:
        what, law = f"the replies of round {step.round}", "tensors of the head, finite float32"
        with given(what, expected=law):
            configured(strategy, step)
            arrays, _ = strategy.aggregate_train(step.round, step.fresh())
            for name, values in values_of(arrays or ArrayRecord()).items():
                if wrong := _wrong(name, values, step.head):
                    raise Broken(what, expected=law, seen=wrong)


def _wrong(name: str, values: np.ndarray, head: Arrays) -> str:
    if name not in head:
        return f"a tensor '{name}', which the head has not ({', '.join(head)})"
    if values.shape != head[name].shape:
        return f"'{name}' of shape {values.shape}; the head's is {head[name].shape}"
    if not np.isfinite(values).all():
        return f"'{name}' is not finite"
    return "" if values.dtype == np.float32 else f"'{name}' is {values.dtype}"


def inputs(trial: Trial) -> None:
    """Leave inputs alone: heads, replies and what was returned before never change.

    The config is the exception: the loop hands out a copy in every round, and strategies of Flower
    write into it.
    """
    strategy, watched = trial.new(), _Watched()
    for step in trial.steps:
        with given(f"round {step.round}", expected="inputs that are not changed"):
            head = pack({name: values.copy() for name, values in step.head.items()})
            watched.add(f"the head sent in round {step.round}", RecordDict({"head": head}))
            _ask(strategy, step, head)
            watched.look(f"configure_train of round {step.round}")
            replies = step.fresh()
            for reply, name in zip(replies, _names(step), strict=True):
                watched.add(f"the reply of {name} in round {step.round}", reply.content)
            arrays, _ = strategy.aggregate_train(step.round, replies)
            watched.look(f"aggregate_train of round {step.round}")
            if arrays is not None:
                watched.add(f"the head returned in round {step.round}", RecordDict({"": arrays}))


def _ask(strategy: Strategy, step: Step, head: ArrayRecord) -> None:
    list(strategy.configure_train(step.round, head, config_of(strategy), cohort_grid()))


def _names(step: Step) -> list[str]:
    known = dict(zip(local_grid().get_node_ids(), NAMES, strict=True))
    return [known[node] for node in step.nodes]


class _Watched:
    """Records that must stay as they are."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, RecordDict, Snapshot]] = []

    def add(self, what: str, content: RecordDict) -> None:
        self._kept.append((what, content, snapshot(content)))

    def look(self, after: str) -> None:
        for what, content, before in self._kept:
            if difference := _change(before, snapshot(content)):
                raise Broken(what, expected=f"the same after {after}", seen=difference)


def snapshot(content: RecordDict) -> Snapshot:
    """Return everything that records say, by path, as values that do not change."""
    taken: Snapshot = {}
    for name, record in content.items():
        taken[name] = type(record).__name__
        if isinstance(record, ArrayRecord):
            for key, values in unpack(record).items():
                taken[f"{name}/{key}"] = (values.dtype.str, values.shape, values.tobytes())
        elif isinstance(record, MetricRecord | ConfigRecord):
            taken |= {f"{name}/{key}": repr(value) for key, value in record.items()}
    return taken


def _change(before: Snapshot, after: Snapshot) -> str:
    if gone := sorted(before.keys() - after.keys()):
        return f"'{gone[0]}' was taken out"
    if new := sorted(after.keys() - before.keys()):
        return f"'{new[0]}' was put in"
    changed = [path for path, value in before.items() if after[path] != value]
    return f"'{changed[0]}' has other values" if changed else ""


def order(trial: Trial) -> None:
    """Make the same head of replies in any order, but for rounding."""
    turns: dict[str, Callable[[int], Iterable[int]]] = {
        "in reverse": lambda n: range(n)[::-1],
        "shuffled": np.random.default_rng(2).permutation,
    }
    for how, turn in turns.items():
        strategy = trial.new()
        for step in trial.steps:
            what, replies = f"the replies of round {step.round} {how}", step.fresh()
            law = "the head that their order by name makes"
            with given(what, expected=law):
                configured(strategy, step)
                head = aggregated(strategy, step, [replies[at] for at in turn(len(replies))])
            expect_same(head, step.after, given=what, what=law, tolerance=TOLERANCE)


def nothing(trial: Trial) -> None:
    """Change nothing in a round without a usable reply, and work in the next one."""
    for at in trial.stages:
        step = trial.steps[at]
        failures = [failed(node, step.kind) for node in step.nodes]
        for what, replies in (("no replies", []), ("failures only", failures)):
            _void(trial, at, f"{what} in round {step.round} ({step.kind})", replies)
        _void(trial, at, f"round {step.round} ({step.kind}) asked for twice", None)


def _void(trial: Trial, at: int, what: str, replies: list[Message] | None) -> None:
    """Play a void round, then the round as it was: asked and answered as without the void one."""
    step, law = trial.steps[at], "the head as it was, and no exception"
    strategy = trial.ready(at)
    if replies is not None:
        with given(what, expected=law):
            head = aggregated(strategy, step, replies)
        expect_same(head, step.head, given=what, what=law)
    law = "the messages of the same round without that"
    with given(f"{what}, then asked again", expected=law):
        before, now = configured(trial.lived(at), step), configured(strategy, step)
    if seen := _other_messages(before, now):
        raise Broken(f"{what}, then asked again", expected=law, seen=seen)
    law = "the head of the same round without that"
    with given(f"{what}, then its replies", expected=law):
        head = aggregated(strategy, step, step.fresh())
    expect_same(head, step.after, given=f"{what}, then its replies", what=law, tolerance=TOLERANCE)


def _other_messages(before: list[Message], now: list[Message]) -> str:
    """Say how messages differ, or nothing."""
    if [m.metadata.dst_node_id for m in before] != [m.metadata.dst_node_id for m in now]:
        return "other sites are asked"
    pairs = zip(before, now, strict=True)
    return next(
        (d for a, b in pairs if (d := _change(snapshot(a.content), snapshot(b.content)))), ""
    )


def failures(trial: Trial) -> None:
    """Lose no more than a site, or the round, by a failure among good replies.

    The loop leaves failures out; Flower's own hands them to the strategy.
    """
    for at in trial.stages:
        step = trial.steps[at]
        what = f"one failure among the replies of round {step.round} ({step.kind})"
        law = "the head that the others make, or the head as it was"
        with given(what, expected=law):
            alone = aggregated(trial.ready(at), step, step.fresh()[:-1])
            failure, good = failed(step.nodes[-1], step.kind), step.fresh()[:-1]
            head = aggregated(trial.ready(at), step, [*good[:2], failure, *good[2:]])
        if all(np.array_equal(head[name], values) for name, values in step.head.items()):
            continue
        expect_same(head, alone, given=what, what=law, tolerance=TOLERANCE)
