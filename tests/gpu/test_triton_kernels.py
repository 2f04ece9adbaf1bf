"""The Triton kernels against their float64 definitions. The same file on every engine:

TRITON_INTERPRET=1 pytest tests/gpu/test_triton_kernels.py           # Triton's interpreter
python -m ttsem.sanitize pytest tests/gpu/test_triton_kernels.py     # ttsem: bounds, races, NaN poison
pytest tests/gpu/test_triton_kernels.py                              # a GPU, where there is one

One engine per process: TRITON_INTERPRET is read when a kernel is decorated. scripts/check-gpu runs the first two.
"""

import os

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed; scripts/check-gpu installs it")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    import interp_fix  # noqa: F401

DEVICE = "cpu" if INTERPRETED else "cuda"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU and no engine; scripts/check-gpu runs this in emulation", allow_module_level=True)

from fastrec.kernels import add_layer_norm as norm_kernels  # noqa: E402
from fastrec.kernels import attention_varlen as attention_kernels  # noqa: E402
from fastrec.kernels import bias_gelu as gelu_kernels  # noqa: E402
from fastrec.kernels import pool_normalize as pool_kernels  # noqa: E402
from fastrec.kernels import sampled_softmax as loss_kernels  # noqa: E402

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
#: fp32 differs by the order of summation. For 16-bit inputs the operands of the second product are rounded to the input
#: type, and the result once more: 2^-8 relative for bf16.
TOLERANCE = {F32: 1e-5, F16: 4e-3, BF16: 2e-2}
NAN = float("nan")


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Memory is NaN until a kernel has written it; one that is never written fails the comparison."""
    empty, empty_like = torch.empty, torch.empty_like

    def filled(make):
        def run(*args, **kwargs):
            out = make(*args, **kwargs)
            return out.fill_(NAN) if out.dtype.is_floating_point else out

        return run

    monkeypatch.setattr(torch, "empty", filled(empty))
    monkeypatch.setattr(torch, "empty_like", filled(empty_like))


def draw(generator, *shape, dtype=F32):
    return torch.randn(*shape, generator=generator).to(dtype).to(DEVICE)


def close(got, want, dtype, scale=1.0):
    assert not torch.isnan(got).any(), "a row was never written, or a NaN got in"
    tolerance = TOLERANCE[dtype] * scale
    torch.testing.assert_close(got.cpu().double(), want.double().cpu(), rtol=tolerance, atol=tolerance)


def offsets(lengths):
    bounds = [0]
    for n in lengths:
        bounds.append(bounds[-1] + n)
    return torch.tensor(bounds, dtype=torch.int32, device=DEVICE)


def attention_reference(q, k, v, cu, *, causal=False, scale=None, relative=None, rotary=None):
    """The definition, in float64, one sequence after the other; differentiable."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1]
    if rotary is not None:
        cos, sin = (x.cpu().double()[:, None] for x in rotary)
        q, k = (torch.cat([a * cos - b * sin, b * cos + a * sin], -1) for a, b in (x.chunk(2, -1) for x in (q, k)))
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    parts = [q[:0]]
    for start, end in zip(cu.tolist()[:-1], cu.tolist()[1:], strict=True):
        score = torch.einsum("mhd,nhd->hmn", q[start:end], k[start:end]) * scale
        place = torch.arange(end - start)
        offset = place[None] - place[:, None]
        if relative is not None:
            score = score + relative.cpu().double()[:, relative.shape[1] // 2 + offset]
        if causal:
            score = score.masked_fill(offset > 0, float("-inf"))
        parts.append(torch.einsum("hmn,nhd->mhd", score.softmax(-1), v[start:end]))
    return torch.cat(parts)


def packed(lengths, n_heads, n_shared, head_size, dtype):
    """q, k and v with three different strides: a kernel that mixes them up must not pass."""
    generator = torch.Generator().manual_seed(0)
    total = sum(lengths)
    q = draw(generator, total, n_heads, head_size + 8, dtype=dtype)[:, :, :head_size]
    k = draw(generator, total, 2, n_shared, head_size, dtype=dtype)[:, 1]
    v = draw(generator, n_shared, total, head_size, dtype=dtype).transpose(0, 1)
    return q, k, v, offsets(lengths)


ATTENTION = [
    ([5], 1, 1, 32),
    ([1, 64, 65], 2, 1, 32),  # a tile exactly, and one more; two heads share one of k and v
    ([3, 0, 17], 2, 2, 64),  # an empty sequence in the middle
    ([40, 70], 1, 1, 96),  # a head size that is no power of two
    ([33], 1, 1, 128),
]


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize(("lengths", "n_heads", "n_shared", "head_size"), ATTENTION)
def test_attention(lengths, n_heads, n_shared, head_size, dtype, causal):
    q, k, v, cu = packed(lengths, n_heads, n_shared, head_size, dtype)
    got = attention_kernels.attention_varlen(q, k, v, cu, max(lengths), causal=causal)
    close(got, attention_reference(*(x.cpu().double() for x in (q, k, v)), cu, causal=causal), dtype)


@pytest.mark.parametrize("dtype", [F32, BF16], ids=["f32", "bf16"])
def test_attention_with_relative_bias_and_rotary(dtype):
    generator = torch.Generator().manual_seed(1)
    lengths = [37, 5]
    q, k, v, cu = packed(lengths, 2, 1, 32, dtype)
    relative = draw(generator, 2, 2 * 40 - 1)
    angle = torch.rand(42, 16, generator=generator) * 6
    rotary = (angle.cos().to(DEVICE), angle.sin().to(DEVICE))
    wide = [x.cpu().double() for x in (q, k, v)]
    got = attention_kernels.attention_varlen(q, k, v, cu, 37, relative=relative)
    close(got, attention_reference(*wide, cu, relative=relative), dtype)
    got = attention_kernels.attention_varlen(q, k, v, cu, 37, causal=True, rotary=rotary)
    close(got, attention_reference(*wide, cu, causal=True, rotary=rotary), dtype, scale=2)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize(
    ("lengths", "n_heads", "n_shared", "head_size", "dtype"),
    [([1, 33, 0, 40], 2, 1, 32, F32), ([37, 3], 1, 1, 64, BF16), ([19], 2, 2, 96, F16), ([20], 1, 1, 128, F32)],
)
def test_attention_backward(lengths, n_heads, n_shared, head_size, dtype, causal):
    q, k, v, cu = packed(lengths, n_heads, n_shared, head_size, dtype)
    q, k, v = (x.detach().clone().requires_grad_() for x in (q, k, v))
    dout = draw(torch.Generator().manual_seed(2), sum(lengths), n_heads, head_size, dtype=dtype)
    relative = draw(torch.Generator().manual_seed(3), n_heads, 2 * max(lengths) + 1)
    out = attention_kernels.attention_varlen(q, k, v, cu, max(lengths), causal=causal, relative=relative)
    got = torch.autograd.grad(out, (q, k, v), dout)
    wide = [x.detach().cpu().double().requires_grad_() for x in (q, k, v)]
    want = attention_reference(*wide, cu, causal=causal, relative=relative)
    close(out.detach(), want.detach(), dtype)
    for a, b in zip(got, torch.autograd.grad(want, wide, dout.cpu().double()), strict=True):
        close(a, b, dtype, scale=2)


def test_attention_backward_with_rotary():
    angle = torch.rand(20, 16, generator=torch.Generator().manual_seed(4)) * 6
    rotary = (angle.cos().to(DEVICE), angle.sin().to(DEVICE))
    q, k, v, cu = packed([20], 1, 1, 32, F32)
    q = q.detach().clone().requires_grad_()
    out = attention_kernels.attention_varlen(q, k, v, cu, 20, causal=True, rotary=rotary)
    wide = [x.detach().cpu().double().requires_grad_() for x in (q, k, v)]
    want = attention_reference(*wide, cu, causal=True, rotary=rotary)
    (got,) = torch.autograd.grad(out.sum(), q)
    close(got, torch.autograd.grad(want.sum(), wide[0])[0], F32, scale=2)


def test_large_scores_do_not_overflow():
    q, k, v, cu = packed([70], 1, 1, 32, F32)
    got = attention_kernels.attention_varlen(q * 30, k * 30, v, cu, 70, scale=1.0)
    close(
        got, attention_reference(*((x * f).cpu().double() for x, f in ((q, 30), (k, 30), (v, 1))), cu, scale=1.0), F32
    )


def test_a_grid_larger_than_needed_and_no_token():
    q, k, v, cu = packed([7, 9], 1, 1, 32, F32)
    got = attention_kernels.attention_varlen(q, k, v, cu, 500)
    close(got, attention_reference(*(x.cpu().double() for x in (q, k, v)), cu), F32)
    q, k, v, cu = packed([0], 1, 1, 32, F32)
    assert attention_kernels.attention_varlen(q, k, v, cu, 0).shape == (0, 1, 32)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize(("T", "D", "more"), [(1, 1, False), (5, 63, True), (3, 384, True), (2, 1025, False)])
def test_add_layer_norm(T, D, more, dtype):
    generator = torch.Generator().manual_seed(T * D)
    x, residual = (draw(generator, T, D, dtype=dtype) + 3 for _ in range(2))
    weight, shift, bias = (draw(generator, D) for _ in range(3))
    got = norm_kernels.add_layer_norm(x, weight, shift, bias if more else None, residual if more else None, 1e-5)
    s = x.cpu().double() + (bias.cpu().double() + residual.cpu().double() if more else 0)
    want = torch.nn.functional.layer_norm(s, (D,), weight.cpu().double(), shift.cpu().double(), 1e-5)
    close(got, want, dtype, scale=2)


@pytest.mark.parametrize("kind", ["erf", "tanh"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize(("T", "D", "bias"), [(1, 1, True), (3, 65, True), (2, 1100, False)])
def test_bias_gelu(T, D, bias, dtype, kind):
    generator = torch.Generator().manual_seed(T * D)
    x, b = 4 * draw(generator, T, D, dtype=dtype), draw(generator, D)
    got = gelu_kernels.bias_gelu(x, b if bias else None, kind)
    s = x.cpu().double() + (b.cpu().double() if bias else 0)
    close(got, torch.nn.functional.gelu(s, approximate="tanh" if kind == "tanh" else "none"), dtype)


def test_gelu_of_large_numbers():
    x = torch.tensor([[-1e4, -90.0, 90.0, 1e4]], device=DEVICE)
    for kind in ("erf", "tanh"):
        close(gelu_kernels.bias_gelu(x, None, kind), torch.tensor([[0.0, 0.0, 90.0, 1e4]]), F32)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize(("T", "D"), [(1, 1), (3, 65), (2, 1100)])
def test_swiglu(T, D, dtype):
    generator = torch.Generator().manual_seed(T * D)
    ab, dout = draw(generator, T, 2 * D, dtype=dtype).requires_grad_(), draw(generator, T, D, dtype=dtype)
    out = gelu_kernels.swiglu(ab)
    (got,) = torch.autograd.grad(out, ab, dout)
    wide = ab.detach().cpu().double().requires_grad_()
    a, b = wide.chunk(2, 1)
    want = torch.nn.functional.silu(a) * b
    close(out.detach(), want.detach(), dtype)
    close(got, torch.autograd.grad(want, wide, dout.cpu().double())[0], dtype)


@pytest.mark.parametrize("normalize", [False, True], ids=["plain", "unit"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize("pooling", [0, 1, 2], ids=["mean", "cls", "last"])
@pytest.mark.parametrize(("lengths", "D"), [([1], 1), ([3, 1, 40], 63), ([17, 16], 384)])
def test_pool_normalize(lengths, D, pooling, dtype, normalize):
    x, cu = draw(torch.Generator().manual_seed(D), sum(lengths), D, dtype=dtype), offsets(lengths)
    got = pool_kernels.pool_normalize(x, cu, pooling, normalize)
    parts = x.cpu().double().split(lengths)
    want = torch.stack([(p.mean(0), p[0], p[-1])[pooling] for p in parts])
    close(got, torch.nn.functional.normalize(want, dim=1) if normalize else want, dtype)


def test_pool_of_zeros_and_of_small_and_large_numbers():
    x = torch.zeros(4, 20, device=DEVICE)
    x[1] = 1e-30  # divided by 1e-12, the least that counts as a length
    x[2, 3] = 1e-10
    x[3, 4], x[3, 5] = 3e25, -4e25  # float32 has no squares of these
    got = pool_kernels.pool_normalize(x, offsets([1, 1, 1, 1]), 0, True)
    assert got[0].abs().max() == 0 and got[1].abs().max() <= 1e-17 and got[2, 3] == 1
    close(got[3, 4:6], torch.tensor([0.6, -0.8]), F32)


LOSS = [(1, 1, 1, 1), (5, 2, 7, 20), (70, 2, 40, 64), (33, 4, 65, 130), (3, 4, 5, 16)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["f32", "f16", "bf16"])
@pytest.mark.parametrize(("T", "S", "K", "D"), LOSS)
def test_sampled_softmax(T, S, K, D, dtype):
    check_loss(T, S, K, D, dtype)


def test_sampled_softmax_of_logits_whose_exponential_is_infinite():
    check_loss(5, 2, 7, 20, F32, correction=-100.0)


def check_loss(T, S, K, D, dtype, correction=0.0):
    generator = torch.Generator().manual_seed(T + K)
    unit = torch.nn.functional.normalize
    states, wanted, others = (
        unit(torch.randn(*shape, D, generator=generator), dim=-1).to(dtype).to(DEVICE) for shape in ((T,), (T,), (S, K))
    )
    targets = torch.randint(0, 9, (T,), generator=generator).to(DEVICE)
    drawn = torch.randint(0, 9, (S, K), generator=generator).to(DEVICE)  # few items: targets are among them
    correction = draw(generator, S, K) + correction
    got = loss_kernels.sampled_softmax(states, wanted, others, targets, drawn, correction, 12.0)

    wide = [x.cpu().double().requires_grad_() for x in (states, wanted, others)]
    group = torch.arange(T) // -(-T // S)
    logits = torch.einsum("td,tkd->tk", wide[0], wide[2][group]) * 12.0 - correction.cpu().double()[group]
    logits = logits.masked_fill(targets.cpu()[:, None] == drawn.cpu()[group], float("-inf"))
    own = (wide[0] * wide[1]).sum(1) * 12.0
    loss = torch.cat([own[:, None], logits], 1).logsumexp(1) - own
    close(got[0], loss.detach(), dtype, scale=12)
    for a, b in zip(got[1:], torch.autograd.grad(loss.sum(), wide), strict=True):
        close(a, b, dtype, scale=12)
