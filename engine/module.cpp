// The Python module twinrank._engine: checks sizes, gives the GIL back while the network runs, and nothing else.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstring>
#include <stdexcept>

#include "cpu.hpp"
#include "maxsim.hpp"
#include "network.hpp"
#include "scan.hpp"
#include "weight_file.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace twinrank {
namespace {

template <class T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Rows = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutRows = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Weight = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;

Precision precision_named(const std::string& name) {
  if (name == "int8") return Precision::int8;
  if (name == "bf16") return Precision::bf16;
  if (name == "fp32") return Precision::fp32;
  throw std::invalid_argument("the precision '" + name + "' is not one of int8, bf16, fp32");
}

const char* name_of(Precision precision) {
  return precision == Precision::int8 ? "int8" : precision == Precision::bf16 ? "bf16" : "fp32";
}

Activation activation_named(const std::string& name) {
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  if (name == "relu") return Activation::relu;
  throw std::invalid_argument("the activation '" + name + "' is not one of gelu, gelu_tanh, relu");
}

Pooling pooling_named(const std::optional<std::string>& name) {
  if (!name) return Pooling::none;
  if (*name == "cls") return Pooling::cls;
  if (*name == "mean") return Pooling::mean;
  if (*name == "max") return Pooling::max;
  if (*name == "weighted_mean") return Pooling::weighted_mean;
  if (*name == "last") return Pooling::last;
  throw std::invalid_argument("the pooling '" + *name + "' is not one of cls, mean, max, weighted_mean, last");
}

void require(bool fine, const std::string& what) {
  if (!fine) throw std::invalid_argument(what);
}

Key key_from(const nb::bytes& bytes) {
  require(bytes.size() == 32, "a key has 32 bytes");
  Key key;
  std::memcpy(key.data(), bytes.c_str(), 32);
  return key;
}

nb::list specs_of(const Shape& shape) {
  nb::list result;
  for (const WeightSpec& spec : weight_specs(shape))
    result.append(nb::make_tuple(spec.name, spec.columns == 0 ? nb::object(nb::make_tuple(spec.rows))
                                                              : nb::object(nb::make_tuple(spec.rows, spec.columns))));
  return result;
}

std::unique_ptr<Network> pack_network(const Shape& shape, const std::string& precision, const std::vector<Weight>& weights,
                              const std::string& path) {
  const std::vector<WeightSpec> specs = weight_specs(shape);
  require(weights.size() == specs.size(), "expected " + std::to_string(specs.size()) + " weights");
  std::vector<const float*> pointers;
  for (size_t i = 0; i < specs.size(); ++i) {
    const bool vector = specs[i].columns == 0;
    require(weights[i].ndim() == (vector ? 1 : 2) && weights[i].shape(0) == specs[i].rows &&
                (vector || weights[i].shape(1) == specs[i].columns),
            "the weight '" + specs[i].name + "' has the wrong shape");
    pointers.push_back(weights[i].data());
  }
  const Kernels& kernels = choose_kernels(path);
  nb::gil_scoped_release release;
  return std::make_unique<Network>(Model::pack(shape, precision_named(precision), pointers), kernels);
}

std::unique_ptr<Network> read_network(const std::string& file, const nb::bytes& key, const Shape& shape, const std::string& precision,
                              const std::string& path) {
  const Key source = key_from(key);
  const Kernels& kernels = choose_kernels(path);
  nb::gil_scoped_release release;
  return std::make_unique<Network>(read_weights(file, shape, precision_named(precision), source), kernels);
}

void run_network(const Network& network, const Vector<int32_t>& ids, const std::optional<Vector<int32_t>>& types,
         const Vector<int32_t>& offsets, const std::optional<std::string>& pooling, const std::optional<OutRows>& pooled,
         const std::optional<OutRows>& hidden, size_t first, size_t end, const std::optional<Rows<float>>& start,
         const std::optional<Vector<int32_t>>& seen, size_t threads) {
  const size_t width = network.model().shape.width;
  require(offsets.shape(0) >= 1, "offsets need at least one number");
  Request request;
  request.texts = offsets.shape(0) - 1;
  request.tokens = ids.shape(0);
  require(request.texts < (size_t(1) << 31) && request.tokens < (size_t(1) << 31), "too many tokens for one call");
  require(!types || types->shape(0) == request.tokens, "types must be as many as ids");
  require(!pooled || (pooled->shape(0) == request.texts && pooled->shape(1) == width), "pooled must be (texts, width)");
  require(!hidden || (hidden->shape(0) == request.tokens && hidden->shape(1) == width), "hidden must be (tokens, width)");
  require(!start || (start->shape(0) == request.tokens && start->shape(1) == width),
          "start must be (tokens, width) = (" + std::to_string(request.tokens) + ", " + std::to_string(width) + ")");
  require(!seen || seen->shape(0) == request.texts, "seen must be one number a text");
  request.ids = ids.data();
  request.types = types ? types->data() : nullptr;
  request.offsets = offsets.data();
  request.pooling = pooling_named(pooling);
  require((request.pooling == Pooling::none) == !pooled, "pooled is given where a pooling is");
  request.pooled = pooled ? pooled->data() : nullptr;
  request.hidden = hidden ? hidden->data() : nullptr;
  request.start = start ? start->data() : nullptr;
  request.seen = seen ? seen->data() : nullptr;
  request.first_layer = first;
  request.end_layer = end;
  request.threads = threads;
  nb::gil_scoped_release release;
  network.run(request);
}

template <class T>
nb::object array_of(std::vector<T>&& values) {
  auto* kept = new std::vector<T>(std::move(values));
  nb::capsule owner(kept, [](void* pointer) noexcept { delete static_cast<std::vector<T>*>(pointer); });
  return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(kept->data(), {kept->size()}, owner));
}

