"""The Triton kernels through the operators, the encoder and the training that use them, on Triton's interpreter.

    TRITON_INTERPRET=1 pytest tests/gpu/test_triton_ops.py      # scripts/check-gpu does

On a GPU the same tests run on it.
"""

import itertools
import os

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed; scripts/check-gpu installs it")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    import interp_fix  # noqa: F401
elif not torch.cuda.is_available():
    pytest.skip("no GPU and no engine; scripts/check-gpu runs this in emulation", allow_module_level=True)

from emulator import Emulated, on_device  # noqa: E402
from helpers import random_interactions  # noqa: E402

from fastrec import ops  # noqa: E402
from fastrec.encode import families  # noqa: E402
from fastrec.encode.bert import PackedBert  # noqa: E402
from fastrec.encode.decoder import PackedDecoder  # noqa: E402
from fastrec.errors import BackendUnavailable, DataError  # noqa: E402
from fastrec.models import _training  # noqa: E402
from fastrec.models._loss import sampled_softmax  # noqa: E402
from fastrec.models._network import Packed, attention, groups  # noqa: E402
from fastrec.models.sequential import Sequential  # noqa: E402
from fastrec.ops import _cases, _cuda  # noqa: E402
from fastrec.types import PackedTokens  # noqa: E402

NAMES = [name for name, op in sorted(ops.CATALOGUE.items()) if "triton" in op.backends]
CASES = [
    pytest.param(name, case, id=f"{name}-" + "-".join(f"{k}{v}" for k, v in case.items()))
    for name in NAMES
    for case in ops.CATALOGUE[name].cases
    if max(case.get("lengths", (0,)), default=0) < 300
]


class Everything(Emulated):
    """Every tensor counts as one of the device."""

    def is_on(self, x):
        return True


@pytest.fixture(autouse=True)
def runtime(monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(_cuda, "RUNTIME", Emulated(None))


@pytest.fixture
def everything(monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(_cuda, "RUNTIME", Everything(None))


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_reference(name, case):
    args, kwargs = _cases.make(name, case)
    got, want = (getattr(ops, name)(*args, **kwargs, backend=backend) for backend in ("triton", "reference"))
    for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (got, want)), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(np.abs(b).max(initial=1.0)))


def test_every_operator_is_tested():
    assert {"add_layer_norm", "attention_varlen", "bias_gelu", "pool_normalize", "sampled_softmax", "swiglu"} == {
        *NAMES
    }


def test_tensors_of_a_device_keep_their_dtype_and_place():
    x = on_device(torch.randn(9, 16)) if INTERPRETED else torch.randn(9, 16, device="cuda")
    low = x.bfloat16()
    row = torch.ones(16, device=x.device)
    for out in (
        ops.pool_normalize(low, np.array([0, 4, 9])),
        ops.bias_gelu(low, row),
        ops.add_layer_norm(low, row, row, residual=low),
        ops.swiglu(low),
        ops.attention_varlen(*(low.view(9, 2, 8) for _ in range(3)), np.array([0, 4, 9])),
    ):
        assert out.dtype == torch.bfloat16 and out.device == x.device


def test_bad_shapes_on_a_device():
    x = on_device(torch.randn(9, 16)) if INTERPRETED else torch.randn(9, 16, device="cuda")
    row = torch.ones(15, device=x.device)
    with pytest.raises(DataError, match=r"\[add_layer_norm\] shapes are"):
        ops.add_layer_norm(x, row, row)
    with pytest.raises(DataError, match=r"\[bias_gelu\] x has shape"):
        ops.bias_gelu(x, row)
    with pytest.raises(DataError, match=r"\[attention_varlen\] q, k, v are"):
        ops.attention_varlen(x, x, x, np.array([0, 9]))
    with pytest.raises(DataError, match=r"\[swiglu\] ab has shape"):
        ops.swiglu(x[:, :15])
    wide = torch.zeros(1, 5000, device=x.device)
    with pytest.raises(BackendUnavailable, match="5000 columns, the kernel takes at most 4096"):
        ops.pool_normalize(wide.numpy(), np.array([0, 1]), backend="triton")


