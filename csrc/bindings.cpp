// fastrec._C: the operators of ops.h for Python. Only this file and its neighbours bindings_*.cpp include pybind11.
//
// Arrays come as addresses of contiguous memory, checked in Python and kept alive there for the length of the
// call; 0 stands for an argument that was left out. The GIL is released while an operator runs.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>

#include "bindings.h"
#include "check.h"
#include "ops.h"

namespace py = pybind11;
using fastrec::Csr;

void bind_encode(py::module_& m);  // bindings_encode.cpp
void bind_topk(py::module_& m);    // bindings_topk.cpp

namespace {

using Address = std::uintptr_t;
using CsrAddress = std::tuple<Address, Address, Address>;  // indptr, rows, values
// ScreenKind, codes, scales, errors, largest error, largest reach
using ScreenAddress = std::tuple<int, Address, Address, Address, double, double>;

// cells, begins, order, codes, scales, errors, radii; those of the coarse screen; error and reach of the two; length; bias,
// most bias
using CellsAddress = std::tuple<int64_t, Address, Address, Address, Address, Address, Address, Address, Address, Address, double,
                                double, double, double, double, Address, Address>;

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

Csr csr(const CsrAddress& a) {
  Csr list;
  list.indptr = at<const int64_t>(std::get<0>(a));
  list.rows = at<const int32_t>(std::get<1>(a));
  list.values = at<const float>(std::get<2>(a));
  return list;
}

fastrec::Cells cells_at(const CellsAddress& a) {
  const auto [n, begins, order, codes, scales, errors, radii, coarse, coarse_scales, coarse_errors, error, reach, coarse_error,
              coarse_reach, length, bias, most] = a;
  const int64_t panels = n > 0 ? at<const int64_t>(begins)[n] : 0;
  return {n, at<const int64_t>(begins), at<const int32_t>(order),
          {at<const void>(codes), at<const float>(scales), at<const float>(errors), panels}, error, reach, at<const float>(radii),
          {at<const void>(coarse), at<const float>(coarse_scales), at<const float>(coarse_errors), (n + 15) / 16},
          coarse_error, coarse_reach, length, at<const float>(bias), at<const float>(most)};
}

fastrec::Scoring scoring(Address queries, Address items, int64_t B, int64_t N, int64_t D, Address bias,
                         const CsrAddress& history, const CsrAddress& similarity) {
  fastrec::require(B >= 0 && N >= 0 && D >= 0, "sizes are not negative");
  fastrec::mul_no_overflow(fastrec::mul_no_overflow(B, std::max<int64_t>(D, 1)), 4);
  fastrec::mul_no_overflow(fastrec::mul_no_overflow(N + 16, std::max<int64_t>(D, 1)), 4);
  return {at<const float>(queries), at<const float>(items), B, N, D, at<const float>(bias), csr(history),
          csr(similarity)};
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native operators of FastRec; call them through fastrec.ops.";

  m.def("simd_levels", [] {
    std::vector<std::string> names;
    for (const fastrec::Kernel* level : fastrec::simd_levels()) names.emplace_back(level->name);
    return names;
  }, "Names of the instruction-set levels that this machine can run, the best last.");

  m.def("address", [](const py::array& array, int type) -> Address {
    const py::dtype dtype = array.dtype();
    const bool swapped = dtype.byteorder() != '=' && dtype.byteorder() != '|';
    if (dtype.num() != type || swapped || !(array.flags() & py::array::c_style)) return 0;
    return reinterpret_cast<Address>(array.data());
  }, "Where the data of a contiguous array of this dtype number lie; 0 for any other array.",
     py::arg("array").noconvert(), py::arg("type"));

  m.def("check_lists", [](Address indptr, int64_t n_rows, Address rows, int64_t n_entries, int64_t n_cols) {
    Csr lists;
    lists.indptr = at<const int64_t>(indptr), lists.rows = at<const int32_t>(rows);
    py::gil_scoped_release release;
    return static_cast<int>(fastrec::check_lists(lists, n_rows, n_entries, n_cols));
  });

  m.def("scaled_lengths", [](Address values, int64_t n, int64_t dims, double scale, Address out) {
    py::gil_scoped_release release;
    return fastrec::scaled_lengths(at<const float>(values), n, dims, scale, at<double>(out));
  });

  m.def("probe", [](Address values, int64_t n, int64_t rounds, int threads, const std::string& simd) {
    py::gil_scoped_release release;
    return fastrec::probe(at<const float>(values), n, rounds, threads, fastrec::simd_level(simd.c_str()));
  }, "(multiply-adds a second, bytes read a second) of this machine", py::kw_only(), py::arg("values"),
     py::arg("n"), py::arg("rounds"), py::arg("threads"), py::arg("simd"));

  m.def("pack_items", [](Address items, int64_t n, int64_t dims, Address rows, Address squares, int threads) {
    py::gil_scoped_release release;
    fastrec::pack_items(at<const float>(items), n, dims, at<float>(rows), at<double>(squares), threads);
  }, py::kw_only(), py::arg("items"), py::arg("n"), py::arg("dims"), py::arg("rows"), py::arg("squares"),
     py::arg("threads"));

  m.def("screen_items", [](Address items, int64_t n, int64_t dims, bool int8, Address codes,
                           Address scales, Address errors, int threads) {
    py::gil_scoped_release release;
    if (int8) {
      fastrec::screen_int8(at<const float>(items), n, dims, at<uint8_t>(codes), at<float>(scales),
                           at<float>(errors), threads);
    } else {
      fastrec::screen_bf16(at<const float>(items), n, dims, at<uint16_t>(codes), at<float>(scales),
                           at<float>(errors), threads);
    }
  }, py::kw_only(), py::arg("items"), py::arg("n"), py::arg("dims"), py::arg("int8"), py::arg("codes"),
     py::arg("scales"), py::arg("errors"), py::arg("threads"));

  m.def("score_topk", [](Address queries, Address items, int64_t B, int64_t N, int64_t D, Address bias,
                         const CsrAddress& history, const CsrAddress& similarity, int64_t k,
                         const CsrAddress& seen, const CsrAddress& deny, const CsrAddress& allow,
                         Address dense_bound, Address init_bound, int64_t repeats, const ScreenAddress& screen,
                         const CellsAddress& cells, int threads, const std::string& simd, Address scores,
                         Address rows) {
    const fastrec::TopkArgs args{scoring(queries, items, B, N, D, bias, history, similarity), k, csr(seen),
                                 csr(deny), csr(allow), at<const double>(dense_bound),
                                 at<const double>(init_bound), repeats, threads, at<float>(scores), at<int64_t>(rows),
                                 static_cast<fastrec::ScreenKind>(std::get<0>(screen)),
                                 {at<const void>(std::get<1>(screen)), at<const float>(std::get<2>(screen)),
                                  at<const float>(std::get<3>(screen)), (N + 15) / 16},
                                 std::get<4>(screen), std::get<5>(screen), cells_at(cells)};
    fastrec::mul_no_overflow(fastrec::mul_no_overflow(B, k), 8);
    const fastrec::Kernel& level = fastrec::simd_level(simd.c_str());
    interruptible([&](fastrec::Stop& stop) { fastrec::score_topk(args, level, stop); });
  }, py::kw_only(), py::arg("queries"), py::arg("items"), py::arg("B"), py::arg("N"), py::arg("D"),
     py::arg("bias"), py::arg("history"), py::arg("similarity"), py::arg("k"), py::arg("seen"), py::arg("deny"),
     py::arg("allow"), py::arg("dense_bound"), py::arg("init_bound"), py::arg("repeats"), py::arg("screen"),
     py::arg("cells"), py::arg("threads"), py::arg("simd"), py::arg("scores"), py::arg("rows"));

  m.def("arrange_bias", [](const CellsAddress& cells, Address bias, int threads, Address arranged, Address most) {
    py::gil_scoped_release release;
    fastrec::arrange_bias(cells_at(cells), at<const float>(bias), threads, at<float>(arranged), at<float>(most));
  }, py::kw_only(), py::arg("cells"), py::arg("bias"), py::arg("threads"), py::arg("arranged"), py::arg("most"));

  m.def("score_pairs", [](Address queries, Address items, int64_t B, int64_t N, int64_t D, Address bias,
                          const CsrAddress& history, const CsrAddress& similarity, const CsrAddress& pairs,
                          int threads, const std::string& simd, Address scores) {
    const fastrec::Scoring s = scoring(queries, items, B, N, D, bias, history, similarity);
    const fastrec::Kernel& level = fastrec::simd_level(simd.c_str());
    interruptible([&](fastrec::Stop& stop) {
      fastrec::score_pairs(s, csr(pairs), threads, at<float>(scores), level, stop);
    });
  }, py::kw_only(), py::arg("queries"), py::arg("items"), py::arg("B"), py::arg("N"), py::arg("D"),
     py::arg("bias"), py::arg("history"), py::arg("similarity"), py::arg("pairs"), py::arg("threads"),
     py::arg("simd"), py::arg("scores"));

  m.def("segment_mean", [](Address values, int64_t dims, const CsrAddress& segments, int64_t B, bool normalize,
                           int threads, Address out) {
    interruptible([&](fastrec::Stop& stop) {
      fastrec::segment_mean(at<const float>(values), dims, csr(segments), B, normalize, threads, at<float>(out), stop);
    });
  }, py::kw_only(), py::arg("values"), py::arg("dims"), py::arg("segments"), py::arg("B"), py::arg("normalize"),
     py::arg("threads"), py::arg("out"));

  m.def("fuse_features", [](const std::vector<std::tuple<Address, int64_t, Address, Address>>& parts, int64_t B,
                            bool normalize, bool half, int threads, Address out) {
    std::vector<fastrec::FeaturePart> views;
    for (const auto& [values, dims, rows, scales] : parts)
      views.push_back({at<const float>(values), dims, at<const int64_t>(rows), at<const double>(scales)});
    interruptible([&](fastrec::Stop& stop) {
      fastrec::fuse_features(views, B, normalize, half, threads, at<void>(out), stop);
    });
  }, py::kw_only(), py::arg("parts"), py::arg("B"), py::arg("normalize"), py::arg("half"), py::arg("threads"),
     py::arg("out"));

  m.def("block_sums", [](Address data, int64_t bytes, Address key, int threads, bool simd, Address out) {
    interruptible([&](fastrec::Stop& stop) {
      fastrec::block_sums(at<const uint8_t>(data), bytes, at<const uint32_t>(key), threads, simd, at<uint64_t>(out),
                          stop);
    });
  }, py::kw_only(), py::arg("data"), py::arg("bytes"), py::arg("key"), py::arg("threads"), py::arg("simd"),
     py::arg("out"));

  m.def("entries_by_column", [](const CsrAddress& entries, int64_t n_rows, int64_t n_cols, Address begins,
                                Address owners, Address places) {
    py::gil_scoped_release release;
    fastrec::entries_by_column(csr(entries), n_rows, n_cols, at<int64_t>(begins), at<int32_t>(owners),
                               at<int32_t>(places));
  }, py::kw_only(), py::arg("entries"), py::arg("n_rows"), py::arg("n_cols"), py::arg("begins"), py::arg("owners"),
     py::arg("places"));

  m.def("cooccurrence_topk", [](const CsrAddress& entries, int64_t n_rows, int64_t n_cols, Address begins,
                                Address owners, Address places, Address steps, int64_t n_steps, int64_t k,
                                Address norms, float shrinkage, int64_t first, int64_t last, int threads,
                                Address columns, Address values, Address counts) {
    const fastrec::CooccurrenceArgs args{csr(entries), n_rows, n_cols, at<const int64_t>(begins),
                                         at<const int32_t>(owners), at<const int32_t>(places),
                                         at<const float>(steps), n_steps, k, at<const float>(norms), shrinkage};
    interruptible([&](fastrec::Stop& stop) {
      fastrec::cooccurrence_topk(args, first, last, threads, at<int32_t>(columns), at<float>(values),
                                 at<int32_t>(counts), stop);
    });
  }, py::kw_only(), py::arg("entries"), py::arg("n_rows"), py::arg("n_cols"), py::arg("begins"), py::arg("owners"),
     py::arg("places"), py::arg("steps"), py::arg("n_steps"), py::arg("k"), py::arg("norms"), py::arg("shrinkage"),
     py::arg("first"), py::arg("last"), py::arg("threads"), py::arg("columns"), py::arg("values"),
     py::arg("counts"));

  m.def("ridge_solve", [](Address x, Address others, Address gram, Address indptr, Address indices, Address right,
                          Address extra, int64_t n_rows, int64_t dims, int64_t steps, int threads,
                          const std::string& simd) {
    const fastrec::Ridge systems{at<float>(x), at<const float>(others), at<const float>(gram),
                                 at<const int64_t>(indptr), at<const int32_t>(indices), at<const float>(right),
                                 at<const float>(extra), dims, steps, nullptr, nullptr};
    const fastrec::Kernel& level = fastrec::simd_level(simd.c_str());
    interruptible([&](fastrec::Stop& stop) { fastrec::ridge_solve(systems, n_rows, threads, level, stop); });
  }, py::kw_only(), py::arg("x"), py::arg("others"), py::arg("gram"), py::arg("indptr"), py::arg("indices"),
     py::arg("right"), py::arg("extra"), py::arg("n_rows"), py::arg("dims"), py::arg("steps"), py::arg("threads"),
     py::arg("simd"));

  m.def("score_std", [](Address queries, int64_t B, int64_t dims, Address covariance, int threads, Address out) {
    interruptible([&](fastrec::Stop& stop) {
      fastrec::score_std(at<const float>(queries), B, dims, at<const double>(covariance), threads, at<double>(out),
                         stop);
    });
  }, py::kw_only(), py::arg("queries"), py::arg("B"), py::arg("dims"), py::arg("covariance"),
     py::arg("threads"), py::arg("out"));

  m.def("sparse_score_std", [](const CsrAddress& history, const CsrAddress& similarity, int64_t B, int64_t N,
                               int threads, Address out) {
    interruptible([&](fastrec::Stop& stop) {
      fastrec::sparse_score_std(csr(history), csr(similarity), B, N, threads, at<double>(out), stop);
    });
  }, py::kw_only(), py::arg("history"), py::arg("similarity"), py::arg("B"), py::arg("N"), py::arg("threads"),
     py::arg("out"));

  bind_encode(m);
  bind_topk(m);
}
