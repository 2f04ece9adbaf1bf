// The solver of ridge_cpu.cpp, written once over the Vec of a level with what its registers hold: the sums of kGramRows
// vectors by kGramColumns registers of each, and a whole row of `others` of up to kEntrySums registers beside its sums.
//
// Only static functions and no std:: templates: see simd.h. Rows are padded with zeros to whole registers here.
#pragma once

#include "simd.h"

namespace fastrec {
namespace FASTREC_LEVEL {

static inline Vec load_some(const float* p, int64_t n) { return n >= kLanes ? Vec::load(p) : Vec::load_first(p, n); }

// Of padded rows.
static inline float dot(const float* a, const float* b, int64_t n) {
  Vec sums = Vec::zero();
  for (int64_t d = 0; d < n; d += kLanes) sums.add_product(Vec::load(a + d), Vec::load(b + d));
  return sums.sum();
}

// out = a + factor * b
static inline void add_scaled(const float* a, float factor, const float* b, int64_t n, float* out) {
  const Vec all = Vec::all(factor);
  for (int64_t d = 0; d < n; d += kLanes) {
    Vec sums = Vec::load(a + d);
    sums.add_product(all, Vec::load(b + d));
    sums.store(out + d);
  }
}

// out = gram v for kRows vectors, kColumns registers of each: a row of the matrix is read once for all.
template <int kRows, int kColumns>
static inline void gram_columns(const Ridge& a, const float* v, int64_t width, int64_t column, float* out) {
  Vec sums[kRows][kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) sums[r][c] = Vec::zero();
  const float* row = a.gram + column;
  for (int64_t d = 0; d < a.D; ++d, row += width) {
    Vec values[kColumns];
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) values[c] = Vec::load(row + c * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec all = Vec::all(v[r * width + d]);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) sums[r][c].add_product(all, values[c]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kColumns; ++c) sums[r][c].store(out + r * width + column + c * kLanes);
}

template <int kRows, int kColumns>
static inline void gram_rows(const Ridge& a, const float* v, int64_t width, float* out) {
  int64_t column = 0;
  for (; column + kColumns * kLanes <= width; column += kColumns * kLanes)
    gram_columns<kRows, kColumns>(a, v, width, column, out);
  for (; column < width; column += kLanes) gram_columns<kRows, 1>(a, v, width, column, out);
}

// The same for the first n vectors, and for some of those that lie behind; every sum in the same order.
static inline void gram_product(const Ridge& a, const float* v, int64_t n, int64_t width, float* out) {
  if (n == 1) return gram_rows<1, kEntrySums>(a, v, width, out);
  for (int64_t r = 0; r < n; r += kGramRows)
    gram_rows<kGramRows, kGramColumns>(a, v + r * width, width, out + r * width);
}

// out += sum_e weights[e] y_e over the entries of a row.
template <int kColumns, bool kAhead>
static inline void entries_columns(const Ridge& a, int64_t first, int64_t last, const float* weights, int64_t column,
                                   float* out) {
  constexpr int64_t kEntriesAhead = 6;
  const int64_t left = a.D - column;
  Vec sums[kColumns];
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) sums[c] = Vec::load(out + column + c * kLanes);
  for (int64_t e = first; e < last; ++e) {
    if (kAhead && e + kEntriesAhead < last) {  // they lie anywhere in memory
      const float* next = a.others + a.indices[e + kEntriesAhead] * a.D;
      for (int64_t d = 0; d < a.D; d += kLanes) __builtin_prefetch(next + d);
    }
    const float* y = a.others + a.indices[e] * a.D + column;
    const Vec all = Vec::all(weights[e - first]);
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c)
      sums[c].add_product(all, kColumns > 1 ? Vec::load(y + c * kLanes) : load_some(y, left));
  }
#pragma GCC unroll 8
  for (int c = 0; c < kColumns; ++c) sums[c].store(out + column + c * kLanes);
}

static inline void add_entries(const Ridge& a, int64_t first, int64_t last, const float* weights, float* out) {
  constexpr int64_t kMany = kEntrySums * kLanes;
  int64_t column = 0;
  if (kMany <= a.D) {
    entries_columns<kEntrySums, true>(a, first, last, weights, 0, out);
    column = kMany;
  } else {
    entries_columns<1, true>(a, first, last, weights, 0, out);
    column = kLanes;
  }
  for (; column + kMany <= a.D; column += kMany)
    entries_columns<kEntrySums, false>(a, first, last, weights, column, out);
  for (; column < a.D; column += kLanes) entries_columns<1, false>(a, first, last, weights, column, out);
}

// The same as add_products for any D.
static inline void add_any_products(const Ridge& a, int64_t first, int64_t last, const float* v, float* out) {
  const int64_t whole = a.D / (2 * kLanes) * (2 * kLanes);
  for (int64_t e = first; e < last; ++e) {
    const float* y = a.others + a.indices[e] * a.D;
    Vec dots[2] = {Vec::zero(), Vec::zero()};
    for (int64_t d = 0; d < whole; d += 2 * kLanes) {
      dots[0].add_product(Vec::load(y + d), Vec::load(v + d));
      dots[1].add_product(Vec::load(y + d + kLanes), Vec::load(v + d + kLanes));
    }
    for (int64_t d = whole; d < a.D; d += kLanes) dots[0].add_product(load_some(y + d, a.D - d), Vec::load(v + d));
    const float weight = a.extra[e] * dots[0].plus(dots[1]).sum();
    add_scaled(out, weight, y, a.D / kLanes * kLanes, out);
    if (a.D % kLanes) {
      const int64_t d = a.D / kLanes * kLanes;
      Vec sums = Vec::load(out + d);
      sums.add_product(Vec::all(weight), load_some(y + d, a.D - d));
      sums.store(out + d);
    }
  }
}

