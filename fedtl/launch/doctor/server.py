"""``fedtl doctor --server``: why sites cannot come in, or others could."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import psutil

from fedtl.errors import FedtlError
from fedtl.launch.coordinator.config import KEY_FILE, TLS, Coordinator, read_server
from fedtl.launch.coordinator.proxy import proxy_command
from fedtl.launch.coordinator.sites import enrolled
from fedtl.launch.coordinator.state import ServerState, findings, server_state
from fedtl.launch.doctor.places import look_at_port, look_at_secrets
from fedtl.launch.doctor.reach import look_at_server
from fedtl.launch.site_check.guard import broken, guarded
from fedtl.types import Finding

_OPERATORS = "/v1/control/list-runs"
_HERE = "127.0.0.1"


def diagnose_server(folder: Path) -> Iterator[Finding]:
    """Yield what is right and wrong with a coordinator's server, each fault with its cure."""
    try:
        coordinator = read_server(folder)
        state = server_state(coordinator)
    except FedtlError as error:
        yield broken("coordinator", error)
        return
    yield Finding("coordinator", "ok", f"'{coordinator.config.name}' in '{coordinator.folder}'")
    yield from guarded("nginx", _nginx)
    yield from findings(state)
    if state.is_up:
        yield from guarded("address", partial(_reach, coordinator))
        yield from guarded("superlink", partial(_loopback_only, state))
    else:
        yield from guarded("ports", partial(_ports, state))
    secrets = [coordinator.folder / KEY_FILE, coordinator.key]
    secrets += [coordinator.folder / TLS / name for name in ("ca.key", "loopback.key")]
    yield from guarded("permissions", partial(look_at_secrets, coordinator.folder, secrets))
    yield from guarded("key", partial(_key, coordinator))
    yield from guarded("sites", partial(_sites, coordinator))


def _nginx() -> Iterator[Finding]:
    command = proxy_command()[0]
    done = subprocess.run([command, "-v"], capture_output=True, text=True, check=True)
    yield Finding("nginx version", "ok", done.stderr.strip().rpartition("/")[2])


def _reach(coordinator: Coordinator) -> Iterator[Finding]:
    """Come to the server as a site does, and knock at the operators' door."""
    address = coordinator.config.address
    for found in look_at_server(address, coordinator.ca, os.environ):
        if found.name == "server" and found.state == "broken":
            cure = "Sites may see it otherwise: ask one for `fedtl doctor`. " + found.cure
            yield Finding("from this machine", "note", found.what, cure)
        elif found.name != "clock":
            yield found
    with suppress(httpx.HTTPError):
        context = ssl.create_default_context(cafile=str(coordinator.ca))
        with httpx.Client(verify=context, trust_env=False, timeout=10) as client:
            code = client.post(f"https://{address}{_OPERATORS}").status_code
        if code == 404:
            yield Finding("operators' door", "ok", "closed to the network")
        else:
            what = f"open to the network: {_OPERATORS} answers {code} instead of 404"
            cure = "Stop at once: fedtl server down. Another proxy stands before SuperLink."
            yield Finding("operators' door", "broken", what, cure)


def _loopback_only(state: ServerState) -> Iterator[Finding]:
    """See that SuperLink, which asks operators for nothing, listens on loopback only."""
    process = psutil.Process(state.services[0].pid)
    lines = process.net_connections("tcp")
    ears = {line.laddr.ip for line in lines if line.status == psutil.CONN_LISTEN}
    if wide := sorted(ears - {_HERE, "::1"}):
        what = f"SuperLink listens on {', '.join(wide)}: whoever reaches it starts code at sites"
        yield Finding("superlink's port", "broken", what, "fedtl server down; fedtl server up")
    else:
        yield Finding("superlink's port", "ok", "on loopback only")


def _ports(state: ServerState) -> Iterator[Finding]:
    """See which ports are free for the services that do not run."""
    config = state.coordinator.config
    superlink, proxy = (service.pid for service in state.services[:2])
    if not superlink:
        yield look_at_port("SuperLink", _HERE, config.superlink_port)
    if not proxy:
        for where in config.listen:
            host, _, port = where.rpartition(":")
            yield look_at_port("nginx", host.strip("[]"), int(port))


def _key(coordinator: Coordinator) -> Iterator[Finding]:
    coordinator.identity()
    yield Finding("coordinator's key", "ok", "whole; keep a copy of the folder elsewhere")


def _sites(coordinator: Coordinator) -> Iterator[Finding]:
    names = [site.name for site in enrolled(coordinator.folder)]
    if names:
        yield Finding("sites", "ok", f"enrolled: {', '.join(names)}")
    else:
        yield Finding("sites", "note", "none is enrolled", "fedtl server invite")
