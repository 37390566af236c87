"""Joining: the site's own key, and what a site believes once it has taken an invitation."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from invited import invite

from fedtl.errors import ConfigError
from fedtl.site.config import ROOT_CERTIFICATES, read_site
from fedtl.site.folder import make_site
from fedtl.site.invitation import read_invitation
from fedtl.site.joining import check_invitation, keep_invitation
from fedtl.site.node_key import NODE_KEY, NODE_PUBLIC, make_node_key, node_fingerprint

OTHER = "cd" * 32


@pytest.fixture
def state(tmp_path: Path) -> Path:
    make_site(tmp_path / "site", name="north")
    return tmp_path / "site"


def edited(state: Path, file: str, before: str, after: str) -> None:
    text = (state / file).read_text()
    assert before in text
    (state / file).write_text(text.replace(before, after))


def join(state: Path, path: Path, *, replace: bool = False) -> None:
    invitation = read_invitation(path)
    check_invitation(read_site(state), invitation, replace=replace)
    keep_invitation(state, invitation)


def test_the_key_of_a_new_site_is_one_that_openssh_reads(state: Path) -> None:
    """The private half for its owner alone, and both sides see the fingerprint ssh-keygen shows."""
    told = subprocess.run(
        ["ssh-keygen", "-lf", str(state / NODE_PUBLIC)], capture_output=True, text=True, check=True
    )
    assert told.stdout.split()[:2] == ["384", node_fingerprint(state / NODE_PUBLIC)]
    half = subprocess.run(
        ["ssh-keygen", "-yf", str(state / NODE_KEY)], capture_output=True, text=True, check=True
    )
    assert half.stdout.split()[:2] == (state / NODE_PUBLIC).read_text().split()[:2]
    assert stat.S_IMODE((state / NODE_KEY).stat().st_mode) == 0o600


def test_a_key_is_made_where_it_is_missing_and_never_changed(state: Path) -> None:
    """Folders of an earlier version have none."""
    first = (state / NODE_KEY).read_bytes(), (state / NODE_PUBLIC).read_bytes()
    make_node_key(state)
    (state / NODE_PUBLIC).unlink()
    make_node_key(state)
    assert ((state / NODE_KEY).read_bytes(), (state / NODE_PUBLIC).read_bytes()) == first
    (state / NODE_KEY).unlink()
    make_node_key(state)
    assert (state / NODE_PUBLIC).read_bytes() != first[1]


@pytest.mark.parametrize("text", [b"", b"\xff\x00", b"ssh-ed25519 AAAA", b"x" * 9000])
def test_a_damaged_key_is_named(state: Path, text: bytes) -> None:
    (state / NODE_PUBLIC).write_bytes(text)
    with pytest.raises(ConfigError, match="is not the public key of a site"):
        node_fingerprint(state / NODE_PUBLIC)
    (state / NODE_KEY).write_bytes(text)
    (state / NODE_PUBLIC).unlink()
    with pytest.raises(ConfigError, match="is damaged"):
        make_node_key(state)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(command, check=True)
    with pytest.raises(ConfigError, match="ECDSA P-384"):
        node_fingerprint(tmp_path / "key.pub")


def test_a_site_that_joined_answers_its_coordinator_alone(state: Path, tmp_path: Path) -> None:
    assert read_site(state).policy.coordinators == ()
    path = invite(tmp_path, recipes=(OTHER,))
    join(state, path)
    site, invitation = read_site(state), read_invitation(path)
    assert site.policy.coordinators == (invitation.fingerprint,)
    assert site.policy.recipes == (OTHER,)
    assert site.config.server.address == "fed.example.org:9443"
    roots = Path(site.config.server.root_certificates)
    assert roots == state.resolve() / ROOT_CERTIFICATES
    assert roots.read_text() == invitation.certificates
    assert site.invitation == invitation


def test_what_the_sites_own_files_say_goes_before_the_invitation(
    state: Path, tmp_path: Path
) -> None:
    path = invite(tmp_path, recipes=(OTHER,))
    named = read_invitation(path).fingerprint
    edited(state, "site.toml", 'address = ""', 'address = "proxy:1"')
    edited(state, "site.toml", 'root_certificates = ""', 'root_certificates = "/own/ca.pem"')
    edited(state, "policy.toml", "coordinators = []", f'coordinators = ["{named}", "{"ab" * 32}"]')
    edited(state, "policy.toml", "recipes = []", f'recipes = ["{"ef" * 32}"]')
    join(state, path)
    site = read_site(state)
    assert (site.config.server.address, site.config.server.root_certificates) == (
        "proxy:1",
        "/own/ca.pem",
    )
    assert site.policy.coordinators == (named, "ab" * 32)
    assert site.policy.recipes == ("ef" * 32,)


def test_the_strict_default_is_pinned_as_well(state: Path, tmp_path: Path) -> None:
    (state / "policy.toml").unlink()
    path = invite(tmp_path)
    join(state, path)
    assert read_site(state).policy.coordinators == (read_invitation(path).fingerprint,)
    assert not read_site(state).has_policy


def test_an_invitation_for_somebody_else_is_refused(state: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="for 'south', and this site is 'north'") as error:
        join(state, invite(tmp_path, "south"))
    assert error.value.code == "join.site"
    assert read_site(state).invitation is None


def test_another_coordinator_takes_a_decision(state: Path, tmp_path: Path) -> None:
    first = invite(tmp_path)
    join(state, first)
    key = bytes.fromhex(read_invitation(first).coordinator)
    join(state, invite(tmp_path, coordinator=key, address="moved.example.org:1"))  # the same one
    assert read_site(state).config.server.address == "moved.example.org:1"
    second = invite(tmp_path)
    with pytest.raises(ConfigError, match="already") as error:
        join(state, second)
    assert "--replace" in error.value.next_step
    join(state, second, replace=True)
    assert read_site(state).policy.coordinators == (read_invitation(second).fingerprint,)


def test_a_policy_that_names_others_is_not_overruled(state: Path, tmp_path: Path) -> None:
    edited(state, "policy.toml", "coordinators = []", f'coordinators = ["{OTHER}"]')
    with pytest.raises(ConfigError, match=r"policy\.toml does not name") as error:
        join(state, invite(tmp_path))
    assert error.value.code == "join.policy"


def test_a_damaged_invitation_in_the_folder_stops_the_site(state: Path, tmp_path: Path) -> None:
    """Rather than a site that suddenly answers anybody."""
    join(state, invite(tmp_path))
    (state / "invitation.toml").write_text("version = 1")
    with pytest.raises(ConfigError, match="is missing in"):
        read_site(state)
