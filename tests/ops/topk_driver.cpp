// Threads that search at once, and every search on several threads of the pool, for the thread sanitizer: the answers
// must be those of one thread at the scalar level. Python itself is not built for that sanitizer.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "../../csrc/ops.h"

using namespace fastrec;

namespace {

struct Case {
  int64_t B, N, D, k;
  std::vector<float> items, queries, bias, scales8, errors8, scales16, errors16, history, similarity;
  std::vector<double> dense_bound, init_bound;
  std::vector<uint8_t> codes8;
  std::vector<uint16_t> codes16;
  std::vector<int64_t> seen_ptr, deny_ptr, allow_ptr, history_ptr, similarity_ptr;
  std::vector<int32_t> seen, deny, allow, history_rows, similarity_rows;
  double max_norm = 0.0;

  explicit Case(unsigned seed) {
    std::mt19937 random(seed);
    const auto up_to = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<unsigned>(n)); };
    std::normal_distribution<float> normal;
    B = 1 + up_to(40), N = 800 + up_to(9000), D = up_to(40), k = 1 + up_to(30);
    items.resize(N * D);
    queries.resize(B * D);
    const bool ties = seed % 2 == 0;
    const auto fill = [&](std::vector<float>& values) {
      for (float& x : values) x = ties ? std::rint(normal(random)) : normal(random);
    };
    bias.resize(N);
    fill(items), fill(queries), fill(bias);
    for (float& x : bias)
      if (seed % 3 == 0 && up_to(5) == 0) x = -INFINITY;
    const int64_t P = (N + 15) / 16;
    codes8.resize(P * ((D + 3) / 4) * 64), scales8.resize(P * 16), errors8.resize(P * 2);
    codes16.resize(P * ((D + 1) / 2) * 32), scales16.resize(P * 16), errors16.resize(P * 2);
    screen_int8(items.data(), N, D, codes8.data(), scales8.data(), errors8.data(), 2);
    screen_bf16(items.data(), N, D, codes16.data(), scales16.data(), errors16.data(), 2);
    for (int64_t i = 0; i < N; ++i) {
      double square = 0.0;
      for (int64_t d = 0; d < D; ++d) square += items[i * D + d] * items[i * D + d];
      max_norm = std::max(max_norm, std::sqrt(square) * 1.000001);
    }
    constexpr int64_t kRows = 20;
    similarity_ptr.push_back(0);
    for (int64_t j = 0; j < kRows; ++j) {
      for (int64_t i = up_to(100); i < N; i += 1 + up_to(100)) {
        similarity_rows.push_back(static_cast<int32_t>(i));
        similarity.push_back(normal(random));
      }
      similarity_ptr.push_back(static_cast<int64_t>(similarity_rows.size()));
    }
    seen_ptr.push_back(0), history_ptr.push_back(0), deny_ptr.push_back(0), allow_ptr.push_back(0);
    for (int64_t u = 0; u < B; ++u) {
      for (int64_t i = up_to(30); i < N; i += 1 + up_to(30)) deny.push_back(static_cast<int32_t>(i));
      deny_ptr.push_back(static_cast<int64_t>(deny.size()));
      const int64_t step = u % 2 == 0 ? 3 : 200;  // a walk, and a list so short that it has none
      for (int64_t i = up_to(step); i < N; i += 1 + up_to(step)) allow.push_back(static_cast<int32_t>(i));
      allow_ptr.push_back(static_cast<int64_t>(allow.size()));
      for (int64_t i = up_to(50); i < N; i += 1 + up_to(50)) seen.push_back(static_cast<int32_t>(i));
      seen_ptr.push_back(static_cast<int64_t>(seen.size()));
      for (int64_t j = 0; j < 5; ++j) history_rows.push_back(static_cast<int32_t>(up_to(kRows))), history.push_back(1.0f);
      history_ptr.push_back(static_cast<int64_t>(history_rows.size()));
      double square = 0.0;
      for (int64_t d = 0; d < D; ++d) square += queries[u * D + d] * queries[u * D + d];
      dense_bound.push_back(std::sqrt(square) * max_norm * 1.000001);
      init_bound.push_back(100.0);
    }
  }

  // seed: decides which lists there are
  TopkArgs args(unsigned seed, ScreenKind kind, bool sparse, int threads, float* scores, int64_t* rows) const {
    const auto lists = [](const std::vector<int64_t>& p, const std::vector<int32_t>& r, const float* v) {
      Csr csr;
      csr.indptr = p.data(), csr.rows = r.data(), csr.values = v;
      return csr;
    };
    TopkArgs a{};
    a.s = {queries.data(), items.data(), B, N, D, bias.data(), {}, {}};
    if (sparse) {
      a.s.history = lists(history_ptr, history_rows, history.data());
      a.s.similarity = lists(similarity_ptr, similarity_rows, similarity.data());
    }
    a.seen = lists(seen_ptr, seen, nullptr);
    if (seed % 5 < 2) a.deny = lists(deny_ptr, deny, nullptr);
    if (seed % 5 == 1 || seed % 5 == 3) a.allow = lists(allow_ptr, allow, nullptr);
    a.k = k, a.dense_bound = dense_bound.data(), a.init_bound = init_bound.data(), a.threads = threads;
    a.scores = scores, a.rows = rows, a.screen_kind = kind, a.repeats = 1;
    const bool int8 = kind == ScreenKind::kInt8;
    a.screen = {int8 ? static_cast<const void*>(codes8.data()) : codes16.data(),
                int8 ? scales8.data() : scales16.data(), int8 ? errors8.data() : errors16.data(), (N + 15) / 16};
    const std::vector<float>&scales = int8 ? scales8 : scales16, &errors = int8 ? errors8 : errors16;
    for (size_t i = 0; i < scales.size(); ++i) {
      const double scale = scales[i] * 1.000001;
      a.screen_error = std::max(a.screen_error, scale * errors[i / 16 * 2]);
      a.screen_reach = std::max(a.screen_reach, scale * errors[i / 16 * 2 + 1]);
    }
    return a;
  }

  void search(unsigned seed, const Kernel& level, ScreenKind kind, bool sparse, int threads, std::vector<float>& scores,
              std::vector<int64_t>& rows) const {
    scores.assign(B * k, NAN), rows.assign(B * k, 77);
    Stop stop([] { return false; });
    score_topk(args(seed, kind, sparse, threads, scores.data(), rows.data()), level, stop);
  }
};

}  // namespace

