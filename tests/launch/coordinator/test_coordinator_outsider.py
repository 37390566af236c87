"""Nobody comes in who does not belong, whatever he sends; an enrolled site does, from there."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w
from elsewhere import Elsewhere, Federation
from machines import eventually

from fedtl.launch.coordinator.enrol import invite
from fedtl.launch.coordinator.link import nodes
from fedtl.launch.flower_processes import environment, program
from fedtl.launch.services import log_file
from fedtl.site.node_key import make_node_key

CONTROL = "/v1/control/list-runs"


@pytest.fixture(autouse=True)
def another_machine(elsewhere: Elsewhere) -> None:
    if elsewhere.reason:
        pytest.skip(f"no other machine: {elsewhere.reason}")


def request(path: str, method: str = "POST", *, version: str = "1.1", more: str = "") -> str:
    lines = f"{method} {path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n{more}"
    return (
        lines + ("" if "Length" in more or "Transfer" in more else "Content-Length: 0\r\n") + "\r\n"
    )


def paths(federation: Federation) -> dict[str, dict[str, object]]:
    """Return every path that SuperLink has, as it says itself on loopback."""
    context = ssl.create_default_context(cafile=federation.coordinator.own_ca)
    port = federation.coordinator.config.superlink_port
    with urllib.request.urlopen(
        f"https://127.0.0.1:{port}/openapi.json", context=context, timeout=10
    ) as answer:
        found: dict[str, dict[str, object]] = json.load(answer)["paths"]
        return found


def test_every_path_but_those_of_sites_is_refused(federation: Federation) -> None:
    known = paths(federation)
    closed = [p for p in known if not p.startswith("/v1/fleet/") and p != "/health"]
    assert len([p for p in closed if p.startswith("/v1/control/")]) > 20
    assert len([p for p in closed if p.startswith("/v1/runtime/")]) > 10
    requests = [
        request(re.sub(r"\{\w+\}", "1", path), method.upper())
        for path in closed
        for method in known[path]
    ] + [
        request(path, "GET") for path in ("/", "/openapi.json", "/docs", "/v1/fleet", "/v1/fleet/")
    ]
    told = federation.elsewhere.ask(federation.port, federation.coordinator.ca, requests)
    assert told == [[404]] * len(requests)


TRICKS = [
    request("/v1/fleet/../control/list-runs"),
    request("/v1/fleet/..%2fcontrol/list-runs"),
    request("/v1/fleet/%2e%2e/control/list-runs"),
    request("/v1/fleet/..;/control/list-runs"),
    request("/v1/fleet/x/../../control/list-runs"),
    request("//v1/control/list-runs"),
    request("/v1//control/list-runs"),
    request("/v1/control//list-runs"),
    request("/v1/fleet/%00/../../control/list-runs"),
    request("/v1/fleet/\\..\\control\\list-runs"),
    request("/V1/CONTROL/LIST-RUNS"),
    request("/v1/control/list-runs/"),
    request("/v1/control/list-runs?/v1/fleet/x"),
    request("/v1/control/list-runs#/v1/fleet/x"),
    request("/v1/%63ontrol/list-runs"),
    request("https://127.0.0.1/v1/control/list-runs"),
    request("https://x/v1/fleet/../control/list-runs"),
    request("*"),
    request(CONTROL, version="1.0"),
    request(CONTROL, more="X-Original-URL: /v1/fleet/x\r\nX-Rewrite-URL: /health\r\n"),
    request(CONTROL, more="X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n"),
    request("/health", more="X-Original-URL: /v1/control/list-runs\r\n"),
    request("/health/../v1/control/list-runs", "GET"),
    f"GET {CONTROL}\r\n\r\n",
]
# the second request hides in the first one's body, or where servers disagree about its end
SMUGGLED = [
    f"POST /v1/fleet/x HTTP/1.1\r\nHost: x\r\n{how}\r\n\r\n{body}{request(CONTROL)}"
    for how, body in (
        ("Content-Length: 0\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked", "0\r\n\r\n"),
        ("Content-Length: 0\r\nContent-Length: 9", ""),
        ("Content-Length: 0", ""),
        ("Content-Length: -1", ""),
        ("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA", ""),
        ("Expect: 100-continue\r\nContent-Length: 0", ""),
    )
]


def test_no_spelling_of_a_path_or_request_reaches_the_operators_side(
    federation: Federation,
) -> None:
    ask, ca = federation.elsewhere.ask, federation.coordinator.ca
    told = ask(federation.port, ca, TRICKS)
    assert [t for t in told if any(code < 400 for code in t)] == []
    told = ask(federation.port, ca, SMUGGLED)
    assert [t for t in told if any(code < 400 and code != 100 for code in t)] == []
    assert_only_sites_paths(federation)


def assert_only_sites_paths(federation: Federation) -> None:
    """Read in SuperLink's own log what it was asked for from elsewhere."""
    there = re.escape(federation.elsewhere.address)
    asked = re.compile(rf'{there}:\d+ - "(\S+) (\S+) ')
    log = log_file(federation.folder, "superlink").read_text(errors="replace")
    seen = asked.findall(log)
    assert len(seen) > 0
    assert {
        path for _, path in seen if not re.fullmatch("/v1/fleet/[a-z-]+|/health", path)
    } == set()


