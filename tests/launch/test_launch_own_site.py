"""From a folder of pictures and two files to a site that an agent serves."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from PIL import Image

from fedtl.agent.client import AgentClient
from fedtl.agent.server import serving
from fedtl.backbone import open_engine
from fedtl.errors import ConfigError, FedtlError
from fedtl.launch.opening import accelerators
from fedtl.launch.own_site import SOCKET, OwnSite, own_site
from fedtl.privacy.ledger import Ledger
from fedtl.privacy.plan import PrivacyPlan, Release
from fedtl.site.config import IDENTITY, read_site
from fedtl.site.folder import make_site
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport._identity import ensure_identity
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import DESCRIBE, EVALUATE, TRAIN, read_description, task_config

ensure_identity()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A hospital's state folder: twenty pictures of two kinds, of ten patients."""
    rng = np.random.default_rng(0)
    lines = ["path,label,group"]
    for at in range(20):
        label = ("benign", "malignant")[at % 2]
        pixels = rng.integers(90 * (at % 2), 90 * (at % 2) + 120, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{at}.png")
        lines.append(f"{at}.png,{label},patient-{at // 2}")
    (tmp_path / "ward.csv").write_text("\n".join(lines) + "\n")
    folder = tmp_path / "state"
    make_site(folder, name="north", source=str(tmp_path / "ward.csv"))
    file = folder / "site.toml"
    file.write_text(file.read_text().replace("image_size = 0", "image_size = 32"))
    return folder


def asked(unit: str, *, width: int = 2209) -> RecordDict:
    release = Release(mechanism="gradients", noise_multiplier=2.0, count=3, unit=unit)  # type: ignore[arg-type]
    config = task_config(TrainTask(rounds=3, lr=1.0), PrivacyPlan(1e4, 1e-5, (release,)))
    return RecordDict({"arrays": pack(initial_head("linear", width, 2)), "config": config})


@contextmanager
def taking_part(state: Path) -> Iterator[OwnSite]:
    """Serve a site once it is ready, or cannot be."""
    with own_site(read_site(state)) as site, serving(site, state / SOCKET):
        site.settle()
        yield site


def ask(folder: Path, kind: str, content: RecordDict) -> Message:
    return AgentClient(folder / SOCKET).ask(Message(content, 1, kind), 7, timeout=60)


def test_a_hospitals_folder_takes_part_through_its_agent(state: Path) -> None:
    with taking_part(state):
        told = read_description(ask(state, DESCRIBE, RecordDict()))
        assert (told.name, told.classes, told.width) == ("north", ("benign", "malignant"), 2209)
        update = ask(state, TRAIN, asked("group"))
        assert np.abs(unpack(update.content["arrays"])["weight"]).max() > 0  # type: ignore[arg-type]
        # patients are what is protected here: a plan for single pictures would cost them more
        assert ask(state, TRAIN, asked("example")).error.reason == "policy.unit"
        assert ask(state, EVALUATE, asked("group")).error.reason == "policy.metrics"
    with Ledger.open(state / "ledger.sqlite", read_only=True) as ledger:
        assert [e.kind for e in ledger.entries()] == ["charge", "reply"]
        assert {d.unit for d in ledger.datasets()} == {"group"}
    assert not (state / SOCKET).exists()


def test_the_budget_of_the_policy_holds_over_restarts(state: Path) -> None:
    file = state / "policy.toml"
    file.write_text(file.read_text().replace("epsilon = 8.0", "epsilon = 2.5"))
    for reasons in ([None, "privacy.budget"], ["privacy.budget", "privacy.budget"]):
        with taking_part(state):
            for reason in reasons:
                content = asked("group")
                content["config"]["server-round"] = 1 if reason is None else 2
                reply = ask(state, TRAIN, content)
                assert (reply.error.reason if reply.has_error() else None) == reason


def test_the_key_by_which_others_know_the_site_lasts(state: Path) -> None:
    keys = []
    for _ in range(2):
        with taking_part(state) as served:
            identity = served.site().identity
            assert identity is not None
            keys.append(identity.public)
    assert keys[0] == keys[1]
    assert stat.S_IMODE((state / IDENTITY).stat().st_mode) == 0o600
    (state / IDENTITY).write_bytes(b"short")
    with pytest.raises(ConfigError, match="is damaged"), own_site(read_site(state)):
        pass


def test_a_site_without_data_says_what_to_fill_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In its own log; others are told a code."""
    make_site(tmp_path / "state", name="south")
    with taking_part(tmp_path / "state") as site:
        assert site.stage().state == "config.invalid"
        assert ask(tmp_path / "state", TRAIN, asked("group")).error.reason == "config.invalid"
    assert "data.source in site.toml is empty" in caplog.text


def test_a_tampered_ledger_keeps_the_agent_from_starting(state: Path) -> None:
    with taking_part(state):
        assert ask(state, TRAIN, asked("group")).has_content()
    file = state / "ledger.sqlite"
    file.write_bytes(file.read_bytes().replace(b"gaussian", b"gaussiam"))
    with pytest.raises(FedtlError) as error, own_site(read_site(state)):
        pass
    assert error.value.code == "ledger.broken"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_an_accelerator_that_is_not_there_is_named(
    state: Path, device: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Rather than a day of work on the CPU that nobody noticed."""
    if device in accelerators():
        pytest.skip(f"{device} is there")
    file = state / "site.toml"
    file.write_text(file.read_text().replace('device = "auto"', f'device = "{device}"'))
    with taking_part(state) as site:
        assert site.stage().state == "config.invalid"
    assert f"device = '{device}' is not there" in caplog.text


def test_the_settings_of_the_machine_reach_the_backbone(
    state: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = open_engine
    monkeypatch.setattr(
        sys.modules["fedtl.features.extract"],
        "open_engine",
        lambda card, kind, **options: asked.append((kind, options)) or real(card, kind, **options),
    )
    file = state / "site.toml"
    text = file.read_text().replace('device = "auto"', 'device = "cpu"')
    file.write_text(text.replace("threads = 0", "threads = 1"))
    with taking_part(state) as site:
        assert site.stage().state == "ready"
    assert asked == [("onnx", {"threads": 1, "precision": "fp32"})]
