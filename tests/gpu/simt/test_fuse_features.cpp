// fuse_features against its definition in float64.
#include "support.h"

namespace {

using namespace fastrec::cuda;

struct Part {
  int dims, n;
  bool gathered, scaled;
};

template <class Out>
void run(int64_t B, const std::vector<Part>& parts, bool normalize, bool zero_row) {
  ++cases;
  Dice dice(static_cast<unsigned>(B + parts.size()));
  FuseParts p;
  std::vector<std::vector<float>> values;
  std::vector<std::vector<int64_t>> rows;
  std::vector<std::vector<double>> scales;
  int64_t dims = 0;
  for (const Part& part : parts) {
    std::vector<float> v(static_cast<size_t>(part.n) * part.dims);
    for (float& x : v) x = zero_row ? 0.0f : draw(dice, 0);
    std::vector<int64_t> r(B);
    for (int64_t b = 0; b < B; ++b) r[b] = part.gathered ? static_cast<int64_t>(dice() % part.n) : b;
    std::vector<double> s(B);
    for (double& x : s) x = part.scaled ? double{draw(dice, 0)} * 10.0 : 1.0;
    values.push_back(v), rows.push_back(r), scales.push_back(s);
    dims += part.dims;
  }
  std::vector<Device<float>*> d_values;
  std::vector<Device<int64_t>*> d_rows;
  std::vector<Device<double>*> d_scales;
  for (size_t i = 0; i < parts.size(); ++i) {
    d_values.push_back(new Device<float>(values[i]));
    d_rows.push_back(new Device<int64_t>(rows[i]));
    d_scales.push_back(new Device<double>(scales[i]));
    p.values[i] = d_values[i]->p, p.dims[i] = parts[i].dims;
    p.rows[i] = parts[i].gathered ? d_rows[i]->p : nullptr;
    p.scales[i] = parts[i].scaled ? d_scales[i]->p : nullptr;
  }
  p.n = static_cast<int>(parts.size());
  const Device<Out> out(static_cast<size_t>(B * dims));
  ok(fuse_features(p, B, normalize, sizeof(Out) == 2, out.p, nullptr));
  const std::vector<Out> got = out.host();
  for (int64_t b = 0; b < B; ++b) {
    std::vector<double> row;
    double square = 0.0;
    for (size_t i = 0; i < parts.size(); ++i)
      for (int d = 0; d < parts[i].dims; ++d) {
        row.push_back(scales[i][b] * double{values[i][rows[i][b] * parts[i].dims + d]});
        square += row.back() * row.back();
      }
    for (int64_t d = 0; d < dims; ++d) {
      const double want = normalize && square > 0 ? row[d] / std::sqrt(square) : row[d];
      const double v = widen(got[b * dims + d]);
      const double tolerance = (sizeof(Out) == 2 ? 0x1p-11 : 0x1p-23) * std::fabs(want) + (sizeof(Out) == 2 ? 1e-7 : 0.0);
      CHECK(std::fabs(v - want) <= tolerance, "B=%d row %d column %d: %g, expected %g", static_cast<int>(B),
            static_cast<int>(b), static_cast<int>(d), v, want);
      CHECK(!(v == 0.0 && std::signbit(v)) || want != 0.0, "a negative zero");
    }
  }
  for (size_t i = 0; i < parts.size(); ++i) delete d_values[i], delete d_rows[i], delete d_scales[i];
}

void run_all() {
  const std::vector<Part> three = {{63, 9, true, true}, {130, 5, true, false}, {1, 20, false, true}};
  run<float>(0, three, true, false);
  run<float>(7, three, true, false);
  run<float>(7, three, false, false);
  run<__half>(7, three, true, false);
  run<__half>(3, {{17, 4, true, false}}, false, false);
  run<float>(3, {{17, 4, true, true}}, true, true);
  run<float>(2, {{0, 2, false, false}, {300, 2, false, true}}, true, false);
  FuseParts wide;
  wide.n = 1, wide.dims[0] = kMostDims + 1;
  ++cases;
  CHECK(fuse_features(wide, 1, true, false, nullptr, nullptr) == cudaErrorInvalidValue, "too wide");
}

}  // namespace

int main(int argc, char** argv) { return over_seeds(argc, argv, run_all); }
