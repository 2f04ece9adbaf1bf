"""What the cases of the encoder's operators leave out: the widest level, tensors, strides, bad input."""

import numpy as np
import pytest
import torch

from fastrec import _native, ops
from fastrec.errors import BackendUnavailable, ConfigError, DataError
from fastrec.ops.packed_linear import packed_linear_reference

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp32", "bf16x3", "int16", "bf16", "int8"])
@pytest.mark.parametrize(("T", "K", "N"), [(1, 1, 1), (31, 64, 16), (32, 65, 33), (200, 384, 129), (129, 1537, 40)])
@pytest.mark.parametrize("threads", [1, 3])
def test_linear_at_the_widest_level(monkeypatch, precision, T, K, N, threads):
    monkeypatch.delenv("FASTREC_SIMD", raising=False)
    weights = ops.pack_linear(normal(N, K), normal(N), precision=precision)
    x = normal(T, K)
    if _native._C is None or precision not in _native._C.encode_level("")[1]:
        with pytest.raises(BackendUnavailable):
            ops.packed_linear(x, weights, backend="cpu")
        return
    got = ops.packed_linear(x, weights, backend="cpu", threads=threads)
    want = ops.packed_linear(x, weights, backend="reference")
    near = {"bf16x3": 3e-5 * np.abs(want).max()}.get(precision, 2e-4)
    np.testing.assert_allclose(got, want, rtol=0, atol=near)
    exact = x.astype(np.float64) @ weights.weights().T.astype(np.float64) + weights.bias[:N]
    error = {"fp32": 1e-6, "bf16x3": 3e-5, "int16": 1e-4, "bf16": 0.01, "int8": 0.02}[precision]
    assert np.abs(got - exact).max() <= error * np.linalg.norm(x, axis=1).max() * np.sqrt(N)


def test_packed_weights_are_the_weights():
    weight = normal(33, 70)
    errors = {"fp32": 0, "bf16x3": 2e-5, "int16": 1e-4, "bf16": 5e-3, "int8": 2e-2}
    for precision, error in errors.items():
        got = ops.pack_linear(weight, precision=precision).weights()
        np.testing.assert_allclose(got, weight, atol=error * np.abs(weight).max(), rtol=0)


def test_what_is_not_finite_comes_out():
    for precision in ("fp32", "int8", "int16"):
        weights = ops.pack_linear(normal(20, 30), precision=precision)
        for bad in (np.nan, np.inf):
            x = normal(40, 30)
            x[7, 3] = bad
            got = ops.packed_linear(x, weights)
            assert not np.isfinite(got[7]).any()
            assert np.isfinite(np.delete(got, 7, 0)).all()
    with pytest.raises(DataError, match="weight row 1 holds nan"):
        ops.pack_linear(np.float32([[0, 0], [0, np.nan]]))


@pytest.mark.parametrize("precision", ["fp32", "int8", "int16"])
def test_denormal_inputs_count_as_zeros_or_themselves(precision):
    weights = ops.pack_linear(normal(20, 30), normal(20), precision=precision)
    x = np.zeros((4, 30), np.float32)
    x[0], x[1, 3], x[2] = 1e-44, -1e-44, np.linspace(-1e-37, 1e-38, 30)
    for backend in ("cpu", "reference", "torch"):
        np.testing.assert_array_equal(
            ops.packed_linear(x, weights, backend=backend), np.tile(weights.bias[:20], (4, 1))
        )


def test_slices_of_a_joint_tensor_are_read_in_place_and_bfloat16_stays():
    qkv = torch.randn(21, 3, 4, 16)
    cu = torch.tensor([0, 5, 21])
    q, k, v = qkv.unbind(1)
    got = ops.attention_varlen(q, k, v, cu)
    want = ops.attention_varlen(q.contiguous(), k.contiguous(), v.contiguous(), cu, backend="reference")
    torch.testing.assert_close(got, want)
    half = ops.attention_varlen(*(x.bfloat16() for x in (q, k, v)), cu)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), want, atol=3e-2, rtol=3e-2)
    assert ops.bias_gelu(torch.ones(2, 3).bfloat16()).dtype == torch.bfloat16


def test_large_scores_and_far_values_do_not_overflow(backend):
    if backend == "numba":
        backend = "torch"
    q, k, v = 50 * normal(9, 1, 8), 50 * normal(9, 1, 8), normal(9, 1, 8)
    got = ops.attention_varlen(q, k, v, [0, 9], backend=backend)
    np.testing.assert_allclose(got, ops.attention_varlen(q, k, v, [0, 9], backend="reference"), atol=1e-4)
    far = np.float32([[-1e30, -100, -20, 0, 20, 100, 1e15]])
    for kind in ("erf", "tanh"):
        want = np.where(far < 0, 0, far)
        np.testing.assert_allclose(ops.bias_gelu(far, kind=kind, backend=backend), want, rtol=1e-6, atol=1e-5)


