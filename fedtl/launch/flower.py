"""The apps that ``flwr run .`` starts: a simulation, or the server of a run with real sites.

With ``run``, the folder of a run that ``fedtl run`` made, the ServerApp tells the story of that
run, to the sites that SuperLink has; the coordinator's folder is named by the environment.

Otherwise it is the same simulation as elsewhere, launched by Flower's own command. It is configured
by ``[tool.flwr.app.config]`` or ``--run-config``: ``recipe`` is the path of a recipe (empty: the
embedded default), ``out`` the folder for run folders (empty: ``runs`` in the current folder).
Flower's federation decides how many nodes there are, and that is how many sites the data are spread
over.
"""

from __future__ import annotations

import os
import sys
import time
from functools import lru_cache
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedtl.apps.client import make_client_app
from fedtl.errors import FedtlError
from fedtl.launch.federation import Sites
from fedtl.launch.run_folder import new_folder
from fedtl.launch.simulate import simulate
from fedtl.recipe import Recipe, load_recipe, replaced
from fedtl.site.site import Site

_SETTLED_SECONDS = 1.0


def _text(context: Context, key: str) -> str:
    return str(context.run_config.get(key, ""))


@lru_cache(maxsize=4)
def _recipe(path: str, sites: int) -> Recipe:
    recipe = load_recipe(Path(path).expanduser() if path else None)
    return replaced(recipe, partition={"sites": sites})


@lru_cache(maxsize=4)
def _sites(path: str, sites: int) -> Sites:
    return Sites(_recipe(path, sites), {})


def _site_of(context: Context) -> Site:
    nodes = int(context.node_config["num-partitions"])
    return _sites(_text(context, "recipe"), nodes)(context)


def client_app() -> ClientApp:
    """Return the ClientApp of a simulation under ``flwr run``."""
    return make_client_app(_site_of)


def server_app() -> ServerApp:
    """Return the ServerApp that ``flwr run`` and SuperLink start."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            if run := _text(context, "run"):
                _federate(Path(run), grid)
                return
            recipe = _recipe(_text(context, "recipe"), _count_nodes(grid))
            folder = new_folder(recipe, Path(_text(context, "out") or "runs").expanduser())
            finished = simulate(recipe, folder, grid=grid)
        except FedtlError as error:
            print(f"Error: {error}", file=sys.stderr)
            raise
        result = finished.result
        accuracy = "not evaluated" if result.accuracy is None else f"{result.accuracy:.1%}"
        print(f"Global head on held-out data: {accuracy}.")
        print(f"Report: {finished.folder.resolve() / 'report.html'}")

    return app


def _federate(folder: Path, grid: Grid) -> None:
    from fedtl.launch.coordinator.config import read_server
    from fedtl.launch.coordinator.sites import enrolled
    from fedtl.launch.coordinator.up import COORDINATOR
    from fedtl.launch.federate import federate

    home = Path(os.environ[COORDINATOR])
    key = read_server(home).identity()
    federate(folder, grid, key, expected=len(enrolled(home)))


def _count_nodes(grid: Grid) -> int:
    """Return the number of nodes once it has stopped growing: Flower registers them as it goes."""
    count, since = 0, time.monotonic()
    while not count or time.monotonic() - since < _SETTLED_SECONDS:
        now = len(list(grid.get_node_ids()))
        if now != count:
            count, since = now, time.monotonic()
        time.sleep(0.1)
    return count
