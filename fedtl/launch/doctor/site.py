"""``fedtl doctor --site``: why a site does not take part."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from fedtl import __version__
from fedtl.errors import FedtlError
from fedtl.home import home
from fedtl.launch.doctor.places import look_at_disk, look_at_port, look_at_secrets
from fedtl.launch.doctor.reach import look_at_server, proxy_of
from fedtl.launch.flower_processes import environment
from fedtl.launch.ledgers import LEDGER
from fedtl.launch.site_check.guard import broken, guarded
from fedtl.launch.site_state import SiteState, findings, site_state
from fedtl.site.config import IDENTITY, POLICY_FILE, SITE_FILE, SiteFolder, read_site
from fedtl.site.node_key import NODE_KEY
from fedtl.types import Finding

_PRIVATE = (NODE_KEY, IDENTITY, LEDGER, SITE_FILE, POLICY_FILE)


def diagnose_site(folder: Path) -> Iterator[Finding]:
    """Yield what is right and wrong with a site, each fault with its cure."""
    try:
        site = read_site(folder)
    except FedtlError as error:
        yield broken("site", error)
        return
    yield Finding("site", "ok", f"'{site.config.name}' in '{site.folder}'")
    yield from guarded("server", partial(_server, site))
    state = site_state(site)
    yield from findings(state)
    yield from guarded("versions", partial(_versions, state))
    yield from guarded("ports", partial(_ports, state))
    secrets = [site.folder / name for name in _PRIVATE]
    yield from guarded("permissions", partial(look_at_secrets, site.folder, secrets))
    for where, what_for in ((site.folder, "ledger and logs"), (home(), "features and backbones")):
        yield look_at_disk(where, what_for)


def _server(site: SiteFolder) -> Iterator[Finding]:
    server = site.config.server
    if not server.address:
        cure = "Mail node.pub to the coordinator; take what comes back: fedtl site join"
        yield Finding("server", "note", "this site has not joined a federation", cure)
        return
    used = _used_environment(site)
    if proxy_of(server.address, used) != proxy_of(server.address, _own_environment(site)):
        what = "the SuperNode was started with another HTTPS_PROXY or NO_PROXY than is set here"
        yield Finding("proxy", "note", what, "fedtl site down; fedtl site up")
    yield from look_at_server(server.address, Path(server.root_certificates), used)


def _own_environment(site: SiteFolder) -> dict[str, str]:
    return {**os.environ, **environment(site.folder)}


def _used_environment(site: SiteFolder) -> Mapping[str, str]:
    """Return the variables that the running SuperNode has, or one that is started now would."""
    node = site_state(site).services[1]
    with suppress(psutil.Error):
        if node.pid:
            return dict(psutil.Process(node.pid).environ())
    return _own_environment(site)


def _versions(state: SiteState) -> Iterator[Finding]:
    if state.agent is None:
        return
    if state.agent.version == __version__:
        yield Finding("agent's version", "ok", __version__)
    else:
        what = f"the agent runs fedtl {state.agent.version}, and {__version__} is installed"
        yield Finding("agent's version", "note", what, "fedtl site down; fedtl site up")


def _ports(state: SiteState) -> Iterator[Finding]:
    port = state.site.config.metrics_port
    if port and not state.services[0].pid:
        yield look_at_port("the metrics", "127.0.0.1", port)
