"""Whether a federation's server can be reached as a SuperNode would: name, proxy, TLS, clock.

It is asked with the library that Flower's SuperNode uses, so that what one can do the other can.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from urllib.parse import urlsplit

import httpx

from fedtl.report.words import duration
from fedtl.types import Finding

_PATIENCE_SECONDS = 10.0
_CLOCK_NOTED, _CLOCK_BROKEN = 60.0, 300.0
"""Seconds; SuperLink refuses signatures that are five minutes old."""
_EXPIRED, _NOT_YET, _NAMES = 10, 9, (62, 64)
"""What OpenSSL calls them."""
_OTHER_SERVER = (
    "Another server answers there, or a proxy of your network opens TLS. Ask your network people "
    "not to open it for this address; if all is well there, ask the coordinator for a new "
    "invitation."
)


def look_at_server(address: str, roots: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Ask a server how it is, and say what keeps this machine from it.

    Parameters
    ----------
    address : str
        ``host:port``.
    roots : Path
        Certificates that the server's has to be signed by.
    environment : mapping
        Where ``HTTPS_PROXY`` and ``NO_PROXY`` are looked for.
    """
    proxy = proxy_of(address, environment)
    shown = _shown(proxy)
    if proxy:
        yield Finding("proxy", "ok", f"{shown} is asked for {address} (HTTPS_PROXY)")
    try:
        answer = _ask(address, ssl.create_default_context(cafile=str(roots)), proxy)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        yield _failed(address, shown, error)
        if not _is_about_trust(error):
            return
        try:
            answer = _ask(address, _unchecked(), proxy)  # a wrong clock is the usual reason
        except (httpx.HTTPError, OSError):
            return
        yield from _clock(answer, "the server, whose certificate was not accepted,")
        return
    yield _answered(address, answer)
    yield from _clock(answer, "the server")


def proxy_of(address: str, environment: Mapping[str, str]) -> str:
    """Return the proxy through which an address is reached; empty: none.

    Examples
    --------
    >>> proxy_of("fed.example.org:443", {"HTTPS_PROXY": "http://proxy:3128"})
    'http://proxy:3128'
    >>> proxy_of("fed.example.org:443", {"https_proxy": "http://proxy", "NO_PROXY": ".org"})
    ''
    """

    def named(*names: str) -> str:
        spelt = (name for plain in names for name in (plain.lower(), plain))
        return next((environment[name] for name in spelt if environment.get(name)), "")

    proxy, host = named("HTTPS_PROXY", "ALL_PROXY"), address.rpartition(":")[0].lower()
    for direct in named("NO_PROXY").lower().split(","):
        if direct.strip() == "*" or f".{host}".endswith(f".{direct.strip().lstrip('.') or ':'}"):
            return ""
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _shown(proxy: str) -> str:
    """Return a proxy without the password that may stand in it."""
    return urlsplit(proxy).netloc.rpartition("@")[2]


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _ask(address: str, context: ssl.SSLContext, proxy: str) -> httpx.Response:
    with httpx.Client(
        verify=context, proxy=proxy or None, trust_env=False, timeout=_PATIENCE_SECONDS
    ) as client:
        return client.get(f"https://{address}/health")


def _answered(address: str, answer: httpx.Response) -> Finding:
    if answer.status_code == 200:
        return Finding("server", "ok", f"{address} answers, with a certificate that is accepted")
    if answer.status_code in (502, 503, 504):
        what = f"{address} answers, but Flower's SuperLink behind it does not"
        return Finding("server", "broken", what, "Tell the coordinator: fedtl server status")
    what = f"{address} answers {answer.status_code}: it is no server of a federation"
    return Finding("server", "broken", what, "Check host and port with the coordinator.")


def _clock(answer: httpx.Response, who: str) -> Iterator[Finding]:
    try:
        there = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return
    off = time() - there
    if abs(off) < _CLOCK_NOTED:
        yield Finding("clock", "ok", f"agrees with {who} to a minute")
        return
    what = f"{duration(abs(off))} {'ahead of' if off > 0 else 'behind'} {who}"
    cure = "Set the clock, and let NTP keep it right (timedatectl set-ntp true)."
    yield Finding("clock", "broken" if abs(off) > _CLOCK_BROKEN else "note", what, cure)


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _is_about_trust(error: Exception) -> bool:
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _chain(error))


def _failed(address: str, proxy: str, error: Exception) -> Finding:
    if isinstance(error, httpx.ProxyError):
        what = f"the proxy {proxy} does not let this machine through to {address}: {error}"
        cure = "Ask your network people to allow CONNECT to it; a proxy that wants a name and a "
        cure += "password is written HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT."
        return Finding("server", "broken", what, cure)
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _refused(address, cause)
        if isinstance(cause, ssl.SSLError):
            what = f"what answers at {address} does not speak TLS"
            return Finding("server", "broken", what, "Check the port with the coordinator.")
    return _unreached(address, proxy, error)


def _unreached(address: str, proxy: str, error: Exception) -> Finding:
    where, whose = (f"the proxy {proxy}", "HTTPS_PROXY") if proxy else (address, "the address")
    causes = list(_chain(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        what, cure = f"the name of {where} is unknown", f"Check {whose}, and this machine's DNS."
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        what = f"nothing listens at {where}"
        cure = f"Check {whose}" + ("." if proxy else "; ask whether the server is up.")
    elif any(isinstance(cause, httpx.TimeoutException) for cause in causes):
        what = f"{where} does not answer within {_PATIENCE_SECONDS:.0f} s"
        cure = f"Let the firewall pass outgoing TCP to {where}, or set HTTPS_PROXY."
    else:
        what = f"{where} cannot be reached: {error}"
        cure = f"Check {whose}, the network, and whether a proxy is needed (HTTPS_PROXY)."
    return Finding("server", "broken", what, cure)


def _refused(address: str, error: ssl.SSLCertVerificationError) -> Finding:
    """Say why a certificate is refused."""
    code = error.verify_code
    if code == _EXPIRED:
        what = f"the certificate of {address} has ended, or this clock is ahead"
        cure = "Look at the clock below; if it is right, tell the coordinator: fedtl server renew"
    elif code == _NOT_YET:
        what = f"the certificate of {address} does not hold yet: this clock is behind"
        cure = "Set the clock."
    elif code in _NAMES:
        what = f"the certificate at {address} is for another name"
        cure = "Use the address of the invitation, and check what DNS and proxy make of it."
    else:
        what = f"the certificate at {address} is signed by somebody else than the invitation says"
        cure = _OTHER_SERVER
    return Finding("server", "broken", what, cure)
