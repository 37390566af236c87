"""Sites that come late, are slow, are cut off for a while, hang, leave, or are sent away."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter

import pytest
from conftest import Cable
from trial import Trial, charges, eventually, failures_of, name_of, recipe, rounds_of

from fedtl.launch.coordinator.enrol import remove

CUT_SECONDS = 8


def test_sites_come_late_through_a_slow_line_are_cut_off_and_leave(
    trial: Trial, cable: Cable
) -> None:
    if cable.reason:
        pytest.skip(cable.reason)
    trial.make("east")
    cable.slow("300kbit")
    wanted = recipe("away", rounds=6, noise=True, least_sites=2, patience=2.0)
    with trial.run(wanted) as followed:
        assert followed.reached(1)
        assert followed.doing("west", "training")
        hung = trial.pid("west", "agent")
        os.kill(hung, signal.SIGSTOP)  # one site hangs, and the round waits for it
        trial.up("east", behind=cable.behind)
        assert trial.ready("east")
        os.kill(hung, signal.SIGCONT)

        assert followed.doing("east", "training")  # late, and through the slow line
        cable.cut()
        at = followed.progress().round
        time.sleep(CUT_SECONDS)
        assert followed.progress().round == at  # it is waited for
        cable.mend()
        assert followed.reached(at + 1)
        cable.fast()

        trial.down("west")  # a site leaves
        assert followed.doing("west", "absent")
        remove(trial.coordinator, "east")  # and one is sent away
        assert followed.doing("east", "absent")
        assert followed.ends() == 0, followed.text
    report = json.loads((followed.folder / "report.json").read_text())
    cohorts = [set(round_["cohort"]) for round_ in report["history"]]
    assert rounds_of(followed.folder) == [1, 2, 3, 4, 5, 6]
    assert cohorts[0] == {"north", "south", "west"}
    assert cohorts[at] == {*trial.names, "east"}
    assert cohorts[-1] == {"north", "south"}
    assert failures_of(followed.folder)[: at + 1] == [{}] * (at + 1)
    for name in (*trial.names, "east"):
        paid = charges(trial.site(name), name_of(followed.folder))["train"]
        took = Counter({n: 1 for n, cohort in enumerate(cohorts, 1) if name in cohort})
        assert paid == took, name
    assert eventually(lambda: "does not let this site in" in says(trial, "east"), pause=0.5)
    trial.down("east")
    trial.up("west")
    assert trial.ready("west")


def says(trial: Trial, name: str) -> str:
    found = trial.status(name)["findings"]
    return next((str(f["what"]) for f in found if f["name"] == "connection"), "")
