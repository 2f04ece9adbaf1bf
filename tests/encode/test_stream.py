import json

import numpy as np
import pytest

from fastrec.encode import Encoder
from fastrec.errors import ArtifactError, ConfigError, DataError


@pytest.fixture
def encoder(tiny):
    return Encoder(tiny, device="cpu", cache=False)


def texts(n):
    return (None if i % 7 == 0 else f"toy {i % 40} red" for i in range(n))


@pytest.mark.parametrize("n", [0, 1, 9, 10, 25])
def test_a_file_holds_what_encode_gives(encoder, tmp_path, n):
    assert encoder.encode_stream(texts(n), tmp_path / "out.npy", chunk=10) == n
    got = np.load(tmp_path / "out.npy", mmap_mode="r")
    assert got.shape == (n, encoder.dimension) and got.dtype == np.float32
    np.testing.assert_array_equal(got, encoder.encode(list(texts(n))))
    assert [f.name for f in tmp_path.iterdir() if f.name.startswith("out")] == ["out.npy"]


def test_a_function_gets_the_chunks_in_order(encoder):
    chunks = []
    assert encoder.encode_stream(texts(25), chunks.append, chunk=10) == 25
    assert [len(c) for c in chunks] == [10, 10, 5]
    np.testing.assert_array_equal(np.concatenate(chunks), encoder.encode(list(texts(25))))


def cut_off(encoder, out, after=23):
    def broken():
        yield from texts(after)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode_stream(broken(), out, chunk=10)


def test_a_run_goes_on_where_another_was_cut_off(encoder, tmp_path, monkeypatch):
    out = tmp_path / "out.npy"
    cut_off(encoder, out)
    assert not out.exists()
    with open(f"{out}.part", "ab") as file:
        file.write(b"half a row of a killed run")
    calls = []
    plain = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda chunk: calls.append(len(chunk)) or plain(chunk))
    assert encoder.encode_stream(texts(35), out, chunk=10) == 35
    assert calls == [10, 5]
    np.testing.assert_array_equal(np.load(out), plain(list(texts(35))))


def test_other_texts_models_and_damage_are_refused(encoder, tiny, tmp_path):
    out = tmp_path / "out.npy"
    cut_off(encoder, out)
    with pytest.raises(DataError, match="the first 20 texts are not those of"):
        encoder.encode_stream(["other"] * 30, out, chunk=10)
    with pytest.raises(DataError, match=r"12 texts, but .* has 20 already"):
        encoder.encode_stream(texts(12), out, chunk=10)
    other = Encoder(tiny, device="cpu", cache=False, max_length=5)
    with pytest.raises(ArtifactError, match="another model"):
        other.encode_stream(texts(30), out, chunk=10)
    with open(f"{out}.part", "r+b") as file:
        file.truncate(200)
    with pytest.raises(ArtifactError, match="fewer than the 20 rows"):
        encoder.encode_stream(texts(30), out, chunk=10)
    (tmp_path / "out.npy.state").write_text(json.dumps([1])[:-1])
    with pytest.raises(ArtifactError, match="cannot be read"):
        encoder.encode_stream(texts(30), out, chunk=10)


def test_bad_input(encoder, tmp_path):
    with pytest.raises(DataError) as caught:
        encoder.encode_stream(iter(["a"] * 12 + [5]), tmp_path / "out.npy", chunk=10)
    assert caught.value.row == 12
    with pytest.raises(DataError, match="expected many"):
        encoder.encode_stream("abc", tmp_path / "out.npy")
    with pytest.raises(ConfigError, match="chunk=0"):
        encoder.encode_stream(["a"], tmp_path / "out.npy", chunk=0)
