// The kernels themselves, written once over a small set of vector operations that every path's file defines before including
// this one. Everything here is in an anonymous namespace and uses no library templates: the linker must never meet one
// inline function compiled for two instruction sets.
//
// What a path defines: kLanes, kRows (rows of a register tile), kFloatColumns and kIntColumns (its vectors a row), the types
// Float and Int, and the functions used below; DotInt8, DotBf16 and DotFloat are its three ways to multiply words.

namespace twinrank {
namespace {

#define TWINRANK_INLINE inline __attribute__((always_inline))
// A tile is a function of its own: inlined into a larger one, gcc 12 keeps its accumulators in memory.
#define TWINRANK_TILE __attribute__((noinline))

template <int N>
struct Number {
  static constexpr int value = N;
};

TWINRANK_INLINE size_t rounded_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Calls run(Number<rows>) with the rows as a constant, so that a tile's accumulators can be registers.
template <int Most, class Run>
TWINRANK_INLINE void with_constant(size_t rows, const Run& run) {
  static_assert(Most <= 8, "a tile has at most eight rows");
  switch (rows) {
    case 1: run(Number<1>()); break;
    case 2: if constexpr (Most >= 2) run(Number<2>()); break;
    case 3: if constexpr (Most >= 3) run(Number<3>()); break;
    case 4: if constexpr (Most >= 4) run(Number<4>()); break;
    case 5: if constexpr (Most >= 5) run(Number<5>()); break;
    case 6: if constexpr (Most >= 6) run(Number<6>()); break;
    case 7: if constexpr (Most >= 7) run(Number<7>()); break;
    case 8: if constexpr (Most >= 8) run(Number<8>()); break;
    default: break;
  }
}

// Cuts `rows` into pieces of at most Most rows of nearly equal size: 13 rows are 5 + 4 + 4, never 6 + 6 + 1, whose last piece
// would load every weight for a single row.
template <int Most, class Run>
TWINRANK_INLINE void by_tiles(size_t rows, const Run& run) {
  const size_t tiles = (rows + Most - 1) / Most;
  for (size_t tile = 0, row = 0; tile < tiles; ++tile) {
    const size_t height = (rows - row + (tiles - tile) - 1) / (tiles - tile);
    with_constant<Most>(height, [&](auto constant) { run(constant, row); });
    row += height;
  }
}

// sum[r][c] += left row r · right columns c, over `steps` words: the loop in which nearly all of the time goes.
template <class Dot, int R, int C>
TWINRANK_INLINE void multiply(typename Dot::Sum (&sum)[R][C], const uint32_t* left, size_t left_stride, const uint32_t* right,
                              size_t right_stride, size_t steps) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sum[r][c] = Dot::zero();
#pragma GCC unroll 1
  for (size_t step = 0; step < steps; ++step) {
    typename Dot::Right column[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) column[c] = Dot::right(right + c * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename Dot::Left row = Dot::left(left + r * left_stride);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) Dot::add(sum[r][c], row, column[c]);
    }
    left += Dot::kLeftWords;
    right += right_stride;
  }
}

// ---- activations -------------------------------------------------------------------------------------------------------

// 2^x for x <= 0, off by 7.5e-8 of itself.
TWINRANK_INLINE Float power_of_two(Float x) {
  const Float bounded = maximum(x, splat(-126.0f));
  const Float whole = round_even(bounded);
  const Float f = bounded - whole;
  Float p = splat(0.00132764586f);
  p = fma(p, f, splat(0.00967554123f));
  p = fma(p, f, splat(0.0555071331f));
  p = fma(p, f, splat(0.240221197f));
  p = fma(p, f, splat(0.693146967f));
  p = fma(p, f, splat(1.00000007f));
  return times_power_of_two(p, whole);
}

TWINRANK_INLINE Float exponential(Float x) { return power_of_two(x * splat(1.44269504f)); }

