"""Who takes part: from random node ids to named sites, and to the cohort of a round."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedtl.errors import StrategyError, TransportError
from fedtl.rng import stream
from fedtl.transport.wrappers import WrappedGrid
from fedtl.types import Description
from fedtl.wire.messages import DESCRIBE, read_description

_CALLS, _SECONDS = 8, 6.0
"""After so many looks at a cohort in so long, a strategy is waiting for it to grow."""


class CohortGrid(WrappedGrid):
    """Shows a strategy only the nodes of the round's cohort.

    Attributes
    ----------
    n_sites : int
        Sites of the whole federation.
    names : dict of int to str
        What the nodes' sites are called, and those of others: a name lasts, and a node's number is
        drawn anew whenever a site comes back. Where nobody said, the number stands for it.
    """

    def __init__(
        self,
        inner: Grid,
        node_ids: Sequence[int],
        n_sites: int = 0,
        names: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__(inner)
        self._node_ids = tuple(node_ids)
        self.names = names or {node: str(node) for node in self._node_ids}
        self.n_sites = n_sites or len(self._node_ids)
        self._calls, self._since = 0, time.monotonic()

    def get_node_ids(self) -> Iterable[int]:
        """Return the cohort's node ids, in name order.

        Raises
        ------
        StrategyError
            With code ``strategy.waits``: the strategy looks again and again, as Flower's
            ``sample_nodes`` does without end, for more nodes than there will ever be.
        """
        self._calls += 1
        if self._calls > _CALLS and time.monotonic() - self._since > _SECONDS:
            raise StrategyError(
                f"The strategy waits for more sites than the {len(self._node_ids)} of this round.",
                next_step="Lower the number of nodes that it samples, or raise the number of "
                "sites (or train.sites_per_round).",
                code="strategy.waits",
            )
        return self._node_ids


def describe_sites(
    grid: Grid, *, at_least: int = 1, wait: float = 120.0, timeout: float | None = None
) -> dict[int, Description]:
    """Wait for the nodes, ask every one who it is, and check that all of them can work together.

    Parameters
    ----------
    at_least : int
        Sites to wait for: Flower's runtimes call the server before their nodes are registered.
    wait : float
        Longest wait for them, in seconds.
    timeout : float, optional
        Longest wait for the answers, in seconds.

    Returns
    -------
    dict
        Node id to public description, in name order.

    Raises
    ------
    TransportError
        Nobody answered, two sites share a name, or sites disagree on backbone, classes or version;
        the disagreement is named per site.
    """
    nodes = _nodes(grid, at_least, time.monotonic() + wait)
    messages = [Message(RecordDict(), node, DESCRIBE) for node in nodes]
    replies = grid.send_and_receive(messages, timeout=timeout)
    found = {r.metadata.src_node_id: read_description(r) for r in replies if r.has_content()}
    if not found:
        raise TransportError(
            "No site answered.", next_step="Check that the sites are up, then run again."
        )
    ordered = dict(sorted(found.items(), key=lambda item: item[1].name))
    check_agreement(list(ordered.values()))
    return ordered


def _nodes(grid: Grid, at_least: int, deadline: float) -> list[int]:
    while len(nodes := list(grid.get_node_ids())) < at_least and time.monotonic() < deadline:
        time.sleep(0.1)
    if len(nodes) < at_least:
        raise TransportError(
            f"{len(nodes)} of {at_least} sites are there.",
            next_step="Start the missing sites, or ask for fewer.",
            code="sites.missing",
        )
    return nodes


def check_agreement(descriptions: Sequence[Description]) -> None:
    """Refuse sites that differ from the first one in anything that training needs to be equal."""
    names = [d.name for d in descriptions]
    if twice := sorted(
        {n for n in names if names.count(n) > 1} if len(set(names)) < len(names) else ()
    ):
        raise TransportError(
            f"More than one site is called '{twice[0]}'.", next_step="Give every site its own name."
        )
    first = descriptions[0]
    for other in descriptions[1:]:
        for what in ("backbone", "classes", "width", "version"):
            if getattr(other, what) != getattr(first, what):
                raise TransportError(
                    f"{other.name} has {what} {_short(getattr(other, what))}, {first.name} has "
                    f"{_short(getattr(first, what))}.",
                    next_step="All sites must use the same recipe and version of fedtl.",
                    code=f"disagree.{what}",
                )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def by_name(sites: Mapping[int, str]) -> dict[str, int]:
    """Return site name to node id, in name order."""
    return dict(sorted((name, node) for node, name in sites.items()))


def drawn(names: Sequence[str], size: int, seed: int, round_: int) -> tuple[str, ...]:
    """Draw a round's sites by name, in their order; all of them draw nothing."""
    if size == len(names):
        return tuple(names)
    picked = stream(seed, "cohort", round_).choice(len(names), size, replace=False)
    return tuple(names[at] for at in sorted(picked))


@contextmanager
def global_random(seed: int, round_: int) -> Iterator[None]:
    """Seed the global ``random`` that Flower's ``sample_nodes`` draws from, and put it back."""
    before = random.getstate()
    random.seed(f"{seed}/{round_}")
    try:
        yield
    finally:
        random.setstate(before)


def check_minimums(strategy: Strategy, cohort: int, everyone: int) -> None:
    """Refuse a strategy that wants more sites than there are.

    Flower's ``sample_nodes`` waits without end for nodes that never come.

    Raises
    ------
    StrategyError
        Names the minimum.
    """
    for name, there in (
        ("min_train_nodes", cohort),
        ("min_available_nodes", cohort),
        ("min_evaluate_nodes", everyone),
    ):
        wanted = getattr(strategy, name, 0)
        if isinstance(wanted, int) and wanted > there:
            raise StrategyError(
                f"{type(strategy).__name__}.{name} = {wanted}, but only {there} sites take part.",
                next_step=f"Lower {name} in [strategy.options] or raise the number of sites.",
            )
