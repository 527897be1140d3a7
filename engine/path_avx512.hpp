// The vector operations of AVX-512 (F, BW, DQ, VL and VNNI), with or without BF16; the two paths' files include this.
//
// The dot products are inline assembly: with intrinsics gcc 12 moved the loads of a whole step ahead and spilled the
// accumulators, which cost 40 % of the speed.
#include <immintrin.h>

#include "kernels.hpp"

#define TWINRANK_REGISTER "v"

namespace twinrank {
namespace {

constexpr int kLanes = 16;
using Float = __m512;
using Int = __m512i;

inline Float load(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, Float v) { _mm512_storeu_ps(to, v); }
inline Float splat(float v) { return _mm512_set1_ps(v); }
inline Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
inline Float minimum(Float a, Float b) { return _mm512_min_ps(a, b); }
inline Float maximum(Float a, Float b) { return _mm512_max_ps(a, b); }
inline float sum_of(Float v) { return _mm512_reduce_add_ps(v); }
inline float smallest(Float v) { return _mm512_reduce_min_ps(v); }
inline float largest(Float v) { return _mm512_reduce_max_ps(v); }
inline Float round_even(Float v) { return _mm512_roundscale_ps(v, 0); }
inline Float times_power_of_two(Float v, Float power) { return _mm512_scalef_ps(v, power); }
// 2^x for x <= 0, off by 1e-4 of itself: a fortieth of what bf16, which it becomes, rounds away. vscalefps takes the whole
// part of its second operand by itself, and needs no bound.
inline Float quick_power_of_two(Float x) {
  const Float f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // 0 <= f < 1
  Float p = splat(0.0780244809f);
  p = fma(p, f, splat(0.226067215f));
  p = fma(p, f, splat(0.69583352f));
  p = fma(p, f, splat(0.99992522f));
  return _mm512_scalef_ps(p, x);
}
inline Float to_float(Int v) { return _mm512_cvtepi32_ps(v); }
inline Float first_lanes(Float v, size_t count, Float others) {
  return _mm512_mask_mov_ps(others, __mmask16((1u << count) - 1u), v);
}
inline Float load_bf16(const uint16_t* from) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
#ifdef TWINRANK_BF16
inline __m512i bf16_in_words(Float v) { return _mm512_cvtepu16_epi32(__m256i(_mm512_cvtneps_pbh(v))); }
inline void store_bf16(uint16_t* to, Float v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), __m256i(_mm512_cvtneps_pbh(v)));
}
#else
inline __m512i bf16_in_words(Float v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  return _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
}
inline void store_bf16(uint16_t* to, Float v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(bf16_in_words(v)));
}
#endif
// Words with the bf16 of `low` in their lower halves and of `high` in their upper halves.
inline void store_pairs(uint32_t* to, Float low, Float high) {
  _mm512_storeu_si512(to, _mm512_or_si512(bf16_in_words(low), _mm512_slli_epi32(bf16_in_words(high), 16)));
}

// A block of 16 × 16 words, turned.
inline void transpose(const uint32_t* from, size_t from_stride, uint32_t* to, size_t to_stride) {
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(from + i * from_stride);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // a[i + j]: words 4 lane + j of rows i … i + 3, by 128-bit lane
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i low = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x44), high = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xee);
    const __m512i low2 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x44), high2 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xee);
    _mm512_storeu_si512(to + (0 + j) * to_stride, _mm512_shuffle_i32x4(low, low2, 0x88));
    _mm512_storeu_si512(to + (4 + j) * to_stride, _mm512_shuffle_i32x4(low, low2, 0xdd));
    _mm512_storeu_si512(to + (8 + j) * to_stride, _mm512_shuffle_i32x4(high, high2, 0x88));
    _mm512_storeu_si512(to + (12 + j) * to_stride, _mm512_shuffle_i32x4(high, high2, 0xdd));
  }
}

struct DotInt8 {
  using Sum = __m512i;
  using Left = __m512i;
  using Right = __m512i;
  static constexpr int kRows = 6, kColumns = 4, kValues = 4, kLeftWords = 1;
  static constexpr bool kScaled = true;
  static void store_left(uint32_t* to, Float v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(v)));
  }
  static void spread_left(uint32_t*, size_t) {}
  static Sum zero() { return _mm512_setzero_si512(); }
  static Left left(const uint32_t* from) { return _mm512_set1_epi32(int32_t(*from)); }
  static Right right(const uint32_t* from) { return _mm512_loadu_si512(from); }
  static void add(Sum& sum, Left a, Right b) { asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
};

struct DotFloat {
  using Sum = __m512;
  using Left = __m512;
  using Right = __m512;
  static constexpr int kRows = 6, kColumns = 4, kValues = 1, kLeftWords = 1;
  static constexpr bool kScaled = false;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Left left(const uint32_t* from) { return _mm512_castsi512_ps(_mm512_set1_epi32(int32_t(*from))); }
  static Right right(const uint32_t* from) { return _mm512_castsi512_ps(_mm512_loadu_si512(from)); }
  static void add(Sum& sum, Left a, Right b) { asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
};

#ifdef TWINRANK_BF16
constexpr bool kBf16Hardware = true;

struct DotBf16 {
  using Sum = __m512;
  using Left = __m512i;
  using Right = __m512i;
  static constexpr int kRows = 6, kColumns = 4, kValues = 2, kLeftWords = 1;
  static constexpr bool kScaled = false;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Left left(const uint32_t* from) { return _mm512_set1_epi32(int32_t(*from)); }
  static Right right(const uint32_t* from) { return _mm512_loadu_si512(from); }
  static void add(Sum& sum, Left a, Right b) { asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
};
#else
constexpr bool kBf16Hardware = false;

// bf16 without its instruction: both halves of a word become floats.
struct DotBf16 {
  struct Halves {
    __m512 low, high;
  };
  using Sum = __m512;
  using Left = Halves;
  using Right = Halves;
  static constexpr int kRows = 4, kColumns = 4, kValues = 2, kLeftWords = 1;
  static constexpr bool kScaled = false;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Halves halves(__m512i words) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(int32_t(0xffff0000u))))};
  }
  static Left left(const uint32_t* from) { return halves(_mm512_set1_epi32(int32_t(*from))); }
  static Right right(const uint32_t* from) { return halves(_mm512_loadu_si512(from)); }
  static void add(Sum& sum, const Left& a, const Right& b) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a.low), "v"(b.low));
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a.high), "v"(b.high));
  }
};
#endif

// Rows of codes times the scan's query, 64 at a time. vpdpbusd takes unsigned numbers on one side: the codes, 128 more than
// they are, which scan_prepare's correction takes off again.
struct CodesDot {
  using Number = int8_t;
  using Sum = __m512i;
  using Codes = __m512i;
  using Part = __m512i;
  static constexpr int kBytes = 64, kOffset = 128;
  static Sum zero() { return _mm512_setzero_si512(); }
  static Codes codes(const int8_t* from) { return _mm512_xor_si512(_mm512_loadu_si512(from), _mm512_set1_epi8(-128)); }
  static Part part(const Number* from) { return _mm512_loadu_si512(from); }
  static void add(Sum& sum, Codes a, Part b) { asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
  static __m256i halved(Sum v) { return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1)); }
  static void totals(Sum a, Sum b, Sum c, Sum d, int32_t* to) {
    const __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(halved(a), halved(b)), _mm256_hadd_epi32(halved(c), halved(d)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)));
  }
};

}  // namespace
}  // namespace twinrank
