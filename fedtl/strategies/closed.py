"""What one-shot strategies share: every site's statistics once, then a head from them.

The statistics are those of :mod:`fedtl.train.additive`: Σ x xᵀ and Σ x one_hot(y)ᵀ, the bias
feature among x, so that counts and means are in them. All but FedCOF look at their sum only and run
under secure aggregation, with noise that the sites share out or without. What they make of noised
sums costs no more privacy.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedtl.privacy.plan import PrivacyPlan
from fedtl.strategies.averaging import Averaging
from fedtl.train.classes import Matrix, Noise
from fedtl.train.random_features import RANDOM
from fedtl.train.ridge import Statistics
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import STATISTICS


class ClosedForm(Averaging):
    """One round of additive statistics, then a head; evaluation is FedAvg's.

    Derive a strategy from it by writing :meth:`solve`.

    Parameters
    ----------
    scale : float
        Factor on the head, a temperature for the softmax; changes the loss, never the predicted
        class.

    Attributes
    ----------
    noise : Noise
        What the run's plan adds to one site's statistics; known from the first message on.
    """

    rounds = 1
    mechanisms: tuple[str, ...] = ("statistics",)

    def __init__(self, *, scale: float) -> None:
        above_zero(scale=scale)
        super().__init__()
        self.scale, self.seed = scale, 0
        self.noise = Noise()

    @abstractmethod
    def solve(self, parts: Sequence[Statistics]) -> Matrix:
        """Return the head ``[C, d]`` of the sites' statistics, one part for each site."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every site for its statistics, in the first round only."""
        if server_round > 1:
            return []
        config["server-round"] = server_round
        plan, seed = config.get("plan"), config.get("seed")
        if isinstance(plan, str) and plan:
            self.noise = Noise.of(PrivacyPlan.from_json(plan).release("statistics"))
        self.seed = seed if isinstance(seed, int) else 0
        content = RecordDict({self.configrecord_key: config})
        if RANDOM in arrays:  # sites cannot know which features are meant without the head
            content[self.arrayrecord_key] = arrays
        return self._construct_messages(content, list(grid.get_node_ids()), STATISTICS)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Make the head of the statistics that came back."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        contents = [message.content for message in valid]
        parts = [unpack(next(iter(c.array_records.values()))) for c in contents]
        head = (self.scale * self.solve(parts)).astype("float32")
        return pack({"weight": head}), self.train_metrics_aggr_fn(contents, self.weighted_by_key)


def above_zero(**options: float) -> None:
    """Refuse options that must be above 0, by name.

    Raises
    ------
    ValueError
        One is not; :func:`fedtl.strategies.make_strategy` says where to correct it.
    """
    for name, value in options.items():
        if not value > 0:
            raise ValueError(f"{name} = {value} must be above 0")


def within(low: float, high: float, **options: float) -> None:
    """Refuse options outside of a range, by name.

    Raises
    ------
    ValueError
        One is outside.
    """
    for name, value in options.items():
        if not low <= value <= high:
            raise ValueError(f"{name} = {value} must be from {low:g} to {high:g}")
