"""What all robust rules share: read the replies as updates, combine them, move the head."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fedtl.errors import StrategyError
from fedtl.strategies.averaging import Averaging
from fedtl.strategies.updates import Matrix, Updates
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack

_log = logging.getLogger(__name__)


class Robust(Averaging):
    """A strategy made of one rule on the updates of a round; sampling and evaluation are FedAvg's.

    A round whose cohort cannot give what the rule needs is refused before any site is asked. Where
    replies are lost and too few are left, the head stays as it is for that round: a rule that does
    not protect any more must not move it.

    Attributes
    ----------
    least : int
        Replies without which the rule does not hold what it promises.
    needs_updates : bool
        Single updates are looked at, so the rule cannot run under secure aggregation.
    """

    needs_updates = True

    def __init__(self) -> None:
        super().__init__()
        self._head: Arrays = {}

    @property
    def least(self) -> int:
        """Replies that the rule needs."""
        return 1

    @abstractmethod
    def combine(self, updates: Matrix) -> Matrix:
        """Return one update ``[p]`` for ``[n, p]`` updates, n from :attr:`least`."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the head, and ask as FedAvg does."""
        check_cohort(self, self.least, len(list(grid.get_node_ids())))
        self._head = unpack(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Combine the updates and move the head by what comes out."""
        valid, _ = self._check_and_log_replies(list(replies), is_train=True)
        if not valid:
            return None, None
        if len(valid) < self.least:
            _log.warning(
                "Round %d: %d replies, and %s needs %d. The head stays as it is.",
                server_round,
                len(valid),
                type(self).__name__,
                self.least,
            )
            return None, None
        updates = Updates.of(valid, self._head)
        metrics = self.train_metrics_aggr_fn([r.content for r in valid], self.weighted_by_key)
        return pack(updates.head_after(self.combine(updates.rows))), metrics

    def state_dict(self) -> dict[str, Any]:
        """Return what the rule remembers from round to round: nothing, unless it says otherwise."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""


def check_cohort(strategy: object, least: int, sites: int) -> None:
    """Refuse a cohort that cannot give the replies a strategy needs.

    Raises
    ------
    StrategyError
        With code ``strategy.few``.
    """
    if sites < least:
        bad = getattr(strategy, "bad", None)
        of = "" if bad is None else f" with bad = {bad}"
        raise StrategyError(
            f"{type(strategy).__name__}{of} needs at least {least} sites in a round, and {sites} "
            "take part.",
            next_step="Lower the number of bad sites it is to bear, or let more sites take part.",
            code="strategy.few",
        )


def check_bad(bad: int | None) -> int | None:
    """Refuse a number of bad sites that is none."""
    if bad is not None and (isinstance(bad, bool) or not isinstance(bad, int) or bad < 0):
        raise ValueError(f"bad = {bad!r} must be a whole number from 0")
    return bad
