"""Personal heads: methods against slow writings of their papers, the choice against chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from toys import CLASSES, WIDTH, toy_examples

from fedtl.errors import ConfigError, PrivacyError, RecipeError
from fedtl.train.heads import initial_head
from fedtl.train.objective_name import ObjectiveName
from fedtl.train.personal import PERSONAL_HEADS, Made, PersonalHead, Turn, make_personal
from fedtl.train.personal.choice import Answers, answers_of, choose, differing, is_better
from fedtl.train.streams import SeededStreams
from fedtl.train.task import TrainTask
from fedtl.types import Arrays

RATE, EXAMPLES = 0.4, toy_examples(30, 1)
X, Y = EXAMPLES.x.double().numpy(), EXAMPLES.y.numpy()
GLOBAL: Arrays = {"weight": np.linspace(-1, 1, 3 * WIDTH).reshape(3, WIDTH).astype(np.float32)}
ALONE: Arrays = {"weight": np.full((3, WIDTH), 0.25, np.float32)}


def turn(kept: Arrays | None = None, *, steps: int = 4, head: Arrays = GLOBAL) -> Turn:
    return Turn(
        head=head,
        kept=kept or {},
        steps=steps,
        rate=RATE,
        alone=lambda: ALONE,
        examples=EXAMPLES,
        task=TrainTask(rounds=9, steps=2, lr=99.0),
        streams=SeededStreams(1, 1, "a", "personal"),
    )


def made(name: str, kept: Arrays | None = None, **options: float) -> Made:
    return make_personal(ObjectiveName.of(name, **options)).make(turn(kept))


def gradient(w: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = X @ w.T
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(Y)), Y] -= 1
    return p.T @ X / len(Y)


def descended(w: NDArray[np.float64], step: Callable[..., NDArray[np.float64]], n: int) -> Arrays:
    for _ in range(n):
        w = step(w)
    return {"weight": w}


def close(found: Arrays, wanted: Arrays) -> None:
    np.testing.assert_allclose(found["weight"], wanted["weight"], atol=2e-6)


def test_fine_tuning_goes_on_from_the_global_head_and_keeps_nothing() -> None:
    found = made("fine_tuned", steps=3, rate=0.5)
    w = GLOBAL["weight"].astype(float)
    close(found.heads[0], descended(w, lambda w: w - 0.5 * RATE * gradient(w), 3))
    assert not found.kept
    assert (GLOBAL["weight"] == np.linspace(-1, 1, 18, dtype=np.float32).reshape(3, 6)).all()


def test_ditto_descends_on_its_own_loss_with_a_spring_to_the_global_head() -> None:
    w, v = GLOBAL["weight"].astype(float), np.ones((3, WIDTH))
    pull = RATE * 0.7
    found = made("ditto", {"weight": v.astype(np.float32)}, strength=0.7)
    wanted = descended(v, lambda v: (v - RATE * gradient(v) + pull * w) / (1 + pull), 4)
    close(found.heads[0], wanted)
    close(found.kept, wanted)
    # many small steps end where Ditto's objective is least: grad F(v) + lambda (v - w) = 0
    method = make_personal(ObjectiveName.of("ditto", strength=0.7))
    v = method.make(turn(steps=2000)).heads[0]["weight"].astype(float)
    np.testing.assert_allclose(gradient(v) + 0.7 * (v - w), 0, atol=1e-4)


def test_ditto_lies_between_training_alone_and_the_global_head() -> None:
    free, firm = made("ditto", strength=0.0), made("ditto", strength=1e6)
    w = GLOBAL["weight"].astype(float)
    close(free.heads[0], descended(w, lambda v: v - RATE * gradient(v), 4))
    np.testing.assert_allclose(firm.heads[0]["weight"], GLOBAL["weight"], atol=1e-5)


def test_apfl_is_algorithm_1() -> None:
    w, v, alpha = GLOBAL["weight"].astype(float), np.full((3, WIDTH), 0.5), 0.3
    kept = {"weight": v.astype(np.float32), "alpha": np.array(alpha, np.float32)}
    found = made("apfl", kept, rate=0.05)
    alpha -= 0.05 * float(((v - w) * gradient(alpha * v + (1 - alpha) * w)).sum())
    for _ in range(4):
        v = v - RATE * alpha * gradient(alpha * v + (1 - alpha) * w)
    close(found.heads[0], {"weight": alpha * v + (1 - alpha) * w})
    close({"weight": found.kept["weight"]}, {"weight": v})
    assert float(found.kept["alpha"]) == pytest.approx(alpha, abs=1e-6)


def test_apfl_without_own_weight_is_the_global_head() -> None:
    close(made("apfl", alpha=0.0, rate=0.0).heads[0], GLOBAL)


def test_a_mixture_goes_from_the_global_head_to_the_one_trained_alone() -> None:
    heads = made("mixture", parts=4).heads
    assert len(heads) == 5
    close(heads[0], GLOBAL)
    close(heads[1], {"weight": 0.25 * ALONE["weight"] + 0.75 * GLOBAL["weight"]})
    close(heads[4], ALONE)
    mlp, method = turn(head=initial_head("mlp", WIDTH, 3, hidden=4)), ObjectiveName.of("mixture")
    with pytest.raises(RecipeError, match=r"head\.kind = 'linear'"):
        make_personal(method).make(mlp)


@pytest.mark.parametrize("name", ["fine_tuned", "ditto", "apfl"])
def test_mlp_heads_become_personal_as_well(name: str) -> None:
    start = initial_head("mlp", WIDTH, 3, hidden=8, seed=3)
    (head,) = make_personal(ObjectiveName.of(name)).make(turn(head=start, steps=80)).heads
    assert head["hidden.weight"].shape == (8, WIDTH)
    assert (
        answers_of(head, EXAMPLES).right.mean()
        > 0.8
        > answers_of(start, EXAMPLES).right.mean() + 0.2
    )


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("dito", {}, "ditto"),
        ("ditto", {"strength": -1.0}, "strength"),
        ("apfl", {"alpha": 2.0}, "alpha"),
        ("fine_tuned", {"steps": 0}, "steps"),
        ("mixture", {"parts": 0}, "parts"),
        ("mixture", {"part": 3}, "part"),
    ],
)
def test_what_cannot_be_made_is_named(name: str, options: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_personal(ObjectiveName.of(name, **options))


def test_a_real_site_makes_only_what_it_knows_or_its_policy_names() -> None:
    for name in PERSONAL_HEADS:
        assert isinstance(make_personal(ObjectiveName.of(name), allowed=()), PersonalHead)
    with pytest.raises(PrivacyError) as error:
        make_personal(ObjectiveName("other.py:Own", {}), allowed=())
    assert error.value.code == "policy.objective"


def answers(right: NDArray[np.bool_]) -> Answers:
    return Answers(right, np.where(right, 0.1, 2.0))


def rows(n: int) -> NDArray[np.int64]:
    return np.arange(n)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (6, 0), (9, 2), (30, 15), (31, 14)])
def test_better_is_an_exact_sign_test(gained: int, lost: int) -> None:
    p = binomtest(gained, max(gained + lost, 1), alternative="greater").pvalue
    assert is_better(gained, lost, 0.95) == (p <= 0.025)


def test_a_useless_federation_is_seldom_taken_for_a_useful_one() -> None:
    """Three heads that are equally good, 2,000 times: at most 5 % leave their own."""
    rng = np.random.default_rng(5)
    changed = 0
    for _ in range(2000):
        alone, other, own = (rng.random(60) < 0.8 for _ in range(3))
        changed += choose(alone, other, [answers(own)], rows(60), confidence=0.95).choice != "alone"
    assert changed / 2000 <= 0.05
    assert changed > 0


def test_the_head_in_use_is_never_worse_than_alone_on_new_examples() -> None:
    """Whatever the contenders are: mean loss at most what the level allows, gain where there is."""
    rng = np.random.default_rng(6)
    for good, least in ((0.6, -0.005), (0.8, -0.005), (0.95, 0.1)):
        gains = []
        for _ in range(300):
            alone, other, own = (rng.random(200) < p for p in (0.8, good, good))
            used = choose(alone, other, [answers(own)], rows(200), confidence=0.95)
            gains.append((used.right - alone.sum()) / 200)  # each half by the other half's choice
        assert np.mean(gains) >= least, good


def test_at_no_confidence_the_best_on_held_out_examples_is_used() -> None:
    alone, other = np.arange(20) < 10, np.arange(20) < 11
    assert choose(alone, other, [answers(alone)], rows(20), confidence=0.0).choice == "global"
    assert choose(alone, other, [answers(alone)], rows(20), confidence=0.95).choice == "alone"
    assert choose(alone, alone, [answers(alone)], rows(20), confidence=0.0).choice == "alone"


def test_the_result_of_several_heads_is_not_that_of_the_luckiest() -> None:
    """Of 50 heads that guess, the best looks good on what chose it, and guesses on the rest."""
    rng = np.random.default_rng(7)
    alone = rng.random(400) < 0.5
    heads = [rng.random(400) < 0.5 for _ in range(50)]
    found = choose(alone, alone, [answers(head) for head in heads], rows(400), confidence=0.0)
    assert heads[found.member].mean() > 0.55
    own = np.where(rows(400) % 2 == 0, heads[found.members[0]], heads[found.members[1]])
    assert abs(own.mean() - 0.5) < 0.08
    assert found.personal_ahead == differing(own, alone, rows(400))


def test_what_belongs_together_is_counted_once_and_stays_together() -> None:
    of_row = np.repeat(np.arange(4), 5)
    alone, own = np.zeros(20, bool), np.ones(20, bool)
    found = choose(alone, alone, [answers(own)], of_row, confidence=0.95)
    assert found.choice == "alone"  # four patients, not twenty pictures
    assert all(len(set(found.halves[of_row == unit])) == 1 for unit in range(4))


def test_without_held_out_examples_a_site_stays_alone() -> None:
    none = np.zeros(0, bool)
    found = choose(none, none, [answers(none)], rows(0), confidence=0.0)
    assert (found.choice, found.right) == ("alone", 0)


def test_how_a_head_answers() -> None:
    weight = np.zeros((len(CLASSES), WIDTH), np.float32)
    weight[1, -1] = 2.0  # the bias feature is one half
    found, middle = (
        answers_of({"weight": weight}, EXAMPLES),
        (EXAMPLES.y == torch.tensor(1)).numpy(),
    )
    np.testing.assert_array_equal(found.right, middle)
    np.testing.assert_allclose(found.losses, np.log(2 + np.e) - middle, atol=1e-6)


def test_of_several_heads_the_smallest_loss_decides() -> None:
    right = np.ones(10, bool)
    heads = [Answers(right, np.full(10, loss)) for loss in (0.5, 0.2, 0.4)]
    assert choose(~right, ~right, heads, rows(10), confidence=0.0).members == (1, 1)