nb::tuple scan_int8(const Rows<int8_t>& codes, const Vector<float>& scales, const Vector<float>& errors, const Rows<int8_t>& parts,
                    const Vector<float>& part_scales, double constant, double factor, size_t k,
                    const std::optional<Vector<int64_t>>& rows, size_t threads, const std::string& path) {
  ScanRequest request;
  request.count = codes.shape(0);
  request.dimension = codes.shape(1);
  request.part_count = parts.shape(0);
  const auto said = [](const char* name, size_t expected, size_t came) {
    return std::string(name) + " has " + std::to_string(came) + " numbers; " + std::to_string(expected) + " were expected";
  };
  require(scales.shape(0) == request.count, said("scales", request.count, scales.shape(0)));
  require(errors.shape(0) == request.count, said("errors", request.count, errors.shape(0)));
  require(parts.shape(1) == request.dimension, said("a part of the query", request.dimension, parts.shape(1)));
  require(part_scales.shape(0) == request.part_count, said("part_scales", request.part_count, part_scales.shape(0)));
  request.codes = codes.data();
  request.scales = scales.data();
  request.errors = errors.data();
  request.parts = parts.data();
  request.part_scales = part_scales.data();
  request.constant = constant;
  request.factor = factor;
  request.k = k;
  request.rows = rows ? rows->data() : nullptr;
  request.row_count = rows ? rows->shape(0) : 0;
  // An empty array's data may be null; it still means none of the rows.
  static const int64_t kNoRow = 0;
  if (rows && request.rows == nullptr) request.rows = &kNoRow;
  request.threads = threads;
  const Kernels& kernels = choose_kernels(path);
  ScanResult result;
  {
    nb::gil_scoped_release release;
    result = scan(kernels, request);
  }
  return nb::make_tuple(array_of(std::move(result.rows)), array_of(std::move(result.scores)));
}

using Codes = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// One part's arrays; they are kept alive by the caller's lists.
StoredTokens stored_tokens(nb::handle codes_given, nb::handle scales_given, nb::handle offsets_given, size_t code_bytes, bool four_bits) {
  Codes codes;
  Vector<float> scales;
  Vector<int64_t> offsets;
  const nb::dlpack::dtype byte = four_bits ? nb::dtype<uint8_t>() : nb::dtype<int8_t>();
  require(nb::try_cast(codes_given, codes, false) && codes.dtype() == byte && codes.shape(1) == code_bytes,
          "codes must be rows of " + std::to_string(code_bytes) + (four_bits ? " uint8" : " int8"));
  require(nb::try_cast(scales_given, scales, false) && scales.shape(0) == codes.shape(0), "scales must be float32, one a token");
  require(nb::try_cast(offsets_given, offsets, false) && offsets.shape(0) >= 1, "offsets must be int64, passages + 1");
  const int64_t* const at = offsets.data();
  bool rising = at[0] >= 0;
  for (size_t i = 1; i < offsets.shape(0); ++i) rising = rising && at[i - 1] <= at[i];
  require(rising && size_t(at[offsets.shape(0) - 1]) <= codes.shape(0), "offsets must rise from 0 to at most the number of tokens");
  return {static_cast<const uint8_t*>(codes.data()), scales.data(), at, offsets.shape(0) - 1};
}

nb::object maxsim_of(const Rows<float>& query, bool four_bits, const nb::list& codes, const nb::list& scales, const nb::list& offsets,
                     size_t threads, const std::string& path) {
  MaxSimRequest request;
  request.query = query.data();
  request.query_tokens = query.shape(0);
  request.width = query.shape(1);
  request.four_bits = four_bits;
  request.threads = threads;
  require(threads >= 1, "threads is 0; at least 1 was expected");
  require(!four_bits || request.width % 2 == 0, "4-bit codes come in pairs; the query's width is odd");
  require(codes.size() == scales.size() && codes.size() == offsets.size(), "codes, scales and offsets must be as many");
  size_t passages = 0;
  for (size_t i = 0; i < codes.size(); ++i) {
    request.parts.push_back(
        stored_tokens(codes[i], scales[i], offsets[i], four_bits ? request.width / 2 : request.width, four_bits));
    passages += request.parts.back().passages;
  }
  std::vector<float> scores(passages);
  request.scores = scores.data();
  const Kernels& kernels = choose_kernels(path);
  {
    nb::gil_scoped_release release;
    maxsim(kernels, request);
  }
  return array_of(std::move(scores));
}

