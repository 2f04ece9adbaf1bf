// score_topk against its definition in float64: the same scores and rows, bit for bit, from every screen.
#include <sys/mman.h>

#include "support.h"

namespace {

using namespace fastrec::cuda;

struct Case {
  int B, N, D, k, splits;
  int levels;
  bool bias, sparse, lists;
};

double rounding_of(TopkScreen screen) {
  switch (screen) {
    case TopkScreen::kTf32: return 0x1p-11;
    case TopkScreen::kHalf: return 0x1p-11;
    case TopkScreen::kBfloat16: return 0x1p-8;
    default: return 0.0;
  }
}

template <class Item>
void run(const Case& c, TopkScreen screen, unsigned data_seed) {
  ++cases;
  Dice dice(data_seed);
  const int64_t stride = c.D + 3;  // rows are not packed, the gap is NaN
  std::vector<float> queries(static_cast<size_t>(c.B) * c.D);
  for (float& q : queries) q = draw(dice, c.levels);
  std::vector<Item> items(static_cast<size_t>(c.N) * stride);
  for (int64_t i = 0; i < c.N; ++i)
    for (int64_t d = 0; d < stride; ++d)
      narrow(d < c.D ? draw(dice, c.levels) : std::numeric_limits<float>::quiet_NaN(), items[i * stride + d]);
  if (c.N > 0) items.resize(items.size() - 3);  // the last row ends where its data ends
  std::vector<float> bias(c.N);
  for (float& b : bias) b = dice() % 8 == 0 ? -INFINITY : draw(dice, c.levels);
  const int M = 5;
  const HostLists history(dice, c.B, M, 6, c.levels), similarity(dice, M, c.N, 40, c.levels, true);
  const HostLists seen(dice, c.B, c.N, c.N / 3, 0), deny(dice, c.B, c.N, 9, 0), allow(dice, c.B, c.N, 2 * c.N, 0);

  std::vector<std::vector<double>> exact(c.B, std::vector<double>(c.N));
  std::vector<float> pad(c.B);
  for (int64_t u = 0; u < c.B; ++u) {
    double largest = 0.0, around = 0.0;
    for (int64_t i = 0; i < c.N; ++i) {
      double dense = 0.0, sparse = 0.0, products = 0.0, terms = 0.0;
      for (int64_t d = 0; d < c.D; ++d) {
        const double product = double{queries[u * c.D + d]} * double{widen(items[i * stride + d])};
        dense += product;
        products += std::fabs(product);
      }
      for (int64_t h = history.indptr[u]; c.sparse && h < history.indptr[u + 1]; ++h) {
        const int32_t j = history.rows[h];
        for (int64_t e = similarity.indptr[j]; e < similarity.indptr[j + 1]; ++e) {
          if (similarity.rows[e] != i) continue;
          sparse += double{history.values[h]} * double{similarity.values[e]};
          terms += std::fabs(double{history.values[h]} * double{similarity.values[e]});
        }
      }
      const double all = (dense + sparse) + (c.bias ? double{bias[i]} : 0.0);
      exact[u][i] = static_cast<double>(static_cast<float>(all) + 0.0f);
      largest = std::max(largest, products);
      around = std::max(around, terms + (c.bias && std::isfinite(bias[i]) ? std::fabs(double{bias[i]}) : 0.0));
    }
    // The bound of fastrec/ops/_cuda.py, with the products themselves in place of the norms.
    const double r = rounding_of(screen), steps = (c.D + 64) * 0x1p-24;
    pad[u] = static_cast<float>((2 * r + r * r + 2 * steps) * largest + 2 * steps * around + 1e-30);
  }

  const Device<float> d_queries(queries), d_bias(bias), d_pad(pad);
  const Device<Item> d_items(items);
  const DeviceLists d_history(history), d_similarity(similarity), d_seen(seen), d_deny(deny), d_allow(allow);
  const size_t lists = static_cast<size_t>(c.splits) * c.B;
  const Device<uint64_t> keys(lists * topk_capacity(c.k));
  const Device<int32_t> counts(lists);
  const Device<float> d_scores(static_cast<size_t>(c.B) * c.k);
  const Device<int64_t> d_rows(d_scores.n);
  TopkProblem p{};
  p.queries = d_queries.p, p.items = d_items.p, p.item_stride = stride;
  p.B = c.B, p.N = c.N, p.D = c.D, p.k = c.k;
  if (c.bias) p.bias = d_bias.p;
  if (c.sparse) p.history = d_history.view(), p.similarity = d_similarity.view();
  if (c.lists) p.seen = d_seen.view(), p.deny = d_deny.view(), p.allow = d_allow.view();
  p.pad = d_pad.p, p.splits = c.splits, p.keys = keys.p, p.counts = counts.p;
  p.scores = d_scores.p, p.rows = d_rows.p;
  ok(score_topk(p, screen, nullptr));
  const std::vector<float> scores = d_scores.host();
  const std::vector<int64_t> rows = d_rows.host();

  for (int64_t u = 0; u < c.B; ++u) {
    std::vector<int32_t> order;
    for (int32_t i = 0; i < c.N; ++i) {
      if (exact[u][i] == -INFINITY) continue;
      if (c.lists && (!allow.contains(u, i) || seen.contains(u, i) || deny.contains(u, i))) continue;
      order.push_back(i);
    }
    std::sort(order.begin(), order.end(),
              [&](int a, int b) { return exact[u][a] != exact[u][b] ? exact[u][a] > exact[u][b] : a < b; });
    for (int place = 0; place < c.k; ++place) {
      const float got = scores[u * c.k + place];
      const int64_t row = rows[u * c.k + place];
      const bool more = place < static_cast<int>(order.size());
      const int64_t want_row = more ? order[place] : -1;
      const float want = more ? static_cast<float>(exact[u][order[place]]) : -INFINITY;
      CHECK(row == want_row && got == want,
            "screen %d B=%d N=%d D=%d k=%d splits=%d user %d place %d: row %d score %g, expected %d %g",
            static_cast<int>(screen), c.B, c.N, c.D, c.k, c.splits, static_cast<int>(u), place, static_cast<int>(row),
            static_cast<double>(got), static_cast<int>(want_row), static_cast<double>(want));
    }
  }
}

// A problem of one user and one dimension without anything else.
struct One {
  Device<float> query{std::vector<float>{1.0f}}, pad, scores;
  Device<int64_t> rows;
  Device<uint64_t> keys;
  Device<int32_t> counts{1};
  TopkProblem p{};
  One(const void* items, int64_t stride, int64_t n, int k, float pad_)
      : pad(std::vector<float>{pad_}), scores(k), rows(k), keys(topk_capacity(k)) {
    p.queries = query.p, p.items = items, p.item_stride = stride, p.B = 1, p.N = n, p.D = 1, p.k = k;
    p.pad = pad.p, p.splits = 1, p.keys = keys.p, p.counts = counts.p, p.scores = scores.p, p.rows = rows.p;
  }
};

// A query beyond float16 makes the screen infinite or NaN: with a pad of infinity the answer is exact all the same.
void run_overflow() {
  ++cases;
  std::vector<__half> values(300);
  for (int i = 0; i < 300; ++i) narrow(static_cast<float>(i * 7 % 300 - 150), values[i]);
  const Device<__half> items(values);
  const Device<float> large(std::vector<float>{1e6f});
  One one(items.p, 1, 300, 3, INFINITY);
  one.p.queries = large.p;
  ok(score_topk(one.p, TopkScreen::kHalf, nullptr));
  const std::vector<int64_t> expected{257, 214, 171};  // 257 * 7 = 299 (mod 300), and so on
  CHECK(one.rows.host() == expected, "rows %d %d", static_cast<int>(one.rows.host()[0]),
        static_cast<int>(one.rows.host()[1]));
}

// Two dimensions of which one becomes inf and one -inf: the screen of every item is NaN, and all must be scored.
void run_nan_of_the_screen() {
  ++cases;
  std::vector<__half> values(600);
  for (int i = 0; i < 300; ++i) {
    narrow(static_cast<float>(i * 7 % 300 + 1), values[2 * i]);
    narrow(-1.0f, values[2 * i + 1]);
  }
  const Device<__half> items(values);
  const Device<float> large(std::vector<float>{1e6f, 1e6f});
  One one(items.p, 2, 300, 3, INFINITY);
  one.p.queries = large.p, one.p.D = 2;
  ok(score_topk(one.p, TopkScreen::kHalf, nullptr));
  CHECK((one.rows.host() == std::vector<int64_t>{257, 214, 171}), "NaN of the screen");
}

// Zeros of both signs are one score, so that the smaller row comes first.
void run_zeros() {
  ++cases;
  const Device<float> items(std::vector<float>{-0.0f, 0.0f, -0.0f, -1.0f});
  One one(items.p, 1, 4, 4, 0.0f);
  ok(score_topk(one.p, TopkScreen::kFloat32, nullptr));
  CHECK((one.rows.host() == std::vector<int64_t>{0, 1, 2, 3}), "zeros");
  for (int i = 0; i < 3; ++i) CHECK(!std::signbit(one.scores.host()[i]), "a negative zero came out");
  // A sum that only the cast to float32 makes a zero, of its own sign.
  const Device<float> tiny(std::vector<float>{1e-30f}), near(std::vector<float>{-1e-30f, 0.0f, 1e-30f, -1.0f});
  One small(near.p, 1, 4, 4, 0.0f);
  small.p.queries = tiny.p;
  ok(score_topk(small.p, TopkScreen::kFloat32, nullptr));
  CHECK((small.rows.host() == std::vector<int64_t>{0, 1, 2, 3}), "zeros by the cast");
  for (int i = 0; i < 3; ++i) CHECK(!std::signbit(small.scores.host()[i]), "a negative zero came out of the cast");
}

// Row offsets beyond 2^31 elements. The catalogue is reserved, not filled: only the pages that are read come to exist.
void run_far_rows() {
  ++cases;
#ifndef __CUDACC__
  const int64_t stride = int64_t{1} << 27;
  const int n = 20;
  const size_t bytes = static_cast<size_t>(stride) * n * sizeof(float);
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(p != MAP_FAILED, "no address space for the far rows");
  float* items = static_cast<float*>(p);
  for (int i = 0; i < n; ++i) items[i * stride] = static_cast<float>(i * 7 % n);
  One one(items, stride, n, 2, 0.01f);
  ok(score_topk(one.p, TopkScreen::kFloat32, nullptr));
  CHECK((one.rows.host() == std::vector<int64_t>{17, 14}), "far rows");  // 17 * 7 = 19 and 14 * 7 = 18 (mod 20)
  munmap(p, bytes);
#endif
}

void run_bad_arguments() {
  ++cases;
  const Device<float> items(std::vector<float>{1.0f});
  One one(items.p, 1, 1, 1, 0.0f);
  one.p.k = kMostTopk + 1;
  CHECK(score_topk(one.p, TopkScreen::kFloat32, nullptr) == cudaErrorInvalidValue, "k");
  one.p.k = 1, one.p.splits = 0;
  CHECK(score_topk(one.p, TopkScreen::kFloat32, nullptr) == cudaErrorInvalidValue, "splits");
  one.p.splits = 1, one.p.item_stride = 0;
  CHECK(score_topk(one.p, TopkScreen::kFloat32, nullptr) == cudaErrorInvalidValue, "stride");
}

const Case kCases[] = {
    {1, 0, 3, 4, 1, 0, false, false, false},     {1, 1, 1, 1, 1, 0, true, false, false},
    {2, 7, 0, 3, 2, 0, true, false, true},       {17, 129, 5, 7, 1, 2, true, true, true},
    {3, 300, 33, 40, 2, 1, false, true, false},  {1, 385, 8, 1, 3, 3, false, false, true},
    {5, 260, 63, 20, 2, 0, true, true, false},   {19, 127, 31, 33, 1, 0, false, false, false},
};
const Case kLarge = {1, 1300, 2, 1024, 2, 2, false, false, false};

void run_all() {
  for (const Case& c : kCases) {
    run<float>(c, TopkScreen::kFloat32, 1);
    run<float>(c, TopkScreen::kTf32, 2);
    run<__half>(c, TopkScreen::kHalf, 3);
    run<__nv_bfloat16>(c, TopkScreen::kBfloat16, 4);
  }
  run<float>(kLarge, TopkScreen::kFloat32, 5);
  run_overflow();
  run_nan_of_the_screen();
  run_zeros();
  run_far_rows();
  run_bad_arguments();
}

}  // namespace

int main(int argc, char** argv) { return over_seeds(argc, argv, run_all); }
