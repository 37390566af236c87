"""Runs whose server learns sums only, from recipe to report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import recipe, run, stopped

from fedtl.errors import FedtlError, PrivacyError, RecipeError, StrategyError
from fedtl.launch.federation import build
from fedtl.launch.ledgers import ledgers_in
from fedtl.launch.plans import plan_of
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.ledger import Ledger

DISTRIBUTED: dict[str, Any] = {
    "transport__secure": True,
    "privacy__model": "distributed",
    "train__local_steps": 1,
    "train__rounds": 3,
}


def test_a_run_gives_the_same_head_as_without_secure_aggregation(tmp_path: Path) -> None:
    heads = [
        run(tmp_path / str(secure), recipe(transport__secure=secure)).head["weight"]
        for secure in (False, True)
    ]
    np.testing.assert_allclose(*heads, atol=1e-6)  # type: ignore[arg-type]
    assert np.abs(heads[0]).max() > 0.01  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["fedavg", "fed3r"])
def test_noise_is_shared_out_and_paid_for_at_every_site(tmp_path: Path, name: str) -> None:
    chosen = recipe(**DISTRIBUTED, strategy__name=name)
    finished = run(tmp_path, chosen)
    assert "in the sum over the sites" in finished.result.plan
    assert "shared out over 2 sites" in finished.result.plan
    for file in ledgers_in(tmp_path).values():
        with Ledger.open(file, read_only=True) as ledger:
            (data,) = ledger.datasets()
            spent = epsilon_of(ledger.spend(data), chosen.privacy.delta)
        assert spent == pytest.approx(8.0, rel=1e-6)
    assert all(s.epsilon == pytest.approx(8.0, rel=1e-6) for s in finished.result.sites)


def test_a_resumed_run_ends_with_the_same_head(tmp_path: Path) -> None:
    chosen = recipe(**DISTRIBUTED)
    whole = run(tmp_path / "whole", chosen)

    stopped(tmp_path / "part", chosen, 1)
    resumed = run(tmp_path / "part", chosen)
    np.testing.assert_array_equal(resumed.head["weight"], whole.head["weight"])


def test_dropouts_are_survived_down_to_the_threshold(tmp_path: Path) -> None:
    chosen = recipe(
        **DISTRIBUTED, partition__sites=6, partition__kind="iid", transport__dropout=0.15, seed=2
    )
    finished = run(tmp_path / "a", chosen)
    lost = [f for r in finished.result.history for f in r.failures.values()]
    assert lost
    assert set(lost) == {"reply.missing"}
    with pytest.raises(FedtlError, match="are left and 4 are needed") as error:
        run(tmp_path / "b", recipe(**DISTRIBUTED, partition__sites=6, transport__dropout=0.8))
    assert error.value.code == "secagg.threshold"


def test_a_strategy_that_needs_single_updates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match="Krum needs the sites' single updates"):
        run(tmp_path, recipe(transport__secure=True, strategy__name="krum"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"transport__secure": False}, "transport.secure = false"),
        ({"train__local_steps": 2}, "train.local_steps = 2"),
        ({"train__optimizer": "adam"}, "train.optimizer = 'adam'"),
        ({"train__sampling": "poisson"}, "train.sampling = 'poisson'"),
        ({"head__kind": "mlp"}, "head.kind = 'mlp'"),
        ({"transport__secure_threshold": 1.5}, "secure_threshold = 1.5"),
        ({"transport__secure_threshold": 0.5}, "secure_threshold = 0.5"),
        ({"privacy__model": "central"}, "privacy.model = 'central'"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(**(DISTRIBUTED | changes))
    assert said in str(error.value)
    assert error.value.next_step


def test_more_honest_sites_than_must_stay_are_refused() -> None:
    chosen = recipe(**DISTRIBUTED, privacy__honest_sites=5, partition__sites=6)
    with pytest.raises(PrivacyError, match="a round goes on with 4 of 6 sites") as error:
        plan_of(chosen, mean_size=50, sites=6)
    assert error.value.code == "secagg.honest"


def test_fewer_honest_sites_take_more_noise_each() -> None:
    """The promise holds whoever colludes, as long as so many are honest."""

    def share(**changes: object) -> float:
        plan = build(recipe(**DISTRIBUTED, **changes)).plan()
        assert plan is not None
        assert plan.model == "distributed"
        release = plan.release("gradients")
        return release.noise_multiplier / release.honest_sites**0.5

    assert share(privacy__honest_sites=1) == pytest.approx(2**0.5 * share(), rel=1e-6)


def test_the_report_says_what_is_private_and_what_is_not(tmp_path: Path) -> None:
    """Who reads that a site's updates are private by themselves might hand one out."""
    from fedtl.report.html import render_page

    shared = run(tmp_path / "shared", recipe(**DISTRIBUTED)).result
    alone = run(tmp_path / "alone", recipe()).result
    assert (shared.model, alone.model) == ("distributed", "site")
    assert "the sums of what the sites have sent, and no single update" in render_page(shared)
    assert "everything a site has sent" in render_page(alone)
