"""The backbone is sent once: to who has not got it, in the first run; after that, heads only."""

from __future__ import annotations

import json
from pathlib import Path

from trial import Trial, recipe

from fedtl.backbone import store
from fedtl.launch.opening import card_of
from fedtl.launch.personal import personal_findings
from fedtl.report.result import RunResult

NEW = ("fresh", "novel")


def traffic(run: Path) -> tuple[dict[str, int], list[dict[str, int]]]:
    """Return the bytes sent to each site in all, and in each round."""
    told = json.loads((run / "progress.json").read_text())
    lines = (run / "checkpoint" / "history.jsonl").read_text().splitlines()
    return {s["name"]: s["down"] for s in told["sites"]}, [json.loads(one)["down"] for one in lines]


def test_the_backbone_travels_once_per_site_and_later_only_heads(trial: Trial) -> None:
    wanted = recipe("once", rounds=2, strategy="ditto", least_sites=5, patience=1.0)
    card = card_of(wanted.backbone)
    weights = len(store.get(card.sha256))
    for name in NEW:
        state = trial.make(name)
        settings = state / "site.toml"
        settings.write_text(settings.read_text().replace('"tf_efficientnet_lite0"', '""'))
        trial.up(name, FEDTL_HOME=str(trial.place / f"home-{name}"))
    runs = []
    for _ in range(2):
        with trial.run(wanted) as followed:
            assert followed.ends() == 0, followed.text
        runs.append(max(followed.runs.glob("once-*"), key=lambda run: run.name))
    (first, rounds), (second, more) = map(traffic, runs)
    head = max(rounds[0].values())
    assert head < 200_000
    for name in NEW:
        assert weights < first[name] < weights + 5 * head
        assert second[name] < 5 * head
    for name in trial.names:  # their package brings the same weights
        assert first[name] < 5 * head
    assert {n for per_round in (*rounds, *more) for n in per_round.values()} <= {head, 2 * head}
    stored = trial.place / "home-fresh" / "backbones" / card.sha256 / "weights.safetensors"
    assert stored.stat().st_size == weights
    result = RunResult.from_json((runs[-1] / "report.json").read_text())
    for site in result.sites:  # every site has its own head and says how it compares
        assert site.personal is not None
        (kept,) = personal_findings(trial.place / site.name)
        assert f"uses the head '{site.personal.choice}'" in kept.what
    for name in NEW:
        trial.down(name)
