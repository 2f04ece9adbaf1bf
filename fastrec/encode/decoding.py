"""Images and sounds of untrusted origin: paths or bytes -> arrays, with bounds on everything that they may cost.

Nothing is ever fetched: what looks like a URL is refused. A file must be a regular one and below the limit of bytes; an
image must name one of the raster formats below and not more pixels than the limit before any of them is decoded.
"""

import io
import os
import re
import stat
import warnings
import wave
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.errors import BackendUnavailable
from fastrec.types import F32

#: Bytes of a file, pixels of an image, seconds of a sound and its samples in one.
MOST_BYTES, MOST_PIXELS, MOST_SECONDS, MOST_RATE = 1 << 27, 40_000_000, 30.0, 1_000_000
#: How much longer one side of an image may be: models enlarge the other to theirs, and this one with it.
MOST_RATIO = 32
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_NUMPY = b"\x93NUMPY"


class Unreadable(Exception):
    """Why one image or sound cannot be used; names no id, which only the caller knows."""


def content(value: str | bytes) -> bytes:
    """The bytes of an image or sound: a path is read, bytes are what they are. Raises Unreadable."""
    if isinstance(value, bytes):
        if len(value) > MOST_BYTES:
            raise Unreadable(f"{len(value):,} bytes, expected at most {MOST_BYTES:,}")
        return value
    if "://" in value or value.startswith("data:"):
        raise Unreadable(f"{value!r:.80} is a URL, expected a path or bytes: nothing is fetched")
    try:
        with open(Path(value), "rb", opener=_without_waiting) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise Unreadable(f"{value!r:.80} is no regular file")
            if about.st_size > MOST_BYTES:
                raise Unreadable(f"{value!r:.80} has {about.st_size:,} bytes, expected at most {MOST_BYTES:,}")
            return file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise Unreadable(f"{value!r:.80} cannot be read: {_line(error)}") from error


