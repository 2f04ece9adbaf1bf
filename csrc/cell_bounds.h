// What score_topk knows of the cells of a catalogue before it looks into one: an upper bound of every score in it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "ops.h"
#include "scratch.h"
#include "topk_bounds.h"
#include "topk_candidates.h"

namespace fastrec {

inline const Walk& walk_of(const Kernel& level, ScreenKind kind) {
  const Walk& many = kind == ScreenKind::kInt8 ? level.int8 : level.bf16;
  if (!many.tiled) return many;  // few users share a cell
  return kind == ScreenKind::kInt8 ? level.int8_few : level.bf16_few;
}

inline float not_below(double x) {
  const float f = static_cast<float>(x);
  return static_cast<double>(f) < x ? std::nextafterf(f, kInf) : f;
}

// The search for (c, r) with (q, |q|), see topk_cells.h.
struct Coarse {
  std::vector<float> queries;
  std::vector<double> dense_bound, init_bound;
  TopkArgs args;

  Coarse(const TopkArgs& a, const std::vector<int64_t>& users) : args(a) {
    const int64_t dims = a.s.D;
    queries.resize(users.size() * (dims + 1));
    float* q = queries.data();
    for (const int64_t u : users) {
      std::copy_n(a.s.queries + u * dims, dims, q);
      double square = 0.0;
      for (int64_t d = 0; d < dims; ++d) square += static_cast<double>(q[d]) * static_cast<double>(q[d]);
      q[dims] = up(std::sqrt(square));
      dense_bound.push_back(std::sqrt(2.0 * square) * (1.0 + 1e-6) * a.cells.coarse_length);
      init_bound.push_back(a.init_bound[u]);
      q += dims + 1;
    }
    args.s.queries = queries.data();
    args.s.D = dims + 1, args.s.N = a.cells.n, args.s.B = static_cast<int64_t>(users.size());
    args.s.bias = a.cells.most_bias;
    args.screen = a.cells.coarse;
    args.screen_error = a.cells.coarse_error, args.screen_reach = a.cells.coarse_reach;
    args.dense_bound = dense_bound.data(), args.init_bound = init_bound.data();
  }
};

// Upper bounds of all cells for some users.
class Bounds {
 public:
  Bounds(const TopkArgs& coarse, ScreenKind kind, const Kernel& level)
      : a_(coarse), kind_(kind), level_(level), walk_(walk_of(level, kind)), n_(coarse.s.N),
        init_((n_ + kLanes - 1) / kLanes * kLanes, -kInf), most_((n_ + kChunk - 1) / kChunk), guesses_(n_) {
    std::copy_n(a_.s.bias, n_, init_.data());
  }

  // For users [first, first + n).
  void compute(int64_t first, int64_t n) {
    const int64_t words = words_of(kind_, walk_, a_.s.D), places = n_ + kHitsBeyond + kLanes;
    std::vector<uint32_t> query(words), queries(words * n);
    std::vector<float> item_weights(n), query_weights(n), steps(n);
    std::vector<int32_t> offsets(n);
    columns_.grow(2 * n * places), rows_.grow(n * places), all_.grow(n * n_);
    std::vector<Hits> hits;
    std::vector<double> pads;
    for (int64_t j = 0; j < n; ++j) {
      const Bound bound = bound_of(a_, kind_, first + j, walk_, level_.query_max, query.data(), &offsets[j]);
      for (int64_t w = 0; w < words; ++w) queries[w * n + j] = query[w];
      item_weights[j] = bound.item_weight, query_weights[j] = bound.query_weight, steps[j] = bound.step;
      pads.push_back(bound.pad);
      float* columns = columns_.data() + 2 * j * places;
      hits.push_back({-kInf, 0, std::numeric_limits<int32_t>::max(), columns, columns + places,
                      rows_.data() + j * places});
    }
    Tile tile{};
    tile.n_users = static_cast<int32_t>(n), tile.queries = queries.data(), tile.init = init_.data();
    tile.hits = hits.data(), tile.item_weight = item_weights.data(), tile.query_weight = query_weights.data();
    tile.step = steps.data(), tile.offset = offsets.data();
    walk_.scan(a_.screen, a_.s.D, 0, (n_ + kLanes - 1) / kLanes, tile);
    std::fill_n(all_.data(), n * n_, -kInf);
    for (int64_t j = 0; j < n; ++j) {
      const float pad = not_below(pads[j]);
      for (int32_t i = 0; i < hits[j].count; ++i) {
        const float x = hits[j].scores[i];
        all_.data()[j * n_ + hits[j].rows[i]] = x + pad + (std::fabs(x) + pad) * 0x1p-22f;
      }
    }
    first_ = first;
  }

  // The one whose bounds all else is about.
  void of(int64_t user) {
    user_ = user;
    bounds_ = all_.data() + (user - first_) * n_;
    for (int64_t c = 0; c < n_; c += kChunk)
      most_[c / kChunk] = *std::max_element(bounds_ + c, bounds_ + std::min(n_, c + kChunk));
  }

  // Some cells that most likely have the best items: those whose middles and biases are good. They lose their bounds.
  std::vector<int64_t> likely(int64_t count) {
    const float length = a_.s.queries[user_ * a_.s.D + a_.s.D - 1];
    for (int64_t c = 0; c < n_; ++c) guesses_[c] = bounds_[c] - length * a_.cells.radii[c];
    std::vector<int64_t> found;
    for (int64_t i = 0; i < count; ++i) {
      const auto best = std::max_element(guesses_.begin(), guesses_.end());
      if (*best == -kInf) break;
      *best = -kInf;
      found.push_back(take(best - guesses_.begin()));
    }
    return found;
  }

  // The cell with the largest bound, which loses it; -1 where none is left.
  int64_t take_best() {
    const auto chunk = std::max_element(most_.begin(), most_.end());
    if (*chunk == -kInf) return -1;
    const int64_t first = (chunk - most_.begin()) * kChunk;
    return take(std::max_element(bounds_ + first, bounds_ + std::min(n_, first + kChunk)) - bounds_);
  }

  int64_t count_above(float cut) const {
    int64_t count = 0;
    for (int64_t c = 0; c < n_; ++c) count += bounds_[c] > cut;
    return count;
  }

  template <typename Body>
  void above(float cut, const Body& body) const {
    for (size_t m = 0; m < most_.size(); ++m) {
      if (!(most_[m] > cut)) continue;
      const int64_t last = std::min<int64_t>(n_, (static_cast<int64_t>(m) + 1) * kChunk);
      for (int64_t c = static_cast<int64_t>(m) * kChunk; c < last; ++c)
        if (bounds_[c] > cut) body(static_cast<int32_t>(c), bounds_[c]);
    }
  }

 private:
  static constexpr int64_t kChunk = 256;  // cells that share a maximum

  int64_t take(int64_t cell) {
    const int64_t chunk = cell / kChunk, last = std::min(n_, (chunk + 1) * kChunk);
    bounds_[cell] = -kInf;
    most_[chunk] = *std::max_element(bounds_ + chunk * kChunk, bounds_ + last);
    return cell;
  }

  const TopkArgs& a_;
  const ScreenKind kind_;
  const Kernel& level_;
  const Walk& walk_;
  const int64_t n_;
  std::vector<float> init_;
  Scratch<float, Bounds> columns_;
  Scratch<int32_t, Bounds> rows_;
  Scratch<float, Coarse> all_;
  int64_t first_ = 0, user_ = 0;
  float* bounds_ = nullptr;  // of the user
  std::vector<float> most_, guesses_;
};

}  // namespace fastrec
