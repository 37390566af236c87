"""Client-side steps at a real site: its own code only, and a memory that outlives the process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from toys import WIDTH, Toys

from fedtl.privacy.plan import PrivacyPlan, Release, plan_for
from fedtl.site.answer import answer_sums, answer_train
from fedtl.site.memory import Memory
from fedtl.site.policy import SitePolicy
from fedtl.site.site import Site
from fedtl.train.heads import initial_head
from fedtl.train.objective_name import ObjectiveName
from fedtl.train.task import TrainTask
from fedtl.transport._identity import ensure_identity
from fedtl.types import Arrays
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.messages import SUMS, TRAIN, task_config
from fedtl.wire.objective import with_objective

HEAD: Arrays = initial_head("linear", WIDTH, 3)
CONTROL: Arrays = {"control/weight": np.full((3, WIDTH), 0.1, np.float32)}
OWN = """
from fedtl.train.objectives import LocalObjective

class Pull(LocalObjective):
    def __init__(self, *, mu=1.0):
        self.mu = mu

    def penalty_gradient(self, weights, local):
        return self.mu * (weights - 1.0)
"""


def real_site(tmp_path: Path, *objectives: str) -> Site:
    site = Toys(simulated=False).site("site-a")
    site.policy = SitePolicy(unprotected=True, objectives=objectives)
    site.memory = Memory(tmp_path / "memory")
    return site


def ask(
    site: Site, name: ObjectiveName, beside: Arrays | None = None, *, round_: int = 1
) -> Arrays | str:
    """Return the trained head, or the failure code."""
    ensure_identity()
    config = task_config(TrainTask(rounds=9, steps=3, lr=0.5), None)
    config["server-round"] = round_
    asked = Message(RecordDict({"arrays": pack(HEAD), "config": config}), 1, TRAIN)
    with_objective([asked], name, beside)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    (reply,) = answer_train([(asked, context)], lambda _: site)
    if reply.has_error():
        return str(reply.error.reason)
    return unpack(next(iter(reply.content.array_records.values())))


def weight(answer: Arrays | str) -> np.ndarray:
    assert not isinstance(answer, str), answer
    return np.asarray(answer["weight"])


def test_what_a_site_remembers_outlives_its_process(tmp_path: Path) -> None:
    scaffold = ObjectiveName.of("scaffold")
    first = weight(ask(real_site(tmp_path), scaffold, CONTROL))
    again = weight(ask(real_site(tmp_path), scaffold, CONTROL))
    np.testing.assert_array_equal(first, again)  # a round that is repeated
    second = weight(ask(real_site(tmp_path), scaffold, CONTROL, round_=2))
    assert np.abs(second - first).max() > 1e-3  # it remembers its own control variate
    forgetful = weight(ask(real_site(tmp_path / "other"), scaffold, CONTROL, round_=2))
    np.testing.assert_array_equal(first, forgetful)


def test_a_site_runs_its_own_copy_and_only_what_its_policy_names(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    for folder in (tmp_path, tmp_path / "server"):
        (folder / "mine.py").write_text(OWN)
    asked = ObjectiveName.of(f"{tmp_path / 'server' / 'mine.py'}:Pull", mu=0.5)
    assert ask(real_site(tmp_path), asked) == "policy.objective"
    there = real_site(tmp_path, f"{tmp_path / 'mine.py'}:Pull")
    plain = weight(ask(there, ObjectiveName.of("fedprox", mu=0.0)))
    assert (weight(ask(there, asked)) > plain).all()
    (tmp_path / "mine.py").write_text(OWN.replace("1.0)", "2.0)"))
    assert ask(there, asked) == "objective.other"


def test_an_objective_that_ends_its_process_ends_its_answer_only(tmp_path: Path) -> None:
    body = "raise SystemExit(3)"
    (tmp_path / "mine.py").write_text(OWN.replace("return self.mu * (weights - 1.0)", body))
    mine = f"{tmp_path / 'mine.py'}:Pull"
    assert ask(real_site(tmp_path, mine), ObjectiveName.of(mine)) == "site.failed"


@pytest.mark.parametrize(
    ("name", "beside", "code"),
    [
        (ObjectiveName("scaffold"), None, "objective.arrays"),
        (
            ObjectiveName("scaffold"),
            {"control/weight": np.zeros((3, WIDTH + 1), np.float32)},
            "objective.arrays",
        ),
        (
            ObjectiveName("scaffold"),
            {"control/weight": np.full((3, WIDTH), np.inf, np.float32)},
            "objective.arrays",
        ),
        (ObjectiveName("fedprox", {"mu": 1.0}), CONTROL, "objective.arrays"),
        (ObjectiveName("fedprox", {"mu": -1.0}), None, "objective.invalid"),
        (ObjectiveName("fedprox", {"mu": 1.0, "code": "x"}), None, "objective.invalid"),
        (ObjectiveName("os:system"), None, "policy.objective"),
        (ObjectiveName("/etc/passwd.py:Class"), None, "policy.objective"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_site_does_not_know_it_refuses(
    name: ObjectiveName, beside: Arrays | None, code: str, tmp_path: Path
) -> None:
    assert ask(real_site(tmp_path), name, beside) == code


COUNTS = """
import torch
from fedtl.train.objectives import LocalStatistic

