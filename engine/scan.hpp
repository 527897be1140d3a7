// The exact scan: every row of int8 codes that can be among the k best, given how far its score may be off.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.hpp"

namespace twinrank {

struct ScanRequest {
  const int8_t* codes = nullptr;   // (count, dimension)
  const float* scales = nullptr;   // (count,)
  const float* errors = nullptr;   // (count,)
  size_t count = 0;
  size_t dimension = 0;
  const int8_t* parts = nullptr;       // (part_count, dimension): the query is their sum, each times its scale
  const float* part_scales = nullptr;  // (part_count,)
  size_t part_count = 0;
  double constant = 0.0, factor = 0.0;  // a score is off by constant + factor * error at most
  size_t k = 0;
  const int64_t* rows = nullptr;  // (row_count,) rising, or null: all
  size_t row_count = 0;
  size_t threads = 1;
};

struct ScanResult {
  std::vector<int64_t> rows;
  std::vector<float> scores;
};

// Rows whose upper bound reaches the k-th largest lower bound; throws std::invalid_argument where the request makes no sense.
ScanResult scan(const Kernels& kernels, const ScanRequest& request);

}  // namespace twinrank
