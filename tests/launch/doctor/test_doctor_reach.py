"""What keeps a site from its server, in words: each with real sockets and real certificates."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from connect_proxy import ConnectProxy
from speaking import certificate, speaking

from fedtl.launch.doctor.reach import look_at_server, proxy_of
from fedtl.types import Finding


def found(
    port: int, roots: Path, environment: Mapping[str, str] | None = None
) -> dict[str, Finding]:
    told = look_at_server(f"localhost:{port}", roots, environment or {})
    return {finding.name: finding for finding in told}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("good"), "localhost")


def test_a_server_that_answers_is_well(good: Path) -> None:
    with speaking(good) as port:
        told = found(port, good)
    assert {name: finding.state for name, finding in told.items()} == {
        "server": "ok",
        "clock": "ok",
    }


@pytest.mark.parametrize(
    ("name", "days", "said", "cure"),
    [
        ("localhost", (-9, -1), "has ended, or this clock is ahead", "Look at the clock"),
        ("localhost", (1, 9), "does not hold yet", "Set the clock"),
        ("elsewhere.example.org", (-1, 9), "is for another name", "address of the invitation"),
    ],
)
def test_a_bad_certificate_is_named(
    name: str, days: tuple[float, float], said: str, cure: str, tmp_path: Path
) -> None:
    shown = certificate(tmp_path, name, days=days)
    with speaking(shown) as port:
        server = found(port, shown)["server"]
    assert server.state == "broken"
    assert said in server.what
    assert cure in server.cure


def test_another_authority_is_not_taken_for_the_invitations(good: Path, tmp_path: Path) -> None:
    with speaking(certificate(tmp_path, "localhost")) as port:
        told = found(port, good)
    assert "signed by somebody else" in told["server"].what
    assert "opens TLS" in told["server"].cure
    assert "whose certificate was not accepted" in told["clock"].what


@pytest.mark.parametrize(
    ("off", "state"), [(0, "ok"), (200, "note"), (-200, "note"), (86400, "broken")]
)
def test_a_clock_that_is_off_is_measured_by_the_servers(off: float, state: str, good: Path) -> None:
    with speaking(good, clock_off=off) as port:
        clock = found(port, good)["clock"]
    assert clock.state == state
    if off:
        assert ("behind" if off > 0 else "ahead of") in clock.what


@pytest.mark.parametrize(
    ("status", "said"), [(502, "SuperLink behind it does not"), (404, "no server of a federation")]
)
def test_who_else_answers_is_told(status: int, said: str, good: Path) -> None:
    with speaking(good, status=status) as port:
        server = found(port, good)["server"]
    assert server.state == "broken"
    assert said in server.what


def test_a_port_without_a_server_without_tls_and_an_unknown_name(good: Path) -> None:
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        refused = found(mine.getsockname()[1], good)["server"]
    assert "nothing listens at localhost" in refused.what
    with speaking(None) as port:
        assert "does not speak TLS" in found(port, good)["server"].what
    (unknown,) = look_at_server("nowhere.invalid:443", good, {})
    assert unknown.state == "broken"


def test_a_proxy_is_asked_as_the_supernode_asks_it(good: Path) -> None:
    with speaking(good) as port, ConnectProxy() as proxy:
        named = proxy.url.replace("http://", "http://me:secret@")
        told = found(port, good, {"HTTPS_PROXY": named})
        assert proxy.asked == [f"CONNECT localhost:{port}"]
        assert told["server"].state == "ok"
        assert "secret" not in " ".join(finding.what for finding in told.values())
        found(port, good, {"HTTPS_PROXY": proxy.url, "NO_PROXY": "localhost"})
        assert len(proxy.asked) == 1


def test_a_proxy_that_refuses_and_one_that_is_gone_are_named(good: Path) -> None:
    with speaking(good) as port:
        with ConnectProxy(answer=b"407 Proxy Authentication Required") as proxy:
            told = found(port, good, {"HTTPS_PROXY": proxy.url})["server"]
            where = proxy.url
        assert "does not let this machine through" in told.what
        assert "NAME:PASSWORD" in told.cure
        gone = found(port, good, {"HTTPS_PROXY": where})["server"]
    assert "nothing listens at the proxy" in gone.what


@pytest.mark.parametrize(
    ("named", "direct"),
    [("example.org", True), (".example.org", True), ("*", True), ("ample.org", False), ("", False)],
)
def test_no_proxy_names_hosts_and_their_domains(named: str, direct: bool) -> None:
    environment = {"HTTPS_PROXY": "proxy:3128", "NO_PROXY": named}
    assert proxy_of("fed.example.org:9443", environment) == ("" if direct else "http://proxy:3128")
