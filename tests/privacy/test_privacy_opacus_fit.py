"""Private training of an MLP head: right gradients, right noise, nothing left to chance."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import autograd_mlp_grad

from fedtl.errors import DataError, PrivacyError
from fedtl.privacy import opacus_fit
from fedtl.privacy.opacus_fit import fit_mlp, mlp_logits
from fedtl.privacy.steering import CrossEntropy


def head(width, hidden, classes, seed=0, scale=1.0):
    draw = torch.Generator().manual_seed(seed)
    shapes = {
        "hidden.weight": (hidden, width),
        "hidden.bias": (hidden,),
        "out.weight": (classes, hidden),
        "out.bias": (classes,),
    }
    return {k: scale * torch.randn(shape, generator=draw) for k, shape in shapes.items()}


def examples(n, width, classes, seed=1):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, generator=draw)
    return x, torch.randint(0, classes, (n,), generator=draw)


class Noise:
    """A seeded source of normals that remembers what it gave."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.given = []

    def __call__(self, shape):
        self.given.append(torch.randn(shape, generator=self.generator))
        return self.given[-1]


def fit(state, x, y, *, seed=0, noise=None, **changes):
    settings = {
        "steps": 1,
        "sampling_rate": 1.0,
        "clip_norm": 1.0,
        "noise_multiplier": 0.0,
        "expected_batch": 1.0,
        "lr": 1.0,
    }
    return fit_mlp(
        state,
        x,
        y,
        batches=np.random.default_rng(seed),
        normal=noise or Noise(seed),
        **(settings | changes),
    )


def moved(before, after):
    return torch.cat([(before[k] - after[k]).flatten() for k in before])


shapes = st.tuples(
    st.integers(1, 12), st.integers(1, 9), st.integers(1, 7), st.integers(2, 5), st.integers(0, 99)
)


@settings(max_examples=25, deadline=None)
@given(shapes, st.floats(0.01, 10), st.floats(0.5, 20))
def test_a_step_is_the_sum_of_clipped_gradients(shape, clip_norm, expected_batch):
    n, width, hidden, classes, seed = shape
    state, (x, y) = head(width, hidden, classes, seed), examples(n, width, classes, seed)
    got = fit(state, x, y, clip_norm=clip_norm, expected_batch=expected_batch)
    slow = autograd_mlp_grad(state, x, y, clip_norm)
    for name, gradient in slow.items():
        step = (state[name] - got[name]) * expected_batch
        torch.testing.assert_close(step, gradient, rtol=1e-5, atol=1e-5 * max(1, expected_batch))


@settings(max_examples=15, deadline=None)
@given(shapes)
def test_without_privacy_a_step_is_the_mean_gradient(shape):
    n, width, hidden, classes, seed = shape
    state, (x, y) = head(width, hidden, classes, seed), examples(n, width, classes, seed)
    got = fit(state, x, y, clip_norm=None, noise_multiplier=None)
    for name, gradient in autograd_mlp_grad(state, x, y, math.inf).items():
        torch.testing.assert_close(state[name] - got[name], gradient / n, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("per_example_floats", [1, 70, 200])
def test_a_batch_in_pieces_is_the_same_batch(monkeypatch, per_example_floats):
    state, (x, y) = head(5, 4, 3), examples(11, 5, 3)
    noise = Noise()
    whole = fit(state, x, y, clip_norm=0.5, noise_multiplier=1.0, steps=3, noise=Noise())
    monkeypatch.setattr(opacus_fit, "_PER_EXAMPLE_FLOATS", per_example_floats)
    pieces = fit(state, x, y, clip_norm=0.5, noise_multiplier=1.0, steps=3, noise=noise)
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-5)
    assert len(noise.given) == 3 * 4


def test_one_example_moves_the_head_by_no_more_than_the_clip_norm():
    state, (x, y) = head(6, 5, 3), examples(9, 6, 3)
    x[0] *= 1e4
    with_it = fit(state, x, y, clip_norm=0.3)
    without = fit(state, x[1:], y[1:], clip_norm=0.3)
    assert float(moved(without, with_it).norm()) <= 0.3 * (1 + 1e-4)


