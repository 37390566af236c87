"""Certificates that the user brings: whether a site would accept them."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from fedtl.errors import ConfigError
from fedtl.launch.coordinator.certificates import read_certificates

_MOST_FLIGHTS = 8


def check_given(host: str, *, certificate: Path, key: Path, ca: Path) -> None:
    """Shake hands as server and site would, in memory.

    Raises
    ------
    ConfigError
        With code ``server.certificate``: key and certificate do not belong together, a site would
        refuse the certificate (expired, other host, other authority), or a file is unreadable.
    """
    read_certificates(certificate)
    read_certificates(ca)
    try:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # a password would be asked for at each start, when nobody may be there
        server.load_cert_chain(certificate, key, password=_no_password)
        site = ssl.create_default_context(cafile=ca)
        _shake_hands(server, site, host)
    except ssl.SSLCertVerificationError as error:
        raise _refused(f"a site would refuse '{certificate}': {error.verify_message}") from error
    except (OSError, ValueError) as error:
        words = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        said = str(words).replace("_", " ").lower()
        raise _refused(f"'{certificate}' and '{key}' cannot be used together: {said}") from error


def find_root(certificate: Path) -> Path:
    """Return the file of a certificate if it also holds the root that ends its chain.

    Raises
    ------
    ConfigError
        With code ``server.certificate``: it does not.
    """
    last = read_certificates(certificate)[-1]
    if last.issuer == last.subject:
        return certificate
    raise ConfigError(
        f"'{certificate}' is signed by '{last.issuer.rfc4514_string()}', whose certificate is "
        "not in it.",
        next_step="Name the file of that root certificate with --ca: sites check by it and nothing "
        "else. Who issued yours publishes it.",
        code="server.certificate",
    )


def roots(*, certificate: Path, ca: Path) -> str:
    """Return the root that a certificate's chain ends in, out of a file of several, in PEM."""
    last = read_certificates(certificate)[-1]
    found = [root for root in read_certificates(ca) if root.subject in (last.issuer, last.subject)]
    return b"".join(root.public_bytes(Encoding.PEM) for root in found).decode("ascii")


def _no_password() -> str:
    raise ValueError("the key has a password")


def _refused(what: str) -> ConfigError:
    return ConfigError(
        f"The certificate cannot be taken: {what}.",
        next_step="Give --certificate (with the intermediate certificates below it), --key "
        "(without password) and --ca (the root) that belong together and name the host.",
        code="server.certificate",
    )


def _shake_hands(server: ssl.SSLContext, site: ssl.SSLContext, host: str) -> None:
    to_site, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        site.wrap_bio(to_site, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_site, server_side=True),
    ]
    for _ in range(_MOST_FLIGHTS):
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue
        if not ends:
            return
