"""FED3R: a ridge head in one round, equal to the pooled solution for any split of the data.

Fani, Camoriano, Caputo, Ciccone, "Accelerating Heterogeneous Federated Learning with Closed-form
Classifiers", ICML 2024, arXiv:2406.01116: each site sends A = Σ x xᵀ and b = Σ x yᵀ once; the
server adds them and solves (A + λ I) W = b.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedtl.privacy.plan import PrivacyPlan
from fedtl.train.additive import gram_deviation
from fedtl.train.ridge import add, ridge_head
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import STATISTICS


class Fed3R(FedAvg):
    """One round of additive statistics, then the ridge head; evaluation is FedAvg's.

    Parameters
    ----------
    ridge : float
        λ, on features of about unit length.
    normalise : bool
        Scale each class's weights to unit length.
    scale : float
        Factor on the head, a temperature for the softmax; changes the loss, never the predicted
        class.
    min_train_nodes, min_evaluate_nodes, min_available_nodes : int
        As in Flower's FedAvg.
    """

    rounds = 1
    mechanisms = ("statistics",)

    def __init__(
        self,
        *,
        ridge: float = 0.1,
        normalise: bool = False,
        scale: float = 10.0,
        min_train_nodes: int = 1,
        min_evaluate_nodes: int = 1,
        min_available_nodes: int = 1,
    ) -> None:
        if not ridge > 0:
            raise ValueError(f"ridge = {ridge} must be above 0")
        super().__init__(
            min_train_nodes=min_train_nodes,
            min_evaluate_nodes=min_evaluate_nodes,
            min_available_nodes=min_available_nodes,
        )
        self.ridge, self.normalise, self.scale = ridge, normalise, scale
        self.noise_sd_per_site = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every site for its statistics, in the first round only."""
        if server_round > 1:
            return []
        config["server-round"] = server_round
        plan = config.get("plan")
        if isinstance(plan, str) and plan:
            release = PrivacyPlan.from_json(plan).release("statistics")
            self.noise_sd_per_site = gram_deviation(release) / max(release.honest_sites, 1) ** 0.5
        content = RecordDict({self.configrecord_key: config})
        return self._construct_messages(content, list(grid.get_node_ids()), STATISTICS)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add the statistics and solve."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        contents = [message.content for message in valid]
        stats = add([unpack(next(iter(c.array_records.values()))) for c in contents])
        weights = ridge_head(
            stats,
            ridge=self.ridge,
            noise_sd=self.noise_sd_per_site * len(valid) ** 0.5,
            normalise=self.normalise,
        )
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key)
        return pack({"weight": (self.scale * weights).astype("float32")}), metrics
