"""The last state of a transformer over item sequences: how a history becomes the query of a SequenceSource.

    x_0 = gain * v(item) + position [+ gap] [+ strength] [+ kind]
    x_i = block_i(x_(i-1)), causal, and the query is the normalised last row of norm(x_L)

Shape legend: T tokens, D width, H heads, F width of the feed-forward layer. Written with ``ops`` alone: serving needs
no torch, and the result of a user does not depend on who else is in the batch.

The three blocks, with norm a layer norm, A causal attention and * by element:

    ligr     y = x + sigmoid(G1 x) * A(norm1 x)        out = y + sigmoid(G2 y) * down(silu(a) * b), (a, b) = up norm2 y
    sasrec   n = norm1 x, y = n + A(q of n, k and v of x)       z = norm2 y, out = z + down relu(up z)
    gpt2     y = x + A(norm1 x)                                 out = y + down gelu(up norm2 y)

Sources: LiGR of "From Features to Transformers" (Borisyuk et al. 2025), SASRec (Kang and McAuley 2018), GPT-2.
"""

import numpy as np

from fastrec import ops
from fastrec.types import F32, F64, I64, Interactions, SequenceSource

BACKBONES = ("ligr", "sasrec", "gpt2")
EPS = 1e-5
#: Buckets of the optional embeddings: powers of two of seconds, and strengths up to 10 by halves.
GAPS, STRENGTHS = 34, 21
#: Tokens computed at once: bounds memory.
_TOKENS = 65536
#: Newest entries whose part in a score is asked for; the others count nothing.
_EXPLAINED = 16


def gap_buckets(times: F64, indptr: I64) -> I64:
    """Bucket of the time between each entry and the one before it, int64 [n]; 0 for the first of a history."""
    gaps = np.diff(times, prepend=times[:1])
    buckets: I64 = np.floor(np.log2(np.maximum(gaps, 0) + 1)).clip(0, GAPS - 2).astype(np.int64) + 1
    buckets[indptr[:-1][np.diff(indptr) > 0]] = 0
    return buckets


def strength_buckets(weights: F32) -> I64:
    """Bucket of the weight of each entry, int64 [n]."""
    buckets: I64 = np.rint(2 * weights).clip(0, STRENGTHS - 1).astype(np.int64)
    return buckets


def queries(source: SequenceSource, histories: Interactions) -> F32:
    """The normalised last state of every user, float32 [B, D]; zero for a history without an entry of weight."""
    likes = histories.select(histories.weights > 0)
    out = np.zeros((likes.n_users, source.vectors.shape[1]), np.float32)
    lengths = np.minimum(np.diff(likes.indptr), source.length)
    users = np.flatnonzero(lengths)
    block = np.cumsum(lengths[users]) // _TOKENS
    for number in np.unique(block):
        some = users[block == number]
        out[some] = _last_states(source, likes.take(some), lengths[some])
    return out


def contributions(source: SequenceSource, history: Interactions, target: int) -> F64:
    """What the score of ``target`` loses without each of the newest entries, float64 [n]; never below 0."""
    n = len(history.items)
    first = max(0, n - _EXPLAINED)
    kept = np.arange(n)
    without = [kept[kept != j] for j in range(first, n)]
    at = np.concatenate([kept, *without])
    indptr = np.cumsum([0, n] + [len(w) for w in without]).astype(np.int64)
    variants = history.arranged(indptr, at)
    scores = queries(source, variants).astype(np.float64) @ source.vectors[target].astype(np.float64)
    parts = np.zeros(n)
    parts[first:] = np.maximum(scores[0] - scores[1:], 0.0)
    return parts


def _last_states(source: SequenceSource, likes: Interactions, lengths: I64) -> F32:
    """The normalised states behind the newest ``lengths`` entries of histories that all have one, [B, D]."""
    cu = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    place = np.arange(cu[-1]) - np.repeat(cu[:-1], lengths)
    at = np.repeat(likes.indptr[1:] - lengths, lengths) + place
    p = source.parameters
    x = source.vectors[likes.items[at]] * p["gain"] + p["positions"][place]
    if "gaps" in p:
        x += p["gaps"][gap_buckets(likes.times, likes.indptr)[at]]
    if "strengths" in p:
        x += p["strengths"][strength_buckets(likes.weights[at])]
    if "kinds" in p:
        x += p["kinds"][0 if likes.kinds is None else likes.kinds[at]]
    x = x.astype(np.float32)
    for number in range(source.layers):
        x = _block(source, f"blocks.{number}.", x, cu)
    states = _norm(source, "norm", x[cu[1:] - 1])
    length = np.linalg.norm(states.astype(np.float64), axis=1, keepdims=True)
    out: F32 = (states / np.maximum(length, 1e-12)).astype(np.float32)
    return out


def _block(source: SequenceSource, name: str, x: F32, cu: I64) -> F32:
    normed = _norm(source, name + "norm1", x)
    if source.backbone == "sasrec":
        heads = _attention(source, _linear(source, name + "q", normed), _linear(source, name + "kv", x), cu)
        y = normed + _linear(source, name + "out", heads)
        z = _norm(source, name + "norm2", y)
        return z + _linear(source, name + "down", np.maximum(_linear(source, name + "up", z), 0))
    q, kv = _linear(source, name + "q", normed), _linear(source, name + "kv", normed)
    heads = _linear(source, name + "out", _attention(source, q, kv, cu))
    if source.backbone == "gpt2":
        y = x + heads
        up = ops.bias_gelu(_linear(source, name + "up", _norm(source, name + "norm2", y)), kind="tanh")
        return y + _linear(source, name + "down", up)
    y = x + _sigmoid(_linear(source, name + "gate1", x)) * heads
    a, b = np.split(_linear(source, name + "up", _norm(source, name + "norm2", y)), 2, axis=1)
    down = _linear(source, name + "down", a * _sigmoid(a) * b)
    return y + _sigmoid(_linear(source, name + "gate2", y)) * down


def _attention(source: SequenceSource, q: F32, kv: F32, cu: I64) -> F32:
    shape = (len(q), source.heads, q.shape[1] // source.heads)
    k, v = np.split(kv, 2, axis=1)
    heads = ops.attention_varlen(q.reshape(shape), k.reshape(shape), v.reshape(shape), cu, causal=True)
    out: F32 = heads.reshape(q.shape)
    return out


def _sigmoid(x: F32) -> F32:
    # exp of a large number is infinity, and the limit of the quotient is right
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-x))).astype(np.float32, copy=False)


def _norm(source: SequenceSource, name: str, x: F32) -> F32:
    p = source.parameters
    out: F32 = ops.add_layer_norm(x, p[name + ".weight"], p[name + ".bias"], eps=EPS)
    return out


def _linear(source: SequenceSource, name: str, x: F32) -> F32:
    packed = source.packed.get(name)
    if packed is None:
        packed = ops.pack_linear(source.parameters[name + ".weight"], source.parameters[name + ".bias"])
        source.packed[name] = packed
    out: F32 = ops.packed_linear(x, packed)
    return out


def feed_forward(backbone: str, width: int) -> int:
    """Width inside the feed-forward layer."""
    return {"ligr": 2, "sasrec": 1, "gpt2": 4}[backbone] * width
