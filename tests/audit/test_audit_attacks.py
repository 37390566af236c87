"""Attacks on members and single updates: sure where nothing protects, in vain under a plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import planted
import pytest
import torch
from planted import CLASSES
from sklearn.metrics import roc_auc_score
from toys import toy_examples

from fedtl.audit.inversion import invert, invert_updates
from fedtl.audit.lira import (
    Shadows,
    attack,
    judge,
    most_tpr,
    ratios,
    sureness_of,
    train_shadows,
)
from fedtl.errors import PrivacyError
from fedtl.features.prepare import prepared_rows
from fedtl.privacy.plan import Release, plan_for
from fedtl.train.fit import Examples
from fedtl.train.task import TrainTask


def unit_examples(n: int, *, width: int = 120, spread: float = 3.0) -> Examples:
    """Return examples as the site prepares them: unit features, then a bias feature of 0.1."""
    toys = toy_examples(n, 3, width=width, classes=CLASSES, spread=spread)
    return Examples.of(torch.from_numpy(prepared_rows(toys.x.numpy())), toys.y)


TASK = TrainTask(rounds=2, steps=20, lr=20.0)
POOL = unit_examples(80)


@pytest.fixture(scope="module")
def open_shadows() -> Shadows:
    return train_shadows(POOL, CLASSES, task=TASK, release=None, shadows=96)


@pytest.mark.parametrize(("online", "least"), [(True, 0.85), (False, 0.75)])
def test_members_of_an_unprotected_run_are_told_from_others(
    open_shadows: Shadows, online: bool, least: float
) -> None:
    found = attack(open_shadows, online=online)
    assert found.auc > least
    assert 0 <= found.tpr_at_01 <= found.tpr_at_1 <= 1
    assert found.tpr_at_1 > 0.1


def test_under_a_plan_members_are_hardly_told_from_others() -> None:
    epsilon, delta = 1.0, 1e-5
    draft = Release(mechanism="gradients", clip_norm=0.5, count=40, public_size=40)
    release = plan_for(draft, epsilon=epsilon, delta=delta).release("gradients")
    found = attack(train_shadows(POOL, CLASSES, task=TASK, release=release, shadows=96))
    assert abs(found.auc - 0.5) < 0.06
    for fpr, tpr in zip(found.fpr, found.tpr, strict=True):
        assert tpr <= most_tpr(float(fpr), epsilon=epsilon, delta=delta) + 0.06


def test_shadow_heads_are_those_of_sites_that_train_alone(open_shadows: Shadows) -> None:
    again = train_shadows(POOL, CLASSES, task=TASK, release=None, shadows=40)
    assert np.array_equal(again.members[:16], train_shadows(
        POOL, CLASSES, task=TASK, release=None, shadows=16).members)  # fmt: skip
    one = train_shadows(POOL, CLASSES, task=TASK, release=None, shadows=16, seed=9)
    assert not np.array_equal(one.members, again.members[:16])
    assert 0.4 < open_shadows.members.mean() < 0.6


def test_sureness_is_the_logit_of_the_true_class() -> None:
    head = torch.randn(CLASSES, POOL.x.shape[1], generator=torch.Generator().manual_seed(2))
    p = torch.softmax((POOL.x @ head.T).double(), dim=1)[torch.arange(80), POOL.y]
    assert np.allclose(sureness_of(head, POOL), torch.log(p / (1 - p)).numpy(), atol=1e-5)


def test_ratios_are_those_of_the_normal_densities() -> None:
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    known = Shadows(rng.normal(size=(200, 3)), rng.random((200, 3)) < 0.5)
    x = rng.normal(size=(4, 3))
    for i in range(3):
        inside, outside = (known.sureness[known.members[:, i] == m, i] for m in (True, False))
        own = norm(np.median(inside), inside.std()).logpdf(x[:, i])
        other = norm(np.median(outside), outside.std())
        assert np.allclose(ratios(known, x)[:, i], own - other.logpdf(x[:, i]), atol=1e-4)
        offline = ratios(known, x, online=False)[:, i]
        assert np.allclose(offline, other.logcdf(x[:, i]), atol=1e-4)


def test_the_roc_curve_is_scikit_learns_with_ties_too() -> None:
    rng = np.random.default_rng(1)
    members = rng.random(500) < 0.4
    scores = np.round(rng.normal(size=500) + members, 1)
    found = judge(scores, members)
    assert found.auc == pytest.approx(roc_auc_score(members, scores))
    assert (found.fpr[0], found.tpr[0]) == (0, 0)
    assert (found.fpr[-1], found.tpr[-1]) == (1, 1)
    assert found.tpr_at_1 == found.tpr[found.fpr <= 0.01].max()
    assert judge(members * 1.0, members).tpr_at_01 == 1.0


def test_too_few_shadow_heads_are_refused() -> None:
    with pytest.raises(PrivacyError, match="3 shadow heads on 80 examples"):
        train_shadows(POOL, CLASSES, task=TASK, release=None, shadows=3)


def test_a_raw_update_of_one_example_gives_it_away_exactly() -> None:
    found = invert_updates(POOL, CLASSES, release=None)
    assert found.errors.max() < 1e-6
    assert found.labels_right == 1.0
    assert found.found == 1.0


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_a_released_update_gives_nobody_away(epsilon: float) -> None:
    for releases in (1, 50):
        draft = Release(mechanism="gradients", clip_norm=0.5, count=releases)
        release = plan_for(draft, epsilon=epsilon, delta=1e-5).release("gradients")
        found = invert_updates(POOL, CLASSES, release=release)
        assert found.found == 0.0
        assert found.errors.min() > 0.5
        assert found.labels_right < 0.75


def test_clipping_alone_does_not_stop_an_inversion() -> None:
    found = invert_updates(POOL, CLASSES, release=replace(planted.release(), noise_multiplier=1e-9))
    assert found.found == 1.0


def test_an_update_of_nothing_has_no_inverse() -> None:
    label, x = invert(np.zeros((3, 4)))
    assert label == 0
    assert np.isnan(x).all()