def test_noise_has_the_promised_standard_deviation():
    state = head(20, 30, 10)
    x, y = examples(4, 20, 10)
    clip_norm, multiplier, expected = 0.7, 3.0, 5.0
    arguments = {"clip_norm": clip_norm, "expected_batch": expected}
    quiet = fit(state, x, y, **arguments)
    noise = Noise()
    drawn = torch.stack(
        [
            moved(quiet, fit(state, x, y, noise_multiplier=multiplier, noise=noise, **arguments))
            for _ in range(40)
        ]
    )
    assert float(drawn.std()) == pytest.approx(multiplier * clip_norm / expected, rel=0.03)
    assert abs(float(drawn.mean())) < 0.01
    per_tensor = drawn.split([600, 30, 300, 10], dim=1)
    assert all(float(part.std()) == pytest.approx(0.42, rel=0.08) for part in per_tensor)


def test_noise_is_fresh_in_every_step_tensor_and_class():
    noise = Noise()
    state, (x, y) = head(40, 30, 10), examples(3, 40, 10)
    fit(state, x, y, noise_multiplier=1.0, steps=20, noise=noise)
    assert len(noise.given) == 20 * 4
    rows = torch.cat([tensor.flatten() for tensor in noise.given]).view(20, -1)
    correlation = torch.corrcoef(rows) - torch.eye(20)
    assert float(correlation.abs().max()) < 6 / math.sqrt(rows.shape[1])


def test_the_noise_that_was_given_is_the_noise_that_was_added():
    noise = Noise()
    state, (x, y) = head(4, 3, 2), examples(5, 4, 2)
    quiet = fit(state, x, y, clip_norm=0.5)
    loud = fit(state, x, y, clip_norm=0.5, noise_multiplier=2.0, noise=noise)
    added = torch.cat([tensor.flatten() for tensor in noise.given])
    torch.testing.assert_close(moved(quiet, loud), added, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [0, 3])
def test_an_empty_batch_still_releases_noise(n):
    noise = Noise()
    state, (x, y) = head(4, 3, 2), examples(n, 4, 2)
    got = fit(state, x, y, sampling_rate=1e-12, noise_multiplier=1.0, steps=2, noise=noise)
    assert len(noise.given) == 8
    added = sum(torch.cat([t.flatten() for t in noise.given[at : at + 4]]) for at in (0, 4))
    torch.testing.assert_close(moved(state, got), added, rtol=1e-4, atol=1e-5)


def test_an_empty_batch_without_privacy_changes_nothing():
    state, (x, y) = head(4, 3, 2), examples(3, 4, 2)
    plain = {"clip_norm": None, "noise_multiplier": None}
    assert not moved(state, fit(state, x, y, sampling_rate=1e-12, steps=3, **plain)).any()
    assert not moved(state, fit(state, x[:0], y[:0], steps=3, **plain)).any()


@pytest.mark.parametrize("private", [True, False])
def test_same_streams_same_bits_and_the_global_generator_is_left_alone(private):
    state, (x, y) = head(6, 5, 3), examples(50, 6, 3)
    given = {name: value.clone() for name, value in state.items()}
    bounds = {"clip_norm": 1.0, "noise_multiplier": 1.0} if private else {}
    arguments = {"clip_norm": None, "noise_multiplier": None, "steps": 5, "sampling_rate": 0.3}
    arguments |= {"momentum": 0.9, "weight_decay": 0.1, "expected_batch": 15.0} | bounds
    torch.manual_seed(1)
    one = fit(state, x, y, seed=3, **arguments)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = fit(state, x, y, seed=3, **arguments)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert all(torch.equal(given[k], state[k]) for k in state)
    assert moved(one, fit(state, x, y, seed=4, **arguments)).any()


def test_poisson_batches_take_each_example_at_the_given_rate():
    # Each example has a feature of its own, so a zero row of the gradient means "not taken".
    n, steps = 400, 50
    x, y = torch.eye(n), torch.zeros(n, dtype=torch.int64)
    state = head(n, 2, 2)
    sizes = []
    for seed in range(steps):
        got = fit(state, x, y, seed=seed, sampling_rate=0.2, clip_norm=1e-3)
        sizes.append(int((state["hidden.weight"] != got["hidden.weight"]).any(0).sum()))
    assert np.mean(sizes) == pytest.approx(80, abs=5 * 8 / math.sqrt(steps))
    assert np.std(sizes) == pytest.approx(8, rel=0.4)


