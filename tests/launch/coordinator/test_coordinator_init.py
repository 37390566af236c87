"""A coordinator's folder: what it holds, and what is refused before anything is written."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from elsewhere import Federation

from fedtl.errors import ConfigError
from fedtl.launch.coordinator import certificates
from fedtl.launch.coordinator.config import Certificates, read_server
from fedtl.launch.coordinator.enrol import invite
from fedtl.launch.coordinator.folder import make_coordinator
from fedtl.launch.coordinator.given import find_root, roots
from fedtl.launch.coordinator.sites import enrolled
from fedtl.recipe import load_recipe
from fedtl.site.invitation import fingerprint_of, read_invitation
from fedtl.site.node_key import make_node_key


def test_a_folder_is_private_and_its_certificate_is_what_a_site_accepts(tmp_path: Path) -> None:
    made = make_coordinator(tmp_path / "c", address="10.1.2.3:9443", name="trial")
    assert made == read_server(tmp_path / "c")
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700
    open_ones = [p for p in (tmp_path / "c").rglob("*") if p.stat().st_mode & 0o077]
    assert open_ones == []
    ca, server = (certificates.read_certificates(p)[0] for p in (made.ca, made.certificate))
    server.verify_directly_issued_by(ca)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.1.2.3"]
    assert (server.not_valid_after_utc - datetime.now(UTC)).days == 396
    assert (ca.not_valid_after_utc - datetime.now(UTC)).days == 3652
    assert len(made.identity().public) == 32
    # OpenSSL's strict reading, which Python uses by default from 3.13 on
    strict = ("openssl", "verify", "-x509_strict", "-purpose", "sslserver")
    for name in ("server", "loopback"):
        path = made.own_ca.with_name(f"{name}.crt")
        subprocess.run([*strict, "-CAfile", str(made.own_ca), str(path)], check=True)


@pytest.mark.parametrize(
    "address",
    ["", "host", "host:", "host:0", "host:70000", ":9443", "ho st:9443", "::1:9443", "http://h:1",
     "höst:9443", "host:9443/x", "-:x"],
)  # fmt: skip
def test_an_address_that_no_site_could_use_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="is not host:port") as caught:
        make_coordinator(tmp_path / "c", address=address, name="trial")
    assert caught.value.code == "server.address"
    assert not (tmp_path / "c").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    make_coordinator(tmp_path / "c", address="h:1", name="trial")
    before = {p: p.read_bytes() for p in (tmp_path / "c").rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match="nothing was written"):
        make_coordinator(tmp_path / "c", address="h:1", name="trial")
    assert {p: p.read_bytes() for p in (tmp_path / "c").rglob("*") if p.is_file()} == before


@pytest.fixture
def brought(tmp_path: Path) -> Certificates:
    """Return certificates of a hospital's own authority, for the host h."""
    (tmp_path / "tls").mkdir()
    certificates.make_authority(tmp_path, "hospital")
    certificates.make_server_certificate(tmp_path, "h")
    tls = tmp_path / "tls"
    files = {"certificate": tls / "server.crt", "key": tls / "server.key", "ca": tls / "ca.crt"}
    return Certificates(**{key: str(path) for key, path in files.items()})


def test_the_users_own_certificate_is_taken(tmp_path: Path, brought: Certificates) -> None:
    made = make_coordinator(tmp_path / "c", address="h:1", name="trial", given=brought)
    assert str(made.certificate) == brought.certificate
    assert not made.has_own_certificate
    assert made.own_ca != made.ca  # SuperLink's loopback port has its own
    assert roots(certificate=made.certificate, ca=made.ca) == made.ca.read_text()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("host", "Hostname mismatch"),
        ("key", "key values mismatch"),
        ("expired", "certificate has expired"),
        ("ca", "unable to get local issuer"),
        ("no certificate", "no certificate in PEM"),
        ("no key", "cannot be used together"),
        ("password", "cannot be used together"),
    ],
)
def test_a_certificate_that_sites_would_refuse_is_refused(
    tmp_path: Path, brought: Certificates, wrong: str, words: str
) -> None:
    host, values = "h", brought.model_dump()
    other = tmp_path / "other"
    (other / "tls").mkdir(parents=True)
    certificates.make_authority(other, "other")
    if wrong == "host":
        host = "g"
    elif wrong == "key":
        values["key"] = str(other / "tls" / "ca.key")
    elif wrong == "ca":
        values["ca"] = str(other / "tls" / "ca.crt")
    elif wrong == "expired":
        certificates._make(tmp_path, "server", ("h",), -0.5)  # type: ignore[arg-type]
    elif wrong == "no certificate":
        values["certificate"] = str(tmp_path / "nowhere.pem")
    elif wrong == "no key":
        values["key"] = values["certificate"]
    elif wrong == "password":
        locked = tmp_path / "locked.key"
        lock = ("openssl", "ec", "-aes256", "-passout", "pass:x", "-in", values["key"])
        subprocess.run([*lock, "-out", str(locked)], check=True, capture_output=True)
        values["key"] = str(locked)
    with pytest.raises(ConfigError, match=words) as caught:
        make_coordinator(
            tmp_path / "c", address=f"{host}:1", name="x", given=Certificates(**values)
        )
    assert caught.value.code == "server.certificate"
    assert not (tmp_path / "c").exists()


