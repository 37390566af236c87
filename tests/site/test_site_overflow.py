"""A hostile head must not show who is there: a NaN passes clipping and shows through noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import CLASSES, WIDTH, toy_examples, toy_release

from fedtl.train.additive import sums
from fedtl.train.fit import Examples, fit
from fedtl.train.mlp import fit_mlp_head
from fedtl.train.task import TrainTask
from fedtl.train.whitening import whiten

HUGE = np.float32(3e38)
TASK = TrainTask(rounds=1, lr=1.0)


class Silent:
    """Noise of zeros: what is left is what noise has to hide."""

    seeded = True
    batches = np.random.default_rng(0)

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.zeros(shape)


def with_and_without_victim() -> tuple[Examples, Examples]:
    """Return a site's data with one record that has a feature of its own, and without it."""
    examples = toy_examples(20, 1)
    x = examples.x.clone()
    x[:, 2] = 0.0
    x[7, 2] = 1.0
    kept = torch.arange(20) != 7
    return Examples.of(x, examples.y), Examples.of(x[kept], examples.y[kept])


def hostile(width: int = WIDTH) -> np.ndarray:
    """Return weights that overflow on the third feature only, to infinity minus infinity."""
    weight = np.zeros((len(CLASSES), width), np.float32)
    weight[0, 2] = weight[1, 2] = HUGE
    return weight


@pytest.mark.parametrize("unit", ["example", "group"])
@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_a_linear_head_that_overflows_moves_no_further_than_the_clip_norm(
    unit: str, factor: float
) -> None:
    release = toy_release(clip_norm=0.5, public_size=1.0, unit=unit)
    moved = []
    for data in with_and_without_victim():
        x = data.x.clone()
        x[:, 2] *= factor
        groups = None if unit == "example" else [str(at) for at in range(len(x))]
        head = torch.from_numpy(hostile())[None]
        after = fit(
            torch.clone(head),
            [Examples.of(x, data.y, groups)],
            task=TASK,
            release=release,
            streams=[Silent()],  # type: ignore[list-item]
        )
        assert bool(after.isfinite().all())
        moved.append((after - head)[0, :, [0, 1, 3, 4, 5]])
    assert float((moved[0] - moved[1]).norm()) <= 0.5 * (1 + 1e-5)


def test_an_mlp_head_that_overflows_moves_no_further_than_the_clip_norm() -> None:
    release = toy_release(clip_norm=0.5, public_size=1.0)
    head = {
        "hidden.weight": np.zeros((4, WIDTH), np.float32),
        "hidden.bias": np.zeros(4, np.float32),
        "out.weight": np.full((3, 4), 10.0, np.float32),
        "out.bias": np.zeros(3, np.float32),
    }
    head["hidden.weight"][:, 2] = HUGE
    head["out.weight"][2] = -10.0
    moved = []
    for data in with_and_without_victim():
        after = fit_mlp_head(
            head,
            data,
            task=TrainTask(rounds=1, lr=1.0, head="mlp"),
            release=release,
            streams=Silent(),  # type: ignore[arg-type]
        )
        assert all(np.isfinite(values).all() for values in after.values())
        moved.append(np.concatenate([after[k].ravel() - head[k].ravel() for k in head]))
    assert np.linalg.norm(moved[1]) > 0.1  # those who do not overflow move it
    assert float(np.linalg.norm(moved[0] - moved[1])) <= 0.5 * (1 + 1e-5)


@pytest.mark.parametrize("mechanism", ["mean", "covariance"])
def test_a_whitening_that_overflows_keeps_the_bound_of_every_record(mechanism: str) -> None:
    release = toy_release(1, mechanism=mechanism, clip_norm=1.0)
    d = WIDTH - 1
    along = torch.zeros(d, 2)
    along[2] = float(HUGE)  # overflows for the victim only
    for mean, pull in (
        (torch.zeros(d), along),
        (torch.full((d,), HUGE), torch.zeros(d, 2)),
        (torch.zeros(d), torch.full((d, 2), HUGE)),
        (torch.full((d,), HUGE), torch.full((d, 2), -HUGE)),
    ):
        both = [
            sums(
                Examples.of(whiten(data.x, mean, pull), data.y),
                3,
                mechanism=mechanism,
                release=release,
            )
            for data in with_and_without_victim()
        ]
        if pull is along:
            assert all(np.abs(values).max() > 0.1 for values in both[1].values())
        for name, values in both[0].items():
            assert np.isfinite(values).all()
            assert np.linalg.norm(values - both[1][name]) <= 1 + 1e-6
