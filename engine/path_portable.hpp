// The vector operations in plain C++ over vectors of four numbers, which gcc and clang turn into SSE2, NEON or AltiVec.
#include <stddef.h>
#include <stdint.h>

#include "kernels.hpp"

#if defined(__x86_64__) || defined(__i386__)
#define TWINRANK_REGISTER "x"
#elif defined(__aarch64__)
#define TWINRANK_REGISTER "w"
#else
#define TWINRANK_REGISTER "m"
#endif

namespace twinrank {
namespace {

constexpr int kLanes = 4;
constexpr bool kBf16Hardware = false;
typedef float Float __attribute__((vector_size(16)));
typedef int32_t Int __attribute__((vector_size(16)));
typedef uint32_t Word __attribute__((vector_size(16)));

template <class To, class From>
inline To bits_as(From from) {
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
inline Float choose(Int mask, Float yes, Float no) {
  return bits_as<Float>((bits_as<Int>(yes) & mask) | (bits_as<Int>(no) & ~mask));
}

inline Float load(const float* from) {
  Float v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
inline void store(float* to, Float v) { __builtin_memcpy(to, &v, sizeof v); }
inline Float splat(float v) { return Float{v, v, v, v}; }
inline Float fma(Float a, Float b, Float c) {
#if defined(__ARM_FEATURE_FMA)
  return Float{__builtin_fmaf(a[0], b[0], c[0]), __builtin_fmaf(a[1], b[1], c[1]), __builtin_fmaf(a[2], b[2], c[2]),
               __builtin_fmaf(a[3], b[3], c[3])};
#else
  return a * b + c;
#endif
}
inline Float minimum(Float a, Float b) { return choose(a < b, a, b); }
inline Float maximum(Float a, Float b) { return choose(a > b, a, b); }
inline float sum_of(Float v) { return (v[0] + v[2]) + (v[1] + v[3]); }
inline float smaller(float a, float b) { return a < b ? a : b; }
inline float larger(float a, float b) { return a > b ? a : b; }
inline float smallest(Float v) { return smaller(smaller(v[0], v[1]), smaller(v[2], v[3])); }
inline float largest(Float v) { return larger(larger(v[0], v[1]), larger(v[2], v[3])); }
// Adding and taking away 1.5 * 2^23 leaves the nearest whole number, for sizes below 2^22.
inline Float round_even(Float v) {
  const Float shift = splat(12582912.0f);
  return (v + shift) - shift;
}
// The low bits of whole + 1.5 * 2^23 are the whole number itself, also where it is negative.
inline Int to_int(Float whole) { return bits_as<Int>(whole + splat(12582912.0f)) - bits_as<Int>(splat(12582912.0f)); }
inline Float times_power_of_two(Float v, Float power) {
  return bits_as<Float>(bits_as<Word>(v) + (bits_as<Word>(to_int(power)) << 23));
}
// 2^x for x <= 0, off by 7.5e-5 of itself: a fiftieth of what bf16, which it becomes, rounds away.
inline Float quick_power_of_two(Float x) {
  const Float bounded = maximum(x, splat(-126.0f));
  const Float whole = round_even(bounded);
  const Float f = bounded - whole;
  Float p = splat(0.0551715523f);
  p = fma(p, f, splat(0.242611113f));
  p = fma(p, f, splat(0.693261007f));
  p = fma(p, f, splat(0.999928075f));
  return times_power_of_two(p, whole);
}
inline Float to_float(Int v) { return __builtin_convertvector(v, Float); }
inline Float first_lanes(Float v, size_t count, Float others) {
  const int32_t n = int32_t(count);
  return choose(Int{0, 1, 2, 3} < Int{n, n, n, n}, v, others);
}
inline Float load_bf16(const uint16_t* from) {
  return bits_as<Float>(Word{from[0], from[1], from[2], from[3]} << 16);
}
inline Word bf16_in_words(Float v) {
  const Word bits = bits_as<Word>(v);
  return (bits + ((bits >> 16) & 1u) + 0x7fffu) >> 16;
}
inline void store_bf16(uint16_t* to, Float v) {
  const Word words = bf16_in_words(v);
  for (int i = 0; i < kLanes; ++i) to[i] = uint16_t(words[i]);
}
// Words with the bf16 of `low` in their lower halves and of `high` in their upper halves.
inline void store_pairs(uint32_t* to, Float low, Float high) {
  const Word words = bf16_in_words(low) | (bf16_in_words(high) << 16);
  __builtin_memcpy(to, &words, sizeof words);
}
// A block of 4 × 4 words, turned.
inline void transpose(const uint32_t* from, size_t from_stride, uint32_t* to, size_t to_stride) {
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < kLanes; ++j) to[j * to_stride + i] = from[i * from_stride + j];
}

inline Word load_words(const uint32_t* from) {
  Word v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
inline Int splat_int(int32_t v) { return Int{v, v, v, v}; }

struct DotInt8 {
  struct Bytes {
    Int byte[4];
  };
  using Sum = Int;
  using Left = Bytes;
  using Right = Bytes;
  static constexpr int kRows = 4, kColumns = 1, kValues = 4, kLeftWords = 1;
  static constexpr bool kScaled = true;
  static void store_left(uint32_t* to, Float v) {
    const Int whole = to_int(minimum(maximum(v, splat(0.0f)), splat(255.0f)));  // maximum(NaN, 0) is 0
    uint8_t bytes[kLanes];
    for (int i = 0; i < kLanes; ++i) bytes[i] = uint8_t(whole[i]);
    __builtin_memcpy(to, bytes, sizeof bytes);
  }
  static void spread_left(uint32_t*, size_t) {}
  static Sum zero() { return splat_int(0); }
  static Left left(const uint32_t* from) {
    const uint32_t word = *from;
    return {{splat_int(int32_t(word & 255)), splat_int(int32_t((word >> 8) & 255)), splat_int(int32_t((word >> 16) & 255)),
             splat_int(int32_t(word >> 24))}};
  }
  static Right right(const uint32_t* from) {
    const Word words = load_words(from);
    return {{bits_as<Int>(words << 24) >> 24, bits_as<Int>(words << 16) >> 24, bits_as<Int>(words << 8) >> 24,
             bits_as<Int>(words) >> 24}};
  }
  static void add(Sum& sum, const Left& a, const Right& b) {
    sum += a.byte[0] * b.byte[0] + a.byte[1] * b.byte[1] + a.byte[2] * b.byte[2] + a.byte[3] * b.byte[3];
  }
};

struct DotFloat {
  using Sum = Float;
  using Left = Float;
  using Right = Float;
  static constexpr int kRows = 4, kColumns = 2, kValues = 1, kLeftWords = 1;
  static constexpr bool kScaled = false;
  static Sum zero() { return splat(0.0f); }
  static Left left(const uint32_t* from) {
    float v;
    __builtin_memcpy(&v, from, 4);
    return splat(v);
  }
  static Right right(const uint32_t* from) { return bits_as<Float>(load_words(from)); }
  static void add(Sum& sum, Left a, Right b) { sum = fma(a, b, sum); }
};

struct DotBf16 {
  struct Halves {
    Float low, high;
  };
  using Sum = Float;
  using Left = Halves;
  using Right = Halves;
  static constexpr int kRows = 4, kColumns = 1, kValues = 2, kLeftWords = 1;
  static constexpr bool kScaled = false;
  static Sum zero() { return splat(0.0f); }
  static Halves halves(Word words) { return {bits_as<Float>(words << 16), bits_as<Float>(words & 0xffff0000u)}; }
  static Left left(const uint32_t* from) { return halves(Word{*from, *from, *from, *from}); }
  static Right right(const uint32_t* from) { return halves(load_words(from)); }
  static void add(Sum& sum, const Left& a, const Right& b) {
    sum = fma(a.low, b.low, sum);
    sum = fma(a.high, b.high, sum);
  }
};

// Rows of codes times the scan's query, 8 at a time: a product of two bytes fits into 16 bits.
struct CodesDot {
  typedef int16_t Halves __attribute__((vector_size(16)));
  typedef int8_t Bytes __attribute__((vector_size(8)));
  using Number = int16_t;
  using Sum = Int;
  using Codes = Halves;
  using Part = Halves;
  static constexpr int kBytes = 8, kOffset = 0;
  static Sum zero() { return splat_int(0); }
  static Codes codes(const int8_t* from) {
    Bytes bytes;
    __builtin_memcpy(&bytes, from, sizeof bytes);
    return __builtin_convertvector(bytes, Halves);
  }
  static Part part(const Number* from) {
    Part v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
  }
  static void add(Sum& sum, Codes a, Part b) {
    const Int products = bits_as<Int>(a * b);  // two in each
    sum += (bits_as<Int>(bits_as<Word>(products) << 16) >> 16) + (products >> 16);
  }
  static int32_t total(Sum v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  static void totals(Sum a, Sum b, Sum c, Sum d, int32_t* to) {
    to[0] = total(a);
    to[1] = total(b);
    to[2] = total(c);
    to[3] = total(d);
  }
};

}  // namespace
}  // namespace twinrank