// Operations a second on registers alone, on one thread: the best of several short runs.
double roof(const std::string& path, const std::string& precision_name, double seconds) {
  const Kernels& kernels = choose_kernels(path);
  const Precision precision = precision_named(precision_name);
  nb::gil_scoped_release release;
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + std::chrono::duration<double>(seconds);
  double best = 0.0;
  do {
    const auto begin = Clock::now();
    const double operations = kernels.spin(precision, 200000);
    best = std::max(best, operations / std::chrono::duration<double>(Clock::now() - begin).count());
  } while (Clock::now() < until);
  return best;
}

}  // namespace
}  // namespace twinrank

NB_MODULE(_engine, module) {
  using namespace twinrank;
  module.doc() = "The native engine; twinrank/models/native.py is its front.";

  nb::class_<Shape>(module, "Shape")
      .def(
          "__init__",
          [](Shape* self, uint32_t layers, uint32_t width, uint32_t heads, uint32_t intermediate, uint32_t vocabulary,
             uint32_t positions, uint32_t types, uint32_t position_offset, const std::string& activation, float norm_epsilon,
             uint32_t relative_buckets) {
            new (self) Shape{layers,          width,            heads, intermediate, vocabulary, positions, types,
                             position_offset, relative_buckets, activation_named(activation), norm_epsilon};
            self->check();
          },
          "layers"_a, "width"_a, "heads"_a, "intermediate"_a, "vocabulary"_a, "positions"_a, "types"_a, "position_offset"_a,
          "activation"_a, "norm_epsilon"_a, "relative_buckets"_a)
      .def("weights", &specs_of, "Name and shape of every weight, in the order that pack takes them.");

  nb::class_<Network>(module, "Network")
      .def("run", &run_network, "ids"_a, "types"_a.none(), "offsets"_a, "pooling"_a.none(), "pooled"_a.none(), "hidden"_a.none(), "first"_a,
           "end"_a, "start"_a.none(), "seen"_a.none(), "threads"_a)
      .def(
          "write",
          [](const Network& network, const std::string& file, const nb::bytes& key) {
            const Key source = key_from(key);
            nb::gil_scoped_release release;
            write_weights(file, network.model(), source);
          },
          "file"_a, "key"_a)
      .def_prop_ro("path", [](const Network& network) { return network.kernels().name; })
      .def_prop_ro("precision", [](const Network& network) { return name_of(network.model().precision); })
      .def_prop_ro("bytes", [](const Network& network) { return network.model().arena->bytes; });

  module.def("pack", &pack_network, "shape"_a, "precision"_a, "weights"_a, "path"_a);
  module.def("read", &read_network, "file"_a, "key"_a, "shape"_a, "precision"_a, "path"_a);
  module.def("paths", [] {
    std::vector<std::string> names;
    for (const Kernels* kernels : available_kernels()) names.emplace_back(kernels->name);
    return names;
  });
  module.def("instruction", [](const std::string& path) { return choose_kernels(path).int8_instruction; }, "path"_a);
  module.def("roof", &roof, "path"_a, "precision"_a, "seconds"_a);
  module.def(
      "scan_int8", &scan_int8, "codes"_a.noconvert(), "scales"_a.noconvert(), "errors"_a.noconvert(), "parts"_a.noconvert(),
      "part_scales"_a.noconvert(), "constant"_a, "factor"_a, "k"_a, "rows"_a.noconvert().none(), "threads"_a, "path"_a = "",
      "The rows of codes that can be among the k best: those whose score plus slack reaches the k-th largest score minus\n"
      "slack; score = scale * sum over parts of part scale * (codes . part), slack = constant + factor * error.\n"
      "rows: only these, rising. Returns (rows, scores), in no order; scores are exact but for their last bit.");
  module.def(
      "maxsim", &maxsim_of, "query"_a.noconvert(), "four_bits"_a, "codes"_a, "scales"_a, "offsets"_a, "threads"_a, "path"_a = "",
      "For every stored passage the sum over the query's token vectors of their best match among the passage's tokens; lists of\n"
      "arrays, one of each a part: codes (tokens, bytes), scales (tokens,), offsets (passages + 1,). Returns (passages,).");
  module.def("crc32c", [](const nb::bytes& bytes) {
    return crc32c(reinterpret_cast<const uint8_t*>(bytes.c_str()), bytes.size());
  });
  module.attr("layout_version") = kLayoutVersion;
}
