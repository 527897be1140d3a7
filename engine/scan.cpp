// The exact scan's plan: threads take runs of rows from a counter, keep what can still be among the best, and forget the rest.
//
// What a thread holds is twice its survivors and k bounds, whatever the number of rows.
#include "scan.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "threads.hpp"

namespace twinrank {
namespace {

constexpr size_t kRunBytes = size_t(1) << 20;  // what a thread takes at a time, and the least that is worth one
constexpr size_t kLeastKept = 4096;            // candidates that are kept before they are looked through the first time
constexpr size_t kMostDimension = 65536;       // 255 * 128 * this fits into 32 bits
constexpr double kNothing = -std::numeric_limits<double>::infinity();

struct Candidate {
  int64_t row;
  double score, upper;
};

// What one thread has found.
struct Finder {
  std::vector<double> best_lowers;  // a heap, the smallest first, of at most k
  std::vector<Candidate> candidates;
  size_t look_through_at = kLeastKept;
};

void forget_below(Finder& finder, double bar) {
  auto& all = finder.candidates;
  all.erase(std::remove_if(all.begin(), all.end(), [bar](const Candidate& one) { return one.upper < bar; }), all.end());
  finder.look_through_at = std::max(kLeastKept, 2 * all.size());
}

void raise(std::atomic<double>& bar, double to) {
  double now = bar.load(std::memory_order_relaxed);
  while (now < to && !bar.compare_exchange_weak(now, to, std::memory_order_relaxed)) {
  }
}

// A thread's numbers for one block of rows, in one piece of memory.
class BlockMemory {
 public:
  explicit BlockMemory(size_t part_count) : doubles_(3 * kScanRows), floats_(2 * kScanRows), dots_(part_count * kScanRows) {
    block.scores = doubles_.data();
    block.uppers = block.scores + kScanRows;
    block.lowers = block.uppers + kScanRows;
    block.gathered_scales = floats_.data();
    block.gathered_errors = floats_.data() + kScanRows;
    block.dots = dots_.data();
  }
  ScanBlock block;

