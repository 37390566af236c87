"""A site with a ledger: paid before it is computed, answered once, refused beyond the budget."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from toys import NAMES, WIDTH, Toys, toy_plan, toy_records

from fedtl.apps.client import make_client_app
from fedtl.errors import FedtlError, SiteFailure
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.ledger import Budget, Ledger
from fedtl.rounds import Settings, State, run
from fedtl.rounds.sites import describe_sites
from fedtl.site.account import bytes_of, content_of, update_of
from fedtl.site.cohort import train_cohort
from fedtl.site.policy import SIMULATED, SitePolicy
from fedtl.site.site import Site
from fedtl.strategies import make_strategy
from fedtl.train.heads import initial_head
from fedtl.train.task import TrainTask
from fedtl.transport.local import LocalGrid
from fedtl.transport.stacked import StackedGrid
from fedtl.types import Update
from fedtl.wire.arrays import pack
from fedtl.wire.messages import STATISTICS, TRAIN, Request, task_config

HEAD = initial_head("linear", WIDTH, 3)
PLAN = toy_plan(20)


def real(ledger: Ledger, *, name: str = "site-a", **toys: object) -> Site:
    """Return a site whose noise comes from the operating system."""
    site = Toys(simulated=False, **toys).site(name)  # type: ignore[arg-type]
    site.ledger, site.dataset = ledger, toy_records(1)
    return site


def request(round_: int = 1, *, steps: int = 2, seed: int | None = None) -> Request:
    return Request(dict(HEAD), TrainTask(rounds=10, steps=steps), PLAN, round_, seed)


def train(site: Site, asked: Request, run_id: str = "7") -> Update | SiteFailure:
    return train_cohort([site], asked, [0], [run_id])[0]


def weights(answer: Update | SiteFailure) -> np.ndarray:
    assert isinstance(answer, Update)
    return np.asarray(answer.arrays["weight"])


def test_a_message_delivered_twice_is_one_release(ledger: Ledger) -> None:
    """With fresh noise, two different answers would let the noise be averaged away."""
    site = real(ledger)
    first, again = train(site, request()), train(site, request())
    np.testing.assert_array_equal(weights(first), weights(again))
    assert ledger.releases("7", "train") == 2
    other = real(ledger)  # as after a restart
    np.testing.assert_array_equal(weights(train(other, request())), weights(first))
    assert not np.array_equal(weights(train(site, request(2))), weights(first))
    assert [e.kind for e in ledger.entries()] == ["charge", "reply"] * 2


def test_statistics_are_paid_for_and_answered_once(ledger: Ledger) -> None:
    site, plan = real(ledger), toy_plan(2, mechanism="statistics")
    asked = replace(request(), plan=plan, arrays={}, task=None)
    first, again = (site.sums(asked, STATISTICS, 0, "7") for _ in range(2))
    assert first.arrays.keys() == again.arrays.keys()
    for name in first.arrays:
        np.testing.assert_array_equal(first.arrays[name], again.arrays[name])
        assert first.arrays[name].dtype == again.arrays[name].dtype
    assert (first.releases, first.weight, ledger.releases("7", "train.statistics")) == (1, 1.0, 1)


def test_the_ledger_counts_a_runs_releases_whatever_the_process_remembers(ledger: Ledger) -> None:
    plan = toy_plan(5)
    asked = [replace(request(round_), plan=plan) for round_ in (1, 2, 3)]
    answers = [train(real(ledger), one) for one in asked]
    assert [a.releases for a in answers if isinstance(a, Update)] == [2, 4]
    assert answers[2] == SiteFailure("privacy.spent")
    assert isinstance(train(real(ledger), asked[2], "another run"), Update)


def test_beyond_the_budget_nothing_is_computed_and_the_code_says_so(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    site = real(ledger)
    site.policy = SitePolicy(Budget(epsilon_of(PLAN.event({"gradients": 4}), 1e-5), 1e-5))
    with caplog.at_level(logging.WARNING, "fedtl.site"):
        answers = [train(site, request(round_)) for round_ in (1, 2, 3)]
    assert answers[2] == SiteFailure("privacy.budget")
    assert "site-a: The data set" in caplog.text
    # what was answered is answered again; another run finds the same records
    np.testing.assert_array_equal(weights(train(site, request(2))), weights(answers[1]))
    assert train(site, request(1), "another run") == SiteFailure("privacy.budget")


def test_a_run_goes_on_without_the_site_that_refuses(tmp_path: Path) -> None:
    toys = Toys()
    for name in NAMES[:3]:
        site = toys.site(name)
        site.ledger = Ledger.open(tmp_path / name, durable=False)
        site.dataset = toy_records(NAMES.index(name))
    least = Budget(epsilon_of(PLAN.event({"gradients": 2}), 1e-5), 1e-5)
    toys.site("site-b").policy = replace(SIMULATED, budget=least)
    grid = StackedGrid(make_client_app(toys), NAMES[:3], site_of=toys)
    outcome = run(
        grid,
        make_strategy("fedavg", {}),
        sites={node: d.name for node, d in describe_sites(grid).items()},
        start=State(0, dict(HEAD)),
        config=task_config(TrainTask(rounds=3, steps=2), PLAN, seed=1),
        settings=Settings(rounds=3),
    )
    assert [dict(r.failures) for r in outcome.history] == [
        {},
        {"site-b": "privacy.budget"},
        {"site-b": "privacy.budget"},
    ]
    assert [dict(r.releases) for r in outcome.history] == [
        {"site-a": 2, "site-b": 2, "site-c": 2},
        {"site-a": 4, "site-c": 4},
        {"site-a": 6, "site-c": 6},
    ]
    for name in NAMES[:3]:
        toys.site(name).ledger.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("fault", ["unreadable", "broken", "nan"])
def test_unreadable_data_cost_nothing(ledger: Ledger, fault: str) -> None:
    site = real(ledger, faults={"site-a": fault})
    assert isinstance(train(site, request()), SiteFailure)
    assert ledger.entries() == ()


@pytest.mark.parametrize(
    "bad",
    [
        replace(request(), arrays={"weight": np.zeros((3, WIDTH + 1), np.float32)}),
        replace(request(), task=None),
    ],
)
def test_what_is_refused_anyway_costs_nothing(ledger: Ledger, bad: Request) -> None:
    assert isinstance(train(real(ledger), bad), SiteFailure)
    assert ledger.entries() == ()


def test_a_failure_after_the_charge_is_counted_and_the_repeat_is_not_charged_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = real(ledger)
    with monkeypatch.context() as broken:
        broken.setattr("fedtl.site.cohort.fit", lambda *_, **__: 1 / 0)
        assert train(site, request()) == SiteFailure("site.failed")
    assert ledger.releases("7", "train") == 2
    assert isinstance(train(site, request()), Update)
    assert ledger.releases("7", "train") == 2


def test_a_reply_that_cannot_be_stored_is_not_handed_out(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise FedtlError("The disk is full.", code="disk.full")

    monkeypatch.setattr(Ledger, "keep_reply", full)
    assert train(real(ledger), request()) == SiteFailure("disk.full")


def test_seeded_noise_is_recomputed_under_its_charge(ledger: Ledger) -> None:
    site = Toys().site("site-a")
    site.ledger, site.dataset = ledger, toy_records(1)
    first, again = train(site, request(seed=3)), train(site, request(seed=3))
    np.testing.assert_array_equal(weights(first), weights(again))
    assert [e.kind for e in ledger.entries()] == ["charge"]
    train(site, request(seed=4))  # other noise is another release
    train(site, request())  # noise of the operating system: the reply is kept
    assert [e.kind for e in ledger.entries()] == ["charge", "charge", "charge", "reply"]


def test_without_a_plan_nothing_is_charged(ledger: Ledger) -> None:
    site = real(ledger)
    site.policy = SitePolicy(unprotected=True)
    assert isinstance(train(site, replace(request(), plan=None)), Update)
    assert ledger.entries() == ()


def test_a_ledger_without_a_data_set_refuses(ledger: Ledger) -> None:
    site = real(ledger)
    site.dataset = None
    assert train(site, request()) == SiteFailure("privacy.refused")


def test_any_change_of_the_question_is_another_request() -> None:
    asked = request(seed=1)
    head = {"weight": HEAD["weight"] + np.float32(1)}
    others = [
        replace(asked, arrays=head),
        replace(asked, arrays={"other": HEAD["weight"]}),
        replace(asked, arrays={"weight": HEAD["weight"].astype(np.float64)}),
        replace(asked, task=TrainTask(rounds=10, steps=3)),
        replace(asked, plan=toy_plan(21)),
        replace(asked, seed=2),
        replace(asked, seed=None),
    ]
    assert len({content_of(one) for one in (asked, *others)}) == 8
    assert content_of(asked) == content_of(request(seed=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stored_replies_come_back_to_the_bit(dtype: type) -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(3, 4)).astype(dtype), "b": rng.normal(size=5).astype(dtype)}
    update = Update(arrays, 1 / 3, 12)
    back = update_of(bytes_of(update))
    assert (back.weight, back.releases) == (1 / 3, 12)
    for name, values in arrays.items():
        np.testing.assert_array_equal(back.arrays[name], values)
        assert back.arrays[name].dtype == dtype
    for damaged in (b"", b"\xff" * 40, bytes_of(update)[:-3]):
        with pytest.raises(FedtlError) as error:
            update_of(damaged)
        assert error.value.code == "reply.unreadable"


@pytest.mark.parametrize("kind", [TRAIN, STATISTICS])
def test_messages_carry_flowers_run_id_into_the_ledger(ledger: Ledger, kind: str) -> None:
    """By the whole way from a message to its reply, twice in one go: as SuperNodes repeat them."""
    site = real(ledger)
    grid = LocalGrid(make_client_app(lambda context: site), NAMES[:1])
    plan = PLAN if kind == TRAIN else toy_plan(2, mechanism="statistics")
    config: ConfigRecord = task_config(TrainTask(rounds=10), plan)
    parts = {"arrays": pack(HEAD)} if kind == TRAIN else {}
    content = RecordDict({**parts, "config": config})
    (node,) = grid.get_node_ids()
    context: Context = grid.context(node)
    replies = grid.send_and_receive([Message(content, node, kind) for _ in range(2)])
    first, again = (r.content["arrays"] for r in replies)
    assert {k: v.data for k, v in first.items()} == {k: v.data for k, v in again.items()}
    assert [e.request.run for e in ledger.entries()] == [str(context.run_id)] * 2
    assert [e.request.message for e in ledger.entries()] == [kind] * 2
    assert "fedtl" not in context.state  # the ledger counts, not Flower
