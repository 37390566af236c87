"""What runs at a site: the agent, which alone opens its data, and Flower's SuperNode."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

from fedtl.agent.client import AgentClient
from fedtl.errors import ConfigError, TransportError
from fedtl.home import write_atomic
from fedtl.launch import services
from fedtl.launch.flower_processes import environment, program
from fedtl.launch.metrics import check_free
from fedtl.launch.own_site import SOCKET
from fedtl.launch.services import Service
from fedtl.launch.supernode_user import hand_over
from fedtl.site.config import SITE_FILE, SiteFolder, read_site
from fedtl.site.folder import PRIVATE_FILE
from fedtl.site.node_key import NODE_KEY

AGENT, SUPERNODE = "agent", "supernode"
"""Names of the services."""
_PORT, _FLOWER = "supernode.port", "flower"
_HERE = "127.0.0.1"


def up(folder: Path, *, foreground: bool = False, metrics: int | None = None) -> SiteFolder:
    """Start agent and SuperNode of a state folder, and wait until the agent answers.

    The agent then prepares data and features, and the SuperNode looks for the server, both for as
    long as it takes.

    Parameters
    ----------
    metrics : int, optional
        Port for Prometheus; default: that of ``site.toml``.

    Raises
    ------
    FedtlError
        The site has not joined, its files cannot be used, or a service does not start.
    """
    site = read_site(folder.resolve())
    check_joined(site)
    check_free(site.config.metrics_port if metrics is None else metrics, site.folder)
    port = () if metrics is None else ("--metrics", str(metrics))
    mode = ("--mode", "660") if site.config.supernode_user else ()
    agent = Service(
        AGENT,
        (program("fedtl"), "site", "agent", str(site.folder), *port, *mode),
        stop_seconds=30,
        ready=partial(_answers, site.folder),
    )
    node = supernode_of(site)
    services.start(site.folder, (agent, node), foreground=foreground)
    return site


def check_joined(site: SiteFolder) -> None:
    """Refuse to start what could not reach a server, or not be known there.

    Raises
    ------
    ConfigError
        With code ``join.missing`` or ``join.file``.
    """
    server = site.config.server
    if not server.address:
        raise ConfigError(
            f"The site '{site.config.name}' has not joined a federation.",
            next_step="Mail node.pub to the coordinator, and take the invitation that comes back: "
            f"fedtl site join '{site.folder}' {site.config.name}.invite",
            code="join.missing",
        )
    for what, path in (("key", _key(site)), ("certificates", Path(server.root_certificates))):
        if not path.is_file():
            raise ConfigError(
                f"The {what} '{path}' of this site cannot be found.",
                next_step=f"Join again with the invitation, or correct [server] in {SITE_FILE}.",
                code="join.file",
            )


def _key(site: SiteFolder) -> Path:
    return Path(site.config.server.private_key or site.folder / NODE_KEY)


def supernode_of(site: SiteFolder) -> Service:
    """Return a site's SuperNode, which knows nothing of the site but where its agent is.

    Raises
    ------
    FedtlError
        A path cannot be written for Flower, or the user it should run as cannot be used.
    """
    server, user, home = site.config.server, site.config.supernode_user, site.folder / _FLOWER
    needed, variables = [_key(site), Path(server.root_certificates)], environment(home)
    if user:
        needed = hand_over(site.folder, user, needed=needed, home=home)
        variables["HOME"] = str(home)
    command = (
        program("flower-supernode"),
        *("--superlink", server.address, "--root-certificates", str(needed[1])),
        *("--auth-supernode-private-key", str(needed[0])),
        *("--host", _HERE, "--port", str(_port(site.folder / _PORT))),
        *("--node-config", f"agent={_toml_text(str(site.folder / SOCKET))}"),
    )
    return Service(SUPERNODE, command, variables, user=user)


def _toml_text(path: str) -> str:
    """Quote a path as Flower reads values of a node's config.

    Raises
    ------
    ConfigError
        With code ``services.path``.
    """
    if '"' in path or "\\" in path or "'" in path:
        raise ConfigError(
            f"The path '{path}' holds quotes or backslashes, which Flower cannot read.",
            next_step="Give the folder another name.",
            code="services.path",
        )
    return f'"{path}"'


def _port(kept: Path) -> int:
    """Return the port on loopback that this site's SuperNode had before, or a free one."""
    before = kept.read_text("utf-8").strip() if kept.exists() else ""
    for port in (int(before) if before.isdecimal() else 0, 0):
        with socket.socket() as probe:
            try:
                probe.bind((_HERE, port))
            except (OSError, OverflowError):
                continue
            found = int(probe.getsockname()[1])
        if str(found) != before:
            write_atomic(kept, lambda file: file.write(str(found).encode()), mode=PRIVATE_FILE)  # noqa: B023
        return found
    raise TransportError(
        "There is no free port on this machine for the SuperNode.",
        next_step="Close programs that hold many connections, and start again.",
        code="services.port",
    )


def _answers(folder: Path) -> bool:
    try:
        AgentClient(folder / SOCKET).status(timeout=1)
    except TransportError:
        return False
    return True