// out += sum_e extra[e] y_e <y_e, v> over the entries of a row: y_e is read once, as the cache gives it more slowly than
// the products take. Where a row of `others` is kRegisters registers, the sums stay in as many.
template <int kRegisters>
static inline void add_products(const Ridge& a, int64_t first, int64_t last, const float* v, float* out) {
  const int64_t rest = a.D - (kRegisters - 1) * kLanes;
  if (rest <= 0 || rest > kLanes) {
    if constexpr (kRegisters > 1) return add_products<kRegisters - 1>(a, first, last, v, out);
    return add_any_products(a, first, last, v, out);
  }
  Vec sums[kRegisters], part[kRegisters];
#pragma GCC unroll 8
  for (int c = 0; c < kRegisters; ++c) sums[c] = Vec::load(out + c * kLanes), part[c] = Vec::load(v + c * kLanes);
  for (int64_t e = first; e < last; ++e) {
    const float* from = a.others + a.indices[e] * a.D;
    Vec y[kRegisters], dots[2] = {Vec::zero(), Vec::zero()};
#pragma GCC unroll 8
    for (int c = 0; c < kRegisters; ++c) {
      y[c] = c + 1 < kRegisters ? Vec::load(from + c * kLanes) : load_some(from + c * kLanes, rest);
      dots[c % 2].add_product(y[c], part[c]);
    }
    const Vec all = Vec::all(a.extra[e] * dots[0].plus(dots[1]).sum());
#pragma GCC unroll 8
    for (int c = 0; c < kRegisters; ++c) sums[c].add_product(all, y[c]);
  }
#pragma GCC unroll 8
  for (int c = 0; c < kRegisters; ++c) sums[c].store(out + c * kLanes);
}

// add(first, last) for the entries [first, last) of a row, in pieces.
template <typename Add>
static inline void in_pieces(const Ridge& a, int64_t first, int64_t last, const Add& add) {
  for (; last - first > kRidgeEntries; first += kRidgeEntries) {
    add(first, first + kRidgeEntries);
    a.check(a.context);
  }
  add(first, last);
}

// Conjugate gradients for rows [u, u + n), n up to kRidgeRows, side by side; none changes a bit of another. scratch:
// as in Kernel.
static void ridge_group(const Ridge& a, int64_t u, int64_t n, float* scratch) {
  const int64_t width = (a.D + kLanes - 1) / kLanes * kLanes, all = kRidgeRows * width;
  float *x = scratch, *b = x + all, *r = b + all, *p = r + all, *ap = p + all, *weights = ap + all;
  for (int64_t i = 0; i < 5 * all; ++i) scratch[i] = 0.0f;
  float rr[kRidgeRows] = {}, bb[kRidgeRows] = {};
  bool going[kRidgeRows] = {};
  for (int64_t i = 0; i < n; ++i) {
    in_pieces(a, a.indptr[u + i], a.indptr[u + i + 1], [&](int64_t first, int64_t last) {
      for (int64_t e = first; e < last; ++e) weights[e - first] = a.right != nullptr ? a.right[e] : 1.0f + a.extra[e];
      add_entries(a, first, last, weights, b + i * width);
    });
    bb[i] = dot(b + i * width, b + i * width, width);
    going[i] = !(bb[i] < kRidgeNothing);
    if (going[i])
      for (int64_t d = 0; d < a.D; ++d) x[i * width + d] = a.x[(u + i) * a.D + d];
  }
  for (int64_t step = -1; step < a.steps; ++step) {  // the first product gives the residual
    a.check(a.context);
    bool any = false;
    for (int64_t i = 0; i < n; ++i) {
      if (step >= 0) going[i] = going[i] && rr[i] > kRidgeTolerance * kRidgeTolerance * bb[i];
      any = any || going[i];
    }
    if (!any) break;
    const float* v = step < 0 ? x : p;
    gram_product(a, v, n, width, ap);
    for (int64_t i = 0; i < n; ++i) {
      if (!going[i]) continue;
      const int64_t at = i * width;
      in_pieces(a, a.indptr[u + i], a.indptr[u + i + 1],
                [&](int64_t first, int64_t last) { add_products<kEntrySums>(a, first, last, v + at, ap + at); });
      if (step < 0) {
        add_scaled(b + at, -1.0f, ap + at, width, r + at);
        add_scaled(r + at, 0.0f, r + at, width, p + at);
        rr[i] = dot(r + at, r + at, width);
        continue;
      }
      const float by = rr[i] / dot(p + at, ap + at, width);
      if (!(by > 0.0f && by < __FLT_MAX__)) {  // float32 gives no more
        going[i] = false;
        continue;
      }
      add_scaled(x + at, by, p + at, width, x + at);
      add_scaled(r + at, -by, ap + at, width, r + at);
      const float after = dot(r + at, r + at, width);
      add_scaled(r + at, after / rr[i], p + at, width, p + at);
      rr[i] = after;
    }
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t d = 0; d < a.D; ++d) a.x[(u + i) * a.D + d] = x[i * width + d];
}

}  // namespace FASTREC_LEVEL
}  // namespace fastrec