def test_methods_sizes_and_plain_http_are_refused(federation: Federation) -> None:
    ask, ca = federation.elsewhere.ask, federation.coordinator.ca
    methods = ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "CONNECT")
    told = ask(federation.port, ca, [request("/v1/fleet/pull-messages", m) for m in methods])
    assert [t for t in told if t not in ([404], [405], [400])] == []
    told = ask(federation.port, ca, [request("/health", m) for m in ("POST", "PUT", "DELETE")])
    assert told == [[404]] * 3
    big = f"Content-Length: {17 << 20}\r\n"
    long = request("/v1/fleet/pull-messages", more=f"X: {'a' * 40_000}\r\n")
    told = ask(federation.port, ca, [request("/v1/fleet/push-object", more=big), long])
    assert told == [[413], [400]]
    # the largest piece that Flower sends is let through: SuperLink asks who it is
    piece = f"Content-Length: {(5 << 20) + 1000}\r\nContent-Type: application/x-protobuf\r\n"
    piece = request("/v1/fleet/push-object", more=piece) + "x" * ((5 << 20) + 1000)
    ((code,),) = ask(federation.port, ca, [piece])
    assert code in (400, 401, 415, 422)
    assert ask(federation.port, None, [request("/health", "GET")]) == [[400]]
    assert ask(federation.port, ca, [request("/health", "GET")]) == [[200]]


def test_old_tls_is_refused(federation: Federation) -> None:
    context = ssl.create_default_context(cafile=federation.coordinator.ca)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    where = (federation.elsewhere.here, federation.port)
    with socket.create_connection(where, timeout=5) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname=where[0])


def test_superlinks_own_port_is_not_there_for_others(federation: Federation) -> None:
    port = federation.coordinator.config.superlink_port
    probe = (
        "import socket, sys\n"
        "for host in sys.argv[1:]:\n"
        f"    s = socket.socket(); s.settimeout(3); print(s.connect_ex((host, {port}))); s.close()"
    )
    done = subprocess.run(
        [
            *federation.elsewhere.prefix,
            "python3",
            "-c",
            probe,
            "127.0.0.1",
            federation.elsewhere.here,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "0" not in done.stdout.split()
    with socket.create_connection(("127.0.0.1", port), timeout=3):
        pass  # and here it is


@pytest.mark.parametrize(
    "command",
    [
        lambda app, key: ("run", str(app), "there"),
        lambda app, key: ("ls", "there"),
        lambda app, key: ("stop", "1", "there"),
        lambda app, key: ("log", "1", "there", "--show"),
        lambda app, key: ("supernode", "list", "there"),
        lambda app, key: ("supernode", "register", str(key), "there"),
        lambda app, key: ("supernode", "unregister", "1", "there"),
    ],
    ids=lambda make: " ".join(make("APP", "KEY")[:2]),
)
def test_flowers_own_commands_are_refused(
    federation: Federation, app: Path, tmp_path: Path, command: Callable[..., tuple[str, ...]]
) -> None:
    key, home = make_node_key(tmp_path), tmp_path / "home"
    home.mkdir()
    there = {
        "address": federation.coordinator.config.address,
        "root-certificates": str(federation.coordinator.ca),
    }
    (home / "config.toml").write_text(tomli_w.dumps({"superlink": {"there": there}}))
    before = nodes(federation.folder)
    done = subprocess.run(
        [*federation.elsewhere.prefix, program("flwr"), *command(app, key)],
        env={**os.environ, **environment(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0, done.stdout
    assert nodes(federation.folder) == before
    assert refused_paths(federation)[-1].startswith("/v1/control/")


def refused_paths(federation: Federation) -> list[str]:
    """Read in the proxy's log what it refused to the other machine."""
    refused = re.compile(rf' {re.escape(federation.elsewhere.address)} 404 "POST (\S+) ')
    log = log_file(federation.folder, "nginx").read_text()
    return refused.findall(log)


@pytest.mark.parametrize("with_key", [True, False], ids=["unknown key", "no key"])
def test_a_supernode_nobody_enrolled_is_refused(
    federation: Federation, tmp_path: Path, with_key: bool
) -> None:
    key = make_node_key(tmp_path).with_suffix(".key") if with_key else None
    log = tmp_path / "node.log"
    with federation.supernode(key, log) as process:
        assert process.wait(90) != 0
    assert "Failed to initialize the connection to the SuperLink" in log.read_text()
    assert not any(node.online for node in nodes(federation.folder).values())


def test_an_enrolled_site_comes_in_from_the_same_place(
    federation: Federation, tmp_path: Path
) -> None:
    key = make_node_key(tmp_path)
    invitation, _ = invite(federation.folder, "outside", key=key, out=tmp_path / "outside.invite")
    assert invitation.address == federation.coordinator.config.address
    ca = tmp_path / "ca.pem"
    ca.write_text(invitation.certificates)
    with federation.supernode(key.with_suffix(".key"), tmp_path / "node.log", ca=ca) as process:
        assert eventually(lambda: federation.is_online("outside"))
        assert process.poll() is None
        assert_only_sites_paths(federation)
    assert eventually(lambda: not federation.is_online("outside"))
