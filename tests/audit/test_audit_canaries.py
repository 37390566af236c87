"""The real code keeps its promise under audit, and every planted fault breaks it visibly."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import planted
import pytest
import torch
from planted import CLASSES, DELTA, EPSILON, REAL, ROUNDS, STEPS, WIDTH, Fault

from fedtl.audit.canaries import (
    Canaries,
    gradient_canaries,
    gradient_residuals,
)
from fedtl.audit.certify import Certified, below_gaussian, certify
from fedtl.audit.sums import sums_canaries
from fedtl.errors import PrivacyError
from fedtl.train.fit import fit
from fedtl.train.streams import SeededStreams, SystemStreams
from fedtl.train.task import TrainTask

TASK = TrainTask(rounds=ROUNDS, steps=STEPS)


@pytest.mark.parametrize("seed", range(3))
def test_the_real_code_keeps_its_promise_and_a_good_part_of_it_is_certified(seed: int) -> None:
    for certified in (planted.audit_gradients(seed=seed), planted.audit_statistics(seed=seed)):
        assert certified.highest <= EPSILON
        assert certified.independent is not None
        assert certified.one_run_curve is not None
        assert certified.independent > 0.45 * EPSILON
        assert 0 < certified.one_run < certified.one_run_curve < certified.independent


def test_noise_of_the_operating_system_keeps_the_promise_too() -> None:
    found = gradient_canaries(
        REAL,
        CLASSES,
        task=TASK,
        release=planted.release(),
        canaries=1200,
        streams_of=lambda round_: SystemStreams(),
    )
    inside, outside = found.scores[0][found.included], found.scores[0][~found.included]
    assert inside.mean() - outside.mean() == pytest.approx(1, abs=0.5)  # sd 0.08
    noise = planted.release().noise_multiplier / (ROUNDS * STEPS) ** 0.5
    assert outside.std() == pytest.approx(noise, rel=0.15)  # sd 3 %
    assert certify(found, delta=DELTA, significance=1e-4).highest <= EPSILON


def test_sampled_batches_keep_the_promise_and_weak_noise_breaks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert below_gaussian(planted.release(poisson=True), DELTA)
    certified = planted.audit_gradients(poisson=True)
    assert 0.1 * EPSILON < certified.highest <= EPSILON
    planted.noise_off_by_ten(monkeypatch)
    assert planted.audit_gradients(poisson=True).highest > EPSILON


@pytest.mark.parametrize(
    "fault",
    [
        planted.noise_off_by_ten,
        planted.noise_shared_over_classes,
        planted.noise_reused_over_rounds,
        planted.clipping_skipped,
        planted.norms_understated,
        planted.record_counted_twice,
    ],
)
def test_a_fault_in_the_gradients_is_caught(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planted.audit_gradients(seed=4).highest <= EPSILON
    fault(monkeypatch)
    assert planted.audit_gradients(seed=4).highest > EPSILON


@pytest.mark.parametrize(
    "fault",
    [
        planted.noise_off_by_ten,
        planted.noise_shared_over_classes,
        planted.clipping_of_sums_skipped,
    ],
)
def test_a_fault_in_the_statistics_is_caught(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planted.audit_statistics(seed=4).highest <= EPSILON
    fault(monkeypatch)
    assert planted.audit_statistics(seed=4).highest > EPSILON


SHARED = pytest.mark.parametrize("audit", [planted.audit_gradients, planted.audit_statistics])


@SHARED
@pytest.mark.parametrize("seed", range(2))
def test_noise_that_sites_share_out_keeps_the_promise(
    audit: Callable[..., Certified], seed: int
) -> None:
    certified = audit(seed=seed, shared=True)
    assert 0.3 * EPSILON < certified.highest <= EPSILON


@pytest.mark.parametrize(
    "fault",
    [
        planted.whole_noise_off_by_ten,
        planted.whole_noise_shared_over_classes,
        planted.noise_reused_over_rounds,
        planted.clipping_skipped,
        planted.record_counted_twice,
    ],
)
def test_a_fault_in_shared_noise_is_caught(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planted.audit_gradients(seed=4, shared=True).highest <= EPSILON
    fault(monkeypatch)
    assert planted.audit_gradients(seed=4, shared=True).highest > EPSILON


@pytest.mark.parametrize("shared", [False, True], ids=["site", "shared"])
@pytest.mark.parametrize("mechanism", ["mean", "covariance"])
def test_sums_of_features_keep_the_promise_and_weak_noise_breaks_it(
    mechanism: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2):
        certified = planted.audit_sums(mechanism, seed=seed, shared=shared)
        assert 0.3 * EPSILON < certified.highest <= EPSILON
    with monkeypatch.context() as once:
        (planted.whole_noise_off_by_ten if shared else planted.noise_off_by_ten)(once)
        assert planted.audit_sums(mechanism, shared=shared).one_run > EPSILON
    planted.clipping_of_sums_skipped(monkeypatch)
    assert planted.audit_sums(mechanism, shared=shared).one_run > EPSILON


def test_weak_shared_noise_on_statistics_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    planted.whole_noise_off_by_ten(monkeypatch)
    assert planted.audit_statistics(seed=4, shared=True).one_run > EPSILON


def test_grave_faults_refute_the_claim_without_any_assumption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted.noise_off_by_ten(monkeypatch)
    assert planted.audit_gradients(seed=4).one_run > EPSILON
    assert planted.audit_statistics(seed=4).one_run > EPSILON


def test_without_privacy_every_canary_is_found() -> None:
    for found in (
        gradient_canaries(REAL, CLASSES, task=TASK, release=None, canaries=150),
        sums_canaries(REAL, CLASSES, release=None, canaries=150),
    ):
        scores = found.scores[0]
        assert scores[found.included].min() > scores[~found.included].max()
        assert certify(found, delta=DELTA).one_run > 2.5


def test_the_auditors_own_gradients_are_those_of_autograd() -> None:
    head = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(1))
    residuals = gradient_residuals(head, REAL, 0.5)
    for at in (0, 7, 30):
        weights = head.double().requires_grad_()
        scores = REAL.x[at].double() @ weights.T
        torch.nn.functional.cross_entropy(scores, REAL.y[at]).backward()
        slope = weights.grad
        assert slope is not None
        clipped = slope * min(1.0, 0.5 / float(slope.norm()))
        own = residuals[at][:, None] * REAL.x[at].double()
        torch.testing.assert_close(own, clipped, rtol=1e-9, atol=1e-12)


def test_canaries_are_coins_in_all_directions_and_all_are_clipped() -> None:
    made = Canaries.invent(2000, WIDTH, CLASSES, norm=10.0, seed=1)
    assert 0.45 < made.included.mean() < 0.55
    cosines = (made.examples.x @ made.examples.x.T / 100).fill_diagonal_(0)
    assert float(cosines.abs().max()) < 0.5
    assert len(made.planted(REAL)) == len(REAL) + made.included.sum()
    residuals = gradient_residuals(torch.zeros(CLASSES, WIDTH), made.examples, 0.5)
    assert np.allclose((residuals.norm(dim=1) * 10).numpy(), 0.5, rtol=1e-6)
    head = fit(
        torch.zeros(1, CLASSES, WIDTH),
        [made.planted(REAL)],
        task=TrainTask(rounds=1, lr=1.0),
        release=planted.release(),
        streams=[SeededStreams(0, 1, "a")],
    )
    assert math.isfinite(float(head.norm()))


@pytest.mark.parametrize(("canaries", "fault"), [(99, "few"), (20_000, "many")])
def test_canaries_that_certify_nothing_are_refused(canaries: int, fault: str) -> None:
    with pytest.raises(PrivacyError, match=f"{canaries} canaries are too {fault}"):
        gradient_canaries(REAL, CLASSES, task=TASK, release=None, canaries=canaries)
