"""A site that takes its time: a round need not wait for it, and what it sends late is used."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from looked import charges, name_of
from machines import eventually
from trial import STEPS, Following, Trial, recipe

from fedtl.recipe import replaced

HERE = Path(__file__).parent


def test_rounds_go_on_without_a_slow_site_and_its_late_updates_are_used(trial: Trial) -> None:
    """Also when the server's process is killed meanwhile; and nobody pays twice for a round."""
    may = trial.place / "may-train"
    may.write_text("0")
    trial.make("slow")
    trial.up("slow", agent=(sys.executable, str(HERE / "slow_agent.py"), str(may)))
    assert trial.ready("slow")
    wanted = recipe("buffered", rounds=8, strategy="fedbuff", noise=True, least_sites=4)
    wanted = replaced(wanted, pace={"buffer": 3}, transport={"timeout": 300.0})
    wanted = wanted.model_copy(update={"evaluate_every": 3})
    with trial.run(wanted) as followed:
        assert followed.reached(2)
        assert followed.state_of("slow") == "training"
        may.write_text("1")
        assert eventually(lambda: len(used(followed)) == 1, 240, pause=0.1)
        first = used(followed)[0]
        assert followed.reached(first["round"] + 2)
        for app in trial.server_apps():
            app.kill()
        may.write_text("99")
        assert followed.ends() == 0, followed.text
        assert "handed in again" in followed.text
        rounds, run = history(followed), name_of(followed.folder)
        second = used(followed)[1]
    assert [round_["round"] for round_ in rounds] == list(range(1, 9))
    paid = {name: charges(trial.site(name), run)["train"] for name in (*trial.names, "slow")}
    assert {times for counts in paid.values() for times in counts.values()} == {1}
    assert sorted(paid["slow"])[:2] == [1, first["round"] + 1]  # of the heads of these rounds,
    assert first["round"] > 2  # used in these
    assert second["round"] > first["round"] + 2
    assert [r["releases"]["slow"] for r in (first, second)] == [STEPS, 2 * STEPS]
    assert not any(round_["failures"] for round_ in rounds[:-1])
    late = rounds[-1]["failures"]
    assert set(late.values()) <= {"reply.late"}
    for name, counts in paid.items():
        assert len(counts) == sum(name in r["releases"] for r in rounds) + (name in late), name
    trial.down("slow")


def history(run: Following) -> list[dict[str, Any]]:
    lines = (run.folder / "checkpoint" / "history.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def used(run: Following) -> list[dict[str, Any]]:
    """Return the rounds that used an update of the slow site."""
    return [round_ for round_ in history(run) if "slow" in round_["releases"]]
