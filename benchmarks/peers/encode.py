"""One engine of benchmarks/encode.py in a process of its own: reads commands as JSON lines, answers with JSON lines.

    {"do": "prepare", "texts": FILE, "model": FOLDER, "work": FOLDER, "threads": n}  -> {"ready": true} or {"error": ..}
    {"do": "encode", "out": FILE}                                                    -> {"seconds": wall time}
    {"do": "parts"}  (fastrec only)                                                  -> {"share of ...": ..}

Peers get what they need to be at their best: texts sorted by length, padded to the longest of a batch of 32 only.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

warnings.simplefilter("ignore")
ENGINE = sys.argv[1]
LIMIT = 256
BATCH = 32
Encode = Callable[[list[str]], Any]


def pooled(hidden: Any, mask: Any) -> Any:
    """Mean over the tokens of each text, as a unit vector."""
    mean = np.einsum("sld,sl->sd", hidden, mask.astype(np.float32))  # the norm drops the number of tokens
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def sorted_batches(model: str, run: Callable[[Any, Any], Any]) -> Encode:
    """texts -> vectors by way of run(ids, mask) on batches [32, L] of neighbours by length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.enable_truncation(LIMIT)
    tokenizer.no_padding()

    def encode(texts: list[str]) -> Any:
        tokens = [np.array(e.ids) for e in tokenizer.encode_batch_fast(texts)]
        order = np.argsort([-len(t) for t in tokens], kind="stable")
        out = None
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            longest = len(tokens[rows[0]])
            ids, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64)
            for i, row in enumerate(rows):
                ids[i, : len(tokens[row])] = tokens[row]
                mask[i, : len(tokens[row])] = 1
            vectors = run(ids, mask)
            out = np.empty((len(texts), vectors.shape[1]), np.float32) if out is None else out
            out[rows] = vectors
        return out

    return encode


def fastrec(how: str, c: dict[str, Any]) -> Encode:
    from fastrec.encode import Encoder

    os.environ["FASTREC_THREADS"] = str(c["threads"])
    return Encoder(c["model"], device="cpu", cache=False, precision=how).encode


def sentence_transformers(how: str, c: dict[str, Any]) -> Encode:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(c["threads"])
    kind = {"model_kwargs": {"dtype": "bfloat16"}} if how == "bf16" else {}
    model = SentenceTransformer(c["model"], device="cpu", **kind)
    return lambda texts: model.encode(texts, batch_size=BATCH, show_progress_bar=False)


def onnx_file(c: dict[str, Any], int8: bool) -> str:
    """The model as ONNX, exported once."""
    plain, quantized = (Path(c["work"]) / name for name in ("model.onnx", "model_int8.onnx"))
    if not plain.exists():
        import torch
        from transformers import AutoModel

        model = AutoModel.from_pretrained(c["model"], attn_implementation="eager").eval().requires_grad_(False)

        class Hidden(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, ids: Any, mask: Any) -> Any:
                return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

        names = {"input_names": ["ids", "mask"], "output_names": ["hidden"]}
        axes = {"ids": {0: "s", 1: "l"}, "mask": {0: "s", 1: "l"}, "hidden": {0: "s", 1: "l"}}
        ones = torch.ones(2, 9, dtype=torch.long)
        fresh = f"{plain}.{os.getpid()}"
        torch.onnx.export(Hidden(), (ones, ones), fresh, dynamo=False, dynamic_axes=axes, opset_version=17, **names)
        os.replace(fresh, plain)
    if not int8:
        return str(plain)
    if not quantized.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(str(plain), str(quantized), per_channel=True, weight_type=QuantType.QInt8)
    return str(quantized)


def onnxruntime(how: str, c: dict[str, Any]) -> Encode:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = c["threads"]
    file = onnx_file(c, how == "int8")
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return sorted_batches(c["model"], lambda ids, mask: pooled(session.run(None, {"ids": ids, "mask": mask})[0], mask))


