"""How a site is: its services, its connection, how far its preparation is, and its budget."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedtl.agent.agent_pb2 import State
from fedtl.agent.client import AgentClient
from fedtl.errors import TransportError
from fedtl.launch import services
from fedtl.launch.logs import last_lines
from fedtl.launch.own_site import SOCKET
from fedtl.launch.personal import personal_findings
from fedtl.launch.service_states import service_finding, states_of
from fedtl.launch.services import ServiceState
from fedtl.launch.site_check.guard import guarded
from fedtl.launch.site_check.privacy import look_at_ledger
from fedtl.launch.site_services import AGENT, SUPERNODE
from fedtl.report.words import count, duration
from fedtl.site.config import SiteFolder
from fedtl.types import NO_BACKBONE, PREPARING, READY, Finding

_START = "fedtl site up"
_LINES = 400
_STARTED = "Starting Flower SuperNode"
_SENT_AWAY = "SuperNode terminated gracefully"  # without a reason: the server answered 401
_SAYS = {
    r"SuperNode ID:|Connection successful": Finding("connection", "ok", "connected"),
    r"Connection attempt failed": Finding(
        "connection",
        "note",
        "the server does not answer; it is tried again all the time",
        "Ask the coordinator whether the server is up; check firewall and HTTPS_PROXY.",
    ),
    r"Failed to initialize the connection": Finding(
        "connection",
        "broken",
        "the server cannot be reached",
        "Check the address of the server; `fedtl site log` of the supernode says more.",
    ),
    r"Failed to activate SuperNode": Finding(
        "connection",
        "broken",
        "the server does not let this site in: it does not know its key, or takes a connection "
        "that broke off for one that is open",
        "Wait two minutes. If it stays so, send node.pub to the coordinator, and join with the "
        "invitation that comes back.",
    ),
    _SENT_AWAY: Finding(
        "connection",
        "broken",
        "the server sends this site away: this machine's clock is wrong by minutes, or its key is "
        "enrolled no longer",
        "Compare `date -u` with a clock that is right; then ask the coordinator about the key.",
    ),
    r"CERTIFICATE_VERIFY_FAILED": Finding(
        "connection",
        "broken",
        "the server's certificate is not one that the invitation allows, or it has ended",
        "Check this machine's clock; then ask the coordinator for a new invitation.",
    ),
}
"""What the SuperNode of Flower 1.41 logs, and what that means."""


@dataclass(frozen=True, slots=True)
class SiteState:
    """What ``fedtl site status`` shows.

    Attributes
    ----------
    services : tuple of ServiceState
        Agent and SuperNode.
    agent : State or None
        What the agent says; None where none answers.
    connection : Finding
        What the SuperNode last said about the server.
    """

    site: SiteFolder
    services: tuple[ServiceState, ...]
    agent: State | None
    connection: Finding


def site_state(site: SiteFolder) -> SiteState:
    """Look at a site from outside."""
    found = states_of(site.folder, (AGENT, SUPERNODE))
    try:
        agent = AgentClient(site.folder / SOCKET).status()
    except TransportError:
        agent = None
    log = services.log_file(site.folder, SUPERNODE)
    return SiteState(site, found, agent, connection_in(last_lines(log, _LINES)))


def facts(state: SiteState, found: Sequence[Finding]) -> dict[str, Any]:
    """Return everything for programs."""
    agent = state.agent
    named = () if agent is None else agent.DESCRIPTOR.fields
    return {
        "site": state.site.config.name,
        "server": state.site.config.server.address,
        "services": [asdict(service) for service in state.services],
        "agent": None if agent is None else {f.name: getattr(agent, f.name) for f in named},
        "connected": state.services[1].pid != 0 and state.connection.state == "ok",
        "findings": [asdict(finding) for finding in found],
    }


def findings(state: SiteState) -> Iterator[Finding]:
    """Yield what is worth knowing of a site, each fault with its cure."""
    server = state.site.config.server.address
    yield _agent(state)
    if state.agent is not None:
        yield _preparation(state.agent, state.site)
    yield service_finding(state.site.folder, state.services[1], _START)
    if state.services[1].pid:
        yield replace(state.connection, what=f"{server}: {state.connection.what}")
    yield from guarded("ledger", lambda: look_at_ledger(state.site, None))
    yield from guarded("own head", lambda: personal_findings(state.site.folder))


def _agent(state: SiteState) -> Finding:
    agent = state.agent
    if agent is None:
        return service_finding(state.site.folder, state.services[0], _START)
    busy = f"answers a '{agent.busy}' message, {agent.waiting} wait" if agent.busy else "idle"
    counts = f"{count(agent.answered)} answered and {count(agent.refused)} refused"
    since = duration(agent.uptime_seconds)
    return Finding(AGENT, "ok", f"{busy}; {counts} in {since}; fedtl {agent.version}")


def _preparation(agent: State, site: SiteFolder) -> Finding:
    body = f"{agent.architecture} ({agent.backbone[:12]})" if agent.backbone else "none yet"
    name = "preparation"
    if agent.state == READY:
        return Finding(name, "ok", f"ready, with the backbone {body}")
    if agent.state == PREPARING:
        of = f" of {count(agent.total)}" if agent.total else ""
        how = f": {agent.phase} {count(agent.done)}{of}" if agent.phase else ""
        return Finding(name, "note", f"going on{how}; active backbone: {body}")
    if agent.state == NO_BACKBONE:
        what = "data are read; the backbone comes from the coordinator with the first run"
        return Finding(name, "note", what)
    cure = f"See '{services.log_file(site.folder, AGENT)}'. It is tried again by itself."
    return Finding(name, "broken", f"failed: {agent.state}; active backbone: {body}", cure)


def connection_in(lines: Sequence[str]) -> Finding:
    """Return what the lines of a SuperNode's log last say about its connection."""
    unknown = Finding("connection", "note", "not known yet")
    found = unknown
    for line in lines:
        if _STARTED in line and found.state == "ok":
            found = unknown
        for pattern, meaning in _SAYS.items():
            if re.search(pattern, line):
                stopped = pattern == _SENT_AWAY and found.state == "ok"
                found = unknown if stopped else meaning
    return found
