"""Personal heads at a site: they stay there, cost no privacy, and are remembered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from toys import WIDTH, Toys, toy_examples, toy_plan, toy_records

from fedtl.privacy.ledger import Ledger
from fedtl.privacy.plan import PrivacyPlan, plan_for
from fedtl.privacy.release import Release
from fedtl.site.answer import answer_evaluate, answer_train
from fedtl.site.memory import Memory
from fedtl.site.personal import own_head
from fedtl.site.policy import SIMULATED, SitePolicy
from fedtl.site.site import Site
from fedtl.train.counts import METRICS_NORM
from fedtl.train.fit import Examples
from fedtl.train.heads import initial_head
from fedtl.train.objective_name import ObjectiveName
from fedtl.train.task import TrainTask
from fedtl.transport._identity import ensure_identity
from fedtl.types import Arrays, Evaluation, Personal
from fedtl.wire.arrays import pack, unpack
from fedtl.wire.evaluation import evaluation_config, read_evaluation, with_personal
from fedtl.wire.messages import EVALUATE, TRAIN, Request, task_config
from fedtl.wire.objective import with_objective

LINEAR: Arrays = initial_head("linear", WIDTH, 3)
MLP: Arrays = initial_head("mlp", WIDTH, 3, hidden=5, seed=2)
TASK = TrainTask(rounds=6, steps=3, lr=0.5)
DITTO, OWN_LAYER = ObjectiveName.of("ditto", strength=0.05), ObjectiveName.of("own_layer")
NOISED = plan_for(
    Release(mechanism="metrics", clip_norm=METRICS_NORM, count=6), epsilon=50.0, delta=1e-5
)


def context() -> Context:
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})


def ask(
    site: Site,
    method: ObjectiveName | None = DITTO,
    *,
    round_: int = 1,
    head: Arrays = LINEAR,
    plan: PrivacyPlan | None = None,
    silent: bool = False,
    task: bool = True,
    objective: ObjectiveName | None = None,
    confidence: float = 0.95,
) -> Evaluation | str:
    """Return what a site says of its held-out examples, or the failure code."""
    ensure_identity()
    config = evaluation_config(
        task_config(TASK, plan, seed=3),
        round_=round_,
        confusion=True,
        personal=task,
        silent=silent,
    )
    asked = Message(RecordDict({"arrays": pack(head), "config": config}), 1, EVALUATE)
    if method is not None:
        with_personal([asked], method, confidence=confidence)
    if objective is not None:
        with_objective([asked], objective)
    reply = answer_evaluate(asked, context(), lambda _: site)
    return str(reply.error.reason) if reply.has_error() else read_evaluation(reply)


def told(answer: Evaluation | str) -> Personal:
    assert isinstance(answer, Evaluation)
    assert answer.personal is not None
    return answer.personal


def kept_heads(site: Site) -> list[tuple[str, int, Arrays, Personal]]:
    found: list[tuple[str, int, Arrays, Personal]] = []
    site.keep_personal = lambda *what: found.append(what)
    return found


def test_a_site_says_how_its_own_head_does_and_how_that_compares() -> None:
    site = Toys().site("site-b")
    kept = kept_heads(site)
    plain, own = ask(site, None), ask(site)
    assert isinstance(plain, Evaluation)
    assert isinstance(own, Evaluation)
    assert plain.personal is None
    assert told(own).right_global == plain.right < own.right  # the received head is zero
    assert told(own).units == 15
    assert own.n == plain.n == 15
    assert own.confusion is not None
    assert own.confusion.trace() == own.right
    run, round_, used, compared = kept[0]
    assert (run, round_, compared) == ("1", 1, told(own))
    assert used["weight"].shape == (3, WIDTH)


def test_it_goes_on_where_it_was_and_a_repeated_round_is_the_same(tmp_path: Path) -> None:
    def site() -> Site:
        made = Toys().site("site-c")
        made.memory = Memory(tmp_path / "memory")
        return made

    heads = [kept_heads(one := site()), ask(one, confidence=0.0)][0]
    again = [kept_heads(one := site()), ask(one, confidence=0.0)][0]
    second = [kept_heads(one := site()), ask(one, round_=2, confidence=0.0)][0]
    fresh = kept_heads(one := Toys().site("site-c"))
    ask(one, round_=2, confidence=0.0)
    memory = Memory(tmp_path / "memory")
    first, later = (memory.before("1", DITTO.to_json(), r)["weight"] for r in (2, 3))
    assert np.abs(first - later).max() > 1e-3
    np.testing.assert_array_equal(heads[0][2]["weight"], again[0][2]["weight"])
    assert second[0][1] == fresh[0][1] == 2
    # whoever was not asked before catches up with the steps that were due
    late = one.memory.before("1", DITTO.to_json(), 3)["weight"]
    np.testing.assert_allclose(late, later, atol=1e-6)


def real_site(ledger: Ledger) -> Site:
    """Return a site that keeps account of its records."""
    return replace(
        Toys(simulated=False).site("site-d"),
        ledger=ledger,
        dataset=toy_records(0),
        held_out_dataset=toy_records(1),
        policy=SitePolicy(),
    )


def test_nothing_of_it_is_told_where_results_are_noised_and_nothing_is_paid(ledger: Ledger) -> None:
    site = real_site(ledger)
    kept = kept_heads(site)
    answer = ask(site, plan=NOISED)
    assert isinstance(answer, Evaluation)
    assert answer.personal is None
    assert answer.releases == 1
    assert len(kept) == 1  # the site has it all the same
    charges = [e.kind for e in ledger.entries()].count("charge")
    assert charges == 1  # the counts of the global head
    again = ask(site, plan=NOISED)
    assert [e.kind for e in ledger.entries()].count("charge") == 1
    assert isinstance(again, Evaluation)
    assert (again.right, again.wrong) == (answer.right, answer.wrong)


def test_a_silent_question_makes_a_head_and_gets_no_answer() -> None:
    site = Toys(simulated=False).site("site-b")
    site.policy = SitePolicy()  # clear metrics are not allowed
    kept = kept_heads(site)
    assert ask(site, None) == "policy.metrics"
    assert ask(site) == "policy.metrics"
    assert not kept
    answer = ask(site, silent=True)
    assert isinstance(answer, Evaluation)
    assert not answer.measured
    assert answer.personal is None
    assert len(kept) == 1


@pytest.mark.parametrize("unprotected", [False, True])
def test_results_of_a_head_without_noise_need_leave_to_go_unprotected(unprotected: bool) -> None:
    site = Toys(simulated=False).site("site-b")
    site.policy = SitePolicy(clear_metrics=True, unprotected=unprotected, suppress_below=0)
    kept = kept_heads(site)
    answer = ask(site, plan=toy_plan())
    assert isinstance(answer, Evaluation)
    assert (answer.personal is not None) == unprotected
    plain = ask(site, None, plan=toy_plan())
    assert isinstance(plain, Evaluation)
    assert (answer.right == plain.right) == (not unprotected)
    assert len(kept) == 1


def test_too_few_held_out_examples_are_not_told_of() -> None:
    site = Toys().site("site-b")
    site.policy = replace(SIMULATED, suppress_below=16)
    kept = kept_heads(site)
    answer = ask(site)
    assert isinstance(answer, Evaluation)
    assert not answer.measured
    assert len(kept) == 1


@pytest.mark.parametrize("confidence", [0.0, 0.95])
def test_a_federation_that_harms_a_site_is_left(confidence: float) -> None:
    """The planted one names every class for another, and fine-tuning is too short to mend it."""
    site = Toys().site("site-f")
    centres = np.random.default_rng(1).normal(size=(3, WIDTH - 1))
    head = {"weight": np.column_stack([centres[[1, 2, 0]], np.zeros(3)]).astype(np.float32) * 9}
    method = ObjectiveName.of("fine_tuned", steps=1)
    bad = told(ask(site, method, head=head, confidence=confidence))
    assert bad.right_global < bad.right_alone
    assert (bad.choice, bad.right_used) == ("alone", bad.right_alone)


def test_a_federation_that_helps_a_site_is_stayed_with() -> None:
    site = Toys().site("site-f")
    train, _ = site.examples
    few = Examples.of(train.x[:3], train.y[:3])
    site.__dict__["examples"] = few, toy_examples(200, 55)
    centres = np.random.default_rng(1).normal(size=(3, WIDTH - 1))
    bias = -(centres**2).sum(1)  # the bias feature is one half
    head = {"weight": np.column_stack([centres, bias]).astype(np.float32) * 3}
    good = told(ask(site, ObjectiveName.of("fine_tuned", steps=1), head=head))
    assert good.choice in ("global", "personal")
    assert good.right_used > good.right_alone + 20


def trained(site: Site, round_: int, head: Arrays = MLP, **options: int) -> Arrays | str:
    ensure_identity()
    config = task_config(TASK, None, seed=3)
    config["server-round"] = round_
    asked = Message(RecordDict({"arrays": pack(head), "config": config}), 1, TRAIN)
    with_objective([asked], ObjectiveName.of("own_layer", **options))
    (reply,) = answer_train([(asked, context())], lambda _: site)
    if reply.has_error():
        return str(reply.error.reason)
    return unpack(next(iter(reply.content.array_records.values())))


def test_the_last_layer_never_leaves_the_site() -> None:
    site = Toys().site("site-e")
    for round_ in (1, 2, 3):
        update = trained(site, round_)
        assert not isinstance(update, str)
        for name in ("out.weight", "out.bias"):
            np.testing.assert_array_equal(update[name], MLP[name])
        if round_ > 1:  # the last layer was zero at first: no gradient passes through it
            assert np.abs(update["hidden.weight"] - MLP["hidden.weight"]).max() > 1e-4
    answer = ask(site, OWN_LAYER, head=MLP, round_=3, objective=OWN_LAYER)
    assert isinstance(answer, Evaluation)
    assert answer.right > told(answer).right_global


def test_results_with_noise_are_of_a_layer_that_the_same_plan_covers() -> None:
    """A layer that was trained without noise must not show through noise on held-out counts."""
    site = Toys().site("site-e")
    assert not isinstance(trained(site, 1), str)
    layers = []
    for plan in (None, NOISED):
        asked = Request(dict(MLP), TASK, plan, 1, 3, objective=OWN_LAYER, personal=OWN_LAYER)
        own = own_head(site, asked, "1")
        assert own is not None
        layers.append(own.heads[0]["out.weight"])
    assert np.abs(layers[0]).max() > 1e-3
    np.testing.assert_array_equal(layers[1], MLP["out.weight"])


def test_what_is_refused_is_not_paid_for(ledger: Ledger) -> None:
    site = real_site(ledger)
    assert ask(site, ObjectiveName.of("ditto", strength=-1.0), plan=NOISED) == "objective.invalid"
    assert not ledger.entries()


def test_fedrep_moves_the_last_layer_first_and_then_the_others() -> None:
    """Of three steps; the last layer begins at zero, so its first step lets the others move."""
    site = Toys().site("site-e")
    updates = {n: trained(site, 1, head_steps=n) for n in (1, 2, 5)}  # each has its own memory
    keys = {n: f"own {ObjectiveName.of('own_layer', head_steps=n).to_json()} " for n in updates}
    own = {n: site.memory.before("1", keys[n], 2)["out.weight"] for n in updates}
    examples = site.examples[0]
    steps = {n: replace(TASK, steps=n) for n in (1, 2)}
    for n, task in steps.items():
        frozen = own_layer_only(examples, task)
        np.testing.assert_allclose(own[n], frozen, atol=1e-6)
    np.testing.assert_array_equal(own[2], own[5])  # at most all but one
    for update in updates.values():
        assert not isinstance(update, str)
        assert np.abs(update["hidden.weight"] - MLP["hidden.weight"]).max() > 1e-5


def own_layer_only(examples: Examples, task: TrainTask) -> np.ndarray:
    """Descend on the last layer alone, slowly and in float64."""
    x, y = examples.x.double(), examples.y
    inner = torch.nn.functional.gelu(
        x @ torch.from_numpy(MLP["hidden.weight"]).double().T
        + torch.from_numpy(MLP["hidden.bias"]).double()
    )
    w, b = torch.zeros(3, 5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(task.steps):
        residuals = torch.softmax(inner @ w.T + b, 1) - torch.eye(3, dtype=torch.float64)[y]
        w, b = w - task.lr * residuals.T @ inner / len(y), b - task.lr * residuals.mean(0)
    return w.numpy()


def test_a_linear_head_has_nothing_to_share() -> None:
    assert trained(Toys().site("site-e"), 1, LINEAR) == "objective.invalid"


def test_a_kept_layer_of_another_shape_is_refused() -> None:
    site = Toys().site("site-e")
    trained(site, 1)
    other = initial_head("mlp", WIDTH, 3, hidden=7)
    assert trained(site, 2, other) == "objective.memory"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("personal", "{"),
        ("personal", '{"name": "ditto", "options": {"strength": -1}, "source": ""}'),
        ("personal", '{"name": "os:system", "options": {}, "source": ""}'),
        ("personal", 3),
        ("confidence", 1.0),
        ("confidence", float("nan")),
        ("confidence", "high"),
        ("silent", 1),
        ("task", ""),
        ("task", TrainTask(rounds=1, steps=10**9, lr=1.0).to_json()),
        ("personal", '{"name": "fine_tuned", "options": {"steps": 1000000000}, "source": ""}'),
    ],
)
def test_a_hostile_question_is_refused_with_a_code(key: str, value: Any) -> None:
    ensure_identity()
    site = Toys(simulated=False).site("site-a")
    site.policy = SitePolicy(clear_metrics=True, unprotected=True, suppress_below=0)
    kept = kept_heads(site)
    config = evaluation_config(task_config(TASK, None), round_=1, confusion=False, personal=True)
    asked = Message(RecordDict({"arrays": pack(LINEAR), "config": config}), 1, EVALUATE)
    with_personal([asked], DITTO, confidence=0.95)
    record = asked.content["config"]
    assert isinstance(record, ConfigRecord)
    record[key] = value
    reply = answer_evaluate(asked, context(), lambda _: site)
    assert reply.has_error()
    assert (reply.error.reason or "").split(".")[0] in ("message", "objective", "policy")
    assert not kept