def test_bad_input():
    q, cu = normal(4, 2, 8), [0, 4]
    with pytest.raises(DataError, match=r"q, k, v have shapes"):
        ops.attention_varlen(q, q[:, :1], q, cu)
    with pytest.raises(DataError, match=r"cu_seqlens goes from 0 to 3, expected to ascend from 0 to 4"):
        ops.attention_varlen(q, q, q, [0, 3])
    with pytest.raises(DataError, match=r"cu_seqlens has dtype float64"):
        ops.attention_varlen(q, q, q, [0.0, 4.0])
    with pytest.raises(DataError, match=r"relative has shape \(2, 5\), expected \[2, 2 R - 1\], R >= 4"):
        ops.attention_varlen(q, q, q, cu, relative=normal(2, 5))
    with pytest.raises(ConfigError, match=r"scale=nan"):
        ops.attention_varlen(q, q, q, cu, scale=float("nan"))
    with pytest.raises(ConfigError, match=r"kind='relu'"):
        ops.bias_gelu(q[0], kind="relu")
    with pytest.raises(DataError, match=r"sequence 1 is empty"):
        ops.pool_normalize(q[:, 0], [0, 4, 4])
    with pytest.raises(ConfigError, match=r"pooling='max'"):
        ops.pool_normalize(q[:, 0], cu, pooling="max")
    with pytest.raises(ConfigError, match=r"eps=0"):
        ops.add_layer_norm(q[0], np.ones(8), np.ones(8), eps=0)
    with pytest.raises(DataError, match=r"residual has shape \(1, 8\), expected \(2, 8\)"):
        ops.add_layer_norm(q[0], np.ones(8), np.ones(8), residual=q[0, :1])
    with pytest.raises(ConfigError, match=r"precision='fp8'"):
        ops.pack_linear(q[0], precision="fp8")
    with pytest.raises(DataError, match=r"x has shape \(2, 8\), expected shape \[any, 3\]"):
        ops.packed_linear(q[0], ops.pack_linear(normal(2, 3)))
    assert packed_linear_reference is ops.CATALOGUE["packed_linear"].reference


LEVELS = ["scalar", "avx2", "avx512", "avx512_vnni", ""]


def force(monkeypatch, simd):
    if _native._C is None or simd not in ("", *_native._C.simd_levels()):
        pytest.skip("not on this machine")
    monkeypatch.setenv("FASTREC_SIMD", simd)


@pytest.mark.parametrize("simd", LEVELS)
def test_the_largest_codes_of_int16_do_not_overflow(monkeypatch, simd):
    force(monkeypatch, simd)
    one = np.zeros((2, 1537), np.float32)
    one[:, [3, 700]] = -1.0
    for weight in (np.ones((33, 1537), np.float32), np.repeat(one[:1], 33, 0), RNG.choice([-1.0, 1.0], (33, 1537))):
        weights = ops.pack_linear(weight, precision="int16")
        full = [np.full((3, 1537), -2.0, np.float32), one, -3.0 * weights.weights()[:15]]
        for x in full:
            want = x.astype(np.float64) @ weights.weights().T
            near = 2e-4 * np.linalg.norm(x, axis=1).max() * np.linalg.norm(weights.weights(), axis=1).max()
            np.testing.assert_allclose(ops.packed_linear(x, weights), want, rtol=0, atol=near)


@pytest.mark.parametrize("simd", LEVELS)
def test_the_largest_codes_of_int8_do_not_saturate(monkeypatch, simd):
    force(monkeypatch, simd)
    for weight in (np.ones((33, 96)), np.tile([1.0, 1, 0, 0, 1, 1, 0, 0], (33, 12)), np.eye(33, 96)):
        weights = ops.pack_linear(weight.astype(np.float32), precision="int8")
        for sign in (1.0, -1.0):
            x = np.full((15, 96), sign, np.float32)
            want = x @ weights.weights().T
            np.testing.assert_allclose(ops.packed_linear(x, weights), want, rtol=0, atol=1e-4 * np.abs(want).max())


def test_int8_weights_of_another_level_are_refused(monkeypatch):
    force(monkeypatch, "avx512_vnni")
    weights = ops.pack_linear(normal(5, 20), precision="int8")
    force(monkeypatch, "avx2")
    with pytest.raises(BackendUnavailable, match="laid out for a level with VNNI, not for avx2"):
        ops.packed_linear(normal(3, 20), weights)
    narrow = ops.pack_linear(normal(5, 20), precision="int8")
    here = ops.packed_linear(np.ones((3, 20), np.float32), narrow)
    force(monkeypatch, "avx512_vnni")
    np.testing.assert_allclose(ops.packed_linear(np.ones((3, 20), np.float32), narrow), here, atol=1e-4)


def test_values_beyond_the_square_root_of_float32_stay_finite(monkeypatch):
    weights = ops.pack_linear(np.eye(16, 40, dtype=np.float32), precision="int16")
    for size in (1e25, 1e-25):
        x = np.full((2, 40), size, np.float32)
        np.testing.assert_allclose(ops.packed_linear(x, weights), x[:, :16], rtol=2e-3)
