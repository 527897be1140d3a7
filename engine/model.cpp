// Packs a checkpoint's weights into the arena that the kernels read, and computes where everything stands in it.
#include "model.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

namespace twinrank {
namespace {

void require(bool fine, const char* what, uint64_t came) {
  if (!fine) throw std::invalid_argument(std::string("the shape's ") + what + " cannot be " + std::to_string(came));
}

// Walks through the arena from its start: the one place that knows the order of the tensors.
class Walker {
 public:
  explicit Walker(uint8_t* base) : base_(base) {}

  template <class T>
  T* take(size_t count) {
    T* here = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return here;
  }
  size_t used() const { return used_; }

 private:
  uint8_t* base_;
  size_t used_ = 0;
};

size_t values_per_word(Precision precision) {
  return precision == Precision::int8 ? 4 : precision == Precision::bf16 ? 2 : 1;
}

Linear take_linear(Walker& walker, size_t inputs, size_t outputs, Precision precision) {
  Linear linear;
  linear.inputs = inputs;
  linear.outputs = outputs;
  linear.words = walker.take<uint32_t>(inputs / values_per_word(precision) * outputs);
  linear.bias = walker.take<float>(outputs);
  if (precision == Precision::int8) {
    linear.scale = walker.take<float>(outputs);
    linear.total = walker.take<float>(outputs);
  }
  return linear;
}

Norm take_norm(Walker& walker, size_t width) {
  Norm norm;
  norm.weight = walker.take<float>(width);
  norm.bias = walker.take<float>(width);
  return norm;
}

void lay_out(Model& model, Walker& walker) {
  const Shape& shape = model.shape;
  const Precision precision = model.precision;
  const size_t width = padded(shape.width), intermediate = padded(shape.intermediate);
  const size_t word_bytes = precision == Precision::fp32 ? 4 : 2;
  model.word_table = walker.take<uint8_t>(shape.vocabulary * width * word_bytes);
  model.position_table = walker.take<float>(shape.positions * width);
  model.type_table = walker.take<float>(shape.types * width);
  model.relative_table = walker.take<float>(size_t(shape.relative_buckets) * shape.heads);
  model.embedding_norm = take_norm(walker, width);
  model.layers.resize(shape.layers);
  for (Layer& layer : model.layers) {
    layer.query_key_value = take_linear(walker, width, 3 * width, precision);
    layer.attention_output = take_linear(walker, width, width, precision);
    layer.attention_norm = take_norm(walker, width);
    layer.intermediate = take_linear(walker, width, intermediate, precision);
    layer.output = take_linear(walker, intermediate, width, precision);
    layer.output_norm = take_norm(walker, width);
  }
}

// The bucket of a distance key - query, as in T5 and MPNet: half of the buckets for each direction, the nearer half of those
// exact, the others on a logarithmic scale up to a distance of 128 (transformers, MPNetEncoder.relative_position_bucket).
uint32_t relative_bucket(int64_t distance, uint32_t buckets) {
  const int64_t half = buckets / 2;
  int64_t n = -distance, bucket = 0;
  if (n < 0) {
    bucket = half;
    n = -n;
  }
  const int64_t exact = half / 2;
  if (n < exact) return uint32_t(bucket + n);
  const float scaled =
      exact > 0 ? std::log(float(n) / float(exact)) / float(std::log(128.0 / double(exact))) * float(half - exact) : 0.0f;
  const int64_t far = exact + int64_t(scaled);
  return uint32_t(bucket + std::min(far, half - 1));
}

void spread_relative_bias(Model& model) {
  const Shape& shape = model.shape;
  if (shape.relative_buckets == 0) return;
  const int64_t span = shape.max_tokens();
  model.relative_span = size_t(span);
  const size_t stride = size_t(2 * span - 1) + kPanel;  // kernels load whole vectors past the end
  model.relative_by_distance.assign(shape.heads * stride, 0.0f);
  for (size_t head = 0; head < shape.heads; ++head)
    for (int64_t distance = 1 - span; distance < span; ++distance)
      model.relative_by_distance[head * stride + size_t(distance + span - 1)] =
          1.44269504f * model.relative_table[relative_bucket(distance, shape.relative_buckets) * shape.heads + head];
}

void require_finite(const float* values, size_t count, const std::string& name) {
  // A sum of v - v is zero unless a value is NaN or infinite, and it vectorises where std::isfinite does not.
  for (size_t begin = 0; begin < count; begin += 4096) {
    float check = 0.0f;
    const size_t end = std::min(count, begin + 4096);
    for (size_t i = begin; i < end; ++i) check += values[i] - values[i];
    if (!(check == 0.0f)) throw std::invalid_argument("the weight '" + name + "' holds NaN or infinite numbers");
  }
}

uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <class T>
T* writable(const T* pointer) {
  return const_cast<T*>(pointer);
}

// Writes one matrix (outputs, inputs) and its bias into the columns of a linear from `first_column` on.
void pack_linear(const Linear& linear, Precision precision, size_t first_column, const float* weight, const float* bias,
                 size_t outputs, size_t inputs) {
  const size_t per_word = values_per_word(precision);
  const size_t panel_words = linear.inputs / per_word * kPanel;
  std::vector<int8_t> steps(inputs);
  for (size_t output = 0; output < outputs; ++output) {
    const size_t column = first_column + output;
    const float* row = weight + output * inputs;
    uint32_t* words = writable(linear.words) + column / kPanel * panel_words + column % kPanel;
    writable(linear.bias)[column] = bias[output];
    if (precision == Precision::fp32) {
      for (size_t i = 0; i < inputs; ++i) std::memcpy(words + i * kPanel, row + i, 4);
    } else if (precision == Precision::bf16) {
      for (size_t i = 0; i < inputs; ++i) words[i / 2 * kPanel] |= uint32_t(to_bf16(row[i])) << (i % 2 * 16);
    } else {
      float largest = 0.0f;
      for (size_t i = 0; i < inputs; ++i) largest = std::max(largest, std::fabs(row[i]));
      const float scale = std::max(largest / 127.0f, 1e-30f), inverse = 1.0f / scale;
      int32_t total = 0;
      for (size_t i = 0; i < inputs; ++i) {
        const float step = std::nearbyint(std::min(127.0f, std::max(-127.0f, row[i] * inverse)));
        steps[i] = int8_t(step);
        total += int32_t(step);
      }
      for (size_t i = 0; i < inputs; ++i) words[i / 4 * kPanel] |= uint32_t(uint8_t(steps[i])) << (i % 4 * 8);
      writable(linear.scale)[column] = scale;
      writable(linear.total)[column] = float(total);
    }
  }
}

}  // namespace

void Shape::check() const {
  require(layers >= 1 && layers <= 1024, "layers", layers);
  require(width >= 1 && width <= 16384, "width", width);
  require(heads >= 1 && heads <= width && width % heads == 0, "heads", heads);
  require(intermediate >= 1 && intermediate <= 65536, "intermediate", intermediate);
  require(vocabulary >= 1 && vocabulary <= (1u << 24), "vocabulary", vocabulary);
  require(positions >= 1 && positions <= (1u << 20), "positions", positions);
  require(position_offset < positions, "position_offset", position_offset);
  require(types <= 1024, "types", types);
  require(relative_buckets == 0 || (relative_buckets >= 4 && relative_buckets <= 128 && relative_buckets % 2 == 0),
          "relative_buckets", relative_buckets);
  require(activation == Activation::gelu || activation == Activation::gelu_tanh || activation == Activation::relu, "activation",
          uint64_t(activation));
  if (!(norm_epsilon >= 0.0f && norm_epsilon <= 1.0f)) throw std::invalid_argument("the shape's norm_epsilon is not in 0 … 1");
}

std::vector<WeightSpec> weight_specs(const Shape& shape) {
  shape.check();
  const size_t width = shape.width, intermediate = shape.intermediate;
  std::vector<WeightSpec> specs;
  specs.push_back({"embeddings.word", shape.vocabulary, width});
  specs.push_back({"embeddings.position", shape.positions, width});
  if (shape.types) specs.push_back({"embeddings.type", shape.types, width});
  if (shape.relative_buckets) specs.push_back({"relative_bias", shape.relative_buckets, shape.heads});
  specs.push_back({"embeddings.norm.weight", width, 0});
  specs.push_back({"embeddings.norm.bias", width, 0});
  for (uint32_t i = 0; i < shape.layers; ++i) {
    const std::string layer = "layers." + std::to_string(i) + ".";
    const auto linear = [&](const char* name, size_t rows, size_t columns) {
      specs.push_back({layer + name + ".weight", rows, columns});
      specs.push_back({layer + name + ".bias", rows, 0});
    };
    linear("query", width, width);
    linear("key", width, width);
    linear("value", width, width);
    linear("attention_output", width, width);
    linear("attention_norm", width, 0);
    linear("intermediate", intermediate, width);
    linear("output", width, intermediate);
    linear("output_norm", width, 0);
  }
  return specs;
}

size_t Model::arena_bytes(const Shape& shape, Precision precision) {
  Model model;
  model.shape = shape;
  model.precision = precision;
  Walker walker(nullptr);
  lay_out(model, walker);
  return walker.used();
}

Model Model::over(const Shape& shape, Precision precision, std::shared_ptr<Arena> arena) {
  Model model;
  model.shape = shape;
  model.precision = precision;
  Walker walker(arena->data);
  lay_out(model, walker);
  if (walker.used() > arena->bytes) throw std::logic_error("the arena is smaller than its plan");
  model.arena = std::move(arena);
  spread_relative_bias(model);
  return model;
}

Model Model::pack(const Shape& shape, Precision precision, const std::vector<const float*>& weights) {
  const std::vector<WeightSpec> specs = weight_specs(shape);
  if (weights.size() != specs.size()) throw std::invalid_argument("expected " + std::to_string(specs.size()) + " weights");
  for (size_t i = 0; i < specs.size(); ++i)
    require_finite(weights[i], specs[i].rows * std::max<size_t>(1, specs[i].columns), specs[i].name);

  auto arena = Arena::allocate(arena_bytes(shape, precision));
  Model model;
  model.shape = shape;
  model.precision = precision;
  Walker walker(arena->data);
  lay_out(model, walker);
  model.arena = arena;

  const size_t width = shape.width, stride = padded(width);
  size_t next = 0;
  const auto take = [&] { return weights[next++]; };
  const auto copy_rows = [&](const float* to, const float* from, size_t rows, size_t columns, size_t to_stride) {
    for (size_t row = 0; row < rows; ++row) std::memcpy(writable(to) + row * to_stride, from + row * columns, columns * 4);
  };
  const auto copy_norm = [&](const Norm& norm) {
    copy_rows(norm.weight, take(), 1, width, stride);
    copy_rows(norm.bias, take(), 1, width, stride);
  };

  const float* words = take();
  if (precision == Precision::fp32) {
    copy_rows(reinterpret_cast<const float*>(model.word_table), words, shape.vocabulary, width, stride);
  } else {
    uint16_t* table = reinterpret_cast<uint16_t*>(writable(model.word_table));
    for (size_t row = 0; row < shape.vocabulary; ++row)
      for (size_t i = 0; i < width; ++i) table[row * stride + i] = to_bf16(words[row * width + i]);
  }
  copy_rows(model.position_table, take(), shape.positions, width, stride);
  if (shape.types) copy_rows(model.type_table, take(), shape.types, width, stride);
  if (shape.relative_buckets) copy_rows(model.relative_table, take(), shape.relative_buckets, shape.heads, shape.heads);
  copy_norm(model.embedding_norm);
  for (Layer& layer : model.layers) {
    for (size_t part = 0; part < 3; ++part) {  // query, key, value, each padded to whole panels
      const float* weight = take();
      pack_linear(layer.query_key_value, precision, part * stride, weight, take(), width, width);
    }
    const float* attention_output = take();
    pack_linear(layer.attention_output, precision, 0, attention_output, take(), width, width);
    copy_norm(layer.attention_norm);
    const float* intermediate = take();
    pack_linear(layer.intermediate, precision, 0, intermediate, take(), shape.intermediate, width);
    const float* output = take();
    pack_linear(layer.output, precision, 0, output, take(), width, shape.intermediate);
    copy_norm(layer.output_norm);
  }
  spread_relative_bias(model);
  return model;
}

std::shared_ptr<Arena> Arena::allocate(size_t bytes) {
  std::shared_ptr<Arena> arena(new Arena);
  if (posix_memalign(&arena->base_, 4096, std::max<size_t>(bytes, 64)) != 0) throw std::bad_alloc();
  std::memset(arena->base_, 0, bytes);  // padding is zero, so that it adds nothing
  arena->data = static_cast<uint8_t*>(arena->base_);
  arena->bytes = bytes;
  return arena;
}

std::shared_ptr<Arena> Arena::map(int descriptor, size_t file_bytes, size_t skipped) {
  int flags = MAP_PRIVATE;
#ifdef MAP_POPULATE
  flags |= MAP_POPULATE;
#endif
  std::shared_ptr<Arena> arena(new Arena);
  void* memory = mmap(nullptr, file_bytes, PROT_READ, flags, descriptor, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("the file cannot be mapped into memory");
  arena->base_ = memory;
  arena->mapped_bytes_ = file_bytes;
  arena->data = static_cast<uint8_t*>(memory) + skipped;
  arena->bytes = file_bytes - skipped;
  return arena;
}

Arena::~Arena() {
  if (mapped_bytes_ != 0)
    munmap(base_, mapped_bytes_);
  else
    free(base_);
}

}  // namespace twinrank
