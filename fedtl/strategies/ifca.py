"""IFCA: k heads, each averaged over the sites that it fits best.

Ghosh, Chung, Yin, Ramchandran, "An Efficient Framework for Clustered Federated Learning", NeurIPS
2020, arXiv:2006.04088, algorithm 1 with model averaging: a site belongs to the head with the
smallest loss on its training examples, and a head becomes the mean of what its sites make of it.

Which head fits is asked in rounds of its own, by sums of the k losses
(:class:`fedtl.train.objectives.clustered.ClusterLosses`): what the server makes of them costs no
more privacy, and deployed sites need nothing that other sums do not.

1. Round 1: all sites train the common head. Their updates are clustered by direction (k-means from
   k-means++ starts, Arthur & Vassilvitskii 2007, on updates of length one), and a head is the mean
   over a cluster. The paper starts at random and again if need be, or from a one-shot clustering of
   local models (Ghosh et al. 2019, arXiv:1906.06629), which this is after one round; linear heads
   begin at zero, and random ones differ too little in what they fit. Cosines of updates tell
   incongruent sites (Sattler et al. 2019, arXiv:1910.01991), whatever the sites' sizes are.
2. Round 2, and every ``every`` rounds from there: every site's k losses; the smallest says where it
   belongs.
3. All other rounds: every site trains its cluster's head. One that was not there in 1 or 2 waits.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedtl.rng import stream
from fedtl.strategies.averaging import Averaging
from fedtl.strategies.closed import within
from fedtl.strategies.updates import Matrix, flat
from fedtl.train.objective_name import ObjectiveName
from fedtl.train.objectives.clustered import HEADS
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import EVALUATE, SUMS, TRAIN, records
from fedtl.wire.objective import with_objective

MOST_NAMED = 20
"""Sites of a cluster that a report names."""


class IFCA(Averaging):
    """Cluster-wise heads; every site is evaluated on its own cluster's.

    The run's one head is that of the cluster with most sites, for sites that nobody knows yet.

    Parameters
    ----------
    clusters : int
        k, from 2.
    every : int
        Rounds from one assignment to the next, from 2.
    share : float
        Of the privacy budget, for the losses.

    Attributes
    ----------
    clusters : dict of str to int
        Site to the place of its head in ``heads``, so far.
    heads : list of dict of str to NDArray
        The k heads; empty before the first round.
    """

    mechanisms = ("sums", "gradients")
    sums_norm = 1.0
    needs_updates = True

    def __init__(self, *, clusters: int = 2, every: int = 5, share: float = 0.1) -> None:
        within(2, np.inf, clusters=clusters, every=every)
        within(0.01, 0.99, share=share)
        super().__init__()
        self.k, self.every, self.share, self.seed = clusters, every, share, 0
        self.statistic = ObjectiveName("cluster_losses", {"clusters": clusters})
        self.clusters: dict[str, int] = {}
        self.heads: list[dict[str, NDArray[np.float32]]] = []
        self._begun: dict[str, NDArray[np.float32]] = {}

    @property
    def shares(self) -> dict[str, float]:
        """How the budget is split over the mechanisms."""
        return {"sums": self.share, "gradients": 1 - self.share}

    def sums_rounds(self, rounds: int) -> int:
        """Return how many of so many rounds ask for losses."""
        return sum(self._assigns(round_) for round_ in range(1, rounds + 1))

    def _assigns(self, round_: int) -> bool:
        return round_ > 1 and (round_ - 2) % self.every == 0

    @property
    def more_heads(self) -> dict[str, Arrays]:
        """The heads by name, to be saved beside the run's one."""
        return {f"cluster-{at}": head for at, head in enumerate(self.heads)}

    @property
    def notes(self) -> list[str]:
        """Which sites share a head, for the report."""
        members: dict[int, list[str]] = {}
        for name, at in sorted(self.clusters.items()):
            members.setdefault(at, []).append(name)
        return [
            f"Cluster {at} ({len(names)} sites): {', '.join(names[:MOST_NAMED])}"
            + (", ..." if len(names) > MOST_NAMED else "")
            for at, names in sorted(members.items())
        ]

    def _known(self, grid: Grid) -> dict[int, str]:
        """Return the names of the sites that are there, by node."""
        self.meet(grid)
        return {node: self.site(node) for node in grid.get_node_ids()}

    def _largest(self) -> int:
        counts = Counter(self.clusters.values())
        return max(range(len(self.heads)), key=lambda at: counts[at])

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the common head; or ask for the losses of k; or send every site its cluster's."""
        there, seed = self._known(grid), config.get("seed")
        self.seed = seed if isinstance(seed, int) else 0
        config["server-round"] = server_round
        if not self.heads:
            self._begun = {name: np.array(v) for name, v in unpack(arrays).items()}
            return self._asked(list(there), self._begun, config, TRAIN)
        if self._assigns(server_round):
            content = RecordDict({self.configrecord_key: config})
            messages = self._construct_messages(content, list(there), SUMS)
            heads = np.stack([head["weight"] for head in self.heads])
            return with_objective(messages, self.statistic, {HEADS: heads})
        return self._each(there, config, TRAIN)

    def _each(
        self, there: dict[int, str], config: ConfigRecord, kind: str, default: int | None = None
    ) -> list[Message]:
        """Return messages with every site's own head; the default is for sites without one."""
        own = {node: self.clusters.get(name, default) for node, name in there.items()}
        return [
            message
            for at, head in enumerate(self.heads)
            for message in self._asked([n for n in own if own[n] == at], head, config, kind)
        ]

    def _asked(
        self, nodes: list[int], head: Arrays, config: ConfigRecord, kind: str
    ) -> list[Message]:
        content = RecordDict({self.arrayrecord_key: pack(head), self.configrecord_key: config})
        return list(self._construct_messages(content, nodes, kind))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Form clusters, or assign sites anew, or average within clusters."""
        valid = [m for m in replies if m.has_content()]
        losses = [m for m in valid if m.metadata.message_type == SUMS]
        trained = [m for m in valid if m.metadata.message_type == TRAIN]
        if not valid:
            return None, None
        for reply in losses:
            told = _arrays(reply)["sum"]
            self.clusters[self.site(reply.metadata.src_node_id)] = int(np.argmin(told))
        if trained and not self.heads:
            self._begin(trained)
        elif trained:
            self._average(trained)
        return pack(self.heads[self._largest()]), MetricRecord()

    def _begin(self, replies: Sequence[Message]) -> None:
        """Make k heads of the first updates, in the order of the sites' names."""
        by_name = {self.site(m.metadata.src_node_id): m for m in replies}
        heads = [_arrays(by_name[name]) for name in sorted(by_name)]
        moved = np.stack([flat(head) - flat(self._begun) for head in heads])
        self.clusters = dict(
            zip(sorted(by_name), grouped(moved, self.k, seed=self.seed), strict=True)
        )
        self.heads = [self._mean(replies) for _ in range(self.k)]
        self._average(replies)

    def _average(self, replies: Sequence[Message]) -> None:
        """Average within clusters; one that nobody answered for keeps its head."""
        for at in range(self.k):
            own = [m for m in replies if self.clusters[self.site(m.metadata.src_node_id)] == at]
            if own:
                self.heads[at] = self._mean(own)

    def _mean(self, replies: Sequence[Message]) -> dict[str, NDArray[np.float32]]:
        arrays, _ = super().aggregate_train(0, replies)
        return unpack(ArrayRecord(dict((arrays or {}).items())))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every site about its cluster's head, and unknown ones about the run's."""
        if not self.heads:
            return super().configure_evaluate(server_round, arrays, config, grid)
        config["server-round"] = server_round
        return self._each(self._known(grid), config, EVALUATE, self._largest())


def _arrays(reply: Message) -> dict[str, NDArray[np.float64]]:
    return unpack(records(reply.content, ArrayRecord)[0])


def grouped(updates: Matrix, clusters: int, *, seed: int) -> list[int]:
    """Cluster updates by direction; clusters are numbered as they first appear.

    Parameters
    ----------
    updates : NDArray
        ``[S, n]``, one row a site.
    clusters : int
        k; fewer where there are not so many directions.

    Examples
    --------
    >>> grouped(np.array([[0.0, 1.0], [2.0, 0.1], [0.1, 3.0], [0.5, 0.0]]), 2, seed=1)
    [0, 1, 0, 1]
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = np.asarray(updates, np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12)
    few = min(clusters, len(np.unique(rows, axis=0)))
    state = int(stream(seed, "clusters").integers(1 << 31))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # directions that are all but equal
        labels = KMeans(few, n_init=10, random_state=state).fit_predict(rows)
    order: dict[int, int] = {}
    return [order.setdefault(int(label), len(order)) for label in labels]