@pytest.mark.parametrize("private", [True, False])
def test_momentum_decay_and_pull_follow_their_formulas(private):
    state, (x, y) = head(4, 3, 2), examples(6, 4, 2)

    class Pulled(CrossEntropy):
        def correct(self, name, gradient, weights):
            gradient.add_(weights - state[name], alpha=0.3)

    bounds = (0.5, 0.0) if private else (None, None)
    expected = {k: v.clone() for k, v in state.items()}
    velocity = {k: torch.zeros_like(v) for k, v in state.items()}
    for step in range(3):
        gradient = autograd_mlp_grad(expected, x, y, 0.5 if private else math.inf)
        for k, g in gradient.items():
            g = g / 6 + 0.3 * (expected[k] - state[k]) + 0.1 * expected[k]
            velocity[k] = 0.9 * velocity[k] + g
            expected[k] = expected[k] - velocity[k] * 0.2 / (step + 1)
    got = fit(
        state,
        x,
        y,
        steps=3,
        clip_norm=bounds[0],
        noise_multiplier=bounds[1],
        expected_batch=6.0,
        lr=lambda step: 0.2 / (step + 1),
        momentum=0.9,
        weight_decay=0.1,
        steering=Pulled(),
    )
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("private", [True, False])
def test_it_learns_what_no_linear_head_can(private):
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(600, 2, generator=draw)
    y = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).long()
    bounds = {"clip_norm": 1.0, "noise_multiplier": 1.0} if private else {}
    arguments = {"clip_norm": None, "noise_multiplier": None, "expected_batch": 600.0} | bounds
    state = head(2, 16, 2, scale=0.5)
    got = fit(state, x, y, steps=100, lr=1.0, momentum=0.9, **arguments)
    accuracy = float((mlp_logits(got, x).argmax(1) == y).float().mean())
    assert accuracy > 0.9


def test_it_trains_inside_inference_mode():
    with torch.inference_mode():
        state, (x, y) = head(4, 3, 2), examples(6, 4, 2)
        inside = fit(state, x, y, steps=2, noise_multiplier=1.0)
    outside = fit(head(4, 3, 2), *examples(6, 4, 2), steps=2, noise_multiplier=1.0)
    assert all(torch.equal(inside[k], outside[k]) for k in inside)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("clip_norm", {"clip_norm": None}),
        ("clip_norm", {"clip_norm": 0.0}),
        ("clip_norm", {"clip_norm": math.inf}),
        ("noise_multiplier", {"noise_multiplier": None}),
        ("noise_multiplier", {"noise_multiplier": -1.0}),
        ("noise_multiplier", {"noise_multiplier": math.nan}),
        ("sampling_rate", {"sampling_rate": 0.0}),
        ("sampling_rate", {"sampling_rate": 1.1}),
        ("expected_batch", {"expected_batch": 0.0}),
    ],
)
def test_half_a_privacy_setting_is_refused(name, changes):
    with pytest.raises(PrivacyError, match=name):
        fit(head(4, 3, 2), *examples(6, 4, 2), **changes)


def test_examples_that_do_not_fit_are_refused():
    state, (x, y) = head(4, 3, 2), examples(6, 4, 2)
    for bad_x, bad_y in ((x[:, :3], y), (x, y[:5]), (x, y + 2), (x, y - 5), (x / 0, y)):
        with pytest.raises(DataError):
            fit(state, bad_x, bad_y)
    with pytest.raises(DataError, match="weight"):
        fit({"weight": torch.zeros(2, 4)}, x, y)


def test_training_without_privacy_loads_no_opacus():
    code = (
        "import sys, numpy, torch; from fedtl.privacy.opacus_fit import fit_mlp;"
        "s = {'hidden.weight': torch.ones(2, 2), 'hidden.bias': torch.ones(2),"
        "'out.weight': torch.ones(2, 2), 'out.bias': torch.ones(2)};"
        "fit_mlp(s, torch.ones(1, 2), torch.zeros(1).long(), steps=1, sampling_rate=0.5,"
        "clip_norm=None, noise_multiplier=None, expected_batch=1.0, lr=1.0,"
        "batches=numpy.random.default_rng(0), normal=torch.randn);"
        "print('opacus' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