class Counts(LocalStatistic):
    def size(self, width, classes):
        return classes

    def rows(self, x, y, classes):
        return torch.nn.functional.one_hot(y, classes)
"""


def ask_sums(
    site: Site,
    name: ObjectiveName | None,
    plan: PrivacyPlan | None = None,
    beside: Arrays | None = None,
) -> np.ndarray | str:
    ensure_identity()
    config = task_config(TrainTask(rounds=1), plan)
    config["server-round"] = 1
    asked = Message(RecordDict({"config": config}), 1, SUMS)
    if name is not None:
        with_objective([asked], name, beside)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    reply = answer_sums(asked, context, lambda _: site)
    if reply.has_error():
        return str(reply.error.reason)
    return np.asarray(unpack(next(iter(reply.content.array_records.values())))["sum"])


def test_a_scripted_statistic_is_summed_clipped_and_noised(tmp_path: Path) -> None:
    file = tmp_path / "counts.py"
    file.write_text(COUNTS)
    name, there = ObjectiveName.of(f"{file}:Counts"), real_site(tmp_path, f"{file}:Counts")
    labels = there.examples[0].y.numpy()
    exact = ask_sums(there, name)
    np.testing.assert_array_equal(exact, np.bincount(labels, minlength=3))
    half = plan_for(Release(mechanism="sums", clip_norm=0.5), epsilon=4.0, delta=1e-5)
    noise = half.release("sums").noise_multiplier * 0.5
    told = np.array([ask_sums(there, name, half) for _ in range(400)])
    np.testing.assert_allclose(told.mean(0), exact / 2, atol=5 * noise / 20)  # type: ignore[operator]
    np.testing.assert_allclose(told.std(0), noise, rtol=0.15)


def test_a_statistic_that_is_not_named_allowed_or_right_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "counts.py"
    file.write_text(COUNTS.replace("return classes", "return classes + 1"))
    name = ObjectiveName.of(f"{file}:Counts")
    assert ask_sums(real_site(tmp_path), name) == "policy.objective"
    there = real_site(tmp_path, f"{file}:Counts")
    assert ask_sums(there, None) == "message.invalid"
    assert ask_sums(there, name) == "objective.invalid"
    other = plan_for(Release(mechanism="mean"), epsilon=4.0, delta=1e-5)
    assert ask_sums(there, name, other) == "plan.mismatch"


LOSSES = ObjectiveName("cluster_losses", {"clusters": 2})
TWO = np.stack([np.eye(3, WIDTH), -np.eye(3, WIDTH)])


def test_sums_are_of_what_the_server_sent_beside(tmp_path: Path) -> None:
    there = real_site(tmp_path)
    first, second = (ask_sums(there, LOSSES, beside={"heads": h}) for h in (TWO, TWO[::-1].copy()))
    np.testing.assert_allclose(first, np.asarray(second)[::-1], atol=1e-9)
    assert abs(first[0]) > 1  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "beside", "code"),
    [
        (LOSSES, None, "objective.arrays"),
        (LOSSES, {"heads": TWO[:1]}, "objective.arrays"),
        (LOSSES, {"heads": TWO[:, :, :-1]}, "objective.arrays"),
        (LOSSES, {"heads": TWO, "more": TWO}, "objective.arrays"),
        (LOSSES, {"heads": TWO * np.nan}, "objective.arrays"),
        (LOSSES, {"heads": TWO.astype(np.int64)}, "message.invalid"),
        (ObjectiveName("class_counts"), {"heads": TWO}, "objective.arrays"),
        (ObjectiveName("cluster_losses", {"clusters": 1}), {"heads": TWO}, "objective.invalid"),
        (ObjectiveName("mixture_moments"), {"weights": TWO[0]}, "objective.arrays"),
    ],
)
def test_what_a_statistic_does_not_want_is_refused_and_costs_nothing(
    name: ObjectiveName, beside: Arrays | None, code: str, tmp_path: Path
) -> None:
    there, plan = real_site(tmp_path), plan_for(Release(mechanism="sums"), epsilon=4.0, delta=1e-5)
    assert ask_sums(there, name, plan, beside) == code
    assert not isinstance(ask_sums(there, LOSSES, plan, {"heads": TWO}), str)  # the one it has left


def test_huge_heads_do_not_get_around_the_clip(tmp_path: Path) -> None:
    plan = plan_for(Release(mechanism="sums", clip_norm=1e-3), epsilon=4.0, delta=1e-5)
    told = ask_sums(real_site(tmp_path), LOSSES, plan, {"heads": 1e300 * TWO})
    assert np.abs(told).max() < 1  # type: ignore[arg-type]
