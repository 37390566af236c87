"""Pictures from bytes nobody has vouched for: one decoder, one way to numbers between 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fedtl.errors import DataError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp")
MAX_PIXELS = 64_000_000

_MEANING = {
    "zero-byte": "is empty (0 bytes)",
    "truncated": "ends too early (an interrupted copy?)",
    "not-an-image": "is not a PNG, JPEG, TIFF, BMP or WebP picture, whatever its name says",
    "unreadable": "is damaged and cannot be decoded",
    "too-large": "is too large to be decoded safely",
    "unsupported": "has pixels of a kind that has no defined brightness range (float, 32-bit, LAB)",
}
_NEXT = {
    "too-large": "Crop or resize it first.",
    "unsupported": "Save it as 8- or 16-bit grey or RGB.",
}
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"RIFF")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes
    ----------
    pixels : NDArray[np.uint8 | np.uint16]
        Grey ``[h, w]`` or colour ``[h, w, 3]``, upright.
    mode : str
        The mode the file was stored in, as Pillow names it: ``"L"``, ``"I;16"``, ``"P"``,
        ``"RGBA"``, ``"CMYK"``, ...
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    mode: str


def decode(data: bytes, *, place: str = "The picture", max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a PNG, JPEG, TIFF, BMP or WebP picture, fully, or say why not.

    The EXIF orientation is applied. Palettes and CMYK become RGB. Transparent pictures are laid on
    black, the colour that scans and most transforms pad with, so that colours hidden under full
    transparency never reach a model. 16-bit grey stays 16-bit. Of several frames the first counts.

    Parameters
    ----------
    data : bytes
        The content of the file.
    place : str
        How errors name the picture, e.g. its path.
    max_pixels : int
        Pictures with more pixels are refused before they are decoded (decompression bombs).

    Raises
    ------
    DataError
        With ``code`` ``data.zero-byte``, ``data.truncated``, ``data.not-an-image``,
        ``data.unreadable``, ``data.too-large`` or ``data.unsupported``.

    Examples
    --------
    >>> buffer = BytesIO()
    >>> Image.new("CMYK", (3, 2)).save(buffer, "TIFF")
    >>> picture = decode(buffer.getvalue())
    >>> picture.pixels.shape, picture.mode
    ((2, 3, 3), 'CMYK')
    """
    if not data:
        raise refusal("zero-byte", place)
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            mode = image.mode
            if image.width * image.height > max_pixels:
                raise refusal("too-large", place)
            ImageOps.exif_transpose(image, in_place=True)
            return Picture(_pixels(image), mode)
    except DataError:
        raise
    except _Unsupported as error:
        raise refusal("unsupported", place) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise refusal("too-large", place) from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ...
        raise refusal(_reason(error, data), place) from error


def bit_depth(picture: Picture) -> int:
    """Return how many bits of brightness the picture uses: 8, 10, 12 or 16.

    Scanners store 10- and 12-bit pictures in 16-bit files without saying so; the largest value
    tells: below 1,024 ten bits, below 4,096 twelve, else sixteen. The rule looks at one picture
    only, so features cached by a picture's content stay true when a folder grows.

    Examples
    --------
    >>> bit_depth(Picture(np.full((2, 2), 3000, np.uint16), "I;16"))
    12
    """
    if picture.pixels.dtype == np.uint8:
        return 8
    brightest = int(picture.pixels.max(initial=0))
    return next(bits for bits in (10, 12, 16) if brightest < 2**bits)


def to_rgb(picture: Picture) -> NDArray[np.float32]:
    """Return the picture as ``[h, w, 3]`` with values from 0 to 1; grey is repeated.

    Values are divided by the white of :func:`bit_depth`: 255, 1,023, 4,095 or 65,535.

    Examples
    --------
    >>> to_rgb(Picture(np.array([[0, 255]], np.uint8), "L"))[0, :, 0].tolist()
    [0.0, 1.0]
    """
    white = np.float32(2 ** bit_depth(picture) - 1)
    scaled = picture.pixels.astype(np.float32) / white
    return scaled if scaled.ndim == 3 else np.repeat(scaled[:, :, None], 3, axis=2)


def refusal(reason: str, place: str) -> DataError:
    """Return the error for one of the short reasons that a :class:`Problem` may carry."""
    cure = _NEXT.get(reason, "Replace or remove the file.")
    return DataError(f"{place} {_MEANING[reason]}.", next_step=cure, code=f"data.{reason}")


class _Unsupported(Exception):
    """Pixels without a defined brightness range."""


def _pixels(image: Image.Image) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if image.mode.startswith("I"):
        return _sixteen_bit(np.asarray(image))
    if image.mode in ("F", "LAB", "HSV"):
        raise _Unsupported(image.mode)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"), dtype=np.uint8)


def _sixteen_bit(values: NDArray[np.generic]) -> NDArray[np.uint16]:
    wide = values.astype(np.int64)
    if wide.min(initial=0) < 0 or wide.max(initial=0) > 65_535:
        raise _Unsupported("32-bit")
    return wide.astype(np.uint16)


def _reason(error: Exception, data: bytes) -> str:
    if _cut_short(data) or "truncated" in str(error).lower():
        return "truncated"
    foreign = isinstance(error, UnidentifiedImageError) and not data.startswith(_SIGNATURES)
    return "not-an-image" if foreign else "unreadable"


def _cut_short(data: bytes) -> bool:
    """Tell from the header whether bytes are missing, where Pillow only says "cannot identify"."""
    if data.startswith(b"RIFF") and len(data) >= 8:
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if data.startswith((b"II*\0", b"MM\0*")) and len(data) >= 8:
        return int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") >= len(data)
    return data.startswith(b"\xff\xd8\xff") and b"\xff\xd9" not in data
