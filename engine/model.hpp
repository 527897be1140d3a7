// What a network is in memory: its shape, and one arena of bytes that holds every weight in the order that the kernels read.
//
// The arena's layout follows from the shape and the precision alone, so the same plan serves the packer, the file and the
// kernels, and a file needs no table of offsets that could lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensors.hpp"

namespace twinrank {

inline size_t padded(size_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

struct Shape {
  uint32_t layers = 0, width = 0, heads = 0, intermediate = 0, vocabulary = 0, positions = 0, types = 0;
  uint32_t position_offset = 0;
  uint32_t relative_buckets = 0;
  Activation activation = Activation::gelu;
  float norm_epsilon = 1e-12f;

  uint32_t max_tokens() const { return positions - position_offset; }
  uint32_t head_width() const { return width / heads; }
  // Throws std::invalid_argument with the field's name where a number is out of the range that the kernels are written for.
  void check() const;
};

struct Layer {
  Linear query_key_value, attention_output, intermediate, output;
  Norm attention_norm, output_norm;
};

// One tensor that the caller hands over, under its name in twinrank/models/trunk.py.
struct WeightSpec {
  std::string name;
  size_t rows = 0, columns = 0;  // a vector has rows = its length and columns = 0
};
std::vector<WeightSpec> weight_specs(const Shape& shape);

// Bytes that stay where they are: allocated here, or a mapped file.
class Arena {
 public:
  static std::shared_ptr<Arena> allocate(size_t bytes);
  // Maps the first `file_bytes` bytes of the open file and leaves out its first `skipped`.
  static std::shared_ptr<Arena> map(int descriptor, size_t file_bytes, size_t skipped);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  uint8_t* data = nullptr;
  size_t bytes = 0;

 private:
  Arena() = default;
  void* base_ = nullptr;
  size_t mapped_bytes_ = 0;  // 0 where the memory was allocated
};

struct Model {
  Shape shape;
  Precision precision = Precision::int8;
  std::shared_ptr<Arena> arena;

  const uint8_t* word_table = nullptr;  // (vocabulary, padded width): fp32 in fp32, else bf16
  const float* position_table = nullptr;
  const float* type_table = nullptr;
  const float* relative_table = nullptr;  // (buckets, heads)
  Norm embedding_norm;
  std::vector<Layer> layers;
  std::vector<float> relative_by_distance;  // (heads, 2 * span - 1): the bias of key - query, from -(span - 1) on, log2 e times
  size_t relative_span = 0;

  // Bytes of the arena that a network of this shape needs.
  static size_t arena_bytes(const Shape& shape, Precision precision);
  // Points the tensors into an arena that is already filled.
  static Model over(const Shape& shape, Precision precision, std::shared_ptr<Arena> arena);
  // Packs the caller's weights, in the order of weight_specs; throws std::invalid_argument where one is not finite.
  static Model pack(const Shape& shape, Precision precision, const std::vector<const float*>& weights);
};

}  // namespace twinrank