def test_a_root_that_is_not_in_the_chain_is_asked_for(
    tmp_path: Path, brought: Certificates
) -> None:
    with pytest.raises(ConfigError, match="with --ca"):
        find_root(Path(brought.certificate))
    chain = tmp_path / "chain.pem"
    chain.write_text(Path(brought.certificate).read_text() + Path(brought.ca).read_text())
    assert find_root(chain) == chain
    (tmp_path / "elsewhere" / "tls").mkdir(parents=True)
    certificates.make_authority(tmp_path / "elsewhere", "another")
    several = tmp_path / "several.pem"
    several.write_text(
        (tmp_path / "elsewhere" / "tls" / "ca.crt").read_text() + Path(brought.ca).read_text()
    )
    found = roots(certificate=Path(brought.certificate), ca=several)
    assert found == Path(brought.ca).read_text()  # an invitation holds that one only


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('colour = "red"', "'colour' in .* is unknown"),
        ("superlink_port = 0", "superlink_port = 0"),
        ('listen = ["0.0.0.0:1; include /etc/passwd"]', "listen"),
        ("[limits]\nbody_megabytes = 1", "body_megabytes"),
        ('[tls]\nkey = "only.key"', "belong together"),
    ],
)
def test_a_value_of_server_toml_that_makes_no_sense_is_named(
    tmp_path: Path, line: str, words: str
) -> None:
    path = tmp_path / "server.toml"
    rest = {"name": '"x"', "address": '"h:1"', "listen": '["0.0.0.0:1"]', "superlink_port": "2"}
    kept = "\n".join(f"{k} = {v}" for k, v in rest.items() if not line.startswith(k))
    path.write_text(f"{kept}\n{line}\n")
    with pytest.raises(ConfigError, match=words):
        read_server(tmp_path)


def test_an_invitation_names_the_coordinator_and_the_recipe(
    federation: Federation, tmp_path: Path
) -> None:
    recipe, key, out = tmp_path / "r.toml", make_node_key(tmp_path), tmp_path / "x.invite"
    recipe.write_text('name = "digits"\n[train]\nrounds = 2\n')
    _, fingerprint = invite(federation.folder, "north", key=key, out=out, recipes=[recipe])
    shown = subprocess.run(["ssh-keygen", "-lf", str(key)], capture_output=True, text=True)
    assert shown.stdout.split()[1] == fingerprint
    read = read_invitation(out)
    assert read.recipes == (load_recipe(recipe).digest(),)
    assert read.fingerprint == fingerprint_of(federation.coordinator.identity().public)
    assert [s.fingerprint for s in enrolled(federation.folder) if s.name == "north"] == [
        fingerprint
    ]

    def refused(name: str, code: str, *, key: Path = key, again: bool = False) -> None:
        before = enrolled(federation.folder)
        with pytest.raises(ConfigError) as caught:
            invite(federation.folder, name, key=key, out=tmp_path / "new.invite", again=again)
        assert caught.value.code == code
        assert caught.value.next_step
        assert enrolled(federation.folder) == before
        assert not (tmp_path / "new.invite").exists()

    other = tmp_path / "other"
    other.mkdir()
    second = make_node_key(other)
    refused("north", "server.name-taken")
    refused("NORTH", "server.name-taken", key=second)
    refused("north", "server.name-taken", key=second, again=True)
    refused("south", "server.key-taken")
    refused("south", "server.site", again=True)
    refused("../south", "config.invalid", key=second)
    refused("south", "server.private-key", key=second.with_suffix(".key"))
    refused("south", "config.invalid", key=tmp_path / "nowhere.pub")
    for kind in ("rsa", "ed25519"):
        path = tmp_path / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
        refused("south", "config.invalid", key=path.with_suffix(".pub"))
    again = tmp_path / "again.invite"
    invite(federation.folder, "north", key=key, out=again, again=True)
    assert read_invitation(again).recipes == ()
    with pytest.raises(ConfigError, match="is there already"):
        invite(federation.folder, "south", key=second, out=again)


def test_a_damaged_key_is_never_replaced(tmp_path: Path) -> None:
    made = make_coordinator(tmp_path / "c", address="h:1", name="trial")
    (made.folder / "coordinator.key").write_bytes(b"short")
    with pytest.raises(ConfigError, match="missing or damaged"):
        made.identity()
    (made.folder / "tls" / "ca.key").unlink()
    with pytest.raises(ConfigError, match="authority"):
        certificates.make_server_certificate(made.folder, "h")