 private:
  std::vector<double> doubles_;
  std::vector<float> floats_;
  std::vector<int32_t> dots_;
};

void check(const ScanRequest& request) {
  const auto require = [](bool fine, const std::string& what) {
    if (!fine) throw std::invalid_argument(what);
  };
  require(request.k >= 1, "k is 0; at least 1 was expected");
  require(request.threads >= 1, "threads is 0; at least 1 was expected");
  require(request.part_count >= 1, "a query has at least one part");
  require(request.dimension >= 1 && request.dimension <= kMostDimension,
          "codes have " + std::to_string(request.dimension) + " dimensions; 1 to " + std::to_string(kMostDimension) + " can be scanned");
  require(std::isfinite(request.constant) && request.constant >= 0, "constant must be a number from 0 on");
  require(std::isfinite(request.factor) && request.factor >= 0, "factor must be a number from 0 on");
  for (size_t m = 0; m < request.part_count; ++m)
    require(std::isfinite(request.part_scales[m]), "part_scales[" + std::to_string(m) + "] is not finite");
  if (request.rows == nullptr) return;
  int64_t before = -1;
  for (size_t i = 0; i < request.row_count; before = request.rows[i++]) {
    const int64_t row = request.rows[i];
    if (row > before && size_t(row) < request.count) continue;  // the sentences below cost more than the scan
    const std::string here = "rows[" + std::to_string(i) + "] is " + std::to_string(row);
    require(row >= 0 && size_t(row) < request.count, here + "; there are " + std::to_string(request.count) + " rows");
    require(before < row, here + " after " + std::to_string(before) + "; rows must rise");
  }
}

}  // namespace

ScanResult scan(const Kernels& kernels, const ScanRequest& request) {
  check(request);
  const size_t total = request.rows != nullptr ? request.row_count : request.count;
  if (total == 0) return {};

  const size_t part_stride = (request.dimension + 63) / 64 * 64;
  std::unique_ptr<void, decltype(&free)> numbers(aligned_alloc(64, 2 * request.part_count * part_stride), &free);
  if (!numbers) throw std::bad_alloc();
  std::vector<int32_t> correction(request.part_count);
  kernels.scan_prepare(request.parts, request.part_count, request.dimension, part_stride, numbers.get(), correction.data());
  ScanTask task;
  task.codes = request.codes;
  task.scales = request.scales;
  task.errors = request.errors;
  task.dimension = request.dimension;
  task.rows = request.rows;
  task.row_count = request.row_count;
  task.parts = numbers.get();
  task.part_scales = request.part_scales;
  task.correction = correction.data();
  task.part_count = request.part_count;
  task.part_stride = part_stride;
  task.constant = request.constant;
  task.factor = request.factor;

  const size_t k = std::min(request.k, total);
  const size_t blocks_in_run = std::max<size_t>(1, kRunBytes / (kScanRows * request.dimension));
  const size_t run = blocks_in_run * kScanRows, runs = (total + run - 1) / run;
  const size_t workers = std::min(request.threads, runs);
  std::vector<Finder> finders(workers);
  std::vector<std::unique_ptr<BlockMemory>> memories;
  for (size_t i = 0; i < workers; ++i) memories.push_back(std::make_unique<BlockMemory>(request.part_count));
  std::atomic<size_t> next{0}, wrong{total};  // `wrong` is a place among the rows asked for
  std::atomic<bool> out_of_memory{false};
  std::atomic<double> bar{kNothing};  // some k rows are known to reach this

  const auto look_at_block = [&](size_t first, size_t count, Finder& finder, const ScanBlock& block) {
    if (!kernels.scan_block(task, first, count, block)) {
      size_t now = wrong.load();
      while (first < now && !wrong.compare_exchange_weak(now, first)) {
      }
      return;
    }
    double here = bar.load(std::memory_order_relaxed);
    auto& lowers = finder.best_lowers;
    for (size_t i = 0; i < count; ++i) {
      if (block.uppers[i] < here) continue;
      finder.candidates.push_back({request.rows != nullptr ? request.rows[first + i] : int64_t(first + i), block.scores[i],
                                   block.uppers[i]});
      if (lowers.size() == k) {
        if (block.lowers[i] <= lowers.front()) continue;
        std::pop_heap(lowers.begin(), lowers.end(), std::greater<>());
        lowers.back() = block.lowers[i];
      } else {
        lowers.push_back(block.lowers[i]);
      }
      std::push_heap(lowers.begin(), lowers.end(), std::greater<>());
      if (lowers.size() == k && lowers.front() > here) raise(bar, here = lowers.front());
    }
    if (finder.candidates.size() >= finder.look_through_at) forget_below(finder, here);
  };
  const auto work = [&](size_t worker) noexcept {
    try {
      for (size_t taken; (taken = next.fetch_add(1, std::memory_order_relaxed)) < runs;)
        for (size_t first = taken * run, end = std::min(total, first + run); first < end; first += kScanRows)
          look_at_block(first, std::min(kScanRows, end - first), finders[worker], memories[worker]->block);
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
  };
  run_on_threads(workers, work);
  if (out_of_memory) throw std::bad_alloc();
  if (const size_t first = wrong; first < total) {
    for (size_t i = first; i < std::min(total, first + kScanRows); ++i) {
      const size_t row = request.rows != nullptr ? size_t(request.rows[i]) : i;
      if (!std::isfinite(request.scales[row]))
        throw std::invalid_argument("scales[" + std::to_string(row) + "] is not finite");
      if (!std::isfinite(request.errors[row]) || request.errors[row] < 0)
        throw std::invalid_argument("errors[" + std::to_string(row) + "] is not a number from 0 on");
    }
    throw std::invalid_argument("the scores from row " + std::to_string(first) + " on are not finite");
  }

  // The k-th largest lower bound of all: it is among the best k of the threads.
  std::vector<double> lowers;
  for (const Finder& finder : finders) lowers.insert(lowers.end(), finder.best_lowers.begin(), finder.best_lowers.end());
  double last = kNothing;
  if (request.k < total) {
    std::nth_element(lowers.begin(), lowers.begin() + ptrdiff_t(k - 1), lowers.end(), std::greater<>());
    last = lowers[k - 1];
  }
  ScanResult result;
  for (Finder& finder : finders) {
    forget_below(finder, last);
    for (const Candidate& one : finder.candidates) {
      result.rows.push_back(one.row);
      result.scores.push_back(float(one.score));
    }
  }
  return result;
}

}  // namespace twinrank
