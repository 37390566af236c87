"""FedAvg on adjusted logits: no class is favoured because a site, or all sites, see it often.

See :class:`fedtl.train.objectives.adjusted.LogitAdjusted` for the loss and its papers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedtl.privacy.release import Mechanism
from fedtl.strategies.averaging import Averaging
from fedtl.train.objective_name import ObjectiveName
from fedtl.wire.arrays import HostRecordDict, unpack
from fedtl.wire.messages import SUMS, records
from fedtl.wire.objective import with_objective


class LogitAdjustedFedAvg(Averaging):
    """Ask for the counts of labels in the first round, then train with adjusted logits.

    Parameters
    ----------
    tau : float
        How far logits are adjusted; 1 aims at equal errors of all classes.
    prior : {"own", "all"} or str
        Whose frequencies: each site's own (the server sees every site's counts, noised under a
        plan), those of all sites together (a sum, so it goes with secure aggregation), or public
        ones, as numbers with commas; then nothing is asked for.
    share : float
        Of the privacy budget, for the counts.
    """

    statistic = ObjectiveName("class_counts")
    sums_norm = 1.0

    def __init__(
        self,
        *,
        tau: float = 1.0,
        prior: str = "own",
        share: float = 0.05,
    ) -> None:
        if not tau >= 0 or not 0 < share < 1:
            raise ValueError(f"tau = {tau}, share = {share}: tau is from 0, share in (0, 1)")
        super().__init__()
        self.tau, self.prior, self.share = tau, prior, share
        self.public = None if prior in ("own", "all") else _public(prior)
        self.counts: dict[str, NDArray[np.float64]] = {}
        self.needs_updates = prior == "own"

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """What sites release."""
        return ("gradients",) if self.public is not None else ("sums", "gradients")

    @property
    def shares(self) -> dict[str, float]:
        """How the budget is split over the mechanisms."""
        return {"sums": self.share, "gradients": 1 - self.share}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for counts first; then send the frequencies beside the head."""
        if server_round == 1 and self.public is None:
            self.meet(grid)
            config["server-round"] = server_round
            content = RecordDict({self.configrecord_key: config})
            asked = self._construct_messages(content, list(grid.get_node_ids()), SUMS)
            return with_objective(asked, self.statistic)
        messages = list(super().configure_train(server_round, arrays, config, grid))
        named = ObjectiveName("logit_adjusted", {"tau": self.tau})
        classes = _classes(arrays)
        if self.prior != "own":
            return with_objective(messages, named, {"log_prior": self._log_prior("", classes)})
        for message in messages:  # every site gets its own, so the head alone is shared
            message.content = HostRecordDict(dict(message.content.items()))
            site = self.site(message.metadata.dst_node_id)
            with_objective([message], named, {"log_prior": self._log_prior(site, classes)})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take in the counts, or average."""
        if server_round > 1 or self.public is not None:
            return super().aggregate_train(server_round, replies)
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        for reply in valid:
            told = unpack(records(reply.content, ArrayRecord)[0])["sum"]
            self.counts[self.site(reply.metadata.src_node_id)] = np.array(told, np.float64)
        return None, None

    def _log_prior(self, site: str, classes: int) -> NDArray[np.float32]:
        """Return the log frequencies for a site; those of all sites where it has told none."""
        together = sum(self.counts.values(), np.zeros(classes))
        counts = self.counts.get(site, together) if self.prior == "own" else together
        return log_frequencies(counts if self.public is None else self.public)


def log_frequencies(counts: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the logarithms of the classes' shares; of noised counts at least one each.

    Examples
    --------
    >>> np.exp(log_frequencies(np.array([6.0, 3.0, -2.0]))).round(3).tolist()
    [0.6000000238418579, 0.30000001192092896, 0.10000000149011612]
    """
    there = counts.clip(min=1.0)
    return np.asarray(np.log(there / there.sum()), np.float32)


def _classes(arrays: ArrayRecord) -> int:
    head = unpack(arrays)
    return len(head["weight"] if "weight" in head else head["out.bias"])


def _public(prior: str) -> NDArray[np.float64]:
    try:
        shares = np.array([float(part) for part in prior.split(",")])
    except ValueError:
        shares = np.zeros(1)
    if not (np.isfinite(shares).all() and (shares > 0).all()):
        raise ValueError(
            f"prior = {prior!r} must be 'own', 'all', or frequencies above 0 such as '0.7, 0.3'"
        )
    return np.asarray(1e6 * shares / shares.sum())