def _without_waiting(path: str, flags: int) -> int:
    """A pipe must not block until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def image(data: bytes) -> Any:
    """An RGB image of Pillow. Raises Unreadable; BackendUnavailable where Pillow is not installed."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise BackendUnavailable("encode", "images", str(error), "pip install 'fastrec-engine[images]'") from error
    if data.startswith(_NUMPY):
        return Image.fromarray(_pixels(_array(data)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd metadata is no reason not to look at the picture
            with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
                _check_size(*opened.size)
                turned = ImageOps.exif_transpose(opened)
                if turned.mode[0] in "IF":  # of more than 8 bits; a conversion by Pillow cuts them off at 255
                    return Image.fromarray(_pixels(_shortened(np.asarray(turned))))
                if turned.mode in ("P", "LA", "PA", "RGBA"):  # what is transparent is white
                    turned = turned.convert("RGBA")
                    white = Image.new("RGBA", turned.size, "white")
                    turned = Image.alpha_composite(white, turned)
                return turned.convert("RGB")
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # decoders raise what they like
        raise Unreadable(f"no image that can be decoded: {_line(error)}") from error


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise Unreadable(f"{width} x {height} pixels, expected at most {MOST_PIXELS:,}")
    if max(width, height) > MOST_RATIO * min(width, height):
        raise Unreadable(f"{width} x {height} pixels, expected one side at most {MOST_RATIO} times the other")


def _shortened(array: Any) -> Any:
    """Whole numbers of 32 bits, which hold those of 16 or of 8, as those of 8."""
    return np.rint(array / 257).astype(np.int64) if array.dtype.kind == "i" and array.max() > 255 else array


def _is_uint16(array: Any) -> bool:
    return bool(array.dtype.str[1:] == "u2")  # in either order of bytes


def _pixels(array: Any) -> Any:
    """uint8 [H, W, 3] of an array [H, W], [H, W, 1 | 3 | 4] or [1 | 3 | 4, H, W]: to 255, floats or bools to 1,
    uint16 to 65535."""
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise Unreadable(f"an array of shape {array.shape}, expected [H, W], [H, W, 3] or [3, H, W]")
    _check_size(array.shape[1], array.shape[0])
    array = array[:, :, :3] if array.shape[2] == 4 else array
    if not np.isfinite(array).all():
        raise Unreadable("the array holds NaN or infinity")
    if _is_uint16(array):
        array = (array.astype(np.uint32) + 128) // 257
    elif array.dtype.kind in "fb" and array.min() >= 0 and array.max() <= 1:
        array = array * 255
    if array.min() < 0 or array.max() > 255:
        raise Unreadable(f"values from {array.min()} to {array.max()}, expected 0 to 255, 0 to 1, or uint16")
    whole = np.rint(array).astype(np.uint8)
    return np.repeat(whole, 3, axis=2) if whole.shape[2] == 1 else whole


def sound(data: bytes, rate: int) -> F32:
    """Mono samples at ``rate`` a second, float32 [samples], the first MOST_SECONDS of it. Raises Unreadable.

    An array [samples] or [channels, samples] is taken to be at that rate, and whole numbers to be of 16 bits, or of 32
    where one is larger; uint16 lies about 32768, as the bytes of a WAV of 8 bits do about 128. WAV needs nothing else;
    other formats need the extra ``audio``.
    """
    if data.startswith(_NUMPY):
        array, own = _array(data), rate
        if array.ndim not in (1, 2):
            raise Unreadable(f"an array of shape {array.shape}, expected [samples] or [channels, samples]")
        samples = _samples(array) if array.size else np.empty(0, np.float32)
    else:
        samples, own = _wav(data) if data[:4] == b"RIFF" else _soundfile(data)
    if not np.isfinite(samples).all() or not len(samples):
        raise Unreadable("no samples, or NaN or infinity among them")
    samples = samples[: int(MOST_SECONDS * own)]
    if own != rate:
        from scipy.signal import resample_poly

        samples = resample_poly(samples, rate, own).astype(np.float32)
    return np.ascontiguousarray(samples, np.float32)


def _samples(array: Any) -> F32:
    """Mono samples of an array that is not empty."""
    if _is_uint16(array):
        array = array / np.float32(1 << 15) - np.float32(1)
    elif array.dtype.kind in "iu":
        whole = array.astype(np.float64)
        array = whole / (1 << (15 if np.abs(whole).max() <= 1 << 15 else 31))
    if array.ndim == 2:
        array = array.mean(axis=0 if array.shape[0] <= array.shape[1] else 1)
    found: F32 = array.astype(np.float32)
    return found


def _wav(data: bytes) -> tuple[F32, int]:
    """(mono samples from -1 to 1, their rate) of PCM of 8 to 32 bits."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(min(file.getnframes(), int(MOST_SECONDS * max(rate, 1))))
    except wave.Error:
        return _soundfile(data)  # floating point and compressed WAV
    except Exception as error:
        raise Unreadable(f"no sound that can be decoded: {_line(error)}") from error
    if width not in (1, 2, 3, 4) or not 0 < rate <= MOST_RATE or channels < 1:
        raise Unreadable(f"{8 * width} bits at {rate} a second on {channels} channels")
    raw = raw[: len(raw) // (width * channels) * width * channels]
    if width == 1:
        samples = np.frombuffer(raw, np.uint8).astype(np.float32) / np.float32(128) - np.float32(1)
    else:
        wide = np.zeros((len(raw) // width, 4), np.uint8)  # the upper bytes of 32 bits
        wide[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)
        samples = wide.view("<i4")[:, 0].astype(np.float32) / np.float32(1 << 31)
    return samples.reshape(-1, channels).mean(axis=1, dtype=np.float32), rate


def _soundfile(data: bytes) -> tuple[F32, int]:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: its own library is missing
        raise Unreadable("no PCM WAV; other formats need: pip install 'fastrec-engine[audio]'") from error
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate = int(file.samplerate)
            if not 0 < rate <= MOST_RATE:
                raise Unreadable(f"{rate:,} samples a second, expected at most {MOST_RATE:,}")
            samples = file.read(int(MOST_SECONDS * rate), dtype="float32", always_2d=True)
        return samples.mean(axis=1), rate
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"no sound that can be decoded: {_line(error)}") from error


def _array(data: bytes) -> Any:
    """A numeric array as ``fastrec.data`` writes one down; one text is its reason why there is none."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:
        raise Unreadable(f"no array that can be read: {_line(error)}") from error
    if array.dtype.kind == "U" and array.ndim == 0:
        raise Unreadable(_short(str(array)))
    if array.dtype.kind not in "iufb":
        raise Unreadable(f"an array of {array.dtype}, expected numbers")
    return array


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {_short(str(error))}"


def _short(text: str) -> str:
    """The first line, without addresses in memory: two runs say the same."""
    line = re.sub(r" <\S+ object at 0x\w+>", "", (text.strip().splitlines() or [""])[0])
    return f"{line:.120}"
