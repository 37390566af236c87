"""What runs at the coordinator: SuperLink on loopback, and the proxy before it."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from fedtl.launch import services
from fedtl.launch.coordinator.certificates import (
    expires,
    make_server_certificate,
    read_certificates,
)
from fedtl.launch.coordinator.config import Coordinator, read_server
from fedtl.launch.coordinator.folder import write_connection
from fedtl.launch.coordinator.given import check_given
from fedtl.launch.coordinator.proxy import proxy_command, write_proxy
from fedtl.launch.flower_processes import environment, program
from fedtl.launch.metrics import check_free
from fedtl.launch.services import Service

SUPERLINK, PROXY, METRICS = "superlink", "nginx", "metrics"
"""Names of the services."""
COORDINATOR = "FEDTL_COORDINATOR"
"""Environment variable that tells a run's ServerApp the coordinator's folder."""
RENEW = timedelta(days=30)
"""How long before its end a certificate is renewed, or warned about."""


def up(folder: Path, *, foreground: bool = False, metrics: int | None = None) -> Coordinator:
    """Start SuperLink and the proxy of a coordinator's folder, and wait until both answer.

    A certificate of fedtl's own that ends soon is renewed first.

    Parameters
    ----------
    metrics : int, optional
        Port for Prometheus; default: that of ``server.toml``; 0: none.

    Raises
    ------
    FedtlError
        The folder or a certificate cannot be used, nginx is missing, or a service does not start.
    """
    coordinator = read_server(folder)
    coordinator.identity()
    proxy = proxy_command()
    _check_certificate(coordinator)
    write_connection(coordinator)
    write_proxy(coordinator)
    port = coordinator.config.metrics_port if metrics is None else metrics
    check_free(port, coordinator.folder)
    wanted = (
        Service(
            SUPERLINK,
            _superlink(coordinator),
            {**environment(coordinator.flower_home), COORDINATOR: str(coordinator.folder)},
            stop_seconds=20,
            ready=partial(_healthy, coordinator),
        ),
        Service(PROXY, proxy, ready=partial(_listens, coordinator)),
        *_exporter(coordinator, port),
    )
    services.start(coordinator.folder, wanted, foreground=foreground)
    return coordinator


def _exporter(coordinator: Coordinator, port: int) -> tuple[Service, ...]:
    module = "fedtl.launch.coordinator.metrics"
    command = (sys.executable, "-m", module, str(coordinator.folder), str(port))
    return (Service(METRICS, command),) if port else ()


def renew(folder: Path) -> Coordinator:
    """Make the server's certificate anew, or check the user's; a running proxy takes it up.

    Raises
    ------
    ConfigError
        The authority's key is missing, or the user's certificate cannot be used.
    """
    coordinator = read_server(folder)
    if coordinator.has_own_certificate:
        make_server_certificate(coordinator.folder, coordinator.host)
    else:
        _check_given(coordinator)
    for state in services.status(coordinator.folder):
        if state.name == PROXY and state.pid:
            with suppress(ProcessLookupError):
                os.kill(state.pid, signal.SIGHUP)
    return coordinator


def _check_certificate(coordinator: Coordinator) -> None:
    if not coordinator.has_own_certificate:
        _check_given(coordinator)
    elif expires(coordinator.certificate) - datetime.now(UTC) < RENEW:
        make_server_certificate(coordinator.folder, coordinator.host)


def _check_given(coordinator: Coordinator) -> None:
    check_given(
        coordinator.host,
        certificate=coordinator.certificate,
        key=coordinator.key,
        ca=coordinator.ca,
    )


def _superlink(coordinator: Coordinator) -> tuple[str, ...]:
    tls = coordinator.own_ca.parent
    return (
        program("flower-superlink"),
        *("--host", "127.0.0.1", "--port", str(coordinator.config.superlink_port)),
        *("--ssl-certfile", str(tls / "loopback.crt"), "--ssl-keyfile", str(tls / "loopback.key")),
        *("--ssl-ca-certfile", str(coordinator.own_ca)),
        *("--database", str(coordinator.database)),
        "--enable-supernode-auth",
        # what a run needs is installed by whoever runs the machine, never by a run
        "--disable-runtime-dependency-installation",
    )


def _healthy(coordinator: Coordinator) -> bool:
    """Say whether SuperLink answers, and it is this folder's."""
    context = ssl.create_default_context(cafile=coordinator.own_ca)
    where = ("127.0.0.1", coordinator.config.superlink_port)
    with suppress(OSError), _line(where, context) as line:
        line.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        return b" 200 " in line.recv(64)
    return False


def _listens(coordinator: Coordinator) -> bool:
    """Say whether the proxy answers, and it is this folder's: another may have the port."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = coordinator.config.listen[0].rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    shown = read_certificates(coordinator.certificate)[0].public_bytes(Encoding.DER)
    with suppress(OSError), _line((here, int(port)), context) as line:
        return line.getpeercert(binary_form=True) == shown
    return False


@contextmanager
def _line(where: tuple[str, int], context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(where, timeout=2) as plain,
        context.wrap_socket(plain, server_hostname=where[0]) as line,
    ):
        yield line
