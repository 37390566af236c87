"""Personal heads in whole runs on real pictures, and as a module at a real site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from small import recipe, report, run, stopped

from fedtl.backbone import resolve
from fedtl.errors import RecipeError, StrategyError
from fedtl.launch.personal import MOST_RUNS, keeper, personal_findings
from fedtl.modules import load_module
from fedtl.report.html import render_page
from fedtl.report.result import RunResult
from fedtl.report.table import print_summary
from fedtl.types import Personal

SKEWED: dict[str, Any] = {
    "data__limit": 300,
    "partition__alpha": 0.3,
    "train__rounds": 6,
    "privacy__enabled": False,
}
MLP: dict[str, Any] = {"head__kind": "mlp", "head__hidden": 16, "train__local_steps": 6}
PERSONAL = ("fine_tuned", "ditto", "apfl", "mixture")


def result(folder: Path, strategy: str, **changes: Any) -> RunResult:
    return run(folder, recipe(**{**SKEWED, "strategy__name": strategy, **changes})).result


@pytest.mark.parametrize("strategy", PERSONAL)
def test_every_site_compares_its_three_heads(strategy: str, tmp_path: Path) -> None:
    found = result(tmp_path, strategy)
    assert found.heads == "Personal heads"
    for site in found.sites:
        assert site.personal is not None
        assert site.personal.choice in ("alone", "global", "personal")
        middle, low, high = site.personal.personal_ahead
        assert low <= middle <= high
        assert middle == pytest.approx((site.accuracy or 0) - site.personal.alone, abs=1e-9)
        used = {
            "alone": site.personal.alone,
            "global": site.personal.global_head,
            "personal": site.accuracy,
        }
        assert site.personal.used <= max(v for v in used.values() if v is not None) + 1e-9
    page = render_page(found)
    assert "Which head each site uses" in page
    assert "Heads that the sites use" in page
    console = Console(record=True, width=120)
    print_summary(found, console, tmp_path)
    assert "Personal heads, 6 of 6 rounds" in (text := console.export_text())
    assert "pers. - alone" in text


@pytest.mark.parametrize("strategy", ["fedper", "fedrep"])
def test_sites_share_an_adapter_and_keep_their_last_layer(strategy: str, tmp_path: Path) -> None:
    found = run(tmp_path, recipe(**SKEWED, **MLP, strategy__name=strategy))
    head = found.head
    assert not np.any(head["out.weight"])  # nobody has sent one
    assert np.any(head["hidden.bias"])
    own = [site.personal for site in found.result.sites]
    mean = np.mean([site.accuracy or 0.0 for site in found.result.sites])
    assert mean > np.mean([one.global_head for one in own if one is not None]) + 0.2


def test_privately_the_last_layers_results_are_told_with_noise(tmp_path: Path) -> None:
    noised = {**MLP, "strategy__name": "fedper", "privacy__metrics": "noised"}
    found = run(tmp_path, recipe(**noised)).result
    assert found.heads == "Personal heads"
    assert found.epsilon
    assert max(site.epsilon for site in found.sites) <= found.epsilon * 1.001
    assert "Personal heads were trained without noise" not in found.guarantee


@pytest.mark.parametrize("metrics", ["clear", "noised", "off"])
def test_what_is_told_beside_a_plan_is_said(metrics: str, tmp_path: Path) -> None:
    private = recipe(strategy__name="ditto", privacy__metrics=metrics)
    found = run(tmp_path, private).result
    told = [site.personal is not None for site in found.sites]
    assert told == [metrics == "clear"] * 3
    assert found.heads == ("Global head" if metrics == "noised" else "Personal heads")
    assert {
        "clear": "is not covered",
        "noised": "what is shown is of the global head",
        "off": "Personal heads and their results stay at their sites",
    }[metrics] in found.guarantee
    # they are there all the same, at the site
    assert list(tmp_path.glob("sites/*/memory/*.safetensors"))


def test_around_another_strategy(tmp_path: Path) -> None:
    plain = run(tmp_path / "a", recipe(**SKEWED, strategy__name="scaffold"))
    around = {"ditto": {"strength": 0.02}}
    found = run(
        tmp_path / "b", recipe(**SKEWED, strategy__name="scaffold", strategy__around=around)
    )
    np.testing.assert_array_equal(plain.head["weight"], found.head["weight"])
    assert found.result.heads == "Personal heads"


def test_on_every_transport_and_after_a_stop_the_same(tmp_path: Path) -> None:
    wanted = recipe(**SKEWED, strategy__name="apfl")
    whole = run(tmp_path / "a", wanted)
    stopped(tmp_path / "b", wanted, after=3)
    run(tmp_path / "b", wanted)
    assert report(tmp_path / "a") == report(tmp_path / "b")
    local = run(tmp_path / "c", recipe(**SKEWED, strategy__name="apfl", transport__via="local"))
    assert [s.personal for s in local.result.sites] == [s.personal for s in whole.result.sites]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy__name": "fedper"}, "head.kind = 'mlp'"),
        ({"strategy__name": "mixture", "head__kind": "mlp"}, "head.kind = 'linear'"),
        ({"strategy__name": "ditto", "strategy__options": {"strength": -1}}, "strength"),
        ({"strategy__name": "ditto", "strategy__options": {"confidence": 1.0}}, "confidence"),
        ({"strategy__name": "fedrep", **MLP, "strategy__options": {"head_steps": 0}}, "head_steps"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises((RecipeError, StrategyError)) as error:
        run(tmp_path, recipe(**changes))
    assert said in str(error.value) + error.value.next_step


def test_a_real_site_has_its_head_as_a_module(tmp_path: Path) -> None:
    card = resolve("tf_efficientnet_lite0", image_size=32)
    keep = keeper(tmp_path, card, ("a", "b"), 40)
    told = Personal(30, 34, 36, 5, 1, 8, 2, 40, "personal")
    head = {"weight": np.ones((2, card.width + 1), np.float32)}
    assert not list(personal_findings(tmp_path))
    keep("../../etc/passwd", 3, head, told)
    keep("run-1", 4, {"weight": 2 * head["weight"]}, told)
    (finding,) = personal_findings(tmp_path)
    assert "after round 4 of 'run-1'" in finding.what
    assert "90.0 %" in finding.what
    assert "75.0 %" in finding.what
    kept = sorted((tmp_path / "personal").iterdir())
    assert len(kept) == 2
    assert {load_module(place).head["weight"].max() for place in kept} == {1.0, 2.0}
    assert json.loads((kept[0] / "module.json").read_text())["provenance"]["head"] == "personal"
    for at in range(MOST_RUNS + 3):
        keep(f"other-{at}", 1, head, told)
    assert len(list((tmp_path / "personal").iterdir())) == MOST_RUNS
