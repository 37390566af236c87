"""Asynchronous runs from recipe to report: stopped, resumed, and accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from small import recipe, report, run, stopped

from fedtl.apps.client import make_client_app
from fedtl.errors import RecipeError
from fedtl.launch.federate import check_deployable, federate
from fedtl.launch.federation import build
from fedtl.launch.ledgers import ledger_file
from fedtl.launch.run_folder import claim
from fedtl.launch.told import EpsilonOf
from fedtl.privacy.ledger import Ledger
from fedtl.privacy.secagg import Identity
from fedtl.recipe import Recipe, replaced
from fedtl.site.policy import SitePolicy
from fedtl.site.site import Site
from fedtl.transport.local import LocalGrid
from fedtl.wire.messages import TRAIN

PACED: dict[str, Any] = {
    "strategy__name": "fedbuff",
    "pace__buffer": 2,
    "pace__spread": 1.5,
    "partition__sites": 5,
    "data__limit": 250,
    "train__rounds": 6,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy__metrics": "noised", "transport__dropout": 0.2},
        {"privacy__enabled": False, "compress__kind": "top_k", "compress__share": 0.2},
    ],
    ids=["private", "compressed"],
)
def test_a_stopped_run_ends_with_the_same_report(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Bytes and charges of what was in flight are those of the round in which it was asked."""
    chosen = recipe(**PACED, **changes)
    whole = run(tmp_path / "whole", chosen)
    stopped(tmp_path / "part", chosen, 3)
    resumed = run(tmp_path / "part", chosen)
    np.testing.assert_array_equal(resumed.head["weight"], whole.head["weight"])  # type: ignore[arg-type]
    assert np.abs(whole.head["weight"]).max() > 0  # type: ignore[arg-type]
    assert report(tmp_path / "part") == report(tmp_path / "whole")
    seconds = [r.seconds_train for r in whole.result.history]
    assert [r.seconds_train for r in resumed.result.history] == seconds


def test_what_sites_are_still_at_when_the_run_ends_is_paid_for(tmp_path: Path) -> None:
    """The report says what the ledgers say, of sites that were never done as well."""
    chosen = recipe(**PACED, privacy__metrics="off")
    finished = run(tmp_path, chosen)
    last = finished.result.history[-1]
    assert set(last.failures.values()) == {"reply.late"}
    assert len(last.failures) == 3
    epsilon_of = EpsilonOf(build(chosen).plan())
    for site in finished.result.sites:
        with Ledger.open(ledger_file(tmp_path, site.name), read_only=True) as ledger:
            charges = sum(entry.kind == "charge" for entry in ledger.entries())
        assert charges
        assert site.epsilon == epsilon_of({"gradients": charges * chosen.train.local_steps}), (
            site.name
        )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pace__spread": 0.5}, "pace.spread = 0.5, pace.seconds = 1: virtual time"),
        ({"pace__buffer": 2, "pace__seconds": 9.0}, "pace.seconds = 9: virtual time"),
        ({"pace__buffer": 2, "federation__least_updates": 3}, "before the 3 updates"),
    ],
)
def test_real_sites_have_speeds_of_their_own(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as error:
        check_deployable(recipe(privacy__enabled=False, **changes))
    assert error.value.next_step
    check_deployable(recipe(privacy__enabled=False, pace__buffer=2))


def test_a_sum_is_of_sites_that_began_with_one_head(tmp_path: Path) -> None:
    chosen = recipe(pace__buffer=2, transport__secure=True, privacy__metrics="off")
    with pytest.raises(RecipeError, match=r"pace\.buffer = 2, and transport\.secure is true"):
        run(tmp_path, chosen)


class Post(LocalGrid):
    """One site's answers stay on their way, and the server dies when it asks a round's sites."""

    def __init__(self, sites: dict[str, Site], *, held: str = "", last: int = 0) -> None:
        def site_of(context: Context) -> Site:
            return sites[str(context.node_config["site"])]

        super().__init__(make_client_app(site_of), list(sites))
        nodes = dict(zip(sites, self.get_node_ids(), strict=True))
        self._held, self._left = nodes.get(held), last

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        ids = super().push_messages(sent)
        if any(m.metadata.message_type == TRAIN for m in sent):
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        answers = {m: self._replies[m] for m in message_ids if m in self._replies}
        trained = {m for m, r in answers.items() if r.metadata.message_type == TRAIN}
        return super().pull_messages(
            m
            for m in answers
            if not (m in trained and answers[m].metadata.src_node_id == self._held)
        )


def real_sites(chosen: Recipe, folder: Path) -> dict[str, Site]:
    """Return sites with ledgers and a policy, and noise from the system."""
    federation = build(chosen)
    sites = {}
    for at, rows in enumerate(federation.rows):
        ledger = Ledger.open(folder / f"{rows.name}.sqlite", durable=False)
        sites[rows.name] = replace(
            federation.site(at),
            simulated=False,
            policy=SitePolicy(),
            run="",
            ledger=ledger,
            dataset=federation._dataset(rows.train, ledger),
            held_out_dataset=federation._dataset(rows.test, ledger),
        )
    return sites


def test_a_real_run_that_is_cut_uses_what_was_in_flight_and_nobody_pays_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedtl.transport.superlink._POLL", 0.002)
    chosen = recipe(
        strategy__name="fedbuff",
        pace__buffer=2,
        train__rounds=5,
        privacy__public_size=50,
        privacy__metrics="noised",
    )
    chosen = replaced(chosen, federation={"least_sites": 3, "wait": 0.5, "patience": 0.0})
    sites = real_sites(chosen, tmp_path)
    slow = next(iter(sites))
    folder, key = tmp_path / "run", Identity(bytes(range(32)))
    claim(folder, chosen)
    with pytest.raises(KeyboardInterrupt):
        federate(folder, Post(sites, held=slow, last=3), key)
    assert paid(sites[slow]) == {1: 1}
    result = federate(folder, Post(sites), key)
    cohorts = [record.cohort for record in result.history]
    assert [slow in cohort for cohort in cohorts] == [False, False, True, True, True]
    assert not any(record.failures for record in result.history)
    assert paid(sites[slow]) == {1: 1, 4: 1, 5: 1}
    for name in list(sites)[1:]:
        assert paid(sites[name]) == {round_: 1 for round_ in range(1, 6)}
    # who is at work is not asked how good a head is
    assert [slow in r.site_accuracy for r in result.history] == [False, False, True, True, True]
    spent = {site.name: site.epsilon for site in result.sites}
    assert 0 < spent[slow] < min(e for name, e in spent.items() if name != slow)
    for site in sites.values():
        assert site.ledger is not None
        site.ledger.close()


def paid(site: Site) -> Counter[int]:
    """Return how often each round's training was paid for."""
    assert site.ledger is not None
    charges = [e.request for e in site.ledger.entries() if e.kind == "charge"]
    return Counter(request.round for request in charges if request.message == TRAIN)
