// Functions of the Vec of a level.
#pragma once

#include <stdint.h>

namespace fastrec {
namespace FASTREC_LEVEL {

// e^x to a few units in the last place (and 6e-8 |x|), 0 < e^x for -inf as well; NaN stays.
static inline Vec exponential(Vec x) {
  const Vec y = Vec::all(126.9f).min(Vec::all(-125.0f).max(x.mul(Vec::all(1.44269504f))));
  const Vec n = y.round(), f = y.sub(n);
  Vec p = Vec::all(1.535336188e-4f);
  p = Vec::all(1.339887440e-3f).fma(p, f);
  p = Vec::all(9.618437358e-3f).fma(p, f);
  p = Vec::all(5.550332471e-2f).fma(p, f);
  p = Vec::all(2.402264791e-1f).fma(p, f);
  p = Vec::all(6.931472029e-1f).fma(p, f);
  p = Vec::all(1.0f).fma(p, f);
  return p.scaled(n);
}

// x / 2 * (1 + erf(x / sqrt(2))): the erf is z P(z^2) / Q(z^2) for |z| <= 5.6, fitted to 5e-8, and beyond as there.
static inline Vec gelu(Vec x) {
  const Vec low = Vec::all(-5.6f).max(x), z = Vec::all(5.6f).min(low), t = z.mul(z);
  Vec p = Vec::all(2.160462503e-10f);
  p = Vec::all(-4.399531761e-08f).fma(p, t);
  p = Vec::all(6.723767911e-06f).fma(p, t);
  p = Vec::all(3.649825230e-04f).fma(p, t);
  p = Vec::all(9.175396524e-03f).fma(p, t);
  p = Vec::all(7.422943413e-02f).fma(p, t);
  p = Vec::all(7.978842258e-01f).fma(p, t);
  Vec q = Vec::all(6.625612878e-05f);
  q = Vec::all(1.901608193e-03f).fma(q, t);
  q = Vec::all(2.978727408e-02f).fma(q, t);
  q = Vec::all(2.596969008e-01f).fma(q, t);
  q = Vec::all(1.0f).fma(q, t);
  const Vec half = low.mul(Vec::all(0.5f));
  return half.fma(half, z.mul(p).over(q));
}

static inline Vec gelu_tanh(Vec x) {
  const Vec cube = x.mul(x).mul(x);
  const Vec u = x.fma(cube, Vec::all(0.044715f)).mul(Vec::all(-1.5957691216f));
  return x.div(Vec::all(1.0f).add(exponential(u)));
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec
