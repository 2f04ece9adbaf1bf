"""The checksum of files: every backend the same, and no small change of the bytes without one of the sum."""

import numpy as np
import pytest

from fastrec.store.checksum import BLOCK, checksum, sums_reference


@pytest.mark.parametrize("n", [0, 1, 3, 4, 31, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7, 600 * BLOCK + 5])
def test_backends_agree(n):
    data = np.random.default_rng(n).integers(0, 256, n, dtype=np.uint8)
    want = checksum(data, backend="numpy")
    for threads in (1, 2, 5):
        assert checksum(data, threads) == checksum(data, threads, "scalar") == want
    odd = np.empty(n + 1, np.uint8)  # at an odd address
    odd[1:] = data
    assert checksum(odd[1:]) == checksum(bytes(data)) == want


def test_the_definition():
    data = np.zeros(BLOCK, np.uint8)
    data[:4] = 1, 0, 0, 0
    from fastrec.store.checksum import _KEY

    def nh(first, key):
        words = [first] + [0] * (BLOCK // 4 - 1)
        pairs = zip(words[::2], words[1::2], key[::2], key[1::2], strict=True)
        return sum(((a + k) % 2**32) * ((b + q) % 2**32) for a, b, k, q in pairs) % 2**64

    keys = [[int(k) for k in _KEY[i : i + BLOCK // 4]] for i in (0, 4)]
    assert sums_reference(data).tolist() == [[nh(1, key) for key in keys]]


def test_every_flipped_bit_and_every_shift_is_seen():
    data = np.random.default_rng(0).integers(0, 256, 2 * BLOCK + 100, dtype=np.uint8)
    found = {checksum(data)}
    for bit in range(0, 8 * len(data), 7):
        data[bit // 8] ^= 1 << bit % 8
        found.add(checksum(data))
        data[bit // 8] ^= 1 << bit % 8
    tried = len(range(0, 8 * len(data), 7))
    for shift in range(1, 40):
        found.add(checksum(np.roll(data, shift)))
    found.add(checksum(np.concatenate([data[BLOCK : 2 * BLOCK], data[:BLOCK], data[2 * BLOCK :]])))
    found |= {checksum(data[:n]) for n in range(2 * BLOCK + 1, 2 * BLOCK + 100)}
    assert len(found) == 1 + tried + 39 + 1 + 99
