"""From a picture to the numbers a backbone expects, with numpy and Pillow alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedtl.data.images import Picture, bit_depth, to_rgb

Triple = tuple[float, float, float]

#: Names of the interpolations, as timm writes them.
INTERPOLATIONS: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
#: How a large picture is brought to the size: timm's names.
CROP_MODES = ("center", "squash")


@dataclass(frozen=True, slots=True)
class Transform:
    """Resize, crop and normalise a picture exactly as timm's evaluation transform does.

    A picture whose shorter side is below ``size`` is resized straight to ``size`` x ``size`` and
    nothing is cropped: a crop would cut away the rim of a picture that has few pixels anyway.

    Parameters
    ----------
    size : int
        Side of the square result, pixels.
    crop_pct : float
        Share of the resized picture that the centre crop keeps, in (0, 1].
    interpolation : str
        One of :data:`INTERPOLATIONS`.
    mean, std : tuple of float
        Per channel, on the scale 0..1.
    crop_mode : str
        ``"center"`` keeps the aspect ratio before the crop, ``"squash"`` does not.

    Examples
    --------
    >>> grey = Picture(np.full((8, 8), 255, np.uint8), "L")
    >>> half = Transform(32, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    >>> half.apply(grey).shape, float(half.apply(grey).max())
    ((3, 32, 32), 1.0)
    >>> half.describe(grey)
    'grey copied to 3 channels; enlarged from 8x8 to 32x32, nothing cropped'
    """

    size: int
    crop_pct: float
    interpolation: str
    mean: Triple
    std: Triple
    crop_mode: str = "center"

    def apply(self, picture: Picture) -> NDArray[np.float32]:
        """Return one transformed picture, float32 [3, size, size]."""
        batch = self.apply_batch([picture])
        return batch.reshape(batch.shape[1:])

    def apply_batch(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Return transformed pictures, float32 [n, 3, size, size]."""
        batch = np.empty((len(pictures), 3, self.size, self.size), dtype=np.float32)
        for picture, out in zip(pictures, batch, strict=True):
            into = self._bytes_into if picture.pixels.dtype == np.uint8 else self._floats_into
            into(picture, out)
        return batch

    def describe(self, picture: Picture) -> str:
        """Say what :meth:`apply` does to this picture, for the site's own report."""
        height, width = picture.pixels.shape[:2]
        notes = []
        if picture.pixels.ndim == 2:
            notes.append("grey copied to 3 channels")
        if picture.pixels.dtype != np.uint8:
            notes.append(f"{bit_depth(picture)} bits scaled to 0..1")
        if picture.mode not in ("L", "RGB") and not picture.mode.startswith("I"):
            notes.append(f"{picture.mode} converted")
        notes.append(self._describe_geometry(width, height))
        return "; ".join(notes)

    def _describe_geometry(self, width: int, height: int) -> str:
        if min(width, height) < self.size:
            shape = "" if width == height else ", aspect ratio changed"
            return (
                f"enlarged from {width}x{height} to {self.size}x{self.size}, nothing cropped{shape}"
            )
        return f"resized to {self._scaled}, centre crop of {self.size}x{self.size}"

    @property
    def _scaled(self) -> int:
        return math.floor(self.size / self.crop_pct)

    def _fit(self, image: Image.Image) -> Image.Image:
        """Resize and crop as torchvision's ``Resize`` and ``CenterCrop`` do on a Pillow image."""
        width, height = image.size
        method = INTERPOLATIONS[self.interpolation]
        if min(width, height) < self.size:
            return image.resize((self.size, self.size), method)
        target, short = self._scaled, min(width, height)
        if self.crop_mode == "squash":
            width = height = target
        else:
            width, height = (
                target if side == short else int(target * side / short) for side in (width, height)
            )
        left, top = round((width - self.size) / 2.0), round((height - self.size) / 2.0)
        fitted = image.resize((width, height), method)
        return fitted.crop((left, top, left + self.size, top + self.size))

    def _bytes_into(self, picture: Picture, out: NDArray[np.float32]) -> None:
        fitted = np.asarray(self._fit(Image.fromarray(picture.pixels)))
        table = _table(self.mean, self.std)
        if fitted.ndim == 3:
            for channel in range(3):
                np.take(table[channel], fitted[..., channel], out=out[channel], mode="clip")
            return
        np.take(table[0], fitted, out=out[0], mode="clip")
        for channel in (1, 2):
            if (table[channel] == table[0]).all():
                out[channel] = out[0]
            else:
                np.take(table[channel], fitted, out=out[channel], mode="clip")

    def _floats_into(self, picture: Picture, out: NDArray[np.float32]) -> None:
        values = to_rgb(picture)
        planes = [values[..., 0]] if picture.pixels.ndim == 2 else list(np.moveaxis(values, -1, 0))
        fitted = [np.asarray(self._fit(Image.fromarray(np.ascontiguousarray(p)))) for p in planes]
        # byte images cannot overshoot 0..1 when they are resized, so these must not either
        out[:] = np.clip(np.stack(fitted), 0.0, 1.0)
        mean, std = np.array([self.mean, self.std], dtype=np.float32)
        out -= mean[:, None, None]
        out /= std[:, None, None]


@functools.cache
def _table(mean: Triple, std: Triple) -> NDArray[np.float32]:
    """Return each byte's normalised value per channel, float32 [3, 256], rounded as torch does."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    centre, spread = np.array([mean, std], dtype=np.float32)
    table: NDArray[np.float32] = (levels - centre[:, None]) / spread[:, None]
    return table
