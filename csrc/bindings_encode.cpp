// The operators of encode_ops.h for Python, as in bindings.cpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>

#include "encode_ops.h"

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;
// K, N, steps, panels, bias, scales, sums, code_max
using LinearAddress = std::tuple<int64_t, int64_t, int64_t, Address, Address, Address, Address, int64_t>;
// qkv, out, up, down, weight and shift of the two norms
using LayerAddress = std::tuple<LinearAddress, LinearAddress, LinearAddress, LinearAddress, Address, Address, Address,
                                Address>;

const float* floats(Address address) { return reinterpret_cast<const float*>(address); }

fastrec::Linear linear(const LinearAddress& a, fastrec::Activation activation = fastrec::kNoActivation) {
  return {std::get<0>(a), std::get<1>(a), std::get<2>(a), reinterpret_cast<const void*>(std::get<3>(a)),
          floats(std::get<4>(a)), floats(std::get<5>(a)), floats(std::get<6>(a)), std::get<7>(a), activation};
}

fastrec::EncoderLayer layer(const LayerAddress& a, fastrec::Activation activation) {
  return {linear(std::get<0>(a)), linear(std::get<1>(a)), linear(std::get<2>(a), activation), linear(std::get<3>(a)),
          floats(std::get<4>(a)), floats(std::get<5>(a)), floats(std::get<6>(a)), floats(std::get<7>(a))};
}

}  // namespace

void bind_encode(py::module_& m) {
  m.def("encode_level", [](const std::string& simd) {
    const fastrec::EncodeKernel& level = fastrec::encode_level(simd.c_str());
    py::tuple has = py::make_tuple("fp32", "int8", "int16");
    if (level.linear_bf16) has = has + py::make_tuple("bf16");
    if (level.linear_split) has = has + py::make_tuple("bf16x3");
    return py::make_tuple(level.name, has, level.code_max);
  }, "(name, precisions, largest int8 code of an input) of the level that runs", py::arg("simd"));

  m.def("attention_varlen", [](Address q, Address k, Address v, int64_t q_stride, int64_t kv_stride, Address cu,
                               int64_t S, int64_t heads, int64_t kv_heads, int64_t dims, float scale, bool causal,
                               Address relative, int64_t reach, Address out, int threads, const std::string& simd) {
    py::gil_scoped_release release;
    fastrec::attention_varlen({floats(q), floats(k), floats(v), q_stride, kv_stride,
                               reinterpret_cast<const int64_t*>(cu), S, heads, kv_heads, dims, scale, causal,
                               floats(relative), reach, reinterpret_cast<float*>(out)},
                              threads, fastrec::encode_level(simd.c_str()));
  }, py::kw_only(), py::arg("q"), py::arg("k"), py::arg("v"), py::arg("q_stride"), py::arg("kv_stride"), py::arg("cu"),
     py::arg("S"), py::arg("heads"), py::arg("kv_heads"), py::arg("dims"), py::arg("scale"), py::arg("causal"),
     py::arg("relative"), py::arg("reach"), py::arg("out"), py::arg("threads"), py::arg("simd"));

  m.def("bias_gelu", [](Address x, int64_t T, int64_t D, Address bias, int activation, int threads,
                        const std::string& simd) {
    py::gil_scoped_release release;
    fastrec::bias_gelu(reinterpret_cast<float*>(x), T, D, floats(bias),
                       static_cast<fastrec::Activation>(activation), threads, fastrec::encode_level(simd.c_str()));
  }, py::kw_only(), py::arg("x"), py::arg("T"), py::arg("D"), py::arg("bias"), py::arg("activation"),
     py::arg("threads"), py::arg("simd"));

  m.def("add_layer_norm", [](Address x, Address bias, Address residual, Address weight, Address shift, float eps,
                             int64_t T, int64_t D, Address out, int threads, const std::string& simd) {
    py::gil_scoped_release release;
    fastrec::add_layer_norm(floats(x), floats(bias), floats(residual), floats(weight), floats(shift), eps, T, D,
                            reinterpret_cast<float*>(out), threads, fastrec::encode_level(simd.c_str()));
  }, py::kw_only(), py::arg("x"), py::arg("bias"), py::arg("residual"), py::arg("weight"), py::arg("shift"),
     py::arg("eps"), py::arg("T"), py::arg("D"), py::arg("out"), py::arg("threads"), py::arg("simd"));

  m.def("pool_normalize", [](Address x, Address cu, int64_t S, int64_t D, int pooling, bool normalize, Address out,
                             int threads, const std::string& simd) {
    py::gil_scoped_release release;
    fastrec::pool_normalize(floats(x), reinterpret_cast<const int64_t*>(cu), S, D,
                            static_cast<fastrec::Pooling>(pooling), normalize, reinterpret_cast<float*>(out), threads,
                            fastrec::encode_level(simd.c_str()));
  }, py::kw_only(), py::arg("x"), py::arg("cu"), py::arg("S"), py::arg("D"), py::arg("pooling"), py::arg("normalize"),
     py::arg("out"), py::arg("threads"), py::arg("simd"));

  m.def("packed_linear", [](Address x, int64_t T, const LinearAddress& weights, int kind, Address out, int threads,
                            const std::string& simd) {
    const fastrec::Linear w = linear(weights);
    py::gil_scoped_release release;
    fastrec::linear_rows(floats(x), T, w, static_cast<fastrec::LinearKind>(kind), reinterpret_cast<float*>(out),
                         threads, fastrec::encode_level(simd.c_str()));
  }, py::kw_only(), py::arg("x"), py::arg("T"), py::arg("weights"), py::arg("kind"), py::arg("out"),
     py::arg("threads"), py::arg("simd"));

  py::class_<fastrec::EncoderModel>(m, "EncoderModel", "Addresses of a model; Python keeps the arrays alive.")
      .def(py::init([](int kind, int64_t D, int64_t heads, int64_t inner, float eps, int activation, int pooling,
                       bool normalize, Address words, Address positions, Address weight, Address shift,
                       Address relative, int64_t reach, const std::vector<LayerAddress>& layers) {
        fastrec::EncoderModel model{static_cast<fastrec::LinearKind>(kind), D, heads, inner, eps,
                                    static_cast<fastrec::Pooling>(pooling), normalize, floats(words),
                                    floats(positions), floats(weight), floats(shift), floats(relative), reach, {}};
        for (const LayerAddress& one : layers) model.layers.push_back(layer(one, static_cast<fastrec::Activation>(activation)));
        return model;
      }), py::kw_only(), py::arg("kind"), py::arg("D"), py::arg("heads"), py::arg("inner"), py::arg("eps"),
          py::arg("activation"), py::arg("pooling"), py::arg("normalize"), py::arg("words"), py::arg("positions"),
          py::arg("weight"), py::arg("shift"), py::arg("relative"), py::arg("reach"), py::arg("layers"))
      .def("encode", [](const fastrec::EncoderModel& model, Address ids, Address cu, int64_t S, Address out,
                        int threads, const std::string& simd) {
        py::gil_scoped_release release;
        fastrec::encode_packed(model, reinterpret_cast<const int32_t*>(ids), reinterpret_cast<const int64_t*>(cu), S,
                               reinterpret_cast<float*>(out), threads, fastrec::encode_level(simd.c_str()));
      }, py::kw_only(), py::arg("ids"), py::arg("cu"), py::arg("S"), py::arg("out"), py::arg("threads"),
         py::arg("simd"));
}
