import contextlib
import pickle
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedtl.data.images import Picture, bit_depth, decode, to_rgb
from fedtl.errors import DataError

RAMP = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10) * 4
COLOUR = np.stack([RAMP, 255 - RAMP, np.full_like(RAMP, 90)], axis=2)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def code_of(data: bytes, **options: int) -> str:
    with pytest.raises(DataError) as caught:
        decode(data, place="'x.png'", **options)
    assert "'x.png'" in str(caught.value)
    assert caught.value.next_step
    return caught.value.code


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("pixels", [RAMP, COLOUR], ids=["grey", "colour"])
def test_lossless_formats_give_the_very_pixels(form: str, pixels: np.ndarray) -> None:
    picture = decode(encoded(Image.fromarray(pixels), form))
    assert picture.pixels.dtype == np.uint8
    assert np.array_equal(picture.pixels, pixels)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bit_grey_stays_sixteen_bit(form: str, order: str) -> None:
    deep = (RAMP.astype(np.uint16) * 257).astype(order)
    mode = "I;16B" if order == ">u2" and form == "TIFF" else "I;16"
    raw = deep.tobytes() if mode == "I;16B" else deep.astype("<u2").tobytes()
    picture = decode(encoded(Image.frombytes(mode, (10, 6), raw), form))
    assert picture.pixels.dtype == np.uint16
    assert picture.mode.startswith("I;16")
    assert np.array_equal(picture.pixels, deep)


def test_thirty_two_bit_files_with_sixteen_bit_content_are_read() -> None:
    wide = Image.fromarray(RAMP.astype(np.int32) * 257)
    assert np.array_equal(decode(encoded(wide, "TIFF")).pixels, RAMP.astype(np.uint16) * 257)


def test_palettes_become_their_colours() -> None:
    paletted = Image.fromarray(COLOUR).quantize(16)
    picture = decode(encoded(paletted, "PNG"))
    assert picture.mode == "P"
    assert np.array_equal(picture.pixels, np.asarray(paletted.convert("RGB")))


def test_one_bit_pictures_become_black_and_white() -> None:
    picture = decode(encoded(Image.fromarray(RAMP > 100), "TIFF"))
    assert np.array_equal(picture.pixels, (RAMP > 100).astype(np.uint8) * 255)


def test_cmyk_jpeg_is_not_shown_as_its_negative() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    picture = decode(encoded(red, "JPEG", quality=95))
    assert picture.mode == "CMYK"
    assert np.abs(picture.pixels.astype(int) - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_transparent_pictures_lie_on_black(form: str) -> None:
    alpha = np.zeros_like(RAMP)
    alpha[:, 5:] = 255
    rgba = np.dstack([COLOUR, alpha])
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    picture = decode(encoded(Image.fromarray(rgba), form, **options))
    assert picture.mode == "RGBA"
    assert not picture.pixels[:, :5].any()
    assert np.array_equal(picture.pixels[:, 5:], COLOUR[:, 5:])


@pytest.mark.parametrize("form", ["JPEG", "TIFF", "WEBP", "PNG"])
def test_a_phone_picture_stands_upright(form: str) -> None:
    half = np.zeros((8, 24, 3), dtype=np.uint8)
    half[:, :12] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to show
    picture = decode(encoded(Image.fromarray(half), form, exif=exif))
    assert picture.pixels.shape == (24, 8, 3)
    assert picture.pixels[:10].mean() > 240 > 15 > picture.pixels[14:].mean()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_interrupted_copies_are_found(form: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), form)
    assert code_of(whole[: int(share * len(whole))]) == "data.truncated"


def test_empty_foreign_and_damaged_files_have_names_of_their_own() -> None:
    assert code_of(b"") == "data.zero-byte"
    assert code_of(pickle.dumps({"not": "a picture"})) == "data.not-an-image"
    assert code_of(encoded(Image.fromarray(RAMP), "GIF")) == "data.not-an-image"
    assert code_of(b"\x89PNG\r\n\x1a\n" + bytes(100)) == "data.unreadable"


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    assert code_of(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + bytes(4)) == "data.too-large"
    assert code_of(encoded(Image.fromarray(RAMP), "PNG"), max_pixels=59) == "data.too-large"
    assert decode(encoded(Image.fromarray(RAMP), "PNG"), max_pixels=60).pixels.shape == (6, 10)


@pytest.mark.parametrize("values", [np.float32(0.5), np.int32(70_000), np.int32(-1)])
def test_pixels_without_a_brightness_range_are_refused(values: np.generic) -> None:
    odd = Image.fromarray(np.full((4, 4), values))
    assert code_of(encoded(odd, "TIFF")) == "data.unsupported"


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM"]))
def test_hostile_bytes_never_escape_as_another_exception(data: bytes, start: bytes) -> None:
    with pytest.raises(DataError):
        decode(start + data)


@given(
    st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=8),
)
@settings(max_examples=300)
def test_flipped_bytes_give_a_picture_or_a_data_error(
    form: str, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(encoded(Image.fromarray(COLOUR), form))
    for place, change in flips:
        data[place % len(data)] ^= change
    with contextlib.suppress(DataError):
        assert decode(bytes(data)).pixels.dtype in (np.uint8, np.uint16)


@pytest.mark.parametrize(
    ("dtype", "brightest", "bits"),
    [(np.uint8, 255, 8), (np.uint16, 1023, 10), (np.uint16, 4095, 12), (np.uint16, 4096, 16)],
)
def test_white_is_the_top_of_the_bit_depth(dtype: type, brightest: int, bits: int) -> None:
    picture = Picture(np.array([[0, brightest]], dtype=dtype), "")
    assert bit_depth(picture) == bits
    rgb = to_rgb(picture)
    assert rgb.dtype == np.float32
    assert rgb.shape == (1, 2, 3)
    assert rgb[0, 1].tolist() == pytest.approx([brightest / (2**bits - 1)] * 3)


def test_colour_keeps_its_channels() -> None:
    assert np.allclose(to_rgb(Picture(COLOUR, "RGB")), COLOUR / 255)
