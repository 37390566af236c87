"""Client-side steps: what the hooks may do, and that privacy does not depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from slow import Fixed
from torch import Tensor
from torch.nn import functional
from toys import toy_examples, toy_release

from fedtl.errors import ConfigError, FedtlError, PrivacyError
from fedtl.train.fit import Examples, fit
from fedtl.train.heads import initial_head
from fedtl.train.mlp import fit_mlp_head
from fedtl.train.objectives import (
    OBJECTIVES,
    Bound,
    Local,
    LocalObjective,
    ObjectiveName,
    check_sent,
    make_objective,
)
from fedtl.train.task import TrainTask
from fedtl.types import Arrays

C, D = 3, 6


class Smoothed(LocalObjective):
    """Label smoothing: another loss, whose targets the server may send."""

    def __init__(self, *, share: float = 0.3) -> None:
        self.share = share

    def residuals(self, scores: Tensor, y: Tensor, sent: Mapping[str, Tensor]) -> Tensor:
        wanted = functional.one_hot(y, scores.shape[1]) * (1 - self.share)
        return torch.softmax(scores, 1) - wanted - self.share / scores.shape[1]


class Ball(LocalObjective):
    """After every step the head is put back into a ball."""

    def after_step(self, weights: Tensor, local: Local) -> None:
        norms = weights.flatten(1).norm(dim=1).clamp(min=0.5)
        weights.mul_((0.5 / norms).view(-1, *[1] * (weights.dim() - 1)))


def trained(
    rule: LocalObjective, *, release: bool = False, sites: int = 1, steps: int = 4
) -> torch.Tensor:
    start = torch.randn(C, D, generator=torch.Generator().manual_seed(4))
    return fit(
        start.expand(sites, -1, -1),
        [toy_examples(20 + at, at) for at in range(sites)],
        task=TrainTask(rounds=2, steps=steps, lr=0.5),
        release=toy_release() if release else None,
        streams=[Fixed(value=0.1) for _ in range(sites)],
        objective=Bound(rule),
    )


def test_another_loss_is_what_autograd_makes_of_it() -> None:
    weight = torch.randn(C, D, generator=torch.Generator().manual_seed(4)).requires_grad_()
    examples = toy_examples(20, 0)
    sgd = torch.optim.SGD([weight], lr=0.5)
    for _ in range(4):
        sgd.zero_grad()
        functional.cross_entropy(examples.x @ weight.T, examples.y, label_smoothing=0.3).backward()
        sgd.step()
    torch.testing.assert_close(trained(Smoothed())[0], weight.detach(), atol=1e-5, rtol=1e-5)


def test_another_loss_of_an_mlp_too() -> None:
    head: Arrays = initial_head("mlp", D, C, hidden=5)
    examples, task = toy_examples(20, 0), TrainTask(rounds=1, steps=3, lr=0.5, head="mlp")
    found = fit_mlp_head(
        head,
        examples,
        task=task,
        release=None,
        streams=Fixed(),
        objective=Bound(Smoothed()),
    )
    leaves = {name: torch.from_numpy(v.copy()).requires_grad_() for name, v in head.items()}
    sgd = torch.optim.SGD(leaves.values(), lr=0.5)
    for _ in range(3):
        sgd.zero_grad()
        hidden = functional.linear(examples.x, leaves["hidden.weight"], leaves["hidden.bias"])
        scores = functional.linear(
            functional.gelu(hidden), leaves["out.weight"], leaves["out.bias"]
        )
        functional.cross_entropy(scores, examples.y, label_smoothing=0.3).backward()
        sgd.step()
    for name, values in leaves.items():
        np.testing.assert_allclose(found[name], values.detach().numpy(), atol=1e-5)


def test_whatever_the_loss_an_examples_influence_is_bounded() -> None:
    """Otherwise a scripted loss would break the promise of the plan."""

    class Loud(LocalObjective):
        def residuals(self, scores: Tensor, y: Tensor, sent: Mapping[str, Tensor]) -> Tensor:
            return 1e6 * torch.softmax(scores, 1)

    examples, release = toy_examples(30, 5), toy_release(clip_norm=0.5, public_size=1.0)
    more = Examples.of(
        torch.cat([examples.x, torch.ones(1, D)]), torch.cat([examples.y, torch.tensor([0])])
    )
    task = TrainTask(rounds=1, lr=1.0)
    with_, without = (
        fit(
            torch.zeros(1, C, D),
            [e],
            task=task,
            release=release,
            streams=[Fixed()],
            objective=Bound(Loud()),
        )
        for e in (more, examples)
    )
    assert float((with_ - without).norm()) <= 0.5 + 1e-5


def test_the_head_can_be_projected_after_every_step() -> None:
    free, bounded = trained(LocalObjective(), sites=3), trained(Ball(), sites=3)
    assert (free.flatten(1).norm(dim=1) > 0.6).all()
    assert (bounded.flatten(1).norm(dim=1) < 0.5001).all()


@pytest.mark.parametrize("release", [False, True], ids=["plain", "private"])
@pytest.mark.parametrize("rule", [Smoothed(), Ball()], ids=["residuals", "after_step"])
def test_sites_in_a_cohort_keep_their_bits(rule: LocalObjective, release: bool) -> None:
    together = trained(rule, release=release, sites=3)
    assert torch.equal(together[0], trained(rule, release=release)[0])


def test_an_objective_that_does_nothing_changes_no_bit() -> None:
    plain = fit(
        torch.zeros(1, C, D),
        [toy_examples(20, 0)],
        task=TrainTask(rounds=1, steps=3),
        release=None,
        streams=[Fixed()],
    )
    idle = fit(
        torch.zeros(1, C, D),
        [toy_examples(20, 0)],
        task=TrainTask(rounds=1, steps=3),
        release=None,
        streams=[Fixed()],
        objective=Bound(LocalObjective()),
    )
    assert torch.equal(plain, idle)


@pytest.mark.parametrize("hook", ["residuals", "correction", "penalty_gradient", "remember"])
def test_a_hook_that_returns_another_shape_is_named(hook: str) -> None:
    wrong = torch.zeros(1, 1)
    hooks = {
        "residuals": lambda self, scores, y, sent: wrong,
        "correction": lambda self, local: wrong,
        "penalty_gradient": lambda self, weights, local: wrong,
        "remember": lambda self, trained, local: {"x": wrong},
    }
    rule = type("Wrong", (LocalObjective,), {hook: hooks[hook], "remembers": ("x",)})()
    start = {"weight": np.zeros((C, D), np.float32)}
    with pytest.raises(FedtlError, match=r"Wrong (returns|remembers).*shape") as error:
        Bound(rule).remember(start, {"weight": trained(rule)})
    assert error.value.code == "objective.invalid"


def test_what_the_server_sends_is_checked_before_it_is_used() -> None:
    rule = make_objective(ObjectiveName.of("scaffold"))
    head = {"weight": np.zeros((C, D), np.float32)}
    good = {"control/weight": np.zeros((C, D), np.float32)}
    check_sent(rule, head, good)
    bad: list[Arrays] = [
        {},
        {**good, "more": good["control/weight"]},
        {"control/weight": np.zeros((C, D + 1), np.float32)},
        {"control/weight": np.full((C, D), np.nan, np.float32)},
    ]
    for sent in bad:
        with pytest.raises(FedtlError) as error:
            check_sent(rule, head, sent)
        assert error.value.code == "objective.arrays"


OWN = """
from fedtl.train.objectives import LocalObjective

