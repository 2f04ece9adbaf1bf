// The short way into score_topk, for arrays that are as the operator wants them: all checks of a call in one step.
// A search of ten thousand items takes 30 us and the checks one by one in Python 13, or 150 where its own memory has
// left the cache. Whatever is not plain is refused, without a word: fastrec/ops/score_topk.py has the words.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "bindings.h"
#include "ops.h"

namespace py = pybind11;

namespace {

template <typename T>
bool plain(const py::object& x, py::ssize_t dims) {
  if (!py::isinstance<py::array_t<T, py::array::c_style>>(x)) return false;
  return py::reinterpret_borrow<py::array>(x).ndim() == dims;
}

template <typename T>
const T* data(const py::object& x) {
  return static_cast<const T*>(py::reinterpret_borrow<py::array>(x).data());
}

py::ssize_t size(const py::object& x, int axis = 0) { return py::reinterpret_borrow<py::array>(x).shape(axis); }

// With the GIL held, so that nobody changes the environment meanwhile.
bool set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

// None, or (indptr int64 [B+1], rows int32).
bool take_lists(const py::object& x, int64_t B, fastrec::Csr& lists, int64_t& n_entries) {
  if (x.is_none()) return true;
  if (!py::isinstance<py::tuple>(x)) return false;
  const auto pair = py::reinterpret_borrow<py::tuple>(x);
  if (pair.size() != 2) return false;
  const py::object indptr = pair[0], rows = pair[1];
  if (!plain<int64_t>(indptr, 1) || !plain<int32_t>(rows, 1) || size(indptr) != B + 1) return false;
  lists.indptr = data<int64_t>(indptr), lists.rows = data<int32_t>(rows);
  n_entries = size(rows);
  return true;
}

// A checked PackedItems; it holds on to the arrays.
class Items {
 public:
  Items(py::array rows, int kind, py::array codes, py::array scales, py::array errors, double error, double reach,
        double max_norm)
      : rows_(std::move(rows)), codes_(std::move(codes)), scales_(std::move(scales)), errors_(std::move(errors)),
        kind_(static_cast<fastrec::ScreenKind>(kind)), error_(error), reach_(reach), max_norm_(max_norm) {}

  // Cells of the items and, for calls without a bias, what arrange_bias makes of none.
  void set_cells(py::array begins, py::array order, py::array codes, py::array scales, py::array errors,
                 py::array radii, py::array coarse_codes, py::array coarse_scales, py::array coarse_errors, double error, double reach,
                 double coarse_error, double coarse_reach, double length, py::array bias, py::array most_bias) {
    const int64_t n = begins.shape(0) - 1;
    const auto* first = static_cast<const int64_t*>(begins.data());
    const auto floats = [](const py::array& x) { return static_cast<const float*>(x.data()); };
    cells_ = {n, first, static_cast<const int32_t*>(order.data()),
              {codes.data(), floats(scales), floats(errors), first[n]}, error, reach, floats(radii),
              {coarse_codes.data(), floats(coarse_scales), floats(coarse_errors), (n + 15) / 16},
              coarse_error, coarse_reach, length, floats(bias), floats(most_bias)};
    held_ = {begins, order, codes, scales, errors, radii, coarse_codes, coarse_scales, coarse_errors, bias, most_bias};
  }

  // Whether the arguments were plain; then scores [B, k] and rows [B, k] are written. No threads asked for: as many as
  // this process may use, but no more than most_threads, as fastrec.config.threads has it.
  bool search(const py::object& queries, int64_t k, const py::object& seen, const py::object& deny,
              const py::object& allow, int asked_threads, int most_threads, double largest_score,
              const py::object& scores, const py::object& rows) const {
    if (set("FASTREC_SIMD") || (asked_threads == 0 && set("FASTREC_THREADS"))) return false;
    const int threads = asked_threads > 0 ? asked_threads : std::min(fastrec::usable_cpus(), most_threads);
    const int64_t N = rows_.shape(0), D = rows_.shape(1);
    if (!plain<float>(queries, 2) || size(queries, 1) != D) return false;
    const int64_t B = size(queries);
    fastrec::TopkArgs args{};
    fastrec::Csr* const lists[3] = {&args.seen, &args.deny, &args.allow};
    int64_t n_entries[3] = {};
    const py::object* const given[3] = {&seen, &deny, &allow};
    for (int i = 0; i < 3; ++i)
      if (!take_lists(*given[i], B, *lists[i], n_entries[i])) return false;
    args.s = {data<float>(queries), static_cast<const float*>(rows_.data()), B, N, D, nullptr, {}, {}};
    args.k = k;
    args.repeats = 1;
    args.threads = threads;
    args.scores = const_cast<float*>(data<float>(scores)), args.rows = const_cast<int64_t*>(data<int64_t>(rows));
    args.screen_kind = kind_;
    args.screen = {codes_.data(), static_cast<const float*>(scales_.data()),
                   static_cast<const float*>(errors_.data()), (N + 15) / 16};
    args.screen_error = error_, args.screen_reach = reach_;
    args.cells = cells_;
    bool good = true;
    interruptible([&](fastrec::Stop& stop) {
      for (int i = 0; i < 3; ++i)
        good = good && (!*lists[i] || check_lists(*lists[i], B, n_entries[i], N) == fastrec::Order::kStrict);
      std::vector<double> bounds(2 * B);  // the second half, of sparse terms and biases, stays 0
      args.dense_bound = bounds.data(), args.init_bound = bounds.data() + B;
      const double largest = fastrec::scaled_lengths(args.s.queries, B, D, max_norm_, bounds.data());
      good = good && largest <= largest_score;  // NaN is not
      if (good) fastrec::score_topk(args, fastrec::simd_level(""), stop);
    });
    return good;
  }

 private:
  py::array rows_, codes_, scales_, errors_;
  std::vector<py::array> held_;
  fastrec::Cells cells_;
  fastrec::ScreenKind kind_;
  double error_, reach_, max_norm_;
};

}  // namespace

void bind_topk(py::module_& m) {
  py::class_<Items>(m, "Items")
      .def(py::init<py::array, int, py::array, py::array, py::array, double, double, double>())
      .def("set_cells", &Items::set_cells)
      .def("search", &Items::search);
}
