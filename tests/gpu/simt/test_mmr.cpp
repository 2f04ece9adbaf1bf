// mmr against its definition, by greedy search in float64.
#include "support.h"

namespace {

using namespace fastrec::cuda;

void run(int64_t B, int P, int64_t N, int64_t D, int k, double diversity, int levels) {
  ++cases;
  Dice dice(static_cast<unsigned>(P + k));
  std::vector<float> vectors(static_cast<size_t>(N * D));
  for (float& v : vectors) v = draw(dice, levels);
  std::vector<int64_t> pool(static_cast<size_t>(B * P));
  std::vector<double> relevance(pool.size());
  for (int64_t b = 0; b < B; ++b)
    for (int i = 0; i < P; ++i) {
      const bool present = b % 2 == 0 || i < P / 2;
      pool[b * P + i] = present ? static_cast<int64_t>(dice() % N) : -1;
      // Whole 64ths: equal relevances occur.
      relevance[b * P + i] = static_cast<double>(dice() % 65) / 64;
    }
  const Device<float> d_vectors(vectors);
  const Device<int64_t> d_pool(pool);
  const Device<double> d_relevance(relevance);
  const Device<int32_t> picks(static_cast<size_t>(B) * k);
  ok(mmr(d_vectors.p, D, d_pool.p, d_relevance.p, B, P, k, diversity, picks.p, nullptr));
  const std::vector<int32_t> got = picks.host();
  const auto dot = [&](int64_t a, int64_t b) {
    double sum = 0.0;
    for (int64_t d = 0; d < D; ++d) sum += double{vectors[a * D + d]} * double{vectors[b * D + d]};
    return sum;
  };
  for (int64_t b = 0; b < B; ++b) {
    std::vector<double> similar(P, 0.0);
    std::vector<bool> taken(P, false);
    for (int round = 0; round < k; ++round) {
      int best = -1;
      double value = 0.0;
      const auto value_of = [&](int i) { return (1 - diversity) * relevance[b * P + i] - diversity * similar[i]; };
      for (int i = 0; i < P; ++i) {
        if (taken[i] || pool[b * P + i] < 0) continue;
        if (best < 0 || value_of(i) > value) best = i, value = value_of(i);
      }
      const int pick = got[b * k + round];
      CHECK((pick < 0) == (best < 0) && pick < P && pick >= -1, "B=%d P=%d user %d round %d: %d, expected %d",
            static_cast<int>(B), P, static_cast<int>(b), round, pick, best);
      if (best < 0) continue;
      CHECK(!taken[pick] && pool[b * P + pick] >= 0, "place %d twice", pick);
      // Cosines are summed in another order: another place must be as good within rounding. Whole vectors of equal
      // length have exact cosines, and then the place itself must agree.
      CHECK(pick == best || (levels == 0 && value_of(pick) > value - 1e-12), "B=%d P=%d user %d round %d: %d, expected %d",
            static_cast<int>(B), P, static_cast<int>(b), round, pick, best);
      taken[pick] = true;
      const int64_t row = pool[b * P + pick];
      for (int i = 0; i < P; ++i) {
        const int64_t other = pool[b * P + i];
        if (other < 0) continue;
        const double lengths = std::max(std::sqrt(dot(other, other)), 1e-12) * std::max(std::sqrt(dot(row, row)), 1e-12);
        similar[i] = std::max(similar[i], dot(other, row) / lengths);
      }
    }
  }
}

void run_all() {
  run(1, 1, 1, 1, 1, 0.5, 0);
  run(2, 5, 3, 7, 9, 0.5, 0);
  run(3, 33, 40, 40, 8, 0.3, 0);
  run(2, 200, 50, 16, 12, 0.7, 1);
  run(1, 140, 9, 0, 4, 0.5, 0);
  run(2, 129, 30, 5, 3, 0.0, 0);
  run(1, 0, 1, 1, 2, 0.5, 0);
  run(1, kMostPool, 2, 1, 1, 0.5, 0);
  {
    ++cases;
    const cudaError_t e = mmr(nullptr, 1, nullptr, nullptr, 1, kMostPool + 1, 1, 0.5, nullptr, nullptr);
    CHECK(e == cudaErrorInvalidValue, "pool");
  }
}

}  // namespace

int main(int argc, char** argv) { return over_seeds(argc, argv, run_all); }
