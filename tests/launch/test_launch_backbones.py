"""A site is given its backbone by the coordinator, over a real socket, and prepares meanwhile."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict
from pictures import small_site
from safetensors.numpy import load, save
from senders import Sender, card_and_weights

from fedtl.agent.client import AgentClient
from fedtl.agent.server import serving
from fedtl.backbone import BackboneCard
from fedtl.errors import PrivacyError
from fedtl.launch import own_site as module
from fedtl.launch.own_site import SOCKET, OwnSite, own_site
from fedtl.privacy.secagg import Identity
from fedtl.recipe import Recipe
from fedtl.site.config import read_site
from fedtl.transport._identity import ensure_identity
from fedtl.types import Description
from fedtl.wire.backbone import Offer
from fedtl.wire.charter import CHARTER, Charter, read_charter, sign_charter
from fedtl.wire.messages import DESCRIBE, TRAIN, read_description

ensure_identity()


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[BackboneCard, bytes]:
    return card_and_weights(tmp_path_factory.mktemp("coordinator"))


@pytest.fixture
def state(tmp_path: Path, fresh_home: Path) -> Path:
    """A site that names no backbone of its own."""
    state = small_site(tmp_path)
    edit(state, "site.toml", 'name = "tf_efficientnet_lite0"', 'name = ""')
    return state


def edit(state: Path, file: str, before: str, after: str) -> None:
    text = (state / file).read_text()
    assert before in text
    (state / file).write_text(text.replace(before, after))


@contextmanager
def served(state: Path) -> Iterator[OwnSite]:
    with own_site(read_site(state)) as site, serving(site, state / SOCKET):
        yield site


def described(state: Path) -> Description:
    asked = Message(RecordDict(), 1, DESCRIBE)
    return read_description(AgentClient(state / SOCKET).ask(asked, 7, timeout=60))


def trained(state: Path) -> str:
    """Return the failure code of a message that asks for nothing in particular."""
    reply = AgentClient(state / SOCKET).ask(Message(RecordDict(), 1, TRAIN), 7, timeout=60)
    return str(reply.error.reason)


def test_a_backbone_is_sent_once_and_kept_over_a_restart(
    state: Path, sent: tuple[BackboneCard, bytes]
) -> None:
    card, weights = sent
    with served(state) as site:
        assert site.settle().state == "no backbone"
        before = described(state)
        assert (before.state, before.backbone, before.width) == ("no backbone", "", 0)
        assert before.classes == ("benign", "malignant")
        assert trained(state) == "site.no-backbone"
        sender = Sender(state / SOCKET, card, weights)
        assert sender.send() == len(weights)
        assert len(sender.told) == 1 + -(-len(weights) // (5 << 20))
        assert site.settle().state == "ready"
        told = described(state)
        assert (told.state, told.backbone, told.width) == ("ready", card.digest(), card.width + 1)
        status = AgentClient(state / SOCKET).status()
        assert (status.state, status.backbone) == ("ready", card.digest())
        assert status.architecture == "tf_efficientnet_lite0"
    with served(state) as site:  # nobody sends anything any more
        assert site.settle().state == "ready"
        assert described(state).backbone == card.digest()
        again = Sender(state / SOCKET, card, weights)
        assert again.send() == len(weights)
        assert again.told == [len(weights)]


def test_an_offer_of_the_active_backbone_changes_nothing(
    state: Path, sent: tuple[BackboneCard, bytes]
) -> None:
    """Neither where the policy accepts none: the site has it of its own."""
    edit(state, "site.toml", 'name = ""', 'name = "tf_efficientnet_lite0"')
    edit(state, "policy.toml", "accept_backbones = true", "accept_backbones = false")
    with served(state) as site:
        assert site.settle().state == "ready"
        kept = site.site()
        assert Sender(state / SOCKET, *sent).offer() == len(sent[1])
        assert site.stage().state == "ready"
        assert site.site() is kept
        other = replace(sent[0], image_size=64)
        assert Sender(state / SOCKET, other, sent[1]).offer() == "policy.backbone"
        assert Sender(state / SOCKET, other, sent[1]).piece(0, 100) == "policy.backbone"
        assert described(state).state == "ready"


def test_a_site_that_accepts_none_says_so(state: Path, sent: tuple[BackboneCard, bytes]) -> None:
    edit(state, "policy.toml", "accept_backbones = true", "accept_backbones = false")
    with served(state) as site:
        site.settle()
        assert Sender(state / SOCKET, *sent).send() == "policy.backbone"


def tampered(weights: bytes) -> bytes:
    """Return weights of a good digest that no architecture fits: a tensor has another shape."""
    tensors = load(weights)
    first = sorted(tensors)[0]
    return save({**tensors, first: tensors[first].reshape(-1)[:1]})


BAD = {
    "another shape": lambda card, weights: (card, tampered(weights)),
    "no tensors": lambda card, weights: (card, b"PK" + weights[:5000]),
    "another architecture": lambda card, weights: (
        replace(card, architecture="resnet10t"),
        weights,
    ),
    "another width": lambda card, weights: (
        replace(card, tap_widths=(7, *card.tap_widths[1:])),
        weights,
    ),
}


def test_weights_that_are_no_backbone_leave_the_one_before(
    state: Path, sent: tuple[BackboneCard, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with served(state) as site:
        Sender(state / SOCKET, *sent).send()
        assert site.settle().state == "ready"
        for what, spoil in BAD.items():
            card, weights = spoil(*sent)
            card = replace(card, sha256=hashlib.sha256(weights).hexdigest())
            card = replace(card, crop_pct=0.5)  # or it would be the active one, to its digest
            assert Sender(state / SOCKET, card, weights).send() == len(weights)
            assert site.settle().state == "backbone.invalid", what
            told = described(state)
            assert (told.state, told.backbone) == ("backbone.invalid", sent[0].digest())
            assert trained(state) == "message.invalid"  # the backbone before still answers
        unknown = replace(sent[0], architecture="no_such_net")
        Sender(state / SOCKET, unknown, sent[1]).send()
        assert site.settle().state == "backbone.unknown"
        assert Sender(state / SOCKET, *sent).offer() == len(sent[1])
        assert described(state).state == "ready"
    with served(state) as site:
        assert site.settle().backbone == sent[0].digest()  # and it is what a restart knows


def test_the_swap_waits_for_the_training_that_goes_on(
    state: Path, sent: tuple[BackboneCard, bytes]
) -> None:
    with served(state) as site:
        Sender(state / SOCKET, *sent).send()
        site.settle()
        before, larger = site.site(), replace(sent[0], image_size=64)
        with site.turn:  # as while a message is answered
            site.receive(Offer(larger.to_json(), len(sent[1])))
            until = time.monotonic() + 60
            while (reached := site.stage()).phase != "features" and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(0.5)
            assert (reached.phase, site.stage().state) == ("features", "preparing")
            assert site.site() is before
        assert site.settle().state == "ready"
        assert site.site() is not before
        assert described(state).backbone == larger.digest()


def test_while_it_prepares_a_site_can_be_described_and_does_nothing_else(
    state: Path, sent: tuple[BackboneCard, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    real = module.open_data
    monkeypatch.setattr(module, "open_data", lambda *asked: (go.wait(30), real(*asked))[1])
    with served(state) as site:
        assert described(state).state == "preparing"
        assert trained(state) == "site.preparing"
        assert AgentClient(state / SOCKET).status().state == "preparing"
        assert Sender(state / SOCKET, *sent).send() == len(sent[1])  # the way may be used meanwhile
        go.set()
        assert site.settle().state == "ready"


def test_what_went_wrong_is_tried_again_but_not_at_once(
    state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []
    real = module.open_data
    monkeypatch.setattr(module, "open_data", lambda *asked: (tried.append(1), real(*asked))[1])
    monkeypatch.setattr(module, "RETRY_SECONDS", 1.0)
    bad = state.parent / "images" / "benign" / "bad.png"
    bad.write_bytes(b"no picture")
    with served(state) as site:
        code = site.settle().state
        assert code.startswith("data.")
        assert "bad.png" in caplog.text
        for _ in range(20):
            assert described(state).state == code
        assert len(tried) == 1
        bad.unlink()
        time.sleep(1.1)
        assert described(state).state == code
        assert site.settle().state == "no backbone"
        assert len(tried) == 2
        assert "bad.png" not in str(described(state))


def test_only_the_sites_own_coordinator_may_send_one(
    state: Path, sent: tuple[BackboneCard, bytes]
) -> None:
    key = Identity(bytes(range(32)))
    edit(state, "policy.toml", "coordinators = []", f'coordinators = ["{fingerprint(key)}"]')
    card, weights = sent
    offer = Offer(card.to_json(), len(weights))
    with served(state) as site:
        for other in (None, charter(Identity(bytes(32)))):
            with pytest.raises(PrivacyError) as error:
                site.receive(offer, other)
            assert error.value.code == "policy.coordinator"
        assert site.receive(offer, charter(key)) == 0


def charter(key: Identity) -> Charter | None:
    return read_charter(RecordDict({CHARTER: sign_charter(key, run="run-1", recipe=Recipe())}))


def fingerprint(key: Identity) -> str:
    return hashlib.sha256(key.public).hexdigest()
