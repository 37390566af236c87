"""``ray``: Flower's own simulation runtime, for many processes, GPUs or machines.

Flower makes the Grid itself, so the server's story is handed in as the body of a ServerApp.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedtl.errors import FedtlError, TransportError


def require_ray() -> None:
    """Refuse where Ray is not installed.

    Raises
    ------
    TransportError
        With code ``ray.missing``.
    """
    if importlib.util.find_spec("ray") is None:
        raise TransportError(
            "--via ray needs Flower's simulation extra, which is not installed.",
            next_step="Run `pip install 'fedtl[ray]'`, or use --via stacked: it gives "
            "the same head.",
            code="ray.missing",
        )


def run_on_ray(
    app: ClientApp, n_sites: int, story: Callable[[Grid], None], *, cpus_per_site: int = 1
) -> None:
    """Run ``story`` with Flower's simulation Grid over ``n_sites`` nodes.

    Parameters
    ----------
    app : ClientApp
        Sent to Ray's worker processes, so it must not carry data.
    cpus_per_site : int
        Cores of a worker.

    Raises
    ------
    TransportError
        The extra is not installed, or Flower's runtime failed.
    """
    require_ray()
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    caught: list[BaseException] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            story(grid)
        except BaseException as error:  # carried over to the calling thread below
            caught.append(error)

    _simulate(server, app, n_sites, cpus_per_site, caught)
    if caught:
        raise caught[0]


def _simulate(
    server: ServerApp, app: ClientApp, n_sites: int, cpus: int, caught: list[BaseException]
) -> None:
    from flwr.simulation import run_simulation

    backend = {
        "init_args": {
            "logging_level": logging.ERROR,
            "log_to_driver": False,
            "include_dashboard": False,
        },
        "client_resources": {"num_cpus": cpus, "num_gpus": 0.0},
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            run_simulation(server, app, n_sites, backend_config=backend)  # type: ignore[arg-type]
    except (FedtlError, KeyboardInterrupt):
        raise
    except Exception as error:
        if not caught:
            raise TransportError(
                f"Flower's simulation runtime failed: {error}.",
                next_step="Try --via stacked, which gives the same head in this process.",
            ) from error
