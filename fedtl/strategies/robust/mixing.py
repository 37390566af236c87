"""What wrappers that mix updates share: they look at single heads, and at heads only."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedtl.strategies.around import Around
from fedtl.strategies.declared import Declared
from fedtl.strategies.robust.rule import check_cohort
from fedtl.strategies.updates import Matrix, Updates, replaced
from fedtl.types import Arrays
from fedtl.wire.arrays import unpack


class Mixing(Around):
    """A wrapper that replaces updates by averages of some of them, each with a weight of one.

    Raises
    ------
    ValueError
        The strategy inside asks for sums (statistics) instead of updates.
    """

    needs_updates = True

    def __init__(self, inner: Strategy) -> None:
        says = Declared.of(inner)
        if not says.only_gradients:
            raise ValueError(
                f"{type(self).__name__} mixes updates, and {type(inner).__name__} asks for "
                f"{', '.join(says.mechanisms)}"
            )
        super().__init__(inner)
        self._head: Arrays = {}

    @property
    def least(self) -> int:
        """Replies that the wrapper and the strategy inside need."""
        inner: int = getattr(self.inner, "least", 1)
        return inner

    @abstractmethod
    def mixed(self, updates: Matrix, server_round: int) -> Matrix:
        """Return ``[m, p]`` averages, at most as many as the ``[n, p]`` updates."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the head, and let the strategy inside ask."""
        check_cohort(self, self.least, len(list(grid.get_node_ids())))
        self._head = unpack(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def received(self, server_round: int, replies: Sequence[Message]) -> Sequence[Message]:
        """Return replies with averages in them; failures are handed on."""
        valid = [reply for reply in replies if reply.has_content()]
        if not valid:
            return replies
        updates = Updates.of(valid, self._head)
        rows = self.mixed(updates.rows, server_round)
        made = [
            replaced(reply, updates.head_after(row), weight=1.0)
            for reply, row in zip(valid[: len(rows)], rows, strict=True)
        ]
        return [*made, *(reply for reply in replies if not reply.has_content())]
