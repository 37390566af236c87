"""What a round's record makes of the sites' results."""

from __future__ import annotations

import numpy as np

from fedtl.rounds import RoundRecord
from fedtl.types import Evaluation


def test_noised_counts_are_summed_before_anything_is_cut_off() -> None:
    """Cut off site by site, noise would add up to a bias."""
    parts = {
        "a": Evaluation(-3.0, 9.0, -2.0, np.array([[6.0, -2.0], [-1.0, 3.0]]), 1),
        "b": Evaluation(5.0, 1.0, 6.0, np.array([[1.0, 4.0], [1.0, 0.0]]), 1),
    }
    pooled = RoundRecord(1, ("a", "b"), {}, "gradients", {}, parts, {}, 0, 0, 0).pooled
    assert (pooled.wrong, pooled.right, pooled.losses) == (2.0, 10.0, 4.0)
    assert pooled.confusion is not None
    assert pooled.confusion.tolist() == [[7.0, 2.0], [0.0, 3.0]]