// x Φ(x) is max(x, 0) less a bump that depends on |x| alone, here a polynomial on 0 … 3.3: off by 2.1e-3 at most, a tenth of a
// step of the int8 numbers that it becomes. The coefficients are an iteratively reweighted least squares fit.
template <bool Tanh>
TWINRANK_INLINE Float quick_gelu(Float x) {
  const Float u = minimum(maximum(x, splat(0.0f) - x), splat(3.3f));
  Float p = splat(Tanh ? -0.0201511751f : -0.0203102132f);
  p = fma(p, u, splat(Tanh ? 0.178381817f : 0.179282384f));
  p = fma(p, u, splat(Tanh ? -0.529633195f : -0.530997741f));
  p = fma(p, u, splat(Tanh ? 0.529408084f : 0.529846022f));
  return maximum(x, splat(0.0f)) - p * u;
}

// erf by Abramowitz and Stegun 7.1.26, off by 1.5e-7; tanh by its definition.
template <bool Tanh>
TWINRANK_INLINE Float exact_gelu(Float x) {
  const Float zero = splat(0.0f), one = splat(1.0f);
  const Float size = maximum(x, zero - x);
  Float tail;  // 1 - Φ(|x|)
  if constexpr (Tanh) {
    const Float inner = splat(1.5957691216f) * fma(splat(0.044715f) * size, size * size, size);  // 2 √(2/π) (…)
    const Float e = exponential(zero - inner);
    tail = e / (one + e);
  } else {
    const Float z = size * splat(0.70710678f);
    const Float t = one / fma(splat(0.3275911f), z, one);
    Float p = splat(1.061405429f);
    p = fma(p, t, splat(-1.453152027f));
    p = fma(p, t, splat(1.421413741f));
    p = fma(p, t, splat(-0.284496736f));
    p = fma(p, t, splat(0.254829592f));
    tail = splat(0.5f) * p * t * exponential(zero - z * z);
  }
  // x Φ(x) is x - x tail for positive x and x tail for negative x.
  return maximum(x, zero) - size * tail;
}

template <Activation kActivation, bool Quick>
TWINRANK_INLINE Float activate(Float x) {
  if constexpr (kActivation == Activation::none) return x;
  if constexpr (kActivation == Activation::relu) return maximum(x, splat(0.0f));
  constexpr bool kTanh = kActivation == Activation::gelu_tanh;
  if constexpr (Quick) return quick_gelu<kTanh>(x);
  return exact_gelu<kTanh>(x);
}

// ---- linear ------------------------------------------------------------------------------------------------------------

template <class Dot, Activation kActivation, int R, int C>
TWINRANK_INLINE void finish_tile(typename Dot::Sum (&sum)[R][C], const Operand& x, const Linear& linear, size_t column, float* y,
                                 size_t y_stride) {
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) {
    const size_t at = column + c * kLanes;
    const Float bias = load(linear.bias + at);
    if constexpr (Dot::kScaled) {
      const Float scale = load(linear.scale + at), total = load(linear.total + at);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        Float value = fma(splat(-x.zero[r]), total, to_float(sum[r][c]));
        value = fma(value * splat(x.scale[r]), scale, bias);
        store(y + r * y_stride + at, activate<kActivation, true>(value));
      }
    } else {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) store(y + r * y_stride + at, activate<kActivation, false>(sum[r][c] + bias));
    }
  }
}

template <class Dot, int R>
TWINRANK_TILE void linear_tile(const Operand& x, const uint32_t* right, size_t steps, const Linear& linear,
                                           size_t column, Activation activation, float* y, size_t y_stride) {
  constexpr int C = Dot::kColumns;
  typename Dot::Sum sum[R][C];
  multiply<Dot, R, C>(sum, x.words, x.stride, right, kPanel, steps);
  switch (activation) {
    case Activation::none: finish_tile<Dot, Activation::none>(sum, x, linear, column, y, y_stride); break;
    case Activation::gelu: finish_tile<Dot, Activation::gelu>(sum, x, linear, column, y, y_stride); break;
    case Activation::gelu_tanh: finish_tile<Dot, Activation::gelu_tanh>(sum, x, linear, column, y, y_stride); break;
    case Activation::relu: finish_tile<Dot, Activation::relu>(sum, x, linear, column, y, y_stride); break;
  }
}

