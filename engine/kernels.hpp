// What an instruction set offers: one table of functions, the same for every path; forward.cpp is written against it.
#pragma once

#include "tensors.hpp"

namespace twinrank {

// Rows of activations in the form that a product reads: int8 with a scale and a zero point a row, bf16, or fp32.
// An int8 value q stands for scale * (q - zero).
struct Operand {
  uint32_t* words = nullptr;
  size_t stride = 0;  // words from one row to the next
  float* scale = nullptr;
  float* zero = nullptr;

  Operand from(size_t row) const {  // only int8 has scales
    return {words + row * stride, stride, scale == nullptr ? nullptr : scale + row, zero == nullptr ? nullptr : zero + row};
  }
};

// One sequence's attention: where its queries, keys and values stand and where the answer goes.
struct AttentionTask {
  const float* query = nullptr;  // the first row that is asked for
  const float* key = nullptr;
  const float* value = nullptr;
  size_t stride = 0;  // floats from one token to the next, in all three
  float* out = nullptr;
  size_t out_stride = 0;
  size_t tokens = 0;
  size_t first_row = 0;  // the rows asked for: first_row … first_row + rows - 1
  size_t rows = 0;
  size_t heads = 0;
  size_t head_width = 0;
  const float* relative = nullptr;  // (heads, relative_stride): bias by key - query + span - 1; nullptr where there is none
  size_t relative_stride = 0;
  size_t relative_span = 0;
  void* scratch = nullptr;  // attention_scratch_bytes(tokens, head_width), aligned to 64
};

// Enough for every path: queries, keys, values, scores and probabilities of one head.
size_t attention_scratch_bytes(size_t tokens, size_t head_width);

// Rows of int8 codes and the query that they are scanned for; what scan_prepare made of its summands.
struct ScanTask {
  const int8_t* codes = nullptr;  // (rows, dimension)
  const float* scales = nullptr;
  const float* errors = nullptr;
  size_t dimension = 0;
  const int64_t* rows = nullptr;  // null: all rows
  size_t row_count = 0;
  const void* parts = nullptr;
  const float* part_scales = nullptr;
  const int32_t* correction = nullptr;
  size_t part_count = 0;
  size_t part_stride = 0;  // numbers from one summand to the next, a multiple of 64
  double constant = 0.0, factor = 0.0;
};

constexpr size_t kScanRows = 256;  // rows of a block

// What a scan says of one block, kScanRows numbers each, and room to work.
struct ScanBlock {
  double *scores, *uppers, *lowers;
  float *gathered_scales, *gathered_errors;
  int32_t* dots;  // (parts, kScanRows)
};

// A query's token vectors in the form that MaxSim's products read, and room to work.
struct MaxSimQuery {
  uint32_t* columns = nullptr;   // (steps, stride) words of four int8; see maxsim_prepare
  float* middles = nullptr;      // (stride,): what a column's products are too much by, since codes are unsigned
  uint32_t* expanded = nullptr;  // (kMaxSimBlock, steps * int8_words): codes as an int8 operand
  size_t steps = 0, stride = 0;
  size_t used = 0;  // columns that hold something: twice the query's tokens, rounded up to twice the path's lanes
};

constexpr size_t kMaxSimBlock = 24;  // tokens of a passage at a time: 9 KB at 384 dimensions, which stay in the L1 cache

struct Kernels {
  const char* name;
  // Whether int8 runs on dot-product instructions here, for people and for the roof.
  const char* int8_instruction;
  size_t lanes;      // fp32 numbers of a vector
  size_t int8_words;  // words that four int8 numbers of an operand take

  // y[row][column] = activation(x Wᵀ + b) for the columns `begin` … `end` - 1, multiples of kPanel.
  void (*linear)(Precision, const Operand& x, size_t rows, const Linear&, size_t begin, size_t end, Activation, float* y,
                 size_t y_stride);
  // Rounds rows of floats to an operand; `width` is padded. In fp32 it copies, unless the operand is the rows themselves.
  void (*prepare)(Precision, const float* x, size_t x_stride, size_t rows, size_t width, const Operand& out);
  // x = norm(x + y), and the operand of that; y may be null. `width` is the true width, strides are padded(width).
  void (*add_and_norm)(Precision, float* x, const float* y, const Norm&, size_t width, float epsilon, size_t rows,
                       const Operand& out);
  // x = word + position + type, not yet normalised; rows of the tables are padded(width) long; type may be null.
  void (*embed)(Precision, const uint8_t* word_table, const float* position, const float* type, int32_t id, size_t width,
                float* x);
  void (*attention)(Precision, const AttentionTask&);
  // Runs `iterations` rounds of dot products on registers alone; returns the multiplications and additions done.
  double (*spin)(Precision, size_t iterations);

  // A query's int8 summands (part_count, dimension) in the form that scan_block multiplies: 2 bytes a padded number at most.
  void (*scan_prepare)(const int8_t* parts, size_t part_count, size_t dimension, size_t part_stride, void* numbers,
                       int32_t* correction);
  // Scores and bounds of rows first … first + count - 1; false where one of them is no number.
  bool (*scan_block)(const ScanTask&, size_t first, size_t count, const ScanBlock&);

  // The query's numbers (tokens, width), whole steps, as columns; `middle` is the code that stands for zero.
  void (*maxsim_prepare)(const int16_t* query, size_t tokens, size_t width, float middle, const MaxSimQuery& out);
  // best[token] = the larger of itself and the token's best match among these stored tokens, in steps of the query's.
  void (*maxsim_tokens)(const MaxSimQuery&, const uint8_t* codes, size_t code_bytes, bool four_bits, const float* scales,
                        size_t tokens, float* best);
};

// Defined in the path's own file; null where this build's compiler target lacks it.
extern const Kernels* const kAvx512VnniBf16;
extern const Kernels* const kAvx512Vnni;
extern const Kernels* const kAvx2Vnni;
extern const Kernels* const kAvx2;
extern const Kernels* const kPortable;

}  // namespace twinrank
