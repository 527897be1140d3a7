// MaxSim of one query with stored passages: quantised token vectors, int8 or 4 bits a number (twinrank/quantization.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.hpp"

namespace twinrank {

// Token vectors of several passages end to end: passage i's tokens are offsets[i] … offsets[i + 1] - 1.
struct StoredTokens {
  const uint8_t* codes = nullptr;  // (tokens, code_bytes)
  const float* scales = nullptr;   // (tokens,)
  const int64_t* offsets = nullptr;
  size_t passages = 0;
};

struct MaxSimRequest {
  const float* query = nullptr;  // (query_tokens, width): what the codes' numbers are multiplied with
  size_t query_tokens = 0;
  size_t width = 0;  // code_bytes, or twice as much in 4 bits
  bool four_bits = false;
  std::vector<StoredTokens> parts;
  float* scores = nullptr;  // (all parts' passages,)
  size_t threads = 1;
};

// Throws std::invalid_argument where the query is not finite. Offsets are trusted: module.cpp has checked them.
void maxsim(const Kernels& kernels, const MaxSimRequest& request);

}  // namespace twinrank