template <class Dot>
void linear_of(const Operand& x, size_t rows, const Linear& linear, size_t begin, size_t end, Activation activation, float* y,
               size_t y_stride) {
  const size_t steps = linear.inputs / Dot::kValues;
  for (size_t panel = begin; panel < end; panel += kPanel) {
    const uint32_t* words = linear.words + panel * steps;
    for (size_t part = 0; part < kPanel; part += Dot::kColumns * kLanes)
      by_tiles<Dot::kRows>(rows, [&](auto height, size_t row) {
        linear_tile<Dot, decltype(height)::value>(x.from(row), words + part, steps, linear, panel + part, activation,
                                                  y + row * y_stride, y_stride);
      });
  }
}

void linear(Precision precision, const Operand& x, size_t rows, const Linear& weights, size_t begin, size_t end,
            Activation activation, float* y, size_t y_stride) {
  switch (precision) {
    case Precision::int8: linear_of<DotInt8>(x, rows, weights, begin, end, activation, y, y_stride); break;
    case Precision::bf16: linear_of<DotBf16>(x, rows, weights, begin, end, activation, y, y_stride); break;
    case Precision::fp32: linear_of<DotFloat>(x, rows, weights, begin, end, activation, y, y_stride); break;
  }
}

// ---- rounding rows to operands -----------------------------------------------------------------------------------------

// One row to int8: the range is stretched to hold 0, so that padding and zero are exact.
TWINRANK_INLINE void quantise_row(const float* x, size_t width, Float low, Float high, const Operand& out) {
  const float least = smallest(minimum(low, splat(0.0f))), most = largest(maximum(high, splat(0.0f)));
  const float range = (most - least) * (1.0f / 254.0f);  // 254 steps, for the zero point is rounded up by as much as one
  const float scale = range > 1e-20f ? range : 1e-20f;
  const float inverse = 1.0f / scale;
  const float zero = __builtin_ceilf(-least * inverse);  // so that nothing falls below 0
  const Float factor = splat(inverse), shift = splat(zero);
  for (size_t i = 0; i < width; i += kLanes)
    DotInt8::store_left(out.words + i / 4 * DotInt8::kLeftWords, fma(load(x + i), factor, shift));
  out.scale[0] = scale;
  out.zero[0] = zero;
}

// The lanes' smallest and largest of a row; four partial results, because each waits for the one before.
TWINRANK_INLINE void extremes_of(const float* x, size_t width, Float& low, Float& high) {
  const Float zero = splat(0.0f);
  Float lows[4] = {zero, zero, zero, zero}, highs[4] = {zero, zero, zero, zero};
  for (size_t i = 0; i < width; i += 4 * kLanes)
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const Float value = load(x + i + k * kLanes);
      lows[k] = minimum(lows[k], value);
      highs[k] = maximum(highs[k], value);
    }
  low = minimum(minimum(lows[0], lows[1]), minimum(lows[2], lows[3]));
  high = maximum(maximum(highs[0], highs[1]), maximum(highs[2], highs[3]));
}

TWINRANK_INLINE void round_row(const float* x, size_t width, uint16_t* out) {
  for (size_t i = 0; i < width; i += kLanes) store_bf16(out + i, load(x + i));
}

