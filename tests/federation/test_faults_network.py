"""Sites that come late, are slow, are cut off for a while, hang, leave, or are sent away."""

from __future__ import annotations

import json
import time

import pytest
from cable import Cable
from looked import charges, failures_of, name_of, rounds_of
from machines import eventually
from trial import Trial, recipe

from fedtl.launch.coordinator.enrol import remove
from fedtl.recipe import replaced

CUT_SECONDS = 8


def test_sites_leave_come_late_through_a_slow_line_and_are_cut_off(
    trial: Trial, cable: Cable
) -> None:
    if cable.reason:
        pytest.skip(cable.reason)
    trial.make("east")
    wanted = recipe("away", rounds=5, noise=True, least_sites=3, patience=2.0)
    with trial.run(wanted) as followed:
        assert followed.reached(1)
        trial.down("west")  # a site leaves, and two are too few: the run waits for another one
        assert followed.doing("west", "absent")
        cable.slow("300kbit")
        trial.up("east", behind=cable.behind)
        assert followed.doing("east", "training")  # late, and through the slow line
        cable.cut()
        at = followed.progress().round
        time.sleep(CUT_SECONDS)
        assert followed.progress().round == at  # it is waited for
        cable.mend()
        assert followed.reached(at + 1)
        cable.fast()
        remove(trial.coordinator, "east")  # it is sent away, and the first one comes back
        assert followed.doing("east", "absent")
        trial.up("west")
        assert followed.ends() == 0, followed.text
    report = json.loads((followed.folder / "report.json").read_text())
    cohorts = [set(round_["cohort"]) for round_ in report["history"]]
    failures = failures_of(followed.folder)
    assert rounds_of(followed.folder) == [1, 2, 3, 4, 5]
    assert cohorts[0] == cohorts[-1] == set(trial.names)
    assert cohorts[at] == {"north", "south", "east"}
    assert failures[0] == failures[at] == failures[-1] == {}
    for name in (*trial.names, "east"):
        paid = charges(trial.site(name), name_of(followed.folder))["train"]
        asked = {n for n, cohort in enumerate(cohorts, 1) if name in cohort}
        assert set(paid.values()) == {1}, name
        assert {n for n in asked if name not in failures[n - 1]} <= set(paid) <= asked
    assert eventually(lambda: "does not let this site in" in says(trial, "east"), pause=0.5)
    assert trial.ready(*trial.names)


def says(trial: Trial, name: str) -> str:
    found = trial.status(name)["findings"]
    return next((str(f["what"]) for f in found if f["name"] == "connection"), "")


def test_a_cut_of_a_minute_costs_time_and_nothing_else(trial: Trial, cable: Cable) -> None:
    if cable.reason:
        pytest.skip(cable.reason)
    trial.make("far")
    trial.up("far", behind=cable.behind)
    assert trial.ready("far")
    wanted = recipe("minute", rounds=3, noise=True, least_sites=4, patience=120.0)
    wanted = replaced(wanted, transport={"timeout": 300.0})
    with trial.run(wanted) as followed:
        assert followed.reached(1)
        assert followed.doing("far", "training")
        cable.cut()
        time.sleep(61)
        cable.mend()
        assert followed.ends() == 0, followed.text
    everybody = (*trial.names, "far")
    assert rounds_of(followed.folder) == [1, 2, 3]
    assert failures_of(followed.folder) == [{}, {}, {}]
    for name in everybody:
        paid = charges(trial.site(name), name_of(followed.folder))
        assert paid == {"train": {1: 1, 2: 1, 3: 1}, "evaluate": {1: 1, 2: 1, 3: 1}}, name
    trial.down("far")
