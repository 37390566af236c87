"""Strategies that ask for sums again and again: planned, paid for and resumed like any other."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import recipe, run, stopped

from fedtl.errors import PrivacyError, StrategyError
from fedtl.launch.ledgers import ledgers_in
from fedtl.launch.plans import plan_of
from fedtl.modules import load_module
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.ledger import Ledger

CLUSTERED: dict[str, Any] = {
    "strategy__name": "ifca",
    "strategy__options": {"every": 2},
    "train__rounds": 5,
    "train__local_steps": 1,
}
MIXED: dict[str, Any] = {
    "strategy__name": "fedpft",
    "strategy__options": {"components": 2, "em_rounds": 2, "samples": 50},
}


def counts(**changes: Any) -> dict[str, int]:
    plan = plan_of(recipe(**changes), mean_size=50.0, sites=3)
    assert plan is not None
    assert plan.epsilon_after() == pytest.approx(8.0, rel=1e-4)
    return {r.mechanism: r.count for r in plan.releases}


def test_the_plan_covers_every_round_of_sums() -> None:
    assert counts(**CLUSTERED) == {"sums": 2, "gradients": 3}
    assert counts(**CLUSTERED | {"train__rounds": 12}) == {"sums": 6, "gradients": 6}
    assert counts(**MIXED) == {"sums": 3}
    assert counts(strategy__name="logit_adjusted", train__rounds=5) == {"sums": 1, "gradients": 8}
    assert counts(strategy__name="fedpft") == {"statistics": 1}
    with pytest.raises(PrivacyError, match="needs 1 of them for sums, which leaves none"):
        plan_of(recipe(**CLUSTERED | {"train__rounds": 1}), mean_size=50.0, sites=3)


def paid(folder: Path) -> dict[str, Counter[str]]:
    """Return the requests that every site's ledger has, and check what they cost."""
    found = {}
    for site, file in ledgers_in(folder).items():
        with Ledger.open(file, read_only=True) as ledger:
            (data,) = ledger.datasets()
            found[site] = Counter(entry.request.message for entry in ledger.entries())
            assert epsilon_of(ledger.spend(data), 1e-5) == pytest.approx(8.0, rel=1e-4)
    assert len(found) == 3
    return found


def test_clusters_are_paid_for_saved_and_resumed(tmp_path: Path) -> None:
    chosen = recipe(**CLUSTERED)
    whole = run(tmp_path / "whole", chosen)
    assert all(p == {"train": 3, "train.sums": 2} for p in paid(tmp_path / "whole").values())
    assert all(s.epsilon == pytest.approx(8.0, rel=1e-4) for s in whole.result.sites)

    stopped(tmp_path / "part", chosen, 3)
    resumed = run(tmp_path / "part", chosen)
    np.testing.assert_array_equal(resumed.head["weight"], whole.head["weight"])
    assert paid(tmp_path / "part") == paid(tmp_path / "whole")
    for at in (0, 1):
        one, other = (
            load_module(tmp_path / name / f"module-cluster-{at}").head["weight"]
            for name in ("whole", "part")
        )
        np.testing.assert_array_equal(one, other)
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    named = [note for note in report["notes"] if note.startswith("Cluster ")]
    assert all(any(site.name in note for note in named) for site in whole.result.sites)
    assert len(named) in (1, 2)
    told = report["plan"]
    assert "sums clipped to 1, " in told
    assert ", 2 releases, full batches" in told


def test_one_by_one_gives_the_same_as_together(tmp_path: Path) -> None:
    heads = [
        run(tmp_path / via, recipe(**CLUSTERED, transport__via=via)).head["weight"]
        for via in ("local", "stacked")
    ]
    np.testing.assert_array_equal(*heads)  # type: ignore[arg-type]


def test_the_steps_of_a_mixture_hide_in_sums_whose_noise_is_shared_out(tmp_path: Path) -> None:
    changes = {"transport__secure": True, "privacy__model": "distributed"}
    finished = run(tmp_path, recipe(**MIXED, **changes, train__local_steps=1))
    assert "3 releases" in finished.result.plan
    assert "in the sum over the sites" in finished.result.plan
    assert all(p == {"train.sums": 3} for p in paid(tmp_path).values())
    assert np.isfinite(finished.head["weight"]).all()  # type: ignore[call-overload]


def test_clusters_need_single_sites(tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match="IFCA needs the sites' single updates") as error:
        run(tmp_path, recipe(**CLUSTERED, transport__secure=True))
    assert error.value.code == "strategy.needs-updates"
