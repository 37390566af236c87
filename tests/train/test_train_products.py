"""Tests for sums of outer products, and for the memory that sums and batches take again."""

from __future__ import annotations

from threading import Thread

import numpy as np
import pytest
import torch

from fedtl.train.additive import released
from fedtl.train.batches import Batch, Examples
from fedtl.train.products import Gram
from fedtl.train.ridge import unpack
from fedtl.train.room import room


@pytest.mark.parametrize("width", [1, 159, 160, 350])
def test_blocks_add_up_to_the_product_of_all_rows(width: int) -> None:
    random = np.random.default_rng(1)
    rows, weights = random.standard_normal((90, width)), random.uniform(0, 2, 90)
    gram = Gram(width)
    for part in (slice(0, 50), slice(50, 50), slice(50, 90)):
        gram.add(rows[part], weights[part])
    wanted = (rows * weights[:, None]).T @ rows
    np.testing.assert_allclose(unpack(gram.upper()), wanted, rtol=1e-10, atol=1e-10)
    assert not Gram(width).upper().any()


def test_the_number_of_threads_changes_no_bit() -> None:
    rows, ones = np.random.default_rng(1).standard_normal((700, 350)), np.ones(700)
    sums = []
    for threads in (1, 2, 5):
        gram = Gram(350, threads=threads)
        gram.add(rows, ones)
        sums.append(gram.upper())
    assert (sums[0] == sums[1]).all()
    assert (sums[0] == sums[2]).all()


def test_a_sites_sums_stay_when_the_next_site_adds_in_the_same_room() -> None:
    first, second = (
        Examples.of(torch.full((3, 4), value), torch.arange(3)) for value in (1.0, 2.0)
    )
    kept = released(first, 3, mechanism="statistics")
    released(second, 3, mechanism="statistics")
    np.testing.assert_array_equal(kept["gram"], np.full(10, 3.0))
    np.testing.assert_array_equal(kept["moment"], np.ones((4, 3)))


def test_chosen_rows_in_one_place_are_those_of_each_site() -> None:
    x = torch.arange(24.0).reshape(2, 4, 3)
    sites = [Examples.of(part, torch.arange(4)) for part in x]
    rows = [torch.tensor([3, 1]), torch.tensor([0, 2])]
    batch = Batch.of(sites, rows, None)
    assert isinstance(batch.x, torch.Tensor)
    assert batch.sizes == [2, 2]
    for got, part, at in zip(batch.x, x, rows, strict=True):
        assert (got == part[at]).all()
    assert batch.y.tolist() == [3, 1, 0, 2]
    uneven = Batch.of(sites, [rows[0], rows[1][:1]], None)
    assert uneven.sizes == [2, 1]


def test_another_thread_has_room_of_its_own() -> None:
    mine = room("tried", (4,), np.float64)
    mine[:] = 1
    other = Thread(target=lambda: room("tried", (4,), np.float64).fill(2))
    other.start()
    other.join()
    np.testing.assert_array_equal(room("tried", (2, 2), np.float64), np.ones((2, 2)))
