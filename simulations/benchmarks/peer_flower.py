"""A stock Flower simulation on Ray with a stopwatch: what both Flower baselines share."""

from __future__ import annotations

import logging
import os
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import FedAvg, Result

RAY_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_LOG_LEVEL": "ERROR",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(slots=True)
class Stopwatch:
    """When each round began and ended, and what Flower returned.

    Times are seconds of ``time.perf_counter``; a round lasts from before its configuration until
    after its aggregation.
    """

    begins: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    result: Result | None = None

    @property
    def seconds(self) -> float:
        """From the first round's configuration to the end of the last aggregation."""
        return self.ends[-1] - self.begins[0]

    @property
    def seconds_per_round(self) -> list[float]:
        """How long each round took."""
        return [end - begin for begin, end in zip(self.begins, self.ends, strict=True)]


def quieten() -> None:
    """Switch off telemetry and chatter; call it before Flower or Ray is imported."""
    for name, value in RAY_QUIET.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")


def simulate(
    client: ClientApp,
    *,
    sites: int,
    rounds: int,
    arrays: ArrayRecord,
    config: ConfigRecord,
    num_cpus: float,
    warm: bool = True,
    sampled: int = 0,
) -> tuple[Stopwatch, Result]:
    """Run Flower's FedAvg over all sites, or some drawn in every round, without evaluation.

    If ``warm``, every site answers one ``query`` message before the first round, so that the start
    of Ray, the workers' imports and their reading of the data are not charged to the rounds.

    Parameters
    ----------
    client : ClientApp
        Answers ``train`` and ``query``.
    sites, rounds : int
        Size of the job.
    arrays : ArrayRecord
        The head before the first round.
    config : ConfigRecord
        Sent to every site in every round, and with the query.
    num_cpus : float
        Ray's share of the processors for one client; it fixes how many clients run at once.
    warm : bool
        Whether to warm up first.
    sampled : int
        Sites in a round; 0 takes all.

    Raises
    ------
    RuntimeError
        Flower ended without a trained head; its log on stderr says why.
    """
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    watch, server = Stopwatch(), ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        _wait(grid, sites=sites)
        if warm:
            _warm_up(grid, sites=sites, config=config)
        watch.result = _timed_average(watch, sampled / sites if sampled else 1.0).start(
            grid, arrays, num_rounds=rounds, train_config=config
        )

    run_simulation(server, client, sites, backend_config=_ray(num_cpus))
    if watch.result is None or len(watch.result.train_metrics_clientapp) != rounds:
        raise RuntimeError("Flower's simulation ended before its last round; see the log above.")
    return watch, watch.result


def _ray(num_cpus: float) -> dict[str, dict[str, Any]]:
    """Return the backend configuration: Flower's defaults but for the size of a client."""
    return {
        "init_args": {"logging_level": logging.ERROR, "log_to_driver": False},
        "client_resources": {"num_cpus": num_cpus, "num_gpus": 0.0},
    }


def _wait(grid: Grid, *, sites: int) -> None:
    """Wait until all sites are known to the server."""
    while len(list(grid.get_node_ids())) < sites:
        time.sleep(0.1)


def _warm_up(grid: Grid, *, sites: int, config: ConfigRecord) -> None:
    """Ask every site something, and refuse to go on if one fails."""
    from flwr.app import Message, MessageType, RecordDict

    nodes = list(grid.get_node_ids())
    content = RecordDict({"config": config})
    replies = list(
        grid.send_and_receive([Message(content, node, MessageType.QUERY) for node in nodes])
    )
    failed = [reply.error.reason for reply in replies if reply.has_error()]
    if failed or len(replies) < sites:
        raise RuntimeError(f"{sites - len(replies) + len(failed)} sites failed: {failed[:1]}")


def _timed_average(watch: Stopwatch, fraction: float) -> FedAvg:
    """Return Flower's FedAvg, noting when each round begins and ends."""
    from flwr.serverapp.strategy import FedAvg

    class TimedFedAvg(FedAvg):
        def configure_train(
            self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> Iterable[Message]:
            watch.begins.append(time.perf_counter())
            return super().configure_train(server_round, arrays, config, grid)

        def aggregate_train(
            self, server_round: int, replies: Iterable[Message]
        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
            answer = super().aggregate_train(server_round, replies)
            watch.ends.append(time.perf_counter())
            return answer

    return TimedFedAvg(fraction_train=fraction, fraction_evaluate=0.0)
