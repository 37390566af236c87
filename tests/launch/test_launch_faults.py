"""One site goes wrong: the run goes on, names it by a code, and nothing of it gets out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from small import recipe, run
from toys import CANARY

from fedtl.apps.client import make_client_app
from fedtl.backbone import BackboneCard, resolve
from fedtl.backbone.engine import eager
from fedtl.backbone.model import build as build_backbone
from fedtl.errors import DataError
from fedtl.launch.federation import Federation, Sites, build
from fedtl.launch.simulate import simulate
from fedtl.train.fit import Examples
from fedtl.transport.local import LocalGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.wire.arrays import pack
from fedtl.wire.messages import TRAIN


def faulty(monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    """Give one site other examples, or an error in place of them."""
    real = Federation._examples

    def examples(self: Federation, at: int) -> tuple[Examples, Examples]:
        train, held_out = real(self, at)
        return (fault(train), held_out) if at == 1 else (train, held_out)

    monkeypatch.setattr(Federation, "_examples", examples)


def with_nan(train: Examples) -> Examples:
    x = train.x.clone()
    x[2, 3] = float("nan")
    return Examples.of(x, train.y)


def unreadable(train: Examples) -> Examples:
    raise DataError(f"/secret/{CANARY}/7.png is unreadable: {CANARY}", code="data.unreadable")


def broken(train: Examples) -> Examples:
    raise RuntimeError(f"{CANARY}: label 'patient-{CANARY}' at /secret/{CANARY}.csv:3")


@pytest.mark.parametrize(
    ("fault", "code"),
    [(with_nan, "data.invalid"), (unreadable, "data.unreadable"), (broken, "site.failed")],
)
@pytest.mark.parametrize("via", ["local", "stacked"])
def test_a_failing_site_is_named_by_a_code_and_nothing_of_it_gets_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: Any, code: str, via: str
) -> None:
    faulty(monkeypatch, fault)
    seen: list[str] = []
    real = LocalGrid.send_and_receive

    def watched(self: LocalGrid, messages: Any, *, timeout: float | None = None) -> Any:
        replies = list(real(self, messages, timeout=timeout))
        seen.extend(str(vars(r)) + str(r) for r in replies)
        return replies

    monkeypatch.setattr(LocalGrid, "send_and_receive", watched)
    chosen = recipe(transport__via=via, partition__kind="iid")
    finished = simulate(chosen, tmp_path, html=True)
    failing = {s.name: s.failures for s in finished.result.sites if s.failures}
    name = finished.result.sites[1].name
    assert failing == {name: {code: 2}}
    assert finished.result.sites[1].epsilon == 0.0
    assert finished.result.accuracy is not None
    assert seen
    everything = "".join(seen)
    for file in tmp_path.rglob("*"):
        if file.is_file():
            everything += file.read_bytes().decode("latin-1")
    assert code in everything
    assert CANARY not in everything
    assert "/secret" not in everything


def test_a_poisoned_update_is_dropped_and_named(tmp_path: Path) -> None:
    """NaN from one site, by whatever way, must not reach the head of all."""
    chosen = recipe(privacy__enabled=False)
    federation = build(chosen)
    site_of = Sites.of(federation, {})
    app = make_client_app(site_of)

    def poisoned(message: Message, context: Context) -> Message:
        answer = app(message, context)
        if message.metadata.message_type == TRAIN and context.node_config["partition-id"] == 2:
            weights = np.full((10, federation.width), np.nan, np.float32)
            answer.content["arrays"] = pack({"weight": weights})
        return answer

    finished = run(tmp_path, chosen, grid=LocalGrid(poisoned, federation.names))  # type: ignore[arg-type]
    failures = [s.failures for s in finished.result.sites]
    assert failures == [{}, {}, {"update.not-finite": 2}]
    assert np.isfinite(finished.head["weight"]).all()
    clean = run(
        tmp_path / "clean", chosen, grid=StackedGrid(app, federation.names, site_of=site_of)
    )
    assert not np.array_equal(finished.head["weight"], clean.head["weight"])


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_not_one_bit_of_a_frozen_backbone_moves_in_a_private_run(
    fresh_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    """Running statistics of a BatchNorm that moved would be private, un-noised, and everybody's."""
    resolve("tf_efficientnet_lite0")  # brings the weights into the store
    files = [p for p in (fresh_home / "backbones").rglob("*.safetensors") if p.is_file()]
    on_disk = {p: p.read_bytes() for p in files}
    alive: list[tuple[torch.nn.Module, dict[str, torch.Tensor]]] = []

    def watched(card: BackboneCard) -> torch.nn.Module:
        model = build_backbone(card)
        alive.append((model, {k: v.clone() for k, v in model.state_dict().items()}))
        return model

    monkeypatch.setattr(eager, "build", watched)
    changes = {"backbone__engine": "reference", "data__limit": 60, "partition__kind": "iid"}
    finished = run(tmp_path, recipe(**changes, head__kind=head))
    assert finished.result.sites[0].epsilon
    ((model, before),) = alive
    after = model.state_dict()
    assert sum("running_" in name for name in after) > 50
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(module.training for module in model.modules())
    assert on_disk
    assert {p: p.read_bytes() for p in files} == on_disk
