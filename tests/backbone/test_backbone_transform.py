"""A transform that differs from the one the weights were trained with costs accuracy in silence."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedtl.backbone import Transform, architectures
from fedtl.data.images import Picture

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
GREY = "grey copied to 3 channels"
SQUEEZED = "nothing cropped, aspect ratio changed"


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    high = np.iinfo(dtype).max + 1
    return np.random.default_rng(len(shape)).integers(0, high, shape).astype(dtype)


def timm_says(pixels: np.ndarray, transform: Transform) -> np.ndarray:
    architectures.timm()
    from timm.data import create_transform

    made = create_transform(
        (3, transform.size, transform.size),
        interpolation=transform.interpolation,
        mean=transform.mean,
        std=transform.std,
        crop_pct=transform.crop_pct,
        crop_mode=transform.crop_mode,
    )
    return np.asarray(made(Image.fromarray(pixels)))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(48, 200),
    width=st.integers(48, 200),
    size=st.integers(16, 48),
    crop_pct=st.sampled_from([0.875, 0.9, 1.0]),
    interpolation=st.sampled_from(["bicubic", "bilinear", "nearest"]),
    crop_mode=st.sampled_from(["center", "squash"]),
)
def test_large_pictures_come_out_as_from_timm(
    height: int, width: int, size: int, crop_pct: float, interpolation: str, crop_mode: str
) -> None:
    pixels = noise(height, width, 3)
    transform = Transform(size, crop_pct, interpolation, MEAN, STD, crop_mode)
    found = transform.apply(Picture(pixels, "RGB"))
    np.testing.assert_allclose(found, timm_says(pixels, transform), atol=1e-6)


@pytest.mark.parametrize("mean", [HALF, MEAN])
def test_grey_is_the_same_grey_in_three_channels(mean: tuple[float, float, float]) -> None:
    pixels = noise(60, 50)
    transform = Transform(32, 0.875, "bicubic", mean, STD)
    colour = Picture(np.repeat(pixels[..., None], 3, axis=2), "RGB")
    found = transform.apply(Picture(pixels, "L"))
    assert np.array_equal(found, transform.apply(colour))


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3), (8, 8)])
def test_sixteen_bits_give_what_eight_bits_give_but_finer(shape: tuple[int, ...]) -> None:
    pixels = noise(*shape)
    pixels.flat[0] = 255  # the brightest value tells the bit depth
    # bicubic overshoots, and Pillow clips bytes, but not floats, between its two passes
    transform = Transform(32, 0.875, "bilinear", MEAN, STD)
    coarse = transform.apply(Picture(pixels, "L"))
    fine = transform.apply(Picture(pixels.astype(np.uint16) * 257, "I;16"))
    assert fine.dtype == np.float32
    # half a level of rounding in each of Pillow's two passes, in units of the standard deviation
    assert np.abs(coarse - fine).max() < 2 / 255 / min(STD)


def test_a_small_picture_keeps_its_rim() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[0] = pixels[-1] = pixels[:, 0] = pixels[:, -1] = 255
    found = Transform(64, 0.875, "nearest", HALF, HALF).apply(Picture(pixels, "L"))
    assert (found[:, 0] == 1).all()
    assert (found[:, :, -1] == 1).all()
    assert (found[:, 8:56, 8:56] == -1).all()


@pytest.mark.parametrize(
    ("pixels", "mode", "note"),
    [
        (
            noise(8, 8),
            "L",
            "grey copied to 3 channels; enlarged from 8x8 to 32x32, nothing cropped",
        ),
        (noise(90, 70, 3), "RGB", "resized to 36, centre crop of 32x32"),
        (noise(90, 70, 3), "CMYK", "CMYK converted; resized to 36, centre crop of 32x32"),
        (
            noise(9, 70, 3),
            "RGB",
            "enlarged from 70x9 to 32x32, nothing cropped, aspect ratio changed",
        ),
        (
            np.full((40, 40), 60000, np.uint16),
            "I;16",
            f"{GREY}; 16 bits scaled to 0..1; resized to 36, centre crop of 32x32",
        ),
    ],
)
def test_the_note_says_what_was_done(pixels: np.ndarray, mode: str, note: str) -> None:
    assert Transform(32, 0.875, "bicubic", MEAN, STD).describe(Picture(pixels, mode)) == note


def test_a_batch_is_its_pictures_and_may_be_empty() -> None:
    transform = Transform(24, 0.9, "bilinear", MEAN, STD)
    pictures = [Picture(noise(30, 40, 3), "RGB"), Picture(noise(10, 10), "L")]
    batch = transform.apply_batch(pictures)
    assert np.array_equal(batch, np.stack([transform.apply(picture) for picture in pictures]))
    assert transform.apply_batch([]).shape == (0, 3, 24, 24)


def test_small_grey_pictures_are_quick() -> None:
    transform = Transform(128, 0.875, "bicubic", HALF, HALF)
    pictures = [Picture(noise(28, 28), "L")] * 200
    took = []
    for _ in range(5):
        began = time.process_time()
        transform.apply_batch(pictures)
        took.append(time.process_time() - began)
    assert len(pictures) / min(took) > 2000, "slower than 2,000 pictures per second and core"
