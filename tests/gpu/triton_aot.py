"""The Triton kernels compiled for a GPU that is not here, through their own wrappers, on tensors without memory.

python tests/gpu/triton_aot.py 90        # last line: JSON, one object for each kernel and variant
"""

import json
import sys

import ptxas_budget
import torch
from aot_hook import aot
from fastrec.kernels import add_layer_norm, attention_varlen, bias_gelu, pool_normalize, sampled_softmax
from triton import knobs

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
NAMES = {F32: "f32", F16: "f16", BF16: "bf16"}


def meta(*shape, dtype=F32):
    return torch.empty(*shape, dtype=dtype, device="meta")


def attention(dtype, head_size, causal, extra="", backward=False):
    q, k = meta(300, 4, head_size, dtype=dtype), meta(300, 2, head_size, dtype=dtype)
    cu = meta(5, dtype=torch.int32)
    relative = meta(4, 201) if extra == "relative" else None
    rotary = (meta(300, head_size // 2), meta(300, head_size // 2)) if extra == "rotary" else None
    how = {"causal": causal, "relative": relative}
    if not backward:
        attention_varlen.forward(q, k, k, cu, 100, rotary=rotary, **how)
    else:
        attention_varlen.backward(q, k, k, q, q, meta(4, 300), cu, 100, scale=None, **how)


def norm(dtype, columns, more):
    x, row = meta(300, columns, dtype=dtype), meta(columns)
    add_layer_norm.add_layer_norm(x, row, row, row if more else None, x if more else None, 1e-5)


def gelu(dtype, kind):
    bias_gelu.bias_gelu(meta(300, 1536, dtype=dtype), meta(1536), kind)


def swiglu(dtype):
    ab = meta(300, 512, dtype=dtype).requires_grad_()
    torch.autograd.grad(bias_gelu.swiglu(ab), ab, meta(300, 256, dtype=dtype))


def pool(dtype, columns, pooling):
    pool_normalize.pool_normalize(meta(300, columns, dtype=dtype), meta(5, dtype=torch.int32), pooling, True)


def loss(dtype, columns):
    x, ids = meta(300, columns, dtype=dtype), meta(300, dtype=torch.int64)
    others = meta(2, 128, columns, dtype=dtype)
    sampled_softmax.sampled_softmax(x, x, others, ids, meta(2, 128, dtype=torch.int64), meta(2, 128), 14.0)


def variants():
    """(name, function without arguments)"""
    for dtype, name in NAMES.items():
        for d in (32, 64, 96, 128):
            for causal in (False, True):
                if causal == (d in (64, 128)) or dtype == BF16:
                    yield f"{name} {d} causal={causal}", lambda t=dtype, d=d, c=causal: attention(t, d, c)
            if dtype != F16:
                yield f"{name} {d} backward", lambda t=dtype, d=d: attention(t, d, True, backward=True)
        yield f"{name} 384", lambda t=dtype: norm(t, 384, True)
        yield f"{name} erf", lambda t=dtype: gelu(t, "erf")
        yield f"{name} mean 384", lambda t=dtype: pool(t, 384, 0)
        yield f"{name} glu", lambda t=dtype: swiglu(t)
        for d in (64, 128, 256):
            if d == 64 or dtype != F16:
                yield f"{name} {d}", lambda t=dtype, d=d: loss(t, d)
    for dtype in (F32, BF16):
        for extra in ("relative", "rotary"):
            yield f"{NAMES[dtype]} 64 {extra}", lambda t=dtype, e=extra: attention(t, 64, e == "rotary", e)
        yield f"{NAMES[dtype]} 64 backward relative", lambda t=dtype: attention(t, 64, False, "relative", backward=True)
    yield "bf16 4096 plain", lambda: norm(BF16, 4096, False)
    yield "bf16 tanh", lambda: gelu(BF16, "tanh")
    yield "bf16 last 1024", lambda: pool(BF16, 1024, 2)


def main(arch):
    rows = []
    # ptxas of the wheel that a user has; nvcc's own may not know the version of Triton's PTX.
    ptxas = knobs.nvidia.ptxas_blackwell if arch >= 100 else knobs.nvidia.ptxas
    for variant, run in variants():
        with aot(arch) as launches:
            run()
        assert launches, variant
        for launch in launches:
            ptx = launch.compiled.asm["ptx"]
            (row,) = ptxas_budget.budget_of_ptx(ptx, ptxas.path)
            metadata = launch.compiled.metadata
            row |= {"variant": variant, "dynamic_smem": metadata.shared, "threads": 32 * metadata.num_warps}
            row["static_smem"] = 0  # Triton's shared memory is all dynamic; ptxas counts what the PTX declares
            rows.append(row)
            if "dot" in row["name"] or row["name"].startswith(("_attention", "_sampled")):
                # 16-bit inputs must reach the tensor cores, and float32 must not be cut to tf32.
                if variant.startswith("f32"):
                    assert "tf32" not in ptx, (variant, row["name"])
                else:
                    assert any(x in ptx for x in ("mma.sync", "wgmma.mma_async", "tcgen05.mma")), (variant, row["name"])
    print(json.dumps(rows))


if __name__ == "__main__":
    main(int(sys.argv[1]))
