"""A disk with no room left: under the cache encoding goes on without it, under a stream it is an OSError."""

import subprocess
import sys

import numpy as np
import pytest

from fastrec.encode import Encoder
from fastrec.encode.cache import VectorCache, text_key

# The limit on the size of a file is what a full disk is to the code: a write that fails in between.
FULL = """
import logging, resource, sys
import numpy as np
from fastrec.encode import Encoder

logging.basicConfig(stream=sys.stdout, format="%(message)s")
model, folder, room = sys.argv[1], sys.argv[2], int(sys.argv[3])
texts = [f"toy {i}" for i in range(600)]
want = Encoder(model, device="cpu", cache=False).encode(texts)
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
encoder = Encoder(model, device="cpu", cache_dir=folder + "/cache")
np.testing.assert_allclose(encoder.encode(texts), want, atol=2e-6)
np.testing.assert_allclose(encoder.encode(texts[:3]), want[:3], atol=2e-6)
try:
    encoder.encode_stream(texts, folder + "/out.npy", chunk=100)
except OSError as error:
    print("OSError", error)
"""


@pytest.mark.parametrize("room", [0, 3000, 40_000])
def test_encoding_goes_on_without_the_cache_and_a_stream_says_so(tiny, tmp_path, room):
    command = [sys.executable, "-W", "ignore", "-c", FULL, str(tiny), str(tmp_path), str(room)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.count("going on without the cache") == 1
    assert "OSError [Errno 27]" in out
    assert not (tmp_path / "out.npy").exists()
    # With room again what was kept is good, and the stream goes on where it was.
    texts = [f"toy {i}" for i in range(600)]
    want = Encoder(tiny, device="cpu", cache=False).encode(texts)
    again = Encoder(tiny, device="cpu", cache_dir=tmp_path / "cache")
    np.testing.assert_allclose(again.encode(texts), want, atol=2e-6)
    assert again.encode_stream(texts, tmp_path / "out.npy", chunk=100) == 600
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), want, atol=2e-6)


def test_no_room_for_the_folder(tmp_path, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.mkdir", full)
    cache = VectorCache(tmp_path / "new", "f", 8)
    cache.put([text_key("a")], np.ones((1, 8), np.float32))
    assert cache.get([text_key("a")]) == {}
    assert caplog.text.count("No space left on device") == 1
