"""Files of untrusted origin: what is decoded, what is refused, and at what price."""

import io
import os
import struct
import zlib

import numpy as np
import pytest

from fastrec.data.media import _saved
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


def test_a_photo_stands_upright(picture):
    from PIL import Image

    out, turned = io.BytesIO(), Image.fromarray(picture(RED))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned.save(out, "JPEG", exif=exif)
    assert image(out.getvalue()).size == (36, 40)


def test_arrays_are_images(picture):
    whole = picture(RED)
    for given in (whole, whole.astype(np.int64), whole / 255.0, np.moveaxis(whole, 2, 0)):
        np.testing.assert_allclose(np.asarray(image(_saved(given))), whole, atol=1)
    assert np.asarray(image(npy(whole[:, :, 0]))).shape == (36, 40, 3)
    for bad in (np.zeros(7), np.zeros((2, 2, 2, 2)), np.full((3, 3), np.nan), np.full((3, 3), 300), np.zeros((0, 4))):
        with pytest.raises(Unreadable, match=r"expected|NaN"):
            image(npy(bad))
    with pytest.raises(Unreadable):
        image(_saved([[1, 2], [3]]))  # rows of different lengths


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


def test_what_is_no_image(png, picture):
    good = png(picture(RED))
    for bad in (b"", b"hello", good[: len(good) // 2], b"%!PS-Adobe-3.0 EPSF-3.0", b"<svg/>", b"\x93NUMPY garbage"):
        with pytest.raises(Unreadable):
            image(bad)


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


def test_what_is_no_sound(tone):
    good = tone(440)
    bad = [b"", b"hello", good[:20], good[:44], npy(np.zeros((2, 2, 2))), npy(np.full(4, np.nan)), b"RIFF" + b"\0" * 40]
    for one in bad:
        with pytest.raises(Unreadable):
            sound(one, 8000)
