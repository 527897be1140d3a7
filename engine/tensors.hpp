// The plain structs that the kernels share with everything else; no library templates here, see kernels_impl.hpp.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace twinrank {

enum class Precision : uint32_t { int8 = 0, bf16 = 1, fp32 = 2 };
enum class Activation : uint32_t { none = 0, gelu = 1, gelu_tanh = 2, relu = 3 };

// Columns of one weight panel, and what every row of numbers is padded to: 64 bytes of int8, a cache line of anything else.
constexpr size_t kPanel = 64;

// A matrix product y = x Wᵀ + b, its weights packed in panels of 64 output columns:
// words[column / 64][input group][column % 64], a word holding 4 int8, 2 bf16 or 1 fp32 of consecutive inputs.
struct Linear {
  size_t inputs = 0;   // padded
  size_t outputs = 0;  // padded
  const uint32_t* words = nullptr;
  const float* bias = nullptr;
  const float* scale = nullptr;  // int8 only: what one step of a column's weights is worth
  const float* total = nullptr;  // int8 only: the sum of a column's int8 weights, which the zero point of the input meets
};

struct Norm {
  const float* weight = nullptr;
  const float* bias = nullptr;
};

}  // namespace twinrank
