"""Training of a two-layer head, private through Opacus: one site at a time.

``logits = out(GELU(hidden(x)))``. Private steps are DP-SGD (Abadi et al. 2016, arXiv:1607.00133,
algorithm 1): Poisson batches, per-example clipping over all four tensors together, Gaussian noise
of standard deviation ``noise_multiplier * clip_norm``, division by a public expected batch. Opacus
computes and clips the per-example gradients; batches and noise come from the caller's streams.
"""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fedtl.errors import DataError, PrivacyError
from fedtl.privacy.steering import CrossEntropy, Steering

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

KEYS = ("hidden.weight", "hidden.bias", "out.weight", "out.bias")
_PER_EXAMPLE_FLOATS = 1 << 24

Normal = Callable[[tuple[int, ...]], "Tensor"]
"""Returns fresh independent standard normal numbers, float32, of a shape."""
Step = Callable[["Tensor", "Tensor"], None]


def mlp_logits(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the ``[n, C]`` scores of ``[n, d]`` features.

    Parameters
    ----------
    state : dict of str to Tensor
        ``hidden.weight [H, d]``, ``hidden.bias [H]``, ``out.weight [C, H]`` and ``out.bias [C]``.
    x : Tensor
        ``[n, d]`` features, same type and device.

    Examples
    --------
    >>> import torch
    >>> shapes = zip(KEYS, [(3, 4), (3,), (2, 3), (2,)])
    >>> mlp_logits({name: torch.zeros(shape) for name, shape in shapes}, torch.zeros(5, 4)).shape
    torch.Size([5, 2])
    """
    from torch.nn import functional

    inner = functional.gelu(functional.linear(x, state["hidden.weight"], state["hidden.bias"]))
    return functional.linear(inner, state["out.weight"], state["out.bias"])


def fit_mlp(
    state: dict[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    sampling_rate: float,
    clip_norm: float | None,
    noise_multiplier: float | None,
    expected_batch: float,
    lr: float | Callable[[int], float],
    batches: np.random.Generator,
    normal: Normal,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    steering: Steering | None = None,
) -> dict[str, Tensor]:
    """Train a head by SGD and return it; the same streams give the same bits.

    Parameters
    ----------
    state : dict of str to Tensor
        The head to start from, as in :func:`mlp_logits`; left alone.
    x, y : Tensor
        ``[n, d]`` float32 features and ``[n]`` int64 classes; ``n`` may be 0.
    steps : int
        Number of steps: the releases that a plan has to account for.
    sampling_rate : float
        Probability in (0, 1] that an example takes part in a step; 1 takes all.
    clip_norm, noise_multiplier : float or None
        L2 bound of an example's gradient, and noise standard deviation over it. Both None: train
        without privacy, without Opacus, on the plain mean gradient of each batch.
    expected_batch : float
        Publicly known batch size that private gradient sums are divided by.
    lr : float or Callable
        Learning rate, or a function that gives it for a step's number from 0.
    batches : numpy Generator
        Chooses the batches.
    normal : Callable
        Gives the noise; see :class:`fedtl.train.streams.Streams`.
    momentum, weight_decay : float
        As in ``torch.optim.SGD``; applied after the noise, so they need no privacy.
    steering : Steering, optional
        A client-side step of its own; default: cross-entropy.

    Returns
    -------
    dict of str to Tensor
        The trained head, same shapes.

    Raises
    ------
    PrivacyError
        Clip norm, noise, sampling rate or expected batch is out of range, or only one of clip norm
        and noise is given.
    DataError
        Features or classes do not fit the head, or are not finite.
    """
    import torch

    bounds = _clip_and_noise(clip_norm, noise_multiplier, sampling_rate, expected_batch)
    _check_examples(state, x, y)
    # The caller may be in inference mode, whose tensors no gradient can pass.
    with torch.inference_mode(False), torch.enable_grad():
        x, y = (t.clone() if t.is_inference() else t for t in (x, y))
        model = _module(state)
        sgd = torch.optim.SGD(model.parameters(), 0.0, momentum, weight_decay=weight_decay)
        steering = steering or CrossEntropy()
        step = (
            _private_step(model, sgd, steering, bounds, expected_batch, normal)
            if bounds
            else _plain_step(model, sgd, steering)
        )
        for number in range(steps):
            sgd.param_groups[0]["lr"] = lr(number) if callable(lr) else lr
            step(*_batch(x, y, sampling_rate, batches))
            for name, p in model.named_parameters():
                steering.after_step(name, p.detach())
        return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _batch(
    x: Tensor, y: Tensor, sampling_rate: float, batches: np.random.Generator
) -> tuple[Tensor, Tensor]:
    if sampling_rate == 1:
        return x, y
    rows = (batches.random(len(y)) < sampling_rate).nonzero()[0]
    return x[rows], y[rows]


def _plain_step(model: nn.Module, sgd: Optimizer, steering: Steering) -> Step:
    import torch

    def step(x: Tensor, y: Tensor) -> None:
        sgd.zero_grad()
        torch.autograd.backward(steering.loss(model(x), y) / max(len(y), 1))
        _correct(model, steering)
        sgd.step()

    return step


def _private_step(
    model: nn.Module,
    sgd: Optimizer,
    steering: Steering,
    bounds: tuple[float, float],
    expected_batch: float,
    normal: Normal,
) -> Step:
    import torch
    from opacus.grad_sample import GradSampleModule

    wrapped = GradSampleModule(model, loss_reduction="sum")
    optimizer = _dp_optimizer(normal)(
        sgd,
        max_grad_norm=bounds[0],
        noise_multiplier=bounds[1],
        expected_batch_size=expected_batch,
    )
    optimizer.attach_step_hook(lambda _: _correct(model, steering))
    rows = max(1, _PER_EXAMPLE_FLOATS // sum(p.numel() for p in model.parameters()))

    def step(x: Tensor, y: Tensor) -> None:
        for start in range(0, max(len(y), 1), rows):
            part = slice(start, start + rows)
            optimizer.zero_grad()
            optimizer.signal_skip_step(start + rows < len(y))
            with warnings.catch_warnings():
                # Opacus reads gradients of outputs only: https://github.com/pytorch/pytorch/pull/155339
                warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
                torch.autograd.backward(steering.loss(wrapped(x[part]), y[part]))
            optimizer.step()

    return step


def _dp_optimizer(normal: Normal) -> Any:
    """Return Opacus' optimiser with the caller's noise in place of a torch generator's."""
    from opacus.optimizers import DPOptimizer

    class StreamOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus has no types
        def clip_and_accumulate(self) -> None:
            # a head that was sent to overflow would show by a NaN who is in the batch
            for p in self.params:
                p.grad_sample = self._get_flat_grad_sample(p).nan_to_num(0.0, 0.0, 0.0)
            super().clip_and_accumulate()

        def add_noise(self) -> None:
            scale = self.noise_multiplier * self.max_grad_norm
            for p in self.params:
                noise = normal(tuple(p.shape)).to(p.device, p.dtype)
                p.grad = p.summed_grad.view_as(p).add(noise, alpha=scale)

    return StreamOptimizer


def _correct(model: nn.Module, steering: Steering) -> None:
    for name, p in model.named_parameters():
        if p.grad is not None:
            steering.correct(name, p.grad, p.detach())


def _module(state: dict[str, Tensor]) -> nn.Module:
    from torch import nn

    (hidden, width), classes = state["hidden.weight"].shape, len(state["out.bias"])
    # On "meta" nothing is initialised, so torch's global generator is not touched.
    layers = {
        "hidden": nn.Linear(width, hidden, device="meta"),
        "gelu": nn.GELU(),
        "out": nn.Linear(hidden, classes, device="meta"),
    }
    model = nn.Sequential(OrderedDict(layers))
    model.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
    return model


def _clip_and_noise(
    clip_norm: float | None, noise_multiplier: float | None, rate: float, expected_batch: float
) -> tuple[float, float] | None:
    _check_range("sampling_rate", rate, 0 < rate <= 1)
    if clip_norm is None and noise_multiplier is None:
        return None
    clip = math.nan if clip_norm is None else clip_norm
    noise = math.nan if noise_multiplier is None else noise_multiplier
    _check_range("clip_norm", clip_norm, 0 < clip < math.inf)
    _check_range("noise_multiplier", noise_multiplier, 0 <= noise < math.inf)
    _check_range("expected_batch", expected_batch, 0 < expected_batch < math.inf)
    return clip, noise


def _check_range(name: str, value: float | None, fits: bool) -> None:
    if not fits:
        raise PrivacyError(
            f"{name} = {value} is out of range in the training of an MLP head.",
            next_step="Give clip_norm and expected_batch above 0, noise_multiplier from 0 and "
            "sampling_rate in (0, 1]; or neither clip_norm nor noise_multiplier.",
        )


def _check_examples(state: dict[str, Tensor], x: Tensor, y: Tensor) -> None:
    import torch

    if set(state) != set(KEYS):
        raise DataError(
            f"An MLP head has the tensors {', '.join(KEYS)}, not {', '.join(sorted(state))}.",
            next_step="Server and site must run the same version of fedtl.",
        )
    width, classes = state["hidden.weight"].shape[1], len(state["out.bias"])
    if x.ndim != 2 or x.shape[1] != width or y.shape != x.shape[:1]:
        raise DataError(
            f"x {tuple(x.shape)} and y {tuple(y.shape)} do not fit a head of {width} features.",
            next_step="Give x of shape [n, features] and y of shape [n].",
        )
    # A NaN would pass through clipping and show through any noise.
    if not math.isfinite(float(x.sum(dtype=torch.float64))):
        raise DataError("x holds a NaN or infinity.", next_step="Extract the features again.")
    if len(y) and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise DataError(
            f"y holds a class outside 0 to {classes - 1}.",
            next_step="Use class indices of the run's class list.",
        )
