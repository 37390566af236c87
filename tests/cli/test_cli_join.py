"""``fedtl site join``, as an engineer with a file from the coordinator does it at a prompt."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from invited import invite

from fedtl.cli import main
from fedtl.site.config import read_site
from fedtl.site.folder import make_site
from fedtl.site.invitation import read_invitation
from fedtl.site.names import spoken


class Person(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    make_site(tmp_path / "site", name="north")
    return tmp_path / "site"


def test_a_person_compares_the_fingerprint_and_then_the_site_has_joined(
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = invite(tmp_path)
    for answer, code in (("n\n", 2), ("y\n", 0)):
        monkeypatch.setattr(sys, "stdin", Person(answer))
        assert main(["site", "join", str(state), str(path)]) == code
        assert (read_site(state).invitation is None) == (code == 2)
    said = capsys.readouterr()
    assert spoken(read_invitation(path).fingerprint) in said.out
    assert "'north' has joined" in said.out
    assert "SHA256:" in said.out
    assert "Call the coordinator" in said.err


def test_without_a_person_nothing_is_believed(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = invite(tmp_path)
    assert main(["site", "join", str(state), str(path)]) == 2
    assert "--yes" in capsys.readouterr().err
    assert read_site(state).invitation is None
    assert main(["site", "join", str(state), str(path), "--yes"]) == 0
    assert read_site(state).invitation is not None


def test_a_folder_of_an_earlier_version_gets_its_key(state: Path, tmp_path: Path) -> None:
    for name in ("node.key", "node.pub"):
        (state / name).unlink()
    assert main(["site", "join", str(state), str(invite(tmp_path)), "--yes"]) == 0
    assert (state / "node.key").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is missing in"),
        (b"\xff\xfe", "not readable TOML"),
        (b"x" * (1 << 21), "too large for an invitation"),
    ],
)
def test_a_file_that_is_no_invitation_gets_a_sentence(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes, said: str
) -> None:
    (tmp_path / "x.invite").write_bytes(text)
    assert main(["site", "join", str(state), str(tmp_path / "x.invite"), "-y"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["site", "join", "--help"]) == 0
    assert "fedtl site join site/ north.invite" in capsys.readouterr().out
