"""Strategies around a strategy: what replies go through before the one inside combines them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy


class Around(Strategy):
    """Hands every call on to the strategy inside; the base of the wrappers.

    A wrapper overrides :meth:`sent` or :meth:`received`, and keeps what it remembers from round to
    round in :attr:`memory`, which is saved with what the strategy inside remembers. Everything else
    (mechanisms, rounds, shares, directions, objectives, minimums, options) is the inner strategy's.

    Parameters
    ----------
    inner : Strategy
        What combines the replies.

    Attributes
    ----------
    memory : dict of str to Any
        Numbers, arrays, and nestings of these.

    Examples
    --------
    >>> from flwr.serverapp.strategy import FedAvg
    >>> Around(FedAvg(min_train_nodes=3)).min_train_nodes
    3
    """

    def __init__(self, inner: Strategy) -> None:
        self.inner = inner
        self.memory: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        """Return what the wrapper has not from the strategy inside."""
        # copies and pickles ask for names before there is anything inside
        if name == "inner" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def sent(
        self, server_round: int, messages: Sequence[Message], config: ConfigRecord
    ) -> Sequence[Message]:
        """Return what goes out for the training messages of the strategy inside.

        Parameters
        ----------
        config : ConfigRecord
            The run's, with its task, plan and seed.
        """
        return messages

    def received(self, server_round: int, replies: Sequence[Message]) -> Sequence[Message]:
        """Return what the strategy inside gets for the replies, which come in name order.

        Replies and their records belong to the caller: return others, do not change them.
        """
        return replies

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy inside ask."""
        messages = self.inner.configure_train(server_round, arrays, config, grid)
        return self.sent(server_round, list(messages), config)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Let the strategy inside combine what the replies become."""
        return self.inner.aggregate_train(server_round, self.received(server_round, list(replies)))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy inside ask."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Let the strategy inside combine."""
        return self.inner.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log what the strategy inside says of itself."""
        self.inner.summary()

    def state_dict(self) -> dict[str, Any]:
        """Return what wrapper and strategy remember."""
        inner = self.inner
        kept = inner.state_dict() if hasattr(inner, "state_dict") else vars(inner)
        return {"memory": self.memory, "inner": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.memory = state["memory"]
        if hasattr(self.inner, "load_state_dict"):
            self.inner.load_state_dict(state["inner"])
        else:
            vars(self.inner).update(state["inner"])
