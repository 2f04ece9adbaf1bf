"""Files of untrusted origin: what is decoded, what is refused, and at what price."""

import io
import os
import re
import struct
import zlib

import numpy as np
import polars as pl
import pytest

from fastrec.data.checks import Place
from fastrec.data.media import _saved, files
from fastrec.encode import decoding
from fastrec.encode.decoding import Unreadable, content, image, sound

RED = (200, 30, 40)


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "JPEG", "WEBP"])
def test_formats(picture, png, kind):
    found = np.asarray(image(png(picture(RED), kind)))
    assert found.shape == (36, 40, 3) and found.dtype == np.uint8
    assert np.abs(found.reshape(-1, 3).mean(axis=0) - RED).max() < 12


def test_modes_become_rgb(png):
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGBA", (4, 3), (255, 0, 0, 0)).save(out, "PNG")
    assert (np.asarray(image(out.getvalue())) == 255).all()  # what is transparent is white
    for mode in ("L", "P", "1", "I;16", "CMYK"):
        out = io.BytesIO()
        Image.new(mode, (4, 3)).save(out, "TIFF")
        assert image(out.getvalue()).mode == "RGB"


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_eight_bits_keep_their_greys(dtype):
    from PIL import Image

    ramp = np.linspace(0, 255, 64).reshape(8, 8)
    for kind in ("PNG", "TIFF") if dtype is np.uint16 else ("TIFF",):
        out = io.BytesIO()
        Image.fromarray((ramp * (1 if dtype is np.float32 else 257)).astype(dtype)).save(out, kind)
        found = np.asarray(image(out.getvalue()))
        assert found.shape == (8, 8, 3)
        np.testing.assert_allclose(found[:, :, 0], ramp, atol=1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_images_of_pillow_are_what_their_files_are(mode):
    from PIL import Image

    drawn = Image.new("RGBA", (8, 6), (200, 30, 40, 255))
    drawn.paste((10, 220, 30, 0 if mode in ("LA", "RGBA") else 255), (0, 0, 4, 6))
    given = drawn.convert("L").convert("I;16") if mode == "I;16" else drawn.convert(mode, dither=0)
    out = io.BytesIO()
    given.save(out, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    found = np.asarray(image(_saved(given)))
    np.testing.assert_array_equal(found, np.asarray(image(out.getvalue())))
    if mode in ("P", "RGB", "CMYK", "YCbCr"):
        np.testing.assert_allclose(found[0, 7], (200, 30, 40), atol=60)


def test_an_image_of_pillow_that_breaks_off(png, picture):
    from PIL import Image

    lazy = Image.open(io.BytesIO(png(picture(RED))[:-900]))
    with pytest.raises(Unreadable, match="no image that can be decoded: OSError: image file is truncated"):
        image(_saved(lazy))


def test_the_reason_why_something_cannot_be_saved_is_kept():
    from PIL import Image

    reasons = {
        "cannot write mode HSV as TIFF": Image.new("HSV", (4, 3)),
        "rows of different lengths": [[1, 2], [3]],
        "an array of <U3, expected numbers": ["red", "tea"],
        "an array of object, expected numbers": [object()],
    }
    for reason, given in reasons.items():
        for read in (image, lambda data: sound(data, 8000)):
            with pytest.raises(Unreadable, match=re.escape(reason)):
                read(_saved(given))
    # Files of that form come from elsewhere too: one short line of them goes into the report.
    with pytest.raises(Unreadable) as raised:
        image(npy(np.array("one <a.b object at 0x7f> " + "long " * 99 + "\nsecond")))
    told = str(raised.value)
    assert told.startswith("one long") and len(told) < 200 and "second" not in told and "0x" not in told


def test_a_photo_stands_upright(picture):
    from PIL import Image

    out, turned = io.BytesIO(), Image.fromarray(picture(RED))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned.save(out, "JPEG", exif=exif)
    assert image(out.getvalue()).size == (36, 40)
    assert image(_saved(Image.open(io.BytesIO(out.getvalue())))).size == (36, 40)


def test_arrays_are_images(picture):
    whole = picture(RED)
    for given in (whole, whole.astype(np.int64), whole / 255.0, np.moveaxis(whole, 2, 0)):
        np.testing.assert_allclose(np.asarray(image(_saved(given))), whole, atol=1)
    assert np.asarray(image(npy(whole[:, :, 0]))).shape == (36, 40, 3)
    assert np.asarray(image(npy(np.eye(4, dtype=bool)))).max() == 255
    for bad in (np.zeros(7), np.zeros((2, 2, 2, 2)), np.full((3, 3), np.nan), np.full((3, 3), 300), np.zeros((0, 4))):
        with pytest.raises(Unreadable, match=r"expected|NaN"):
            image(npy(bad))
    with pytest.raises(Unreadable):
        image(_saved([[1, 2], [3]]))  # rows of different lengths


@pytest.mark.parametrize("most", [65535, 200])
def test_arrays_of_16_bits_are_what_their_files_are(most, png):
    # A dark one too: its type says what white is, not its brightest pixel.
    ramp = np.linspace(0, most, 80).astype(np.uint16).reshape(8, 10)
    want = np.asarray(image(png(ramp)))
    assert want.max() == round(most / 257)
    for given in (ramp, ramp[:, :, None], np.repeat(ramp[:, :, None], 3, axis=2), np.stack([ramp] * 3)):
        for data in (npy(given), _saved(given), _saved(list(given)), npy(given.astype(">u2"))):
            np.testing.assert_array_equal(np.asarray(image(data)), want)


def test_columns_of_16_bits_are_what_their_arrays_are():
    ramp = np.linspace(0, 65535, 80).astype(np.uint16).reshape(8, 10)
    want = np.asarray(image(npy(ramp)))
    for dtype in (pl.Array(pl.UInt16, (8, 10)), pl.List(pl.List(pl.UInt16)), pl.Object):
        values = [ramp if dtype == pl.Object else ramp.tolist(), None]
        column = files(pl.Series("image", values, dtype), Place("fit", "items", "image"))
        np.testing.assert_array_equal(np.asarray(image(column[0])), want)
        assert column[1] is None


def test_a_bomb_is_not_decoded(monkeypatch):
    # A PNG that says 60,000 x 60,000 and whose pixels would be 10 GB.
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )
    with pytest.raises(Unreadable, match=r"pixels|Bomb"):
        image(bomb)
    monkeypatch.setattr(decoding, "MOST_PIXELS", 1000)
    with pytest.raises(Unreadable, match="40 x 36 pixels, expected at most 1,000"):
        image(npy(np.zeros((36, 40, 3), np.uint8)))


def test_a_strip_is_refused(png):
    # Where the shorter side becomes 224 pixels, the longer one would become millions.
    image(npy(np.zeros((1, 32), np.uint8)))
    for strip in (np.zeros((1, 20_000), np.uint8), np.zeros((20_000, 1, 3), np.uint8)):
        for data in (npy(strip), png(strip)):
            with pytest.raises(Unreadable, match="one side at most 32 times the other"):
                image(data)


def test_what_is_no_image(png, picture):
    good = png(picture(RED))
    for bad in (b"", b"hello", good[: len(good) // 2], b"%!PS-Adobe-3.0 EPSF-3.0", b"<svg/>", b"\x93NUMPY garbage"):
        with pytest.raises(Unreadable) as raised:
            image(bad)
        assert "0x" not in str(raised.value)  # an address in memory, which would make two reports differ


def test_paths(tmp_path, monkeypatch):
    path = tmp_path / "x.bin"
    path.write_bytes(b"abc")
    assert content(str(path)) == b"abc" and content(b"xyz") == b"xyz"
    os.mkfifo(tmp_path / "pipe")
    odd = [str(tmp_path / "none"), str(tmp_path), str(tmp_path / "pipe"), "/dev/zero", "a\0b"]
    for bad in (*odd, "http://127.0.0.1/x.png", "https://x/y.png", "file:///etc/passwd", "data:image/png;base64,AA"):
        with pytest.raises(Unreadable, match=r"URL|cannot be read|no regular file"):
            content(bad)
    monkeypatch.setattr(decoding, "MOST_BYTES", 2)
    for big in (str(path), b"abc"):
        with pytest.raises(Unreadable, match="expected at most 2"):
            content(big)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav(tone, width, channels):
    found = sound(tone(440, width=width, channels=channels), 8000)
    assert found.dtype == np.float32 and found.shape == (2400,)
    spectrum = np.abs(np.fft.rfft(found))
    assert np.argmax(spectrum) == 132  # 440 Hz in 0.3 s
    assert 0.4 < np.abs(found).max() < 0.65


def test_another_rate_is_resampled(tone):
    found = sound(tone(440, rate=44100), 8000)
    assert abs(len(found) - 2400) <= 1 and np.argmax(np.abs(np.fft.rfft(found))) == 132


def test_only_the_beginning_of_a_long_sound(tone, monkeypatch):
    monkeypatch.setattr(decoding, "MOST_SECONDS", 0.1)
    assert len(sound(tone(440), 8000)) == 800


def test_arrays_are_sounds():
    samples = np.sin(np.arange(500)).astype(np.float32)
    np.testing.assert_array_equal(sound(npy(samples), 8000), samples)
    np.testing.assert_allclose(sound(npy(np.stack([samples, -samples])), 8000), 0, atol=1e-7)


@pytest.mark.parametrize("bits", [16, 32])
def test_whole_numbers_are_samples_of_so_many_bits(bits):
    samples = np.array([0.0, 0.5, -1.0])
    whole = (samples * 2 ** (bits - 1)).astype(f"int{bits}")
    for given in (whole, whole.astype(np.int64)):  # a list of a table remembers no width
        np.testing.assert_array_equal(sound(npy(given), 8000), samples.astype(np.float32))


def test_samples_of_16_bits_without_sign_lie_about_the_middle():
    # As the bytes of a WAV of 8 bits do.
    samples = np.array([-1.0, -0.5, 0.0, 0.5], np.float32)
    whole = ((samples + 1) * 2**15).astype(np.uint16)
    for given in (whole, np.stack([whole, whole])):
        np.testing.assert_array_equal(sound(_saved(given), 8000), samples)


def test_what_is_no_sound(tone):
    good = tone(440)
    bad = [
        npy(np.zeros((2, 0))),
        b"",
        b"hello",
        good[:20],
        good[:44],
        npy(np.zeros((2, 2, 2))),
        npy(np.full(4, np.nan)),
        b"RIFF" + b"\0" * 40,
    ]
    for one in bad:
        with pytest.raises(Unreadable):
            sound(one, 8000)
