// fastrec._C_cuda: the operators of ops_cuda.h for Python.
//
// Arrays come as addresses of device memory that torch owns, checked in Python and kept alive there; 0 stands for what
// was left out. `stream` is the caller's. The module loads without a driver: libcudart is linked statically and looks
// for the driver at its first call.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "ops_cuda.h"

namespace py = pybind11;
using namespace fastrec::cuda;

namespace {

using Address = std::uintptr_t;
using ListsAddress = std::tuple<Address, Address, Address>;         // indptr, rows, values
using PartAddress = std::tuple<Address, int, Address, Address>;     // values, dims, rows, scales

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

Lists lists(const ListsAddress& a) {
  return {at<const int64_t>(std::get<0>(a)), at<const int32_t>(std::get<1>(a)), at<const float>(std::get<2>(a))};
}

// A failed launch as a RuntimeError; Python makes it a KernelError.
void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

}  // namespace

PYBIND11_MODULE(_C_cuda, m) {
  m.doc() = "CUDA operators of FastRec; call them through fastrec.ops.";
  m.attr("architectures") = FASTREC_CUDA_ARCHITECTURES;
  m.attr("most_topk") = kMostTopk;
  m.attr("most_parts") = kMostParts;
  m.attr("most_dims") = kMostDims;
  m.attr("most_pool") = kMostPool;
  m.attr("user_tile") = kUserTile;
  m.attr("item_tile") = kItemTile;
  m.def("topk_capacity", &topk_capacity, py::arg("k"));

  m.def("device_count", [] {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    return std::make_tuple(error == cudaSuccess ? count : 0, std::string(cudaGetErrorString(error)));
  }, "(devices, what the driver says about it)");

  m.def("score_topk", [](int screen, Address queries, Address items, int64_t item_stride, int64_t B, int64_t N, int64_t D,
                         int k, Address bias, const ListsAddress& history, const ListsAddress& similarity,
                         const ListsAddress& seen, const ListsAddress& deny, const ListsAddress& allow, Address pad,
                         int splits, Address keys, Address counts, Address scores, Address rows, Address stream) {
    TopkProblem p{};
    p.queries = at<const float>(queries), p.items = at<const void>(items), p.item_stride = item_stride;
    p.B = B, p.N = N, p.D = D, p.k = k, p.bias = at<const float>(bias);
    p.history = lists(history), p.similarity = lists(similarity);
    p.seen = lists(seen), p.deny = lists(deny), p.allow = lists(allow);
    p.pad = at<const float>(pad), p.splits = splits, p.keys = at<uint64_t>(keys), p.counts = at<int32_t>(counts);
    p.scores = at<float>(scores), p.rows = at<int64_t>(rows);
    check(score_topk(p, static_cast<TopkScreen>(screen), reinterpret_cast<cudaStream_t>(stream)));
  }, py::kw_only(), py::arg("screen"), py::arg("queries"), py::arg("items"), py::arg("item_stride"), py::arg("B"),
        py::arg("N"), py::arg("D"), py::arg("k"), py::arg("bias"), py::arg("history"), py::arg("similarity"),
        py::arg("seen"), py::arg("deny"), py::arg("allow"), py::arg("pad"), py::arg("splits"), py::arg("keys"),
        py::arg("counts"), py::arg("scores"), py::arg("rows"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());

  m.def("fuse_features", [](const std::vector<PartAddress>& parts, int64_t B, bool normalize, bool half, Address out,
                            Address stream) {
    FuseParts p{};
    if (parts.size() > kMostParts) throw std::runtime_error("too many parts");
    for (const auto& [values, dims, rows, scales] : parts) {
      p.values[p.n] = at<const float>(values), p.dims[p.n] = dims;
      p.rows[p.n] = at<const int64_t>(rows), p.scales[p.n] = at<const double>(scales);
      ++p.n;
    }
    check(fuse_features(p, B, normalize, half, at<void>(out), reinterpret_cast<cudaStream_t>(stream)));
  }, py::kw_only(), py::arg("parts"), py::arg("B"), py::arg("normalize"), py::arg("half"), py::arg("out"),
        py::arg("stream"), py::call_guard<py::gil_scoped_release>());

  m.def("segment_mean", [](Address values, int64_t D, const ListsAddress& segments, int64_t B, bool normalize, Address out,
                           Address stream) {
    check(segment_mean(at<const float>(values), D, lists(segments), B, normalize, at<float>(out),
                       reinterpret_cast<cudaStream_t>(stream)));
  }, py::kw_only(), py::arg("values"), py::arg("D"), py::arg("segments"), py::arg("B"), py::arg("normalize"),
        py::arg("out"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());

  m.def("mmr", [](Address vectors, int64_t D, Address pool, Address relevance, int64_t B, int P, int k, double diversity,
                  Address picks, Address stream) {
    check(mmr(at<const float>(vectors), D, at<const int64_t>(pool), at<const double>(relevance), B, P, k, diversity,
              at<int32_t>(picks), reinterpret_cast<cudaStream_t>(stream)));
  }, py::kw_only(), py::arg("vectors"), py::arg("D"), py::arg("pool"), py::arg("relevance"), py::arg("B"), py::arg("P"),
        py::arg("k"), py::arg("diversity"), py::arg("picks"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());
}
