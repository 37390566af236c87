"""The guard is real: a hostile ClientApp under another Unix user than the agent's gets nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from pictures import small_site

from fedtl.agent.client import AgentClient
from fedtl.errors import TransportError
from fedtl.home import home
from fedtl.launch.plans import plan_of
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.ledger import Ledger
from fedtl.privacy.secagg import Identity
from fedtl.recipe import Recipe
from fedtl.site.invitation import fingerprint_of
from fedtl.wire.charter import sign_charter

APP, GROUP = 64002, 64003
"""A Unix user of no other use, and the group that may use the agent's socket."""
KEY = Identity(bytes(range(32)))
"""The coordinator's."""

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)


def honest() -> tuple[dict[str, str], str]:
    """Return what the coordinator of an honest run sends, and its fingerprint."""
    recipe = Recipe.model_validate(
        {
            "train": {"rounds": 5, "local_steps": 1},
            "privacy": {"epsilon": 4.0, "public_size": 16, "metrics": "noised"},
        }
    )
    plan = plan_of(recipe, mean_size=0, sites=2)
    assert plan is not None
    charter = sign_charter(KEY, run="run-1", recipe=recipe)
    signed = {k: v.hex() for k, v in charter.items() if isinstance(v, bytes)}
    sent = {"recipe": recipe.model_dump_json(), "plan": plan.to_json(), **signed}
    return sent, fingerprint_of(KEY.public)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Serve a site in a place that the other user can walk to; return its state folder.

    The state folder belongs to the socket's group, whose members may walk to the socket only.
    """
    place = Path(tempfile.mkdtemp(prefix="guard-"))
    place.chmod(0o755)
    monkeypatch.setenv("FEDTL_HOME", str(place / "home"))
    state = small_site(place)
    if named := getattr(request, "param", ""):
        policy = state / "policy.toml"
        text = policy.read_text().replace("coordinators = []", f'coordinators = ["{named}"]')
        policy.write_text(text)
    (place / "images").chmod(0o700)
    os.chown(state, -1, GROUP)
    state.chmod(0o2710)
    agent = subprocess.Popen(
        [sys.executable, "-m", "fedtl", "site", "agent", str(state), "--mode", "660"],
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 90
    while not is_ready(state) and time.monotonic() < until:
        assert agent.poll() is None, agent.stderr and agent.stderr.read()
        time.sleep(0.1)
    yield state
    agent.terminate()
    agent.communicate(timeout=30)
    shutil.rmtree(place)


def is_ready(state: Path) -> bool:
    try:
        return AgentClient(state / "agent.sock").status().state == "ready"
    except TransportError:
        return False


def hostile(state: Path, *, group: int) -> dict[str, str]:
    places = [str(state), str(state.parent / "images"), str(home())]
    found: dict[str, str] = json.loads(app("hostile_app.py", *places, str(APP), str(group)))
    return found


def app(name: str, *arguments: str, sent: str = "") -> str:
    """Run a hostile app, and return what it printed."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(here / name), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])},
        input=sent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(found: dict[str, str]) -> set[str]:
    """Return what all attempts on files, of which there are ten, came to."""
    verbs = ("list", "read", "change", "delete", "take")
    told = [got for what, got in found.items() if what.split()[0] in verbs]
    assert len(told) == 10
    return set(told)


def test_a_hostile_app_gets_nothing_and_spends_nothing(state: Path) -> None:
    found = hostile(state, group=GROUP)
    assert {what: got for what, got in found.items() if got.startswith("GOT")} == {}
    assert found["a raw update"] == found["raw sums"] == "policy.unprotected"
    assert found["the labels"] == found["the exact results"] == "policy.metrics"
    assert found["the features"] == "message.invalid"
    assert found["an update without its noise"] == "secagg.required"
    assert found["more than the plan"] == "privacy.spent"
    assert files(found) == {"PermissionError"}
    with Ledger.open(state / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.entries() == ()


def test_outside_the_group_the_socket_is_shut(state: Path) -> None:
    found = hostile(state, group=APP)
    assert {what: got for what, got in found.items() if got.startswith("GOT")} == {}
    assert files(found) == {"PermissionError"}
    assert found["a raw update"] == found["the labels"] == "agent.unavailable"


@pytest.mark.parametrize("state", [honest()[1]], indirect=True)
def test_whoever_carries_a_charter_gets_what_the_coordinator_signed_and_no_more(
    state: Path,
) -> None:
    sent, _ = honest()
    told = json.loads(app("greedy_app.py", str(state), str(APP), str(GROUP), sent=json.dumps(sent)))
    codes, got = told["codes"], b64decode(told["bytes"])
    assert codes.pop("honest") == codes.pop("replayed")  # byte for byte, and paid for once
    again = [codes.pop(name) for name in list(codes) if name.startswith("again")]
    assert codes == {
        "no charter": "policy.coordinator",
        "another's charter": "policy.coordinator",
        "a forged recipe": "charter.invalid",
        "more steps": "charter.task",
        "batches of one": "charter.task",
        "a weaker plan": "charter.plan",
        "no plan": "charter.plan",
        "clear results": "charter.plan",
        "the labels": "policy.metrics",
        "a head of NaN": "head.invalid",
        "path names": "head.invalid",
        "too much": "message.too-large",
        "two heads": "message.invalid",
        "a backbone": "policy.coordinator",
    }
    assert [code.split()[0] for code in again[:4]] == ["answered"] * 4
    assert set(again[4:]) == {"privacy.spent"}
    with Ledger.open(state / "ledger.sqlite", read_only=True) as ledger:
        ledger.verify()
        assert sum(entry.kind == "charge" for entry in ledger.entries()) == 5
        (dataset,) = ledger.datasets()
        spent = epsilon_of(ledger.spend(dataset), 1e-5, accountant="gaussian")
        assert 3.9 < spent <= 4.0
    for canary in (b".png", b"images", b"malignant", str(state.parent).encode()):
        assert canary not in got
    assert len(got) > 1000