// Every case has three callers, at a level and over a screen that change from case to case.
int main(int argc, char** argv) {
  const unsigned cases = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 200;
  const std::vector<const Kernel*> levels = simd_levels();
  constexpr ScreenKind kKinds[] = {ScreenKind::kInt8, ScreenKind::kBf16};
  std::atomic<int> wrong{0};
  for (unsigned seed = 0; seed < cases; ++seed) {
    const Case c(seed);
    const bool sparse = seed / 2 % 2 == 0;
    std::vector<float> want;
    std::vector<int64_t> rows;
    c.search(seed, kernel_scalar, ScreenKind::kNone, sparse, 1, want, rows);
    std::vector<std::thread> callers;
    for (unsigned t = 0; t < 3; ++t) {
      callers.emplace_back([&, t] {
        std::vector<float> scores;
        std::vector<int64_t> found;
        c.search(seed, *levels[(seed + t) % levels.size()], kKinds[(seed / levels.size() + t) % 2], sparse,
                 1 + static_cast<int>(t), scores, found);
        if (scores != want || found != rows) wrong.fetch_add(1);
      });
    }
    for (std::thread& caller : callers) caller.join();
  }
  std::printf("%u cases, 3 callers at once: %d wrong answers\n", cases, wrong.load());
  return wrong.load() != 0;
}
