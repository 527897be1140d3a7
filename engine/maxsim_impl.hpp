// MaxSim's kernel: every token of a query with every token of a passage, in exact integers, and the best match of each.
//
// A query's number is a 16-bit integer times a step of its token's own, as 256 high + low, two int8: the products cost twice
// those of one int8, and the score is that of the float32 query to 1.5e-5 of its largest number a dimension. Stored codes
// become unsigned bytes, so that the network's own products serve (see multiply): int8 codes plus 128, 4-bit codes as they are.
// Included after kernels_impl.hpp; the same rules hold here.

namespace twinrank {
namespace {

// Two vectors of columns at least: high and low of the same query tokens.
constexpr int kMaxSimColumns = DotInt8::kColumns > 2 ? DotInt8::kColumns : 2;
constexpr int kMaxSimRows = DotInt8::kRows * DotInt8::kColumns / kMaxSimColumns;

// Columns stand in vectors: high of the first kLanes query tokens, low of them, high of the next, …. Query tokens that only fill
// up a vector are zero.
void maxsim_prepare(const int16_t* query, size_t tokens, size_t width, float middle, const MaxSimQuery& out) {
  const size_t vectors = rounded_up(tokens, kLanes) / kLanes;
  int8_t* bytes = reinterpret_cast<int8_t*>(out.columns);
  __builtin_memset(out.columns, 0, out.steps * out.stride * 4);
  for (size_t column = 0; column < vectors * kLanes; ++column) {
    const size_t high_at = column / kLanes * 2 * kLanes + column % kLanes, low_at = high_at + kLanes;
    int64_t high_total = 0, low_total = 0;
    for (size_t i = 0; i < width && column < tokens; ++i) {
      const int32_t value = query[column * width + i];
      const int32_t low = int8_t(value & 255), high = (value - low) / 256;
      bytes[(i / 4 * out.stride + high_at) * 4 + i % 4] = int8_t(high);
      bytes[(i / 4 * out.stride + low_at) * 4 + i % 4] = int8_t(low);
      high_total += high;
      low_total += low;
    }
    out.middles[high_at] = middle * float(high_total);
    out.middles[low_at] = middle * float(low_total);
  }
}

void expand_codes(const uint8_t* codes, size_t code_bytes, bool four_bits, size_t rows, uint32_t* words, size_t steps) {
  for (size_t row = 0; row < rows; ++row, codes += code_bytes, words += steps * DotInt8::kLeftWords) {
    uint8_t* out = reinterpret_cast<uint8_t*>(words + (DotInt8::kLeftWords - 1) * steps);
    if (four_bits) {  // the low halves of the bytes are the first dimensions, the high halves the others
      for (size_t i = 0; i < code_bytes; ++i) out[i] = codes[i] & 15;
      for (size_t i = 0; i < code_bytes; ++i) out[code_bytes + i] = codes[i] >> 4;
    } else {
      for (size_t i = 0; i < code_bytes; ++i) out[i] = codes[i] ^ 128;
    }
    DotInt8::spread_left(words, steps);
  }
}

template <int R, int C>
TWINRANK_TILE void maxsim_tile(const uint32_t* tokens, size_t token_words, const MaxSimQuery& query, size_t at, const float* scales,
                               float* best) {
  DotInt8::Sum sum[R][C];
  multiply<DotInt8, R, C>(sum, tokens, token_words, query.columns + at, query.stride, query.steps);
#pragma GCC unroll 4
  for (int c = 0; c < C; c += 2) {
    const Float high_middle = load(query.middles + at + c * kLanes), low_middle = load(query.middles + at + (c + 1) * kLanes);
    float* const to = best + at / 2 + c / 2 * kLanes;
    Float most = load(to);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Float high = to_float(sum[r][c]) - high_middle, low = to_float(sum[r][c + 1]) - low_middle;
      most = maximum((high * splat(256.0f) + low) * splat(scales[r]), most);
    }
    store(to, most);
  }
}

// The best match of every query token among these tokens, in steps of the query's; best holds what came before.
void maxsim_tokens(const MaxSimQuery& query, const uint8_t* codes, size_t code_bytes, bool four_bits, const float* scales,
                   size_t tokens, float* best) {
  for (size_t first = 0; first < tokens; first += kMaxSimBlock) {
    const size_t rows = tokens - first < kMaxSimBlock ? tokens - first : kMaxSimBlock;
    expand_codes(codes + first * code_bytes, code_bytes, four_bits, rows, query.expanded, query.steps);
    const size_t row_words = query.steps * DotInt8::kLeftWords;
    const auto column_tiles = [&](size_t at, auto columns) {
      by_tiles<kMaxSimRows>(rows, [&](auto height, size_t row) {
        maxsim_tile<decltype(height)::value, decltype(columns)::value>(query.expanded + row * row_words, row_words, query, at,
                                                                       scales + first + row, best);
      });
    };
    size_t at = 0;
    for (; at + kMaxSimColumns * kLanes <= query.used; at += kMaxSimColumns * kLanes) column_tiles(at, Number<kMaxSimColumns>());
    for (; at < query.used; at += 2 * kLanes) column_tiles(at, Number<2>());
  }
}

}  // namespace
}  // namespace twinrank
