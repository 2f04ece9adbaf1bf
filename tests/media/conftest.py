"""Small models of images and sounds, made once, and things to look at."""

import io
import wave

import numpy as np
import pytest
from towers import save_tower


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The default cache folder of this test."""
    monkeypatch.setenv("FASTREC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tower(tmp_path_factory):
    """A function: the folder of a random model of a kind, made once."""
    made = {}

    def get(kind, seed=0):
        if (kind, seed) not in made:
            made[kind, seed] = save_tower(tmp_path_factory.mktemp(kind), kind, seed)
        return made[kind, seed]

    return get


@pytest.fixture(scope="session")
def picture():
    """A function: an image of one colour with noise as uint8 [H, W, 3]."""

    def draw(colour, seed=0, height=36, width=40):
        noise = np.random.default_rng(seed).integers(-20, 20, (height, width, 3))
        return (np.array(colour) + noise).clip(0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def png():
    def write(array, kind="PNG", **keywords):
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(array).save(out, kind, **keywords)
        return out.getvalue()

    return write


@pytest.fixture(scope="session")
def tone():
    """A function: the bytes of a WAV of one frequency."""

    def play(frequency, seconds=0.3, rate=8000, width=2, channels=1, seed=0):
        t = np.arange(int(seconds * rate)) / rate
        noise = 0.02 * np.random.default_rng(seed).normal(size=len(t))
        samples = 0.5 * np.sin(2 * np.pi * frequency * t) + noise
        samples = np.repeat(samples[:, None], channels, axis=1)
        if width == 1:
            raw = np.rint(samples * 127 + 128).astype(np.uint8).tobytes()
        else:
            wide = np.rint(samples * ((1 << 31) - 1)).astype("<i4")
            raw = np.ascontiguousarray(wide.view(np.uint8).reshape(*samples.shape, 4)[..., 4 - width :]).tobytes()
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(width)
            file.setframerate(rate)
            file.writeframes(raw)
        return out.getvalue()

    return play