void prepare(Precision precision, const float* x, size_t x_stride, size_t rows, size_t width, const Operand& out) {
  for (size_t row = 0; row < rows; ++row) {
    const float* from = x + row * x_stride;
    const Operand to = out.from(row);
    if (precision == Precision::int8) {
      Float low, high;
      extremes_of(from, width, low, high);
      quantise_row(from, width, low, high, to);
    } else if (precision == Precision::bf16) {
      round_row(from, width, reinterpret_cast<uint16_t*>(to.words));
    } else if (static_cast<const void*>(from) != static_cast<const void*>(to.words)) {
      __builtin_memcpy(to.words, from, width * 4);
    }
  }
}

// Calls body(i, lane group 0 … 3) for every vector of a row: four at a time, so that four sums can run side by side.
template <class Body>
TWINRANK_INLINE void by_fours(size_t width, const Body& body) {
  for (size_t i = 0; i < width; i += 4 * kLanes)
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) body(i + k * kLanes, k);
}

TWINRANK_INLINE float sum_of_four(const Float (&sums)[4]) { return sum_of((sums[0] + sums[1]) + (sums[2] + sums[3])); }

void add_and_norm(Precision precision, float* x, const float* y, const Norm& norm, size_t width, float epsilon, size_t rows,
                  const Operand& out) {
  const size_t stride = rounded_up(width, kPanel);
  const float share = 1.0f / float(width);
  for (size_t row = 0; row < rows; ++row) {
    float* at = x + row * stride;
    const Float zero = splat(0.0f);
    Float totals[4] = {zero, zero, zero, zero}, squares[4] = {zero, zero, zero, zero};
    if (y != nullptr) {
      const float* other = y + row * stride;
      by_fours(stride, [&](size_t i, int k) {  // both paddings are zero
        const Float value = load(at + i) + load(other + i);
        totals[k] = totals[k] + value;
        store(at + i, value);
      });
    } else {
      by_fours(stride, [&](size_t i, int k) { totals[k] = totals[k] + load(at + i); });
    }
    const Float mean = splat(sum_of_four(totals) * share);
    const size_t whole = width / (4 * kLanes) * (4 * kLanes);
    by_fours(whole, [&](size_t i, int k) {
      const Float value = load(at + i) - mean;
      squares[k] = fma(value, value, squares[k]);
    });
    for (size_t i = whole; i < width; i += kLanes) {
      const size_t here = width - i < size_t(kLanes) ? width - i : size_t(kLanes);
      const Float value = load(at + i) - mean;
      const Float counted = here < size_t(kLanes) ? first_lanes(value, here, zero) : value;
      squares[0] = fma(counted, counted, squares[0]);
    }
    const Float inverse = splat(1.0f / __builtin_sqrtf(sum_of_four(squares) * share + epsilon));
    Float lows[4] = {zero, zero, zero, zero}, highs[4] = {zero, zero, zero, zero};
    by_fours(stride, [&](size_t i, int k) {  // the norm's padding is zero, and so is the answer's
      const Float value = fma((load(at + i) - mean) * inverse, load(norm.weight + i), load(norm.bias + i));
      lows[k] = minimum(lows[k], value);
      highs[k] = maximum(highs[k], value);
      store(at + i, value);
    });
    const Operand to = out.from(row);
    if (precision == Precision::int8) {
      const Float low = minimum(minimum(lows[0], lows[1]), minimum(lows[2], lows[3]));
      const Float high = maximum(maximum(highs[0], highs[1]), maximum(highs[2], highs[3]));
      quantise_row(at, stride, low, high, to);
    } else {
      prepare(precision, at, stride, 1, stride, to);
    }
  }
}

void embed(Precision precision, const uint8_t* word_table, const float* position, const float* type, int32_t id, size_t width,
           float* x) {
  const size_t stride = rounded_up(width, kPanel);
  for (size_t i = 0; i < stride; i += kLanes) {
    Float value = precision == Precision::fp32 ? load(reinterpret_cast<const float*>(word_table) + size_t(id) * stride + i)
                                               : load_bf16(reinterpret_cast<const uint16_t*>(word_table) + size_t(id) * stride + i);
    if (position != nullptr) value = value + load(position + i);
    if (type != nullptr) value = value + load(type + i);
    store(x + i, value);
  }
}

