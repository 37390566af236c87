"""What leaves a site: updates within the plan, and codes; never a text, a path or a value."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from toys import CANARY, NAMES, WIDTH, Toys, toy_plan, toy_release

from fedtl.errors import PrivacyError, SiteFailure
from fedtl.privacy.plan import PrivacyPlan
from fedtl.site.cohort import train_cohort
from fedtl.site.metrics import site_evaluation
from fedtl.site.site import paid
from fedtl.train.heads import initial_head
from fedtl.train.streams import SeededStreams, SystemStreams
from fedtl.train.task import TrainTask
from fedtl.types import Update
from fedtl.wire.messages import STATISTICS, Request

HEAD = initial_head("linear", WIDTH, 3)


def request(
    plan: PrivacyPlan | None = None, *, seed: int | None = 1, round_: int = 1, steps: int = 2
) -> Request:
    return Request(dict(HEAD), TrainTask(rounds=5, steps=steps), plan, round_, seed)


def train(toys: Toys, names: tuple[str, ...], asked: Request) -> list[Update | SiteFailure]:
    return train_cohort([toys.site(n) for n in names], asked, [0] * len(names))


@pytest.mark.parametrize("spent", [0, 3, 9, 10])
def test_releases_are_counted_over_the_run_and_end_with_the_plan(spent: int) -> None:
    release = toy_release(10)
    if spent + 1 <= 10:
        assert paid(None, release, spent, 1) == spent + 1
    with pytest.raises(PrivacyError) as error:
        paid(None, release, spent, 11 - spent)
    assert error.value.code == "privacy.spent"
    assert paid(None, None, spent, 1) == 0


def test_a_spent_site_releases_nothing() -> None:
    (answer,) = train_cohort([Toys().site("site-a")], request(toy_plan(10)), [9])
    assert answer == SiteFailure("privacy.spent")


def test_a_real_site_ignores_the_servers_seed() -> None:
    """A server that knows the noise could subtract it."""
    real, simulated = Toys(simulated=False).site("site-a"), Toys().site("site-a")
    asked = request(toy_plan(), seed=1)
    assert isinstance(real.streams(asked), SystemStreams)
    assert isinstance(simulated.streams(asked), SeededStreams)
    assert isinstance(simulated.streams(request(seed=None)), SystemStreams)
    first, again = (train_cohort([real], asked, [0])[0] for _ in range(2))
    assert isinstance(first, Update)
    assert isinstance(again, Update)
    assert not np.array_equal(first.arrays["weight"], again.arrays["weight"])


def test_rounds_and_sites_get_their_own_noise() -> None:
    toys, plan = Toys(), toy_plan()
    answers = [
        train(toys, ("site-a",), request(plan, round_=r, seed=s))[0]
        for r, s in ((1, 1), (2, 1), (1, 2))
    ]
    heads = [a.arrays["weight"] for a in answers if isinstance(a, Update)]
    assert len({h.tobytes() for h in heads}) == 3


def test_a_private_weight_does_not_tell_the_size() -> None:
    toys = Toys()
    private = train(toys, NAMES, request(toy_plan()))
    assert {a.weight for a in private if isinstance(a, Update)} == {1.0}
    plain = train(toys, NAMES, request())
    assert [a.weight for a in plain if isinstance(a, Update)] == [20 + 7 * at for at in range(6)]
    stats = toys.site("site-b").sums(request(toy_plan(1, mechanism="statistics")), STATISTICS, 0)
    assert stats.weight == 1.0


FAULTS = {"unreadable": "data.unreadable", "broken": "site.failed", "nan": "data.invalid"}


@pytest.mark.parametrize("plan", [None, toy_plan()], ids=["plain", "private"])
@pytest.mark.parametrize("fault", FAULTS)
def test_one_sites_fault_is_its_own(
    fault: str, plan: PrivacyPlan | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The others train to the same bits as without it, and its exception stays in its log."""
    toys = Toys(faults={"site-b": fault})
    with caplog.at_level(logging.WARNING, "fedtl.site"):
        answers = train(toys, NAMES[:3], request(plan))
    assert answers[1] == SiteFailure(FAULTS[fault])
    assert "site-b" in caplog.text
    assert (CANARY in caplog.text) == (fault != "nan")
    alone = train(Toys(), ("site-a", "site-c"), request(plan))
    for got, expected in zip((answers[0], answers[2]), alone, strict=True):
        assert isinstance(got, Update)
        assert isinstance(expected, Update)
        np.testing.assert_array_equal(got.arrays["weight"], expected.arrays["weight"])


def test_a_head_that_does_not_fit_is_refused_before_anything_is_spent() -> None:
    asked = replace(request(toy_plan()), arrays={"weight": np.zeros((3, WIDTH + 1), np.float32)})
    assert train(Toys(), ("site-a",), asked) == [SiteFailure("head.invalid")]


def test_a_message_without_a_task_is_refused() -> None:
    assert train(Toys(), ("site-a",), replace(request(), task=None)) == [
        SiteFailure("message.invalid")
    ]


def test_labels_outside_the_class_list_are_refused() -> None:
    toys = Toys()
    site = toys.site("site-a")
    training, held_out = site.load()
    training.y[0] = 3
    site.load = lambda: (training, held_out)
    assert train(toys, ("site-a",), request()) == [SiteFailure("data.invalid")]


def test_evaluation_and_description_are_what_they_say() -> None:
    site = Toys().site("site-c")
    assert site_evaluation(site, request()).n == 15
    described = site.describe()
    assert (described.name, described.width, described.backbone) == ("site-c", WIDTH, "toy")


def test_mlp_heads_train_in_a_cohort_as_alone() -> None:
    head = initial_head("mlp", WIDTH, 3, hidden=4, seed=1)
    asked = replace(request(toy_plan(), steps=2), arrays=dict(head))
    toys = Toys()
    together = train(toys, NAMES[:2], asked)
    alone = [train(toys, (name,), asked)[0] for name in NAMES[:2]]
    for got, expected in zip(together, alone, strict=True):
        assert isinstance(got, Update)
        assert isinstance(expected, Update)
        assert got.releases == 2
        for key in head:
            np.testing.assert_array_equal(got.arrays[key], expected.arrays[key])