def tokens_of(lengths, vocabulary):
    rng = np.random.default_rng(0)
    ids = rng.integers(5, vocabulary, sum(lengths)).astype(np.int32)
    return PackedTokens(ids, np.cumsum([0, *lengths]).astype(np.int32))


def hidden_states(model, tokens):
    """What transformers computes, one text after the other."""
    cu = tokens.cu_seqlens
    with torch.inference_mode():
        texts = [torch.from_numpy(tokens.ids[a:b].astype(np.int64))[None] for a, b in itertools.pairwise(cu)]
        return torch.cat([model(input_ids=t).last_hidden_state[0] for t in texts])


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("kind", ["bert", "mpnet", "gpt2", "qwen3", "llama"])
def test_language_models_run_packed_on_the_kernels(kind):
    import transformers

    torch.manual_seed(0)
    small = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"intermediate_size": 48, "max_position_embeddings": 40, "attn_implementation": "eager"}
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=40)
    elif kind in ("qwen3", "llama"):
        config = {"qwen3": transformers.Qwen3Config, "llama": transformers.LlamaConfig}[kind](
            **small, **more, num_key_value_heads=1, head_dim=16
        )
    else:
        config = {"bert": transformers.BertConfig, "mpnet": transformers.MPNetConfig}[kind](**small, **more)
    model = transformers.AutoModel.from_config(config).eval().requires_grad_(False)
    tokens = tokens_of([7, 1, 30], 50)
    want = hidden_states(model, tokens)
    if kind in ("bert", "mpnet"):
        assert families.reason_against(model) is None
        packed = PackedBert(families.read(model), "cpu" if INTERPRETED else "cuda")
    else:
        assert PackedDecoder.reason_against(model) is None
        packed = PackedDecoder(model if INTERPRETED else model.cuda())
    with torch.inference_mode():
        got = packed.forward(tokens).cpu()
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("everything")
def test_attention_and_loss_of_the_training_have_their_gradients():
    torch.manual_seed(0)
    lengths = np.array([9, 8, 3])
    q, kv = torch.randn(20, 8, requires_grad=True), torch.randn(20, 16, requires_grad=True)
    packed = Packed(np.array([0, 9, 17, 20]))
    for a, b in zip(
        torch.autograd.grad(attention(q, kv, 2, packed).square().sum(), (q, kv)),
        torch.autograd.grad(attention(q, kv, 2, groups(lengths)).square().sum(), (q, kv)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_loss_is_that_of_the_cpu(monkeypatch):
    torch.manual_seed(0)
    states, items = (torch.nn.functional.normalize(torch.randn(n, 8), dim=1) for n in (10, 12))
    targets, drawn, expected = torch.randint(0, 12, (10,)), torch.randint(0, 12, (2, 5)), torch.randn(12)
    results = []
    for fake in (False, True):
        if fake:
            monkeypatch.setattr(_cuda, "RUNTIME", Everything(None))
        parts = [x.clone().requires_grad_() for x in (states, items)]
        loss = sampled_softmax(*parts, targets, drawn, expected, 0.1)
        results.append((loss.detach(), *torch.autograd.grad(loss, parts)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("everything")
def test_a_training_step_on_the_kernels(monkeypatch):
    """The weights after one pass are about those of the CPU; the kernels take the tensors of the emulated device."""
    data = random_interactions(0)
    seen = []
    for fake in (False, True):
        with monkeypatch.context() as m:
            if not fake:
                m.setattr(_cuda, "RUNTIME", _cuda.Runtime())
            else:
                m.setattr(_training, "parts_of", lambda lengths, device: Packed(np.cumsum([0, *lengths])))
            source = Sequential(width=16, layers=1, epochs=1, stop=1, negatives=8, dropout=0.0).fit(data, None, "next")
            seen.append(source.vectors)
    np.testing.assert_allclose(seen[0], seen[1], rtol=0, atol=1e-3)
