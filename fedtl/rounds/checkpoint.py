"""A run's state on disk after every round: head, strategy state and work in flight; no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedtl.errors import CacheError, StrategyError
from fedtl.home import write_atomic
from fedtl.rounds.handed import called
from fedtl.rounds.run import State
from fedtl.transport.asynchronous import InFlight

_FILE = "state.safetensors"


def save(folder: Path, state: State, strategy: Strategy) -> None:
    """Write the state after a round; the file of the round before is replaced as a whole.

    A strategy may say what it remembers with ``state_dict()`` and take it back with
    ``load_state_dict(state)``. Otherwise every attribute that is a number, text, array or a
    nesting of these is saved, which covers Flower's own strategies.

    Raises
    ------
    StrategyError
        Its ``state_dict`` fails, or returns no dict.
    CacheError
        The folder cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    tensors: dict[str, NDArray[Any]] = {f"head/{k}": np.asarray(v) for k, v in state.head.items()}
    tree = _split(_remembered(strategy, state.round), "strategy", tensors)
    flying = _split(state.in_flight.to_plain(), "in_flight", tensors)
    meta = {
        "round": str(state.round),
        "strategy": json.dumps(tree),
        "in_flight": json.dumps(flying),
    }
    data = to_bytes({k: np.ascontiguousarray(v) for k, v in tensors.items()}, metadata=meta)
    write_atomic(folder / _FILE, lambda file: file.write(data))


def load(folder: Path, strategy: Strategy) -> State | None:
    """Read the last state and put the strategy's memory back; None if there is none.

    Raises
    ------
    CacheError
        The file is damaged.
    StrategyError
        The strategy's ``load_state_dict`` fails.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="np") as file:
            meta = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        remembered = dict(_join(json.loads(meta["strategy"]), tensors))
        round_ = int(meta["round"])
        flying = json.loads(meta.get("in_flight", "null"))  # older versions saved none
        in_flight = InFlight.from_plain(_join(flying, tensors)) if flying else InFlight()
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CacheError(
            f"The checkpoint '{path}' is damaged.",
            next_step="Delete it to start the run from the first round.",
        ) from error
    if hasattr(strategy, "load_state_dict"):
        with called(strategy, "load_state_dict", round_):
            strategy.load_state_dict(remembered)
    else:
        vars(strategy).update(remembered)
    head = {k.removeprefix("head/"): v for k, v in tensors.items() if k.startswith("head/")}
    return State(round_, head, in_flight)


def _remembered(strategy: Strategy, round_: int) -> dict[str, Any]:
    """Return what a strategy wants to be saved."""
    if not hasattr(strategy, "state_dict"):
        return vars(strategy)
    with called(strategy, "state_dict", round_):
        kept = strategy.state_dict()
    if not isinstance(kept, dict):
        raise StrategyError(
            f"{type(strategy).__name__}.state_dict returned {kept!r:.80}, which is no dict.",
            next_step="Return a dict of numbers, text, arrays, and nestings of these.",
            code="strategy.types",
        )
    return kept


_SKIP = object()


def _split(value: Any, path: str, tensors: dict[str, NDArray[Any]]) -> Any:
    """Replace arrays by references; leave out what is not plain data (functions, loggers)."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        tensors[path] = value
        return {"tensor": path}
    if value is None or isinstance(value, bool | int | float | str):
        return {"plain": value}
    if isinstance(value, np.generic):
        return {"plain": value.item()}
    if isinstance(value, dict) and all(isinstance(k, str | int) for k in value):
        parts = {k: _split(v, f"{path}/{k}", tensors) for k, v in value.items()}
        return {"dict": [[k, v] for k, v in parts.items() if v is not _SKIP]}
    if isinstance(value, list | tuple):
        items = [_split(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
        return _SKIP if any(i is _SKIP for i in items) else {type(value).__name__: items}
    return _SKIP


def _join(tree: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Any:
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {k: _join(v, tensors) for k, v in value}
    if kind in ("list", "tuple"):
        items = [_join(v, tensors) for v in value]
        return items if kind == "list" else tuple(items)
    return value