def openvino(how: str, c: dict[str, Any]) -> Encode:
    import openvino as ov

    core = ov.Core()
    model = core.read_model(onnx_file(c, False))
    if how == "int8":
        import nncf

        texts = json.loads(Path(c["texts"]).read_text())[:300]
        seen: list[Any] = []
        sorted_batches(
            c["model"], lambda ids, mask: seen.append({"ids": ids, "mask": mask}) or np.zeros((len(ids), 384))
        )(texts)
        model = nncf.quantize(model, nncf.Dataset(seen), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(seen))
    precision = {"bf16": "bf16"}.get(how, "f32")
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": c["threads"], "NUM_STREAMS": 1}
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()

    def run(ids: Any, mask: Any) -> Any:
        return pooled(request.infer({"ids": ids, "mask": mask})[compiled.output(0)], mask)

    return sorted_batches(c["model"], run)


def ctranslate2(how: str, c: dict[str, Any]) -> Encode:
    import ctranslate2 as ct2

    folder = Path(c["work"]) / "ctranslate2"
    if not folder.exists():
        ct2.converters.TransformersConverter(c["model"]).convert(str(folder))
    compute = {"fp32": "float32", "int8": "int8"}[how]
    encoder = ct2.Encoder(str(folder), compute_type=compute, intra_threads=c["threads"], inter_threads=1)

    def run(ids: Any, mask: Any) -> Any:
        lengths = mask.sum(1)
        lists = [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)]
        return pooled(np.array(encoder.forward_batch(lists).last_hidden_state), mask)

    return sorted_batches(c["model"], run)


def parts(c: dict[str, Any], texts: list[str]) -> dict[str, float]:
    """Microseconds a token: of tokenising, and on one thread of every operator at this length and precision."""
    from fastrec import ops
    from fastrec.encode import Encoder

    encoder = Encoder(c["model"], device="cpu", cache=False, precision=ENGINE.partition("-")[2])
    packer, precision = encoder._load().packer, encoder.precision
    begun = time.perf_counter()
    lengths = [len(t) for t in packer.tokenize(texts)]
    found = {"tokenise": (time.perf_counter() - begun) / sum(lengths) * 1e6 * c["threads"]}
    T, rng = 128, np.random.default_rng(0)
    mean = int(np.mean(lengths))
    cu = np.append(np.arange(0, T, min(mean, T)), T)
    x, inner, qkv = (rng.standard_normal(s).astype(np.float32) for s in ((T, 384), (T, 1536), (T, 3, 12, 32)))
    weights = [
        (a, ops.pack_linear(rng.standard_normal((n, a.shape[1])), precision=precision))
        for a, n in ((x, 1152), (x, 384), (x, 1536), (inner, 384))
    ]
    steps: dict[str, tuple[int, Callable[[], Any]]] = {
        "linear": (6, lambda: [ops.packed_linear(a, w, threads=1) for a, w in weights]),
        "attention": (6, lambda: ops.attention_varlen(qkv[:, 0], qkv[:, 1], qkv[:, 2], cu, threads=1)),
        "gelu": (6, lambda: ops.bias_gelu(inner, threads=1)),
        "layer norm": (13, lambda: ops.add_layer_norm(x, x[0], x[0], residual=x, threads=1)),
    }
    for name, (times, call) in steps.items():
        best = min(_seconds(call) for _ in range(30))
        found[name] = best * times / T * 1e6
    return found


def _seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


ENGINES: dict[str, Callable[[str, dict[str, Any]], Encode]] = {
    "fastrec": fastrec,
    "sentence-transformers": sentence_transformers,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "ctranslate2": ctranslate2,
}


def main() -> None:
    name, _, how = ENGINE.rpartition("-")
    answers, sys.stdout = sys.stdout, sys.stderr  # peers print what they like
    encode: Encode | None = None
    texts: list[str] = []
    case: dict[str, Any] = {}
    for request in sys.stdin:
        command = json.loads(request)
        answer: dict[str, Any] = {}
        try:
            if command["do"] == "prepare":
                case = command
                texts = json.loads(Path(case["texts"]).read_text())
                encode = encode or ENGINES[name](how, case)
                encode(texts[:64])
            elif command["do"] == "encode":
                assert encode is not None
                begun = time.perf_counter()
                vectors = encode(texts)
                answer["seconds"] = time.perf_counter() - begun
                np.save(command["out"], np.asarray(vectors, np.float32))
            else:
                answer = parts(case, texts)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.200}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