// ---- attention ---------------------------------------------------------------------------------------------------------

TWINRANK_INLINE uint16_t bf16_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// One head's part of one token's row, times a factor, as words; `padded_words` is a multiple of kLanes, the rest is zero.
template <class Dot>
TWINRANK_INLINE void pack_row(const float* from, size_t width, float factor, uint32_t* to, size_t padded_words) {
  const size_t full = width / kLanes * kLanes;
  if constexpr (Dot::kValues == 2) {
    uint16_t* halves = reinterpret_cast<uint16_t*>(to);
    for (size_t i = 0; i < full; i += kLanes) store_bf16(halves + i, load(from + i) * splat(factor));
    for (size_t i = full; i < width; ++i) halves[i] = bf16_of(from[i] * factor);
    for (size_t i = width; i < 2 * padded_words; ++i) halves[i] = 0;
  } else {
    float* floats = reinterpret_cast<float*>(to);
    for (size_t i = 0; i < full; i += kLanes) store(floats + i, load(from + i) * splat(factor));
    for (size_t i = full; i < width; ++i) floats[i] = from[i] * factor;
    for (size_t i = width; i < padded_words; ++i) floats[i] = 0.0f;
  }
}

// A head's keys, transposed: keys[word][token], so that one vector holds a word of kLanes tokens.
template <class Dot>
TWINRANK_INLINE void pack_keys(const AttentionTask& task, const float* key, size_t padded_words, uint32_t* keys, size_t keys_stride,
                               uint32_t* rows) {
  for (size_t token = 0; token < task.tokens; token += kLanes) {
    const size_t here = task.tokens - token < size_t(kLanes) ? task.tokens - token : size_t(kLanes);
    for (size_t i = 0; i < here; ++i)
      pack_row<Dot>(key + (token + i) * task.stride, task.head_width, 1.0f, rows + i * padded_words, padded_words);
    __builtin_memset(rows + here * padded_words, 0, (kLanes - here) * padded_words * 4);
    for (size_t word = 0; word < padded_words; word += kLanes)
      transpose(rows + word, padded_words, keys + word * keys_stride + token, keys_stride);
  }
}

// A head's values: values[token / kValues][column], a word holding one column of kValues consecutive tokens.
template <class Dot>
TWINRANK_INLINE void pack_values(const AttentionTask& task, const float* value, size_t padded_width, uint32_t* values) {
  const size_t full = task.head_width / kLanes * kLanes;
  for (size_t token = 0; token < task.tokens; token += Dot::kValues) {
    const float* first = value + token * task.stride;
    uint32_t* to = values + token / Dot::kValues * padded_width;
    if constexpr (Dot::kValues == 2) {
      const bool paired = token + 1 < task.tokens;
      const float* second = paired ? first + task.stride : first;
      for (size_t i = 0; i < full; i += kLanes) store_pairs(to + i, load(first + i), paired ? load(second + i) : splat(0.0f));
      for (size_t i = full; i < task.head_width; ++i)
        to[i] = uint32_t(bf16_of(first[i])) | (paired ? uint32_t(bf16_of(second[i])) << 16 : 0u);
      for (size_t i = task.head_width; i < padded_width; ++i) to[i] = 0;
    } else {
      pack_row<Dot>(first, task.head_width, 1.0f, to, padded_width);
    }
  }
}

