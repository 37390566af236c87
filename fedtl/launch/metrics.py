"""Metrics for Prometheus: on loopback, and only where somebody asked for them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from fedtl.errors import ConfigError
from fedtl.launch import services

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from prometheus_client.registry import Collector

HERE = "127.0.0.1"


def exposed(collector: Collector, port: int) -> AbstractContextManager[None]:
    """Serve a collector at ``http://127.0.0.1:PORT/metrics`` until the block is left.

    Parameters
    ----------
    collector : Collector
        Asked anew at each request, from a thread of its own.
    port : int
        0: serve nothing.

    Raises
    ------
    ConfigError
        With code ``metrics.port``: another program has the port.
    """
    return _served(collector, port) if port else nullcontext()


def check_free(port: int, folder: Path) -> None:
    """Refuse a port that another program has, before the services of a folder are started.

    Raises
    ------
    ConfigError
        With code ``metrics.port``.
    """
    if not port or services.status(folder):
        return
    try:
        with socket.create_server((HERE, port)):
            pass
    except (OSError, OverflowError) as error:
        raise _taken(port, error) from error


def _taken(port: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"The port {port} for metrics cannot be used: {error}.",
        next_step="Choose another metrics_port, or stop the program that has it.",
        code="metrics.port",
    )


@contextmanager
def _served(collector: Collector, port: int) -> Iterator[None]:
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        server, thread = start_http_server(port, addr=HERE, registry=registry)
    except (OSError, OverflowError) as error:
        raise _taken(port, error) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
