"""A small audit, and faults to plant into the code under audit: each changes one function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import toy_examples

from fedtl.audit.canaries import gradient_canaries
from fedtl.audit.certify import Certified, certify
from fedtl.audit.sums import sums_canaries
from fedtl.privacy import discrete
from fedtl.privacy.plan import Release, plan_for
from fedtl.rng import key_of
from fedtl.train import additive, batches, fit, streams
from fedtl.train.batches import Batch, Examples
from fedtl.train.task import TrainTask

WIDTH, CLASSES, ROUNDS, STEPS = 1200, 5, 6, 2
TOYS = toy_examples(60, 1, width=WIDTH, classes=CLASSES)
REAL = Examples.of(TOYS.x / TOYS.norms[:, None], TOYS.y)
EPSILON, DELTA = 3.0, 1e-5
Fault = Callable[[pytest.MonkeyPatch], None]


def release(
    mechanism: Any = "gradients", *, poisson: bool = False, shared: bool = False
) -> Release:
    draft = Release(
        mechanism=mechanism,
        clip_norm=0.5,
        count=(ROUNDS if shared else ROUNDS * STEPS) if mechanism == "gradients" else 1,
        sampling_rate=0.3 if poisson else 1.0,
        public_size=60,
        honest_sites=3 if shared else 0,
    )
    return plan_for(draft, epsilon=EPSILON, delta=DELTA).release(mechanism)


def audit_gradients(
    *, seed: int = 0, canaries: int = 1200, poisson: bool = False, shared: bool = False
) -> Certified:
    task = TrainTask(
        rounds=ROUNDS, steps=1 if shared else STEPS, sampling="poisson" if poisson else "full"
    )
    claimed = release(poisson=poisson, shared=shared)
    found = gradient_canaries(
        REAL, CLASSES, task=task, release=claimed, canaries=canaries, seed=seed
    )
    return certify(found, delta=DELTA)


def audit_sums(
    mechanism: str, *, seed: int = 0, canaries: int = 1200, shared: bool = False
) -> Certified:
    claimed = release(mechanism, shared=shared)
    found = sums_canaries(
        REAL, CLASSES, mechanism=mechanism, release=claimed, canaries=canaries, seed=seed
    )
    return certify(found, delta=DELTA)


audit_statistics = partial(audit_sums, "statistics")


def whole_noise_off_by_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    real = discrete.discrete_gaussian
    monkeypatch.setattr(discrete, "discrete_gaussian", lambda *args: real(*args) // 10)


def whole_noise_shared_over_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    real = discrete.discrete_gaussian

    def shared(deviation: int, n: int, words: Any) -> Any:
        numbers = real(deviation, n, words)
        return np.tile(numbers[:WIDTH], CLASSES) if n == CLASSES * WIDTH else numbers

    monkeypatch.setattr(discrete, "discrete_gaussian", shared)


def noise_off_by_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    real = streams._normal
    monkeypatch.setattr(streams, "_normal", lambda *args: real(*args) / 10)


def noise_shared_over_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One draw for all classes, as a key that is closed over in a vmap gives."""
    real = streams._normal

    def shared(first: Any, second: Any, shape: tuple[int, ...]) -> Tensor:
        numbers = real(first, second, shape)
        across = -1 if shape == (WIDTH, CLASSES) else -2
        if len(shape) == 2:
            numbers[:] = numbers.select(across, 0).unsqueeze(across).clone()
        return numbers

    monkeypatch.setattr(streams, "_normal", shared)


def noise_reused_over_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that does not know the round."""
    monkeypatch.setattr(streams, "key_of", lambda seed, what, _, site: key_of(seed, what, 0, site))


def clipping_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "clip_residuals", lambda residuals, norms, clip_norm: residuals)


def clipping_of_sums_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(additive, "_clipped", lambda rows, release: rows)


def norms_understated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms of other records, such as a cache that went stale would bring: nothing is clipped."""
    real = Examples.of.__func__  # type: ignore[attr-defined]

    def stale(cls: type[Examples], x: Tensor, y: Tensor) -> Examples:
        examples: Examples = real(cls, x, y)
        return replace(examples, norms=torch.full_like(examples.norms, 1e-3))

    monkeypatch.setattr(Examples, "of", classmethod(stale))


def record_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    real = batches.batches

    def twice(*arguments: Any) -> Iterator[Batch]:
        for batch in real(*arguments):
            yield _doubled(batch)

    monkeypatch.setattr(fit, "batches", twice)


def _doubled(batch: Batch) -> Batch:
    x: Sequence[Tensor] = [torch.cat([part, part]) for part in batch.x]
    norms = None if batch.norms is None else torch.cat([batch.norms, batch.norms])
    return Batch(x, torch.cat([batch.y, batch.y]), norms)