class Mine(LocalObjective):
    def __init__(self, *, strength=1.0):
        self.strength = strength
"""


def test_a_site_runs_its_own_copy_of_what_it_allows(tmp_path: Path) -> None:
    server, site = tmp_path / "server.py", tmp_path / "site.py"
    server.write_text(OWN)
    site.write_text(OWN)
    asked = ObjectiveName.of(f"{server}:Mine", strength=2.0)
    assert make_objective(asked).strength == 2.0  # type: ignore[attr-defined]
    with pytest.raises(PrivacyError) as refused:
        make_objective(asked, allowed=())
    assert refused.value.code == "policy.objective"
    made = make_objective(asked, allowed=(f"{site}:Mine",))
    assert type(made).__module__.startswith("fedtl_file_site_")
    site.write_text(OWN + "\n# another version\n")
    with pytest.raises(FedtlError) as error:
        make_objective(asked, allowed=(f"{site}:Mine",))
    assert error.value.code == "objective.other"
    again = ObjectiveName.from_json(asked.to_json())
    assert again == asked
    assert make_objective(ObjectiveName("fedprox", {"mu": 1.0}), allowed=())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("scafold", {}, "Did you mean 'scaffold'"),
        ("fedprox", {"nu": 1.0}, "nu"),
        ("fedprox", {"mu": -1.0}, "from 0"),
        ("fedprox", {"mu": float("nan")}, "from 0"),
        ("fedprox", {}, "mu"),
        ("feddyn", {"alpha": 0.0}, "above 0"),
        ("nowhere.module:Class", {}, "cannot be imported"),
        ("fedtl.train.objectives:Bound", {}, "no LocalObjective class 'Bound'"),
    ],
)
def test_a_name_or_an_option_that_is_wrong_is_named(
    name: str, options: dict[str, float], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make_objective(ObjectiveName(name, options))


def test_all_known_objectives_can_be_made() -> None:
    options = {"fedprox": {"mu": 0.1}, "feddyn": {"alpha": 0.1}}
    for name in OBJECTIVES:
        assert isinstance(
            make_objective(ObjectiveName(name, options.get(name, {}))), LocalObjective
        )
