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
  std::vector<float> queries, panels, bias, scales8, errors8, scales16, errors16, history, similarity;
  std::vector<double> squares, dense_bound, init_bound;
  std::vector<uint8_t> codes8;
  std::vector<uint16_t> codes16;
  std::vector<int64_t> seen_ptr, history_ptr, similarity_ptr;
  std::vector<int32_t> seen, history_rows, similarity_rows;
  double max_norm = 0.0;

  explicit Case(unsigned seed) {
    std::mt19937 random(seed);
    const auto up_to = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<unsigned>(n)); };
    std::normal_distribution<float> normal;
    B = 1 + up_to(40), N = 800 + up_to(3000), D = 1 + up_to(40), k = 1 + up_to(30);
    std::vector<float> items(N * D);
    queries.resize(B * D);
    for (float& x : items) x = normal(random);
    for (float& x : queries) x = normal(random);
    bias.resize(N);
    for (float& x : bias) x = normal(random);
    const int64_t P = (N + 15) / 16;
    panels.resize(P * D * 16), squares.resize(N);
    pack_items(items.data(), N, D, panels.data(), squares.data(), 2);
    codes8.resize(P * ((D + 3) / 4) * 64), scales8.resize(P * 16), errors8.resize(P * 2);
    codes16.resize(P * ((D + 1) / 2) * 32), scales16.resize(P * 16), errors16.resize(P * 2);
    screen_int8(panels.data(), P, D, codes8.data(), scales8.data(), errors8.data(), 2);
    screen_bf16(panels.data(), P, D, codes16.data(), scales16.data(), errors16.data(), 2);
    for (double s : squares) max_norm = std::max(max_norm, std::sqrt(s) * 1.000001);
    constexpr int64_t kRows = 20;
    similarity_ptr.push_back(0);
    for (int64_t j = 0; j < kRows; ++j) {
      for (int64_t i = up_to(100); i < N; i += 1 + up_to(100)) {
        similarity_rows.push_back(static_cast<int32_t>(i));
        similarity.push_back(normal(random));
      }
      similarity_ptr.push_back(static_cast<int64_t>(similarity_rows.size()));
    }
    seen_ptr.push_back(0), history_ptr.push_back(0);
    for (int64_t u = 0; u < B; ++u) {
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

  TopkArgs args(ScreenKind kind, bool sparse, int threads, float* scores, int64_t* rows) const {
    const auto lists = [](const std::vector<int64_t>& p, const std::vector<int32_t>& r, const float* v) {
      Csr csr;
      csr.indptr = p.data(), csr.rows = r.data(), csr.values = v;
      return csr;
    };
    TopkArgs a{};
    a.s = {queries.data(), panels.data(), B, N, D, bias.data(), {}, {}};
    if (sparse) {
      a.s.history = lists(history_ptr, history_rows, history.data());
      a.s.similarity = lists(similarity_ptr, similarity_rows, similarity.data());
    }
    a.seen = lists(seen_ptr, seen, nullptr);
    a.k = k, a.dense_bound = dense_bound.data(), a.init_bound = init_bound.data(), a.threads = threads;
    a.scores = scores, a.rows = rows, a.screen_kind = kind, a.screen_always = true;
    const bool int8 = kind == ScreenKind::kInt8;
    a.screen = {int8 ? static_cast<const void*>(codes8.data()) : codes16.data(),
                int8 ? scales8.data() : scales16.data(), int8 ? errors8.data() : errors16.data()};
    const std::vector<float>&scales = int8 ? scales8 : scales16, &errors = int8 ? errors8 : errors16;
    for (size_t i = 0; i < scales.size(); ++i) {
      const double scale = scales[i] * 1.000001;
      a.screen_error = std::max(a.screen_error, scale * errors[i / 16 * 2]);
      a.screen_reach = std::max(a.screen_reach, scale * errors[i / 16 * 2 + 1]);
    }
    return a;
  }

  void search(const Kernel& level, ScreenKind kind, bool sparse, int threads, std::vector<float>& scores,
              std::vector<int64_t>& rows) const {
    scores.assign(B * k, NAN), rows.assign(B * k, 77);
    Stop stop([] { return false; });
    score_topk(args(kind, sparse, threads, scores.data(), rows.data()), level, stop);
  }
};

}  // namespace

int main(int argc, char** argv) {
  const unsigned cases = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 200;
  std::atomic<int> wrong{0};
  for (unsigned seed = 0; seed < cases; ++seed) {
    const Case c(seed);
    std::vector<float> want[2];
    std::vector<int64_t> rows[2];
    for (int sparse = 0; sparse < 2; ++sparse)
      c.search(kernel_scalar, ScreenKind::kNone, sparse != 0, 1, want[sparse], rows[sparse]);
    std::vector<std::thread> callers;
    for (int t = 0; t < 3; ++t) {
      callers.emplace_back([&, t] {
        for (const Kernel* level : simd_levels()) {
          for (ScreenKind kind : {ScreenKind::kNone, ScreenKind::kInt8, ScreenKind::kBf16}) {
            const int sparse = (t + static_cast<int>(kind)) % 2;
            std::vector<float> scores;
            std::vector<int64_t> found;
            c.search(*level, kind, sparse != 0, 1 + t, scores, found);
            if (scores != want[sparse] || found != rows[sparse]) wrong.fetch_add(1);
          }
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
  }
  std::printf("%u cases, 3 callers at once: %d wrong answers\n", cases, wrong.load());
  return wrong.load() != 0;
}