// The scores of R queries and C vectors of keys, and the lanes' largest so far. Beyond the `remaining` tokens there is nothing;
// row r's bias stands r numbers before row 0's.
template <class Dot, int R, int C>
TWINRANK_TILE void score_tile(const uint32_t* queries, size_t query_stride, const uint32_t* keys, size_t keys_stride, size_t steps,
                                float* scores, size_t scores_stride, size_t remaining, const float* relative, Float (&most)[R]) {
  Float sum[R][C];
  multiply<Dot, R, C>(sum, queries, query_stride, keys, keys_stride, steps);
  if (relative != nullptr)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] = sum[r][c] + load(relative - r + c * kLanes);
  if (remaining < size_t(C * kLanes))
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum[r][C - 1] = first_lanes(sum[r][C - 1], remaining - (C - 1) * kLanes, splat(-1e30f));
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    Float here = most[r];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      here = maximum(here, sum[r][c]);
      store(scores + r * scores_stride + c * kLanes, sum[r][c]);
    }
    most[r] = here;
  }
}

template <class Dot, int R, int C>
TWINRANK_TILE void value_tile(const uint32_t* shares, size_t shares_stride, const uint32_t* values, size_t values_stride,
                                size_t steps, const float* inverse, float* out, size_t out_stride, size_t columns) {
  Float sum[R][C];
  multiply<Dot, R, C>(sum, shares, shares_stride, values, values_stride, steps);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const Float value = sum[r][c] * splat(inverse[r]);
      if (size_t(c + 1) * kLanes <= columns) {
        store(out + r * out_stride + c * kLanes, value);
      } else {
        float rest[kLanes];
        store(rest, value);
        for (size_t i = c * kLanes; i < columns; ++i) out[r * out_stride + i] = rest[i - c * kLanes];
      }
    }
}

// The softmax of one row of scores, which stand as powers of two, not yet divided by its sum; returns one over the sum.
template <class Dot>
TWINRANK_INLINE float softmax_row(const float* scores, uint32_t* shares, size_t padded_tokens, float peak) {
  const Float top = splat(peak);
  Float total = splat(0.0f);
  for (size_t i = 0; i < padded_tokens; i += kLanes) {
    const Float power = load(scores + i) - top;
    if constexpr (Dot::kValues == 2) {
      const Float share = quick_power_of_two(power);
      total = total + share;
      store_bf16(reinterpret_cast<uint16_t*>(shares) + i, share);
    } else {
      const Float share = power_of_two(power);
      total = total + share;
      store(reinterpret_cast<float*>(shares) + i, share);
    }
  }
  return 1.0f / sum_of(total);
}

struct AttentionScratch {
  uint32_t *rows, *keys, *values, *queries, *shares;
  float* scores;
};

