// The vector operations of AVX2 with FMA, with or without AVX-VNNI; the two paths' files include this.
#include <immintrin.h>

#include "kernels.hpp"

#define TWINRANK_REGISTER "x"

namespace twinrank {
namespace {

constexpr int kLanes = 8;
constexpr bool kBf16Hardware = false;
using Float = __m256;
using Int = __m256i;

inline Float load(const float* from) { return _mm256_loadu_ps(from); }
inline void store(float* to, Float v) { _mm256_storeu_ps(to, v); }
inline Float splat(float v) { return _mm256_set1_ps(v); }
inline Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
inline Float minimum(Float a, Float b) { return _mm256_min_ps(a, b); }
inline Float maximum(Float a, Float b) { return _mm256_max_ps(a, b); }
inline float sum_of(Float v) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline float smallest(Float v) {
  __m128 half = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_min_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_min_ss(half, _mm_movehdup_ps(half)));
}
inline float largest(Float v) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
inline Float round_even(Float v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Float times_power_of_two(Float v, Float power) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), _mm256_slli_epi32(_mm256_cvtps_epi32(power), 23)));
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
inline Float to_float(Int v) { return _mm256_cvtepi32_ps(v); }
inline Float first_lanes(Float v, size_t count, Float others) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_blendv_ps(others, v, _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(int32_t(count)), lane)));
}
// Eight numbers as unsigned bytes, in the lower half.
inline __m128i rounded_bytes(Float v) {
  const __m256i whole = _mm256_cvtps_epi32(v);
  const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  return _mm_packus_epi16(halves, halves);
}
inline Float load_bf16(const uint16_t* from) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline __m256i bf16_in_words(Float v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
}
inline void store_bf16(uint16_t* to, Float v) {
  const __m256i words = bf16_in_words(v);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
// Words with the bf16 of `low` in their lower halves and of `high` in their upper halves.
inline void store_pairs(uint32_t* to, Float low, Float high) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm256_or_si256(bf16_in_words(low), _mm256_slli_epi32(bf16_in_words(high), 16)));
}

// A block of 8 × 8 words, turned.
inline void transpose(const uint32_t* from, size_t from_stride, uint32_t* to, size_t to_stride) {
  __m256 a[8], b[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(from + i * from_stride));
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    store(reinterpret_cast<float*>(to + j * to_stride), _mm256_permute2f128_ps(a[j], a[4 + j], 0x20));
    store(reinterpret_cast<float*>(to + (4 + j) * to_stride), _mm256_permute2f128_ps(a[j], a[4 + j], 0x31));
  }
}

#ifdef TWINRANK_VNNI
struct DotInt8 {
  using Sum = __m256i;
  using Left = __m256i;
  using Right = __m256i;
  static constexpr int kRows = 6, kColumns = 2, kValues = 4, kLeftWords = 1;
  static constexpr bool kScaled = true;
  static void store_left(uint32_t* to, Float v) { _mm_storel_epi64(reinterpret_cast<__m128i*>(to), rounded_bytes(v)); }
  static void spread_left(uint32_t*, size_t) {}
  static Sum zero() { return _mm256_setzero_si256(); }
  static Left left(const uint32_t* from) { return _mm256_set1_epi32(int32_t(*from)); }
  static Right right(const uint32_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static void add(Sum& sum, Left a, Right b) { asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b)); }
};
#else
// Without VNNI the bytes are widened to 16 bits, even and odd ones apart: vpmaddubsw would be one instruction shorter, but
// its sums of two products saturate, and every path shall give the same integers. Activations are widened when they are made:
// a word for the bytes 0 and 2, one for 1 and 3; to widen them here, too, took more time than the multiplications.
struct DotInt8 {
  struct Halves {
    __m256i even, odd;
  };
  using Sum = __m256i;
  using Left = Halves;
  using Right = Halves;
  static constexpr int kRows = 4, kColumns = 2, kValues = 4, kLeftWords = 2;
  static constexpr bool kScaled = true;
  static void store_left(uint32_t* to, Float v) {
    const __m128i order = _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_cvtepu8_epi16(_mm_shuffle_epi8(rounded_bytes(v), order)));
  }
  // `count` words of bytes, which stand in the second half of 2 count words, widened over all of them.
  static void spread_left(uint32_t* words, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const uint32_t bytes = words[count + i];
      words[2 * i] = bytes & 0x00ff00ffu;
      words[2 * i + 1] = (bytes >> 8) & 0x00ff00ffu;
    }
  }
  static Sum zero() { return _mm256_setzero_si256(); }
  static Left left(const uint32_t* from) { return {_mm256_set1_epi32(int32_t(from[0])), _mm256_set1_epi32(int32_t(from[1]))}; }
  static Right right(const uint32_t* from) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
  }
  static void add(Sum& sum, const Left& a, const Right& b) {
    __m256i product;
    asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(a.even), "x"(b.even));
    asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(a.odd), "x"(b.odd));
  }
};
#endif

struct DotFloat {
  using Sum = __m256;
  using Left = __m256;
  using Right = __m256;
  static constexpr int kRows = 6, kColumns = 2, kValues = 1, kLeftWords = 1;
  static constexpr bool kScaled = false;
  static Sum zero() { return _mm256_setzero_ps(); }
  static Left left(const uint32_t* from) { return _mm256_broadcast_ss(reinterpret_cast<const float*>(from)); }
  static Right right(const uint32_t* from) { return _mm256_loadu_ps(reinterpret_cast<const float*>(from)); }
  static void add(Sum& sum, Left a, Right b) { asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b)); }
};

// bf16 without its instruction: both halves of a word become floats.
struct DotBf16 {
  struct Halves {
    __m256 low, high;
  };
  using Sum = __m256;
  using Left = Halves;
  using Right = Halves;
  static constexpr int kRows = 4, kColumns = 2, kValues = 2, kLeftWords = 1;
  static constexpr bool kScaled = false;
  static Sum zero() { return _mm256_setzero_ps(); }
  static Halves halves(__m256i words) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(words, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(int32_t(0xffff0000u))))};
  }
  static Left left(const uint32_t* from) { return halves(_mm256_set1_epi32(int32_t(*from))); }
  static Right right(const uint32_t* from) { return halves(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))); }
  static void add(Sum& sum, const Left& a, const Right& b) {
    asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a.low), "x"(b.low));
    asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a.high), "x"(b.high));
  }
};

#ifdef TWINRANK_VNNI
// Rows of codes times the scan's query, 32 at a time. vpdpbusd takes unsigned numbers on one side: the codes, 128 more than
// they are, which scan_prepare's correction takes off again.
struct CodesDot {
  using Number = int8_t;
  using Sum = __m256i;
  using Codes = __m256i;
  using Part = __m256i;
  static constexpr int kBytes = 32, kOffset = 128;
  static Codes codes(const int8_t* from) {
    return _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)), _mm256_set1_epi8(-128));
  }
  static void add(Sum& sum, Codes a, Part b) { asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b)); }
#else
// Rows of codes times the scan's query, 16 at a time, both as 16-bit numbers.
struct CodesDot {
  using Number = int16_t;
  using Sum = __m256i;
  using Codes = __m256i;
  using Part = __m256i;
  static constexpr int kBytes = 16, kOffset = 0;
  static Codes codes(const int8_t* from) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static void add(Sum& sum, Codes a, Part b) { sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
#endif
  static Sum zero() { return _mm256_setzero_si256(); }
  static Part part(const Number* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static void totals(Sum a, Sum b, Sum c, Sum d, int32_t* to) {
    const __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)));
  }
};

}  // namespace
}  // namespace twinrank
