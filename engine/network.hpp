// A model made ready to run on one path: checks what it is given, plans groups of texts, spreads them over threads.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "model.hpp"

namespace twinrank {

enum class Pooling : uint32_t { none = 0, cls = 1, mean = 2, max = 3, weighted_mean = 4, last = 5 };

struct Request {
  const int32_t* ids = nullptr;      // (tokens,)
  const int32_t* types = nullptr;    // (tokens,) or null
  const int32_t* offsets = nullptr;  // (texts + 1,)
  const int32_t* seen = nullptr;     // (texts,) or null: the first tokens of each text, which are all that its tokens see
  size_t texts = 0;
  size_t tokens = 0;
  Pooling pooling = Pooling::mean;
  float* pooled = nullptr;       // (texts, width) or null
  float* hidden = nullptr;       // (tokens, width) or null
  const float* start = nullptr;  // (tokens, width) or null: the hidden states that enter the first layer
  size_t first_layer = 0, end_layer = 0;
  size_t threads = 1;
};

class Workspace;

class Network {
 public:
  Network(Model model, const Kernels& kernels);
  ~Network();

  // Throws std::invalid_argument where the request cannot be run. Any number of threads may call this at once.
  void run(const Request& request) const;

  const Model& model() const { return model_; }
  const Kernels& kernels() const { return kernels_; }

 private:
  void check(const Request& request) const;
  void run_group(const Request& request, const uint32_t* texts, size_t count, Workspace& workspace) const;
  std::unique_ptr<Workspace> borrow(size_t tokens, size_t longest) const;
  void give_back(std::unique_ptr<Workspace> workspace) const;

  Model model_;
  const Kernels& kernels_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;  // kept between calls, so that a short query allocates nothing
};

}  // namespace twinrank
