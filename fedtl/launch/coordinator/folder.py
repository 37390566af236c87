"""A new coordinator's folder: its files, commented and private, never in the place of others."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import tomli_w

from fedtl.errors import ConfigError
from fedtl.home import unwritable, write_atomic
from fedtl.launch.coordinator.certificates import make_authority, make_server_certificate
from fedtl.launch.coordinator.config import (
    FLOWER_HOME,
    KEY_FILE,
    PRIVATE_FILE,
    PRIVATE_FOLDER,
    RUNS,
    SERVER_FILE,
    SITES,
    TLS,
    Certificates,
    Coordinator,
    ServerConfig,
    read_server,
)
from fedtl.launch.coordinator.given import check_given
from fedtl.privacy.secagg import Identity
from fedtl.site.folder import check_name

CONNECTION = "coordinator"
"""Name of the connection over loopback, for Flower's commands."""
_PORTS = range(20000, 30000)  # below those that systems lend to outgoing connections

_SERVER = """\
# What the coordinator of a federation tells its own machine. Relative paths start at this folder.
# Changes hold after `fedtl server down` and `fedtl server up`.

# Name of the coordinator.
{name}
# host:port by which the sites reach this machine; it stands in every invitation.
{address}
# Addresses of this machine that the proxy listens on; for IPv6 add "[::]:PORT".
{listen}
# Port of Flower's SuperLink. It listens on 127.0.0.1 only: whoever reaches this port may start
# code at every site, so never let a firewall or another proxy pass it on.
{superlink_port}
# Port on which this machine alone may read metrics (Prometheus); 0: off.
metrics_port = 0

[tls]
# The certificate that sites see, with the intermediate ones below it, its private key, and the root
# that sites check it by. Empty: fedtl's own in tls/, renewed by `fedtl server renew`.
{certificate}
{key}
{ca}

[limits]
# What the proxy takes from one network address. Flower cuts arrays into pieces of 5 MiB.
body_megabytes = 16
requests_per_second = 200
connections = 200
"""


def make_coordinator(
    folder: Path, *, address: str, name: str, given: Certificates | None = None
) -> Coordinator:
    """Write a coordinator's folder that only its owner can read.

    Parameters
    ----------
    folder : Path
        New or empty.
    address : str
        ``host:port`` by which sites reach this machine.
    name : str
        Of the coordinator.
    given : Certificates, optional
        The user's own, as absolute paths; default: a new authority's.

    Raises
    ------
    ConfigError
        There are files already (``config.exists``), or a value or certificate cannot be used.
    CacheError
        The folder cannot be written.
    """
    check_name(name)
    host, port = _checked_address(address)
    if given is not None:
        check_given(
            host,
            certificate=Path(given.certificate),
            key=Path(given.key),
            ca=Path(given.ca),
        )
    _make_folders(folder)
    make_authority(folder, name)
    if given is None:
        make_server_certificate(folder, host)
    identity = Identity.new()
    write_atomic(folder / KEY_FILE, lambda f: f.write(identity.private), mode=PRIVATE_FILE)
    values = {
        "name": name,
        "address": address,
        "listen": [f"0.0.0.0:{port}"],
        "superlink_port": _free_port(),
        **(given or Certificates()).model_dump(),
    }
    text = _SERVER.format(**{key: _line(key, value) for key, value in values.items()})
    write_atomic(folder / SERVER_FILE, lambda f: f.write(text.encode()), mode=PRIVATE_FILE)
    coordinator = read_server(folder)
    write_connection(coordinator)
    return coordinator


def write_connection(coordinator: Coordinator) -> None:
    """Write the connection that Flower's commands use, as ``server.toml`` has it now."""
    port = coordinator.config.superlink_port
    connection = {
        "address": f"127.0.0.1:{port}",
        "root-certificates": str(coordinator.own_ca),
    }
    table = {"superlink": {"default": CONNECTION, CONNECTION: connection}}
    text = tomli_w.dumps(table).encode()
    path = coordinator.flower_home / "config.toml"
    write_atomic(path, lambda file: file.write(text), mode=PRIVATE_FILE)


def _checked_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    try:
        ServerConfig(name="x", address=address, listen=(f"0.0.0.0:{port}",), superlink_port=1)
        number = int(port)
    except ValueError:
        number = 0
    if not 0 < number < 65536 or not host.isascii():
        raise ConfigError(
            f"--address '{address}' is not host:port.",
            next_step="Give the name or IPv4 address by which sites reach this machine, and a "
            "port: --address federation.example.org:9443.",
            code="server.address",
        )
    return host, number


def _make_folders(folder: Path) -> None:
    try:
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(
                f"The folder '{folder}' is not empty; nothing was written.",
                next_step="Name a new folder; a coordinator that is there is edited by hand.",
                code="config.exists",
            )
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
        folder.chmod(PRIVATE_FOLDER)
        for inner in (FLOWER_HOME, SITES, RUNS, TLS):
            (folder / inner).mkdir(mode=PRIVATE_FOLDER)
    except OSError as error:
        raise unwritable(folder, error) from error


def _free_port() -> int:
    for port in random.SystemRandom().sample(_PORTS, 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    return _PORTS[0]


def _line(key: str, value: object) -> str:
    line = tomli_w.dumps({key: value})
    return " ".join(line.split()).replace("[ ", "[").replace(", ]", "]")
