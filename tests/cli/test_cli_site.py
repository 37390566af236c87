"""Setting up a site and examining it, as an operator does at a prompt."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedtl.cli import main

NO_NETWORK = """
import sys

def forbid(event, arguments):
    if event.split(".")[0] in ("socket", "urllib", "http", "ftplib", "smtplib"):
        raise RuntimeError(f"network: {event} {arguments}")

sys.addaudithook(forbid)
from fedtl.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with images of two classes, and nobody at the terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    rng = np.random.default_rng(0)
    for label in ("benign", "malignant"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for n in range(20):
            pixels = rng.integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{n}.png")
    return tmp_path


def small(folder: Path) -> Path:
    """Make the backbone's input small, so that the check is quick."""
    file = folder / "site.toml"
    file.write_text(file.read_text().replace("image_size = 0", "image_size = 32"))
    return folder


def made(work: Path, *more: str) -> Path:
    assert main(["site", "init", "site", "--name", "north", "--data", "images", *more]) == 0
    return small(work / "site")


def checked(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, dict[str, str]]:
    """Check ``site`` as JSON and return the findings by name."""
    capsys.readouterr()
    assert main(["site", "check", "site", "--json", "-q"]) == code
    told = json.loads(capsys.readouterr().out)
    assert Path(told["page"]).is_file()
    found = {finding["name"]: finding for finding in told["findings"]}
    assert told["broken"] == sum(f["state"] == "broken" for f in told["findings"])
    return found


def test_a_new_site_is_ready_in_two_commands(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = made(work)
    said = capsys.readouterr()
    assert "fedtl site check 'site'" in said.out
    assert said.err == ""
    assert main(["site", "check", "site"]) == 0
    said = capsys.readouterr()
    assert "40 images in 2 classes" in said.out
    assert said.out.splitlines()[-1].startswith("Nothing is broken. The page: site")
    assert "images: 40 of 40" in said.err  # progress
    page = (site / "check.html").read_text("utf-8")
    assert "Check of north" in page
    assert page.count("<svg") == 2
    assert (site / "check.html").stat().st_mode & 0o077 == 0


def test_init_asks_nothing_without_a_terminal_and_overwrites_nothing(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", "init", "north-site"]) == 0
    said = capsys.readouterr()
    assert "for the site 'north-site'" in said.out
    assert "data.source" in said.out
    before = {p.name: p.read_bytes() for p in (work / "north-site").iterdir()}
    assert main(["site", "init", "north-site", "--name", "other"]) == 2
    assert "is not empty (node.key, node.pub, policy.toml and more)" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in (work / "north-site").iterdir()} == before
    assert main(["site", "check", "north-site", "-q"]) == 1
    assert "site.toml names no data" in capsys.readouterr().out


def test_init_asks_a_person_for_what_is_not_given(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Person("north\nimages\n"))
    assert main(["site", "init"]) == 0
    text = (work / "site" / "site.toml").read_text()
    assert 'name = "north"' in text
    assert f'source = "{work / "images"}"' in text
    monkeypatch.setattr(sys, "stdin", Person("\n\n"))
    assert main(["site", "init", "other"]) == 0
    assert 'name = "other"' in (work / "other" / "site.toml").read_text()


def test_init_takes_a_known_data_set_and_notes_a_path_that_is_not_there_yet(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", "init", "a", "--data", "digits"]) == 0
    assert 'source = "digits"' in (work / "a" / "site.toml").read_text()
    assert main(["site", "init", "b", "--data", "later"]) == 0
    assert "later' is not there yet" in capsys.readouterr().err
    assert f'source = "{work / "later"}"' in (work / "b" / "site.toml").read_text()


def test_the_digits_are_a_site(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["site", "init", "site", "--data", "digits"]) == 0
    small(work / "site")
    found = checked(capsys)
    assert found["data"]["what"].startswith("1,797 images in 10 classes")
    assert "8x8 pixels; L (128)" in found["images"]["what"]
    assert found["enlarged"]["state"] == "note"


def test_findings_appear_and_vanish_with_their_causes(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = made(work)
    (work / "images" / "benign" / "0.png").write_bytes(b"")
    shutil.copy(work / "images" / "benign" / "1.png", work / "images" / "malignant" / "x.png")
    (site / "policy.toml").unlink()
    found = checked(capsys, code=1)
    states = {name: f["state"] for name, f in found.items() if f["state"] != "ok"}
    assert states == {
        "unreadable files": "broken",
        "duplicates": "note",
        "contradictions": "broken",
        "policy": "note",
        "budget": "note",
    }
    (work / "images" / "benign" / "0.png").unlink()
    (work / "images" / "malignant" / "x.png").unlink()
    (site / "policy.toml").write_text("[budget]\nepsilon = 8\ndelta = 1e-5\n")
    (site / "policy.toml").chmod(0o600)
    assert {finding["state"] for finding in checked(capsys).values()} == {"ok"}


def test_names_that_are_not_utf_8_or_would_be_obeyed_are_shown_safely(
    work: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    made(work)
    folder = os.fsencode(work / "images" / "benign")
    for name in (b"\xff\xfe.png", b"<script>alert(1)<script>.png", b"\x1b[2J.png"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(b"")
    copy = os.fsdecode(folder + b"/\xfd.png")
    shutil.copy(work / "images" / "benign" / "1.png", copy)
    for more in ([], ["--json"]):
        assert main(["site", "check", "site", "-q", *more]) == 1
        said = capsysbinary.readouterr()
        assert b"\x1b" not in said.out
        assert said.err == b""
    page = (work / "site" / "check.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("site.toml", "name = ", "not readable TOML"),
        ("site.toml", "name = 'n'\n[data]\nsorce = 'x'\n", "Did you mean 'source'?"),
        ("policy.toml", "[budgett]\n", "Did you mean 'budget'?"),
        ("policy.toml", "unprotected = true\nonly_sealed = true\n", "contradict each other"),
    ],
)
def test_a_mistake_in_a_file_is_one_paragraph_with_a_cure(
    work: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, said: str
) -> None:
    made(work)
    (work / "site" / file).write_text(text)
    capsys.readouterr()
    assert main(["site", "check", "site", "-q"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert said in told.err
    assert file in told.err
    assert not (work / "site" / "check.html").exists()


def test_what_is_missing_is_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["site", "check", "nowhere"]) == 2
    assert "fedtl site init 'nowhere'" in capsys.readouterr().err
    made(work)
    shutil.rmtree(work / "images")
    found = checked(capsys, code=1)
    assert found["data"]["state"] == "broken"
    assert "There is no folder" in found["data"]["what"]
    (work / "images" / "benign").mkdir(parents=True)
    (work / "images" / "benign" / "a.png").write_bytes(b"")
    assert "benign/a.png (zero-byte)" in checked(capsys, code=1)["data"]["what"]


def test_a_folder_that_may_not_be_read_is_a_finding(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(work)
    closed, scandir = work / "images" / "malignant", os.scandir

    def refused(path: str | Path) -> object:
        if Path(path) == closed:  # what the system says to anybody but root after chmod 000
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refused)
        found = checked(capsys, code=1)["data"]
    assert "cannot be listed (Permission denied)" in found["what"]
    assert found["cure"] == "Give this account the right to read it."
    assert checked(capsys)["data"]["state"] == "ok"


def test_a_page_that_cannot_be_written_costs_no_finding(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(work)
    (work / "site" / "check.html").mkdir()
    capsys.readouterr()
    assert main(["site", "check", "site", "-q"]) == 1
    said = capsys.readouterr().out
    assert "40 images in 2 classes" in said
    assert "check.html' cannot be written" in said


def test_a_folder_of_a_class_may_have_any_name(
    work: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    made(work)
    odd = os.fsdecode(os.fsencode(work / "images") + b"/\xff\x1b[2J<b>")
    os.rename(work / "images" / "benign", odd)
    assert main(["site", "check", "site", "-q"]) == 0
    assert b"\x1b" not in capsysbinary.readouterr().out
    assert "<b>" not in (work / "site" / "check.html").read_text("utf-8")


def test_the_check_opens_no_connection(work: Path) -> None:
    """Where the weights are not at hand, the hub is not asked for them either."""
    made(work)
    command = [sys.executable, "-c", NO_NETWORK, "site", "check", "site", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    file = work / "site" / "site.toml"
    file.write_text(file.read_text().replace("tf_efficientnet_lite0", "resnet18"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No weights were found for the backbone 'resnet18'" in done.stdout
    assert "the hub (not asked: nothing may leave this machine)" in done.stdout
    assert "network:" not in done.stdout + done.stderr


def test_the_hook_of_the_test_above_does_forbid() -> None:
    code = NO_NETWORK.split("from fedtl")[0] + "import socket; socket.create_connection(('::1', 9))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RuntimeError: network: socket." in done.stderr


@pytest.mark.parametrize("command", ["init", "check"])
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main(["site", command, "--help"]) == 0
    assert f"fedtl site {command} site/" in capsys.readouterr().out
