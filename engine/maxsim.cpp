// MaxSim's plan: the query in 16-bit integers, passages spread over threads, and each passage's best matches summed.
#include "maxsim.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "threads.hpp"

namespace twinrank {
namespace {

constexpr size_t kRunTokens = 4096;   // what a thread takes at a time, and the least that is worth one
constexpr float kMostNumber = 32512;  // 127 * 256: its high byte is at most 127, and so is that of 127 more
constexpr size_t kMostLanes = 16;
constexpr size_t kMostWidth = 65536;  // 255 * 128 * this fits into 32 bits

// Memory aligned to a cache line; zeroed, so that padding behind a row never holds what was there before.
template <class T>
class Aligned {
 public:
  explicit Aligned(size_t count) : bytes_((count * sizeof(T) + 63) / 64 * 64), data_(aligned_alloc(64, std::max<size_t>(bytes_, 64))) {
    if (data_ == nullptr) throw std::bad_alloc();
    std::fill_n(static_cast<char*>(data_), bytes_, char(0));
  }
  ~Aligned() { free(data_); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  T* data() { return static_cast<T*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

// A token's numbers as whole steps; returns the step.
float quantise(const float* numbers, size_t width, int16_t* out) {
  float most = 0.0f;
  for (size_t i = 0; i < width; ++i) most = std::max(most, std::fabs(numbers[i]));
  const float step = most / kMostNumber;
  if (!(step > 1e-30f)) {
    std::fill_n(out, width, int16_t(0));
    return 0.0f;
  }
  for (size_t i = 0; i < width; ++i)
    out[i] = int16_t(std::min(kMostNumber, std::max(-kMostNumber, std::nearbyint(numbers[i] / step))));
  return step;
}

struct Passage {
  const StoredTokens* part;
  size_t first, tokens;
};

}  // namespace

void maxsim(const Kernels& kernels, const MaxSimRequest& request) {
  const size_t tokens = request.query_tokens, width = request.width;
  if (width < 1 || width > kMostWidth)
    throw std::invalid_argument("token vectors have " + std::to_string(width) + " numbers; 1 to " + std::to_string(kMostWidth) +
                                " were expected");
  for (size_t i = 0; i < tokens * width; ++i)
    if (!std::isfinite(request.query[i])) throw std::invalid_argument("the query's token vectors hold NaN or infinity");

  std::vector<int16_t> numbers(tokens * width);
  std::vector<float> steps(tokens);
  for (size_t i = 0; i < tokens; ++i) steps[i] = quantise(request.query + i * width, width, numbers.data() + i * width);

  MaxSimQuery query;
  const size_t room = 2 * ((tokens + kMostLanes - 1) / kMostLanes * kMostLanes);
  query.steps = (width + 3) / 4;
  query.stride = room;
  query.used = 2 * ((tokens + kernels.lanes - 1) / kernels.lanes * kernels.lanes);
  Aligned<uint32_t> columns(query.steps * room);
  Aligned<float> middles(room);
  query.columns = columns.data();
  query.middles = middles.data();
  kernels.maxsim_prepare(numbers.data(), tokens, width, request.four_bits ? 7.5f : 128.0f, query);

  std::vector<Passage> passages;
  std::vector<size_t> runs{0};  // passage numbers at which a run begins
  size_t waiting = 0;
  for (const StoredTokens& part : request.parts)
    for (size_t i = 0; i < part.passages; ++i) {
      passages.push_back({&part, size_t(part.offsets[i]), size_t(part.offsets[i + 1] - part.offsets[i])});
      waiting += passages.back().tokens;
      if (waiting < kRunTokens) continue;
      runs.push_back(passages.size());
      waiting = 0;
    }
  if (runs.back() != passages.size()) runs.push_back(passages.size());
  const size_t run_count = runs.size() - 1, code_bytes = request.four_bits ? width / 2 : width;
  const size_t workers = std::max<size_t>(1, std::min(request.threads, run_count));
  std::vector<std::unique_ptr<Aligned<uint32_t>>> expanded;
  std::vector<std::unique_ptr<Aligned<float>>> best;
  for (size_t i = 0; i < workers; ++i) {
    expanded.push_back(std::make_unique<Aligned<uint32_t>>(kMaxSimBlock * query.steps * kernels.int8_words));
    best.push_back(std::make_unique<Aligned<float>>(room / 2));
  }

  std::atomic<size_t> next{0};
  run_on_threads(workers, [&](size_t worker) noexcept {
    MaxSimQuery own = query;
    own.expanded = expanded[worker]->data();
    float* const most = best[worker]->data();
    for (size_t run; (run = next.fetch_add(1, std::memory_order_relaxed)) < run_count;)
      for (size_t i = runs[run]; i < runs[run + 1]; ++i) {
        const Passage& passage = passages[i];
        std::fill_n(most, room / 2, -std::numeric_limits<float>::max());
        kernels.maxsim_tokens(own, passage.part->codes + passage.first * code_bytes, code_bytes, request.four_bits,
                              passage.part->scales + passage.first, passage.tokens, most);
        float score = 0.0f;
        for (size_t token = 0; passage.tokens > 0 && token < tokens; ++token) score += steps[token] * most[token];
        request.scores[i] = score;
      }
  });
}

}  // namespace twinrank
