// The scan's kernel: exact integer dot products of many rows of int8 codes with a query of a few int8 summands, and from these
// scores and bounds. Written once over what a path's file defines for it: CodesDot, which multiplies kBytes codes at a time.
//
// Included after kernels_impl.hpp; the same rules hold here.

namespace twinrank {
namespace {

// How far ahead the codes are asked for. The CPU foresees consecutive rows by itself, but not far enough: with this a million
// rows came in half the time.
constexpr size_t kBytesAhead = 8192;
constexpr size_t kGatheredRowsAhead = 8;

template <int R, int M>
TWINRANK_TILE void dots_tile(const int8_t* const (&rows)[R], size_t dimension, size_t ahead, const CodesDot::Number* parts, size_t part_stride,
                             const int32_t* correction, int32_t* dots, size_t dots_stride) {
  CodesDot::Sum sum[M][R];
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sum[m][r] = CodesDot::zero();
  const size_t whole = dimension / CodesDot::kBytes * CodesDot::kBytes;
#pragma GCC unroll 1
  for (size_t at = 0; at < whole; at += CodesDot::kBytes) {
    CodesDot::Codes codes[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) codes[r] = CodesDot::codes(rows[r] + at);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) __builtin_prefetch(rows[r] + at + ahead);  // past the end, too: a prefetch cannot fault
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      const CodesDot::Part part = CodesDot::part(parts + m * part_stride + at);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) CodesDot::add(sum[m][r], codes[r], part);
    }
  }
  if (whole < dimension) {  // never a byte beyond the row: it may be the last of a mapped file
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      int8_t rest[CodesDot::kBytes] = {};
      __builtin_memcpy(rest, rows[r] + whole, dimension - whole);
      const CodesDot::Codes codes = CodesDot::codes(rest);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) CodesDot::add(sum[m][r], codes, CodesDot::part(parts + m * part_stride + whole));
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
    int32_t totals[4];
    CodesDot::totals(sum[m][0], sum[m][R > 1 ? 1 : 0], sum[m][R > 2 ? 2 : 0], sum[m][R > 3 ? 3 : 0], totals);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) dots[m * dots_stride + r] = totals[r] - correction[m];
  }
}

template <int R>
TWINRANK_INLINE void dots_of_rows(const ScanTask& task, const int8_t* const (&rows)[R], int32_t* dots) {
  const auto* parts = static_cast<const CodesDot::Number*>(task.parts);
  const size_t ahead = task.rows == nullptr ? kBytesAhead : 0;
  for (size_t first = 0; first < task.part_count; first += 4) {
    const size_t here = task.part_count - first < 4 ? task.part_count - first : 4;
    with_constant<4>(here, [&](auto count) {
      dots_tile<R, decltype(count)::value>(rows, task.dimension, ahead, parts + first * task.part_stride, task.part_stride,
                                           task.correction + first, dots + first * kScanRows, kScanRows);
    });
  }
}

// The query's summands as the path multiplies them, zeros behind; `numbers` has room for 2 bytes a padded number.
void scan_prepare(const int8_t* parts, size_t part_count, size_t dimension, size_t part_stride, void* numbers,
                  int32_t* correction) {
  auto* to = static_cast<CodesDot::Number*>(numbers);
  for (size_t m = 0; m < part_count; ++m) {
    int32_t total = 0;
    for (size_t i = 0; i < part_stride; ++i) {
      const int8_t value = i < dimension ? parts[m * dimension + i] : int8_t(0);
      to[m * part_stride + i] = value;
      total += value;
    }
    correction[m] = CodesDot::kOffset * total;
  }
}

// The scores and bounds of `count` rows, at most kScanRows: rows[first …] where there are such, else first, first + 1, ….
// Everything after the integers is in double and in one order, so that all paths give the same numbers.
bool scan_block(const ScanTask& task, size_t first, size_t count, const ScanBlock& out) {
  const auto row_at = [&](size_t i) { return task.rows != nullptr ? size_t(task.rows[first + i]) : first + i; };
  const auto start_of = [&](size_t i) { return task.codes + row_at(i) * task.dimension; };
  const size_t end = task.rows != nullptr ? task.row_count : 0;
  size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    for (size_t ahead = first + i + kGatheredRowsAhead; ahead < first + i + kGatheredRowsAhead + 4 && ahead < end; ++ahead)
      for (size_t byte = 0; byte < task.dimension; byte += 64)
        __builtin_prefetch(task.codes + size_t(task.rows[ahead]) * task.dimension + byte);
    const int8_t* const rows[4] = {start_of(i), start_of(i + 1), start_of(i + 2), start_of(i + 3)};
    dots_of_rows<4>(task, rows, out.dots + i);
  }
  for (; i < count; ++i) {
    const int8_t* const rows[1] = {start_of(i)};
    dots_of_rows<1>(task, rows, out.dots + i);
  }

  const float *scales = task.scales + first, *errors = task.errors + first;
  if (task.rows != nullptr) {
    for (size_t row = 0; row < count; ++row) {
      out.gathered_scales[row] = task.scales[row_at(row)];
      out.gathered_errors[row] = task.errors[row_at(row)];
    }
    scales = out.gathered_scales;
    errors = out.gathered_errors;
  }
  double* const scores = out.scores;
  for (size_t row = 0; row < count; ++row) scores[row] = double(task.part_scales[0]) * double(out.dots[row]);
  for (size_t m = 1; m < task.part_count; ++m)
    for (size_t row = 0; row < count; ++row) scores[row] += double(task.part_scales[m]) * double(out.dots[m * kScanRows + row]);
  constexpr double kWider = 1.0 / double(1ull << 40);  // more than all roundings here together, in double
  uint64_t wrong = 0;
  for (size_t row = 0; row < count; ++row) {
    const double score = double(scales[row]) * scores[row];
    const double slack = (task.constant + task.factor * double(errors[row])) * (1.0 + kWider) + __builtin_fabs(score) * kWider;
    scores[row] = score;
    out.uppers[row] = score + slack;
    out.lowers[row] = score - slack;
    // Both fail for NaN, and for infinity, which less itself is NaN; a negative error would turn the bounds around.
    wrong |= uint64_t(!(score - score == 0.0)) | uint64_t(!(errors[row] >= 0.0f)) | uint64_t(!(slack - slack == 0.0));
  }
  return wrong == 0;
}

}  // namespace
}  // namespace twinrank
