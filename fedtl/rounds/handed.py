"""What a strategy hands back: of the right types and tensors, or an error that says what is wrong.

Strategies are written by users, and may raise or return anything.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import Strategy

from fedtl.errors import FedtlError, StrategyError
from fedtl.types import Arrays
from fedtl.wire.arrays import unpack
from fedtl.wire.kinds import EVALUATE, TRAIN


@contextmanager
def called(strategy: Strategy, method: str, round_: int) -> Iterator[None]:
    """Turn whatever a method raises into an error that names method, round and line.

    Raises
    ------
    StrategyError
        With code ``strategy.failed``; errors of fedtl go through.
    """
    try:
        yield
    except FedtlError:
        raise
    except (Exception, SystemExit) as error:  # a strategy may raise anything
        raise StrategyError(
            f"{type(strategy).__name__}.{method} failed in round {round_}{_place(strategy, error)}:"
            f" {type(error).__name__}: {error}".rstrip(".")
            + ".",
            next_step="Mend it there; `fedtl check-strategy` tries a strategy by itself.",
            code="strategy.failed",
        ) from error


def is_finished(strategy: Strategy, round_: int) -> bool:
    """Say whether a strategy wants no more rounds: its ``finished``, where it has one.

    Raises
    ------
    StrategyError
        It raised, see :func:`called`.
    """
    with called(strategy, "finished", round_):
        return bool(getattr(strategy, "finished", False))


def _place(strategy: Strategy, error: BaseException) -> str:
    """Name the last line of the strategy's own file that an exception came through."""
    own = {inspect.getfile(cls) for cls in type(strategy).__mro__ if cls.__module__ != "builtins"}
    first, place, trace = inspect.getfile(type(strategy)), "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file == first or (file in own and first not in place):
            place = f" at line {trace.tb_lineno} of {Path(file).name}"
        trace = trace.tb_next
    return place


def messages_of(strategy: Strategy, method: str, made: object) -> list[Message]:
    """Return the messages that a ``configure_...`` method made.

    Raises
    ------
    StrategyError
        With code ``strategy.types``: it returned something else, messages of the other method's
        kind, or two for one site.
    """
    listed = list(made) if isinstance(made, Iterable) else None
    if listed is None or not all(isinstance(message, Message) for message in listed):
        wrong = made if listed is None else next(m for m in listed if not isinstance(m, Message))
        raise _wrong_type(strategy, method, wrong, "an iterable of Messages, [] for none")
    evaluates = method == "configure_evaluate"
    for message in listed:
        kind = message.metadata.message_type
        if (kind == EVALUATE) != evaluates:
            wanted = f"type '{EVALUATE}'" if evaluates else f"another type, such as '{TRAIN}'"
            raise _wrong(strategy, method, f"a message of type '{kind}'", f"messages of {wanted}")
    if len({message.metadata.dst_node_id for message in listed}) < len(listed):
        raise _wrong(strategy, method, "two messages for one site", "one for each site at most")
    return listed


def arrays_of(strategy: Strategy, answered: object) -> ArrayRecord | None:
    """Return the arrays that ``aggregate_train`` answered.

    Raises
    ------
    StrategyError
        With code ``strategy.types``: it returned something else.
    """
    wanted = "a pair: an ArrayRecord or None, and a MetricRecord or None"
    if not (isinstance(answered, tuple | list) and len(answered) == 2):
        raise _wrong_type(strategy, "aggregate_train", answered, wanted)
    arrays = answered[0]
    if arrays is not None and not isinstance(arrays, ArrayRecord):
        raise _wrong_type(strategy, "aggregate_train", arrays, wanted)
    return arrays


def _wrong_type(strategy: Strategy, method: str, value: object, wanted: str) -> StrategyError:
    kind = type(value).__name__
    found = f"a{'n' if kind[0] in 'AEIOUaeiou' else ''} {kind}"
    return _wrong(strategy, method, "None" if value is None else found, wanted)


def _wrong(strategy: Strategy, method: str, found: str, wanted: str) -> StrategyError:
    return StrategyError(
        f"{type(strategy).__name__}.{method} returned {found}.",
        next_step=f"Return {wanted}.",
        code="strategy.types",
    )


def head_of(
    strategy: Strategy, arrays: ArrayRecord, head: Arrays, *, round_: int
) -> dict[str, np.ndarray]:
    """Return the new head: what a strategy returned, and what it left as it was.

    Raises
    ------
    StrategyError
        No tensors, or some that the head has not; other shapes or types, or values that are not
        finite.
    """
    # a strategy answers what sites train, and may set the rest (the whitening) as well
    try:
        # copies, as a strategy may go on working on what it returned
        given = {name: values.copy() for name, values in unpack(arrays).items()}
    except FedtlError as error:
        kinds = ", ".join(f"'{name}' is {array.dtype}" for name, array in arrays.items())
        raise StrategyError(
            f"{type(strategy).__name__} returned no float32 in round {round_}: {kinds}.",
            next_step="Pack NumPy arrays of float32: fedtl.wire.arrays.pack.",
            code="strategy.types",
        ) from error
    if wrong := _difference(given, head):
        raise StrategyError(
            f"{type(strategy).__name__} returned a head that is not finite or changed its shape in "
            f"round {round_}: {wrong}.",
            next_step="Lower its learning rate, or check its aggregate_train.",
        )
    return {name: np.asarray(v, np.float32) for name, v in {**head, **given}.items()}


def _difference(given: Arrays, head: Arrays) -> str:
    """Say what keeps arrays from being a head, or nothing."""
    if not given:
        return "it has no tensor at all (None keeps the head as it is)"
    for name, values in given.items():
        if name not in head:
            return f"the tensor '{name}' is none of the head's ({', '.join(sorted(head))})"
        if values.shape != head[name].shape:
            return f"'{name}' has shape {values.shape} instead of {head[name].shape}"
        if not np.isfinite(values).all():
            return f"'{name}' has values that are not finite"
    return ""
