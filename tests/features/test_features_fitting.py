"""Where the memory does not hold a batch, smaller ones give the same features, and that is said."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from test_features_extract import Counting, manifest_of, pictures

from fedtl.backbone import BackboneCard, resolve
from fedtl.backbone.model import Backbone
from fedtl.errors import BackboneError
from fedtl.features import extract, prune

FITS = 5
FULL = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)."),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate"
        " memory: you tried to allocate 9 bytes."
    ),
    "python": MemoryError(),
}


FORWARD = Backbone.forward


@pytest.fixture
def card(fresh_home: Path) -> BackboneCard:
    """A real backbone in a home without features."""
    return resolve("tf_efficientnet_lite0", image_size=32)


@pytest.fixture
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the real backbone fail, as a full device does, above a batch size; note the sizes."""
    fits, error = request.param
    seen: list[int] = []

    def limited(self: Backbone, x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        if len(x) > fits:
            raise error
        return FORWARD(self, x)

    monkeypatch.setattr(Backbone, "forward", limited)
    return seen


@pytest.mark.parametrize("sizes", [(FITS, FULL[name]) for name in FULL], indirect=True, ids=FULL)
def test_a_full_memory_halves_the_batch_and_says_so(
    sizes: list[int],
    card: BackboneCard,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest = manifest_of(Counting(pictures(50)))
    with caplog.at_level(logging.WARNING):
        got = extract(manifest, card, engine="torch", batch_size=16).x
    assert sizes[:3] == [16, 8, 4]
    assert max(sizes[2:]) == 4  # what did not fit once is not tried again
    said = [r.getMessage() for r in caplog.records if "does not hold" in r.getMessage()]
    assert len(said) == 2
    assert "it goes on with 4 at a time" in said[1]
    monkeypatch.setattr(Backbone, "forward", FORWARD)
    prune()
    whole = extract(manifest_of(Counting(pictures(50))), card, engine="torch")
    assert whole.computed == 50
    np.testing.assert_allclose(got, whole.x, atol=1e-4 * np.abs(whole.x).max())


@pytest.mark.parametrize("sizes", [(0, FULL["cuda"])], indirect=True)
def test_a_picture_that_does_not_fit_alone_is_an_error_with_a_cure(
    sizes: list[int], card: BackboneCard
) -> None:
    with pytest.raises(BackboneError, match="single picture") as error:
        extract(manifest_of(Counting(pictures(3))), card, engine="torch")
    assert error.value.code == "backbone.memory"
    assert sizes == [3, 1]


@pytest.mark.parametrize("sizes", [(0, RuntimeError("shapes do not match"))], indirect=True)
def test_another_failure_is_not_taken_for_a_full_memory(
    sizes: list[int], card: BackboneCard
) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        extract(manifest_of(Counting(pictures(3))), card, engine="torch")
    assert sizes == [3]
