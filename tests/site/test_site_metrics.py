"""What a site tells of its held-out examples and labels: noised and paid for, in clear, or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from toys import NAMES, WIDTH, Toys, toy_examples, toy_plan, toy_records, toy_release

from fedtl.apps.client import make_client_app
from fedtl.errors import FedtlError, PrivacyError
from fedtl.privacy.accountant import epsilon_of
from fedtl.privacy.events import GaussianEvent
from fedtl.privacy.ledger import Budget, Ledger
from fedtl.privacy.plan import PrivacyPlan
from fedtl.site.cohort import train_cohort
from fedtl.site.metrics import site_evaluation, site_labels
from fedtl.site.policy import SIMULATED, SitePolicy
from fedtl.site.site import Site
from fedtl.train.batches import Examples
from fedtl.train.counts import METRICS_NORM, evaluate, label_counts
from fedtl.train.heads import initial_head
from fedtl.train.streams import SeededStreams
from fedtl.train.task import TrainTask
from fedtl.transport.local import LocalGrid
from fedtl.types import Evaluation, Update
from fedtl.wire.arrays import pack
from fedtl.wire.evaluation import evaluation_config
from fedtl.wire.messages import EVALUATE, LABELS, Request, task_config

HEAD = initial_head("linear", WIDTH, 3)
METRICS = toy_release(3, mechanism="metrics", clip_norm=METRICS_NORM, public_size=1.0)
TOLD = toy_release(1, mechanism="labels", clip_norm=1.0, public_size=1.0)
PLAN = PrivacyPlan(1e4, 1e-5, (toy_release(), METRICS, TOLD))


def request(round_: int = 1, *, plan: PrivacyPlan | None = PLAN, seed: int | None = 4) -> Request:
    return Request(dict(HEAD), TrainTask(rounds=5, steps=1), plan, round_, seed)


def charged(ledger: Ledger, *, simulated: bool = False) -> Site:
    site = Toys(simulated=simulated).site("site-a")
    site.ledger, site.dataset, site.held_out_dataset = ledger, toy_records(1), toy_records(2, 15)
    return site


def sums(result: Evaluation) -> list[float]:
    cells = [] if result.confusion is None else result.confusion.ravel().tolist()
    return [result.wrong, result.right, result.losses, *cells]


def test_a_real_site_tells_nothing_in_clear_unless_its_policy_allows_it() -> None:
    """A coordinator that leaves metrics out of the plan must not get the exact confusion."""
    for plan in (None, toy_plan()):
        for simulated, policy, told in (
            (True, None, True),
            (False, None, False),
            (True, False, False),
            (False, True, True),
        ):
            site = Toys(simulated=simulated).site("site-a")
            site.policy = None if policy is None else SitePolicy(clear_metrics=policy)
            if told:
                assert site_evaluation(site, request(plan=plan)).n == 15
                labels = site_labels(site, request(plan=plan)).arrays["labels"]
                np.testing.assert_array_equal(labels, label_counts(site.examples[0], 3))
                continue
            for ask in (site_evaluation, site_labels):
                with pytest.raises(PrivacyError) as error:
                    ask(site, request(plan=plan))
                assert error.value.code == "policy.metrics"
                assert error.value.next_step


def test_under_a_plan_the_exact_numbers_never_leave() -> None:
    site = Toys().site("site-a")
    exact = site_evaluation(site, request(plan=None))
    noised = site_evaluation(site, request())
    assert noised.releases == 1
    assert noised.weight >= 1
    assert not set(sums(exact)) & set(sums(noised))
    assert noised.weight != exact.n
    labels = site_labels(site, request())
    assert (labels.weight, labels.releases) == (1.0, 1)
    assert not (labels.arrays["labels"] == label_counts(site.examples[0], 3)).any()


def test_the_noise_of_a_rounds_result_is_not_that_of_its_training() -> None:
    """Whoever sees both would subtract one from the other."""
    site = Toys().site("site-a")
    told = [sums(site_evaluation(site, request(round_))) for round_ in (1, 2, 3)]
    assert len({tuple(numbers) for numbers in told}) == 3
    assert sums(site_evaluation(site, request(2))) == told[1]  # a simulation repeats it
    labelled = site_labels(site, request(2)).arrays["labels"]
    for purpose, ours in (("metrics", True), ("noise", False), ("labels", False)):
        streams = SeededStreams(4, 2, "site-a", purpose)
        same = sums(evaluate(HEAD, site.examples[1], 3, release=METRICS, streams=streams))
        assert (same == told[1]) == ours
    for purpose, ours in (("labels", True), ("noise", False), ("metrics", False)):
        streams = SeededStreams(4, 2, "site-a", purpose)
        counts = label_counts(site.examples[0], 3, release=TOLD, streams=streams)
        assert np.array_equal(counts, labelled) == ours
    words = site.streams(request(2)).words(4)  # what training draws from
    assert not set(words.tolist()) & set(site.streams(request(2), "metrics").words(64).tolist())


def test_noise_is_independent_between_rounds_sites_and_training() -> None:
    drawn = np.array(
        [
            SeededStreams(seed, round_, name, purpose).normal((400,)).numpy()
            for seed in (1, 2)
            for round_ in (0, 1, 2)
            for name in ("a", "b")
            for purpose in ("noise", "metrics", "labels")
        ]
    )
    others = np.corrcoef(drawn) - np.eye(len(drawn))
    assert np.abs(others).max() < 4.5 / 400**0.5


def test_a_real_sites_noise_is_fresh_and_no_seed_of_the_server_changes_that() -> None:
    site = Toys(simulated=False).site("site-a")
    first, again = (site_evaluation(site, request(), spent=0) for _ in range(2))
    assert sums(first) != sums(again)


def test_the_confusion_is_told_where_it_is_asked_for() -> None:
    for simulated in (True, False):
        site = Toys(simulated=simulated).site("site-a")
        asked = replace(request(), confusion=False)
        assert site_evaluation(site, asked).confusion is None
        cells = site_evaluation(site, request()).confusion
        assert cells is not None
        assert cells.shape == (3, 3)


def test_metrics_are_paid_for_by_held_out_records_alone(ledger: Ledger) -> None:
    site = charged(ledger)
    site_evaluation(site, request(), run="7")
    (entry, _) = ledger.entries()
    assert entry.dataset == toy_records(2, 15).fingerprint
    assert entry.event == GaussianEvent(METRICS.noise_multiplier, 1)
    assert epsilon_of(ledger.spend(toy_records(1)), 1e-5) == 0
    site_labels(site, request(0), run="7")
    assert [e.dataset for e in ledger.entries()][2:] == [toy_records(1).fingerprint] * 2
    assert ledger.releases("7", EVALUATE) == ledger.releases("7", LABELS) == 1


def test_a_question_asked_twice_is_answered_by_the_same_bits(ledger: Ledger) -> None:
    """With fresh noise the answers could be averaged until the exact numbers come out."""
    site = charged(ledger)
    first, again = (site_evaluation(site, request(), run="7") for _ in range(2))
    assert sums(first) == sums(again)
    other = charged(ledger)  # as after a restart
    assert sums(site_evaluation(other, request(), run="7")) == sums(first)
    labels = [site_labels(one, request(0), run="7").arrays["labels"] for one in (site, other)]
    np.testing.assert_array_equal(*labels)
    less = site_evaluation(site, replace(request(), confusion=False), run="7")
    assert less.releases == 2  # another question is another release
    assert [e.kind for e in ledger.entries()] == ["charge", "reply"] * 3


def test_beyond_plan_or_budget_nothing_is_told(ledger: Ledger) -> None:
    site = charged(ledger)
    for round_ in (1, 2, 3):
        assert site_evaluation(site, request(round_), run="7").releases == round_
    with pytest.raises(PrivacyError) as error:
        site_evaluation(site, request(4), run="7")
    assert error.value.code == "privacy.spent"
    site.policy = SitePolicy(Budget(epsilon_of(METRICS.event(3), 1e-5), 1e-5))
    with pytest.raises(PrivacyError) as error:
        site_evaluation(site, request(1), run="another run")
    assert error.value.code == "privacy.budget"
    assert len(ledger.entries()) == 6
    # the training records' budget is whole
    assert isinstance(train_cohort([site], request(), [0], ["7"])[0], Update)


def test_simulated_noise_is_computed_again_under_its_charge(ledger: Ledger) -> None:
    site = charged(ledger, simulated=True)
    first, again = (site_evaluation(site, request(), run="7") for _ in range(2))
    assert sums(first) == sums(again)
    assert [e.kind for e in ledger.entries()] == ["charge"]


def test_unreadable_data_and_heads_that_do_not_fit_cost_nothing(ledger: Ledger) -> None:
    site = charged(ledger)
    with pytest.raises(FedtlError) as unfit:
        site_evaluation(site, replace(request(), arrays={"weight": np.zeros((3, 2), np.float32)}))
    assert unfit.value.code == "head.invalid"
    by_group = PrivacyPlan(1e4, 1e-5, (replace(METRICS, unit="group"), replace(TOLD, unit="group")))
    for ask in (site_evaluation, site_labels):
        with pytest.raises(PrivacyError) as error:
            ask(site, request(plan=by_group))
        assert error.value.code == "policy.unit"
    broken = Toys(simulated=False, faults={"site-a": "broken"}).site("site-a")
    broken.ledger, broken.dataset, broken.held_out_dataset = ledger, toy_records(1), toy_records(2)
    for ask in (site_evaluation, site_labels):
        with pytest.raises(RuntimeError):
            ask(broken, request())
    assert ledger.entries() == ()


def test_a_ledger_without_held_out_records_refuses(ledger: Ledger) -> None:
    site = charged(ledger)
    site.held_out_dataset = None
    with pytest.raises(PrivacyError, match="no data set to charge") as error:
        site_evaluation(site, request())
    assert "held-out examples" in error.value.next_step


def test_a_few_held_out_units_tell_nothing_in_clear() -> None:
    """Of two patients, an accuracy is a statement about each of them."""
    for n, groups, least, told in (
        (4, None, 5, False),
        (5, None, 5, True),
        (12, ["p1"] * 6 + ["p2"] * 6, 3, False),
        (12, ["p1", "p2", "p3"] * 4, 3, True),
        (0, None, 5, False),
    ):
        site = Toys().site("site-a")
        examples = toy_examples(n, 3)
        held_out = Examples.of(examples.x, examples.y, groups)
        training = site.load()[0]
        site.load = lambda training=training, part=held_out: (training, part)  # type: ignore[misc]
        site.policy = replace(SIMULATED, suppress_below=least)
        result = site_evaluation(site, request(plan=toy_plan()))
        assert result.measured == told
        assert (result.confusion is None) == (not told)
        if not told:
            assert sums(result) == [0, 0, 0]
        assert site_evaluation(site, request()).measured  # noise hides how few there are


def test_a_site_that_only_seals_tells_no_labels() -> None:
    site = Toys().site("site-a")
    site.policy = SitePolicy(only_sealed=True, clear_metrics=True)
    with pytest.raises(PrivacyError) as error:
        site_labels(site, request())
    assert error.value.code == "secagg.required"


def test_a_site_without_a_ledger_counts_what_it_tells() -> None:
    """By the whole way from message to reply; what a run spent before its restart is counted."""
    toys = Toys(spent={"site-a": {"metrics": 1}})
    grid = LocalGrid(make_client_app(toys), NAMES[:1])
    (node,) = grid.get_node_ids()
    config = task_config(TrainTask(rounds=5), PLAN, seed=4)

    def ask(round_: int, kind: str = EVALUATE) -> Message:
        content = RecordDict({"config": evaluation_config(config, round_=round_, confusion=True)})
        if kind == EVALUATE:
            content["arrays"] = pack(HEAD)
        (reply,) = grid.send_and_receive([Message(content, node, kind)])
        return reply

    assert [ask(r).content["metrics"]["releases"] for r in (1, 2)] == [2, 3]
    assert ask(3).error.reason == "privacy.spent"
    assert ask(0, LABELS).content["metrics"]["releases"] == 1
    assert ask(0, LABELS).error.reason == "privacy.spent"
    assert dict(grid.context(node).state["fedtl"].items()) == {"metrics": 2, "labels": 1}
