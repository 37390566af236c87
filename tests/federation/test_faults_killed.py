"""Whatever process is killed, in two runs at once: nobody pays twice, and the head stays the same.

One run is without noise, so that its head can be compared with the one of a run that nothing
happened to, and its sites remember their control variates from round to round; the other one is
private, so that every site keeps account of it.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

import numpy as np
from looked import charges, head_of, left_behind, n_entries, name_of, rounds_of
from machines import eventually
from trial import Trial, recipe

from fedtl.launch.watch import read_progress

ROUNDS = 6
"""One run goes on while the other is waited for, and must not come to its end meanwhile."""
ALL = {"least_updates": 3, "least_sites": 3, "patience": 5.0, "retries": 30}
"""A round without one of the sites is void, and tried again."""


def test_killed_processes_change_neither_head_nor_ledgers(trial: Trial) -> None:
    plain = recipe("plain", rounds=ROUNDS, strategy="scaffold", **ALL)
    private = recipe("private", rounds=ROUNDS, noise=True, **ALL)
    with trial.run(plain) as followed, trial.run(private) as other:
        # north's agent dies between the charge and the answer, and while it trains without noise
        before = n_entries(trial.site("north"))
        assert eventually(lambda: n_entries(trial.site("north")) > before, 240, pause=0.005)
        trial.kill("north", "agent")
        assert followed.reached(1)
        assert other.reached(1)
        assert "north (agent.unavailable)" in followed.text + other.text

        # south's SuperNode dies with a message that it has taken in, and both ServerApps
        assert followed.doing("south", "training")
        trial.kill("south", "supernode")
        apps = trial.server_apps()
        assert len(apps) == 2
        for app in apps:
            app.kill()
        assert followed.reached(2)
        assert other.reached(2)
        assert "handed in again" in followed.text
        assert "handed in again" in other.text

        # SuperLink dies with everything it holds in memory, and somebody stops following
        assert other.doing("west", "training")
        trial.kill("c", "superlink")
        os.killpg(other.process.pid, signal.SIGKILL)
        other.process.wait()
        assert followed.ends() == 0, followed.text
        told = read_progress(other.folder)
        assert told is not None
        assert told.state != "finished"
        with trial.run(private, resume=other.folder) as resumed:
            assert resumed.ends() == 0, resumed.text

    head, expected = head_of(followed.folder), trial.simulated(plain, trial.names)
    np.testing.assert_array_equal(head["weight"], expected["weight"])
    assert np.abs(head["weight"]).max() > 0.1
    assert rounds_of(followed.folder) == rounds_of(other.folder) == [*range(1, ROUNDS + 1)]
    once = Counter(rounds_of(other.folder))
    for name in trial.names:
        assert charges(trial.site(name), name_of(other.folder)) == {"train": once, "evaluate": once}
    assert left_behind(followed.folder) == left_behind(other.folder) == []
