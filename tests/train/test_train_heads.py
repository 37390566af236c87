"""Heads: their start, and received ones that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import CLASSES, WIDTH

from fedtl.errors import FedtlError
from fedtl.train.heads import check_head, initial_head, logits, n_classes

KINDS = ("linear", "mlp")


@pytest.mark.parametrize("kind", KINDS)
def test_everybody_starts_from_the_same_head(kind: str) -> None:
    first, again = (initial_head(kind, 7, 4, hidden=5, seed=9) for _ in range(2))
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert n_classes(first) == 4
    check_head(first, width=7, classes=4)


def test_an_mlp_starts_at_equal_scores_from_hidden_units_of_the_seed() -> None:
    head, other = (initial_head("mlp", 100, 3, hidden=50, seed=s) for s in (1, 2))
    unit = torch.nn.functional.normalize(torch.randn(64, 100), dim=1)
    assert not logits(head, unit).any()
    seen = unit @ torch.from_numpy(head["hidden.weight"]).T
    assert 0.4 < float(seen.std()) < 0.8  # 1 / sqrt(3), whatever the number of features
    assert not np.array_equal(head["hidden.weight"], other["hidden.weight"])
    assert {v.dtype for v in head.values()} == {np.dtype(np.float32)}


def spoiled() -> dict[str, dict[str, np.ndarray]]:
    linear = {k: v for k, v in initial_head("linear", WIDTH, 3).items()}
    mlp = {k: v for k, v in initial_head("mlp", WIDTH, 3, hidden=4).items()}
    nan = {"weight": np.full((3, WIDTH), np.nan, np.float32)}
    return {
        "nothing": {},
        "narrow": {"weight": linear["weight"][:, 1:]},
        "classes": {"weight": linear["weight"][1:]},
        "flat": {"weight": linear["weight"].ravel()},
        "nan": nan,
        "infinite": {"weight": np.full((3, WIDTH), np.inf, np.float32)},
        "other name": {"weights": linear["weight"]},
        "more": {**linear, "more": linear["weight"]},
        "missing layer": {k: v for k, v in mlp.items() if k != "out.bias"},
        "scalar bias": {**mlp, "hidden.bias": np.float32(1.0).reshape(())},
        "hidden": {**mlp, "hidden.bias": np.zeros(5, np.float32)},
    }


@pytest.mark.parametrize("what", spoiled())
def test_a_received_head_that_does_not_fit_is_refused(what: str) -> None:
    with pytest.raises(FedtlError) as error:
        check_head(spoiled()[what], width=WIDTH, classes=len(CLASSES))
    assert error.value.code == "head.invalid"
    assert error.value.next_step