template <class Dot>
void attention_of(const AttentionTask& task) {
  constexpr int kWide = Dot::kColumns;
  const size_t words = (task.head_width + Dot::kValues - 1) / Dot::kValues;
  const size_t padded_words = rounded_up(words, kLanes), padded_width = rounded_up(task.head_width, kLanes);
  const size_t padded_tokens = rounded_up(task.tokens, kLanes);
  const size_t keys_stride = padded_tokens + kLanes;  // never a multiple of 4096 bytes, which would crowd one cache set
  const size_t pairs = (task.tokens + Dot::kValues - 1) / Dot::kValues;
  const float factor = 1.44269504f / __builtin_sqrtf(float(task.head_width));  // scores are powers of two, not of e

  uint32_t* next = static_cast<uint32_t*>(task.scratch);
  const auto take = [&next](size_t count) {
    uint32_t* here = next;
    next += rounded_up(count, 16);
    return here;
  };
  AttentionScratch scratch;
  scratch.rows = take(kLanes * padded_words);
  scratch.queries = take(Dot::kRows * padded_words);
  scratch.keys = take(padded_words * keys_stride);
  scratch.values = take(pairs * padded_width);
  scratch.scores = reinterpret_cast<float*>(take(Dot::kRows * padded_tokens));
  scratch.shares = take(Dot::kRows * padded_tokens);

  for (size_t head = 0; head < task.heads; ++head) {
    const size_t column = head * task.head_width;
    pack_keys<Dot>(task, task.key + column, padded_words, scratch.keys, keys_stride, scratch.rows);
    pack_values<Dot>(task, task.value + column, padded_width, scratch.values);
    by_tiles<Dot::kRows>(task.rows, [&](auto height, size_t row) {
      constexpr int R = decltype(height)::value;
      for (int r = 0; r < R; ++r)
        pack_row<Dot>(task.query + (row + r) * task.stride + column, task.head_width, factor,
                      scratch.queries + r * padded_words, padded_words);
      const float* relative = nullptr;
      if (task.relative != nullptr)
        relative = task.relative + head * task.relative_stride + task.relative_span - 1 - (task.first_row + row);
      Float most[R];
      for (int r = 0; r < R; ++r) most[r] = splat(-1e30f);
      for (size_t token = 0; token < padded_tokens; token += kWide * kLanes) {
        const size_t remaining = task.tokens - token;
        const auto run = [&](auto columns) {
          score_tile<Dot, R, decltype(columns)::value>(
              scratch.queries, padded_words, scratch.keys + token, keys_stride, words, scratch.scores + token, padded_tokens,
              remaining, relative == nullptr ? nullptr : relative + token, most);
        };
        if (remaining >= size_t(kWide * kLanes))
          run(Number<kWide>());
        else
          with_constant<kWide>((remaining + kLanes - 1) / kLanes, run);
      }
      float inverse[R];
      for (int r = 0; r < R; ++r)
        inverse[r] = softmax_row<Dot>(scratch.scores + r * padded_tokens, scratch.shares + r * padded_tokens, padded_tokens,
                                      largest(most[r]));
      float* out = task.out + row * task.out_stride + column;
      size_t at = 0;
      for (; at + kWide * kLanes <= padded_width; at += kWide * kLanes)
        value_tile<Dot, R, kWide>(scratch.shares, padded_tokens, scratch.values + at, padded_width, pairs, inverse, out + at,
                                  task.out_stride, task.head_width - at);
      for (; at + 2 * kLanes <= padded_width; at += 2 * kLanes)
        value_tile<Dot, R, 2>(scratch.shares, padded_tokens, scratch.values + at, padded_width, pairs, inverse, out + at,
                              task.out_stride, task.head_width - at);
      for (; at < padded_width; at += kLanes)
        value_tile<Dot, R, 1>(scratch.shares, padded_tokens, scratch.values + at, padded_width, pairs, inverse, out + at,
                              task.out_stride, task.head_width - at);
    });
  }
}

void attention(Precision precision, const AttentionTask& task) {
  if (precision == Precision::fp32 || (precision == Precision::int8 && !kBf16Hardware))
    attention_of<DotFloat>(task);
  else
    attention_of<DotBf16>(task);
}

// ---- the roof ----------------------------------------------------------------------------------------------------------

template <class Dot>
double spin_of(size_t iterations) {
  constexpr int R = Dot::kRows, C = Dot::kColumns;
  alignas(64) uint32_t words[64] = {};
  typename Dot::Sum sum[R][C];
  multiply<Dot, R, C>(sum, words, 0, words, 0, 0);
  const typename Dot::Left left = Dot::left(words);
  const typename Dot::Right right = Dot::right(words);
#pragma GCC unroll 1
  for (size_t i = 0; i < iterations; ++i)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) {
        Dot::add(sum[r][c], left, right);
        asm volatile("" : "+" TWINRANK_REGISTER(sum[r][c]));
      }
  return 2.0 * double(iterations) * R * C * kLanes * Dot::kValues;
}

double spin(Precision precision, size_t iterations) {
  switch (precision) {
    case Precision::int8: return spin_of<DotInt8>(iterations);
    case Precision::bf16: return spin_of<DotBf16>(iterations);
    case Precision::fp32: return spin_of<DotFloat>(iterations);
  }
  return 0.0;
}

}  // namespace
}  // namespace twinrank
