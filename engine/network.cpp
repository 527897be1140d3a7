// The forward pass over groups of packed texts. A group goes through all layers on one thread without waiting for another,
// and nothing in it depends on its neighbours: each text's numbers are the same in any group, order and number of threads.
#include "network.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "threads.hpp"

namespace twinrank {
namespace {

constexpr size_t kGroupTokens = 256;  // what one thread takes at a time, unless one text alone is longer
constexpr size_t kLeastGroupTokens = 64;
constexpr size_t kBlockRows = 96;  // rows of the feed-forward part at a time: its intermediate numbers stay in the L2 cache
constexpr size_t kKeptBytes = size_t(64) << 20;  // larger workspaces are freed after the call

size_t operand_words(const Kernels& kernels, Precision precision, size_t width) {
  return precision == Precision::int8 ? width / 4 * kernels.int8_words : precision == Precision::bf16 ? width / 2 : width;
}

}  // namespace

size_t attention_scratch_bytes(size_t tokens, size_t head_width) {
  constexpr size_t lanes = 16, rows = 8;
  const size_t width = (head_width + lanes - 1) / lanes * lanes, length = (tokens + lanes - 1) / lanes * lanes;
  return 4 * (lanes * width + rows * width + width * (length + lanes) + length * width + 2 * rows * length + 8 * lanes);
}

// The numbers of one group on their way through the layers.
class Workspace {
 public:
  Workspace(const Model& model, const Kernels& kernels, size_t tokens, size_t longest) : tokens_(tokens), longest_(longest) {
    const Shape& shape = model.shape;
    const Precision precision = model.precision;
    const size_t width = padded(shape.width), intermediate = padded(shape.intermediate);
    const size_t block = std::min(kBlockRows, tokens);
    const bool own_operands = precision != Precision::fp32;  // fp32 multiplies the rows as they stand
    const size_t sizes[] = {
        tokens * width * 4,                                                     // x
        tokens * 3 * width * 4,                                                 // queries, keys, values
        own_operands ? tokens * operand_words(kernels, precision, width) * 4 : 0,        // x as operand
        tokens * 4, tokens * 4,                                                 // its scales and zero points
        block * width * 4, block * width * 4, block * intermediate * 4,         // branch, attended, intermediate
        own_operands ? block * operand_words(kernels, precision, intermediate) * 4 : 0,  // intermediate as operand
        block * 4, block * 4,
        attention_scratch_bytes(longest, shape.head_width()),
    };
    size_t total = 0;
    for (size_t size : sizes) total += padded(size);
    bytes_ = total;
    if (posix_memalign(&memory_, 64, std::max<size_t>(total, 64)) != 0) throw std::bad_alloc();
    char* next = static_cast<char*>(memory_);
    size_t index = 0;
    const auto take = [&] {
      char* here = next;
      next += padded(sizes[index++]);
      return here;
    };
    x = reinterpret_cast<float*>(take());
    query_key_value = reinterpret_cast<float*>(take());
    operand.words = reinterpret_cast<uint32_t*>(take());
    operand.scale = reinterpret_cast<float*>(take());
    operand.zero = reinterpret_cast<float*>(take());
    operand.stride = operand_words(kernels, precision, width);
    if (!own_operands) operand.words = reinterpret_cast<uint32_t*>(x);
    branch = reinterpret_cast<float*>(take());
    attended = reinterpret_cast<float*>(take());
    intermediate_rows = reinterpret_cast<float*>(take());
    intermediate_operand.words = reinterpret_cast<uint32_t*>(take());
    intermediate_operand.scale = reinterpret_cast<float*>(take());
    intermediate_operand.zero = reinterpret_cast<float*>(take());
    intermediate_operand.stride = operand_words(kernels, precision, intermediate);
    if (!own_operands) intermediate_operand.words = reinterpret_cast<uint32_t*>(intermediate_rows);
    scratch = take();
  }
  ~Workspace() { free(memory_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  bool fits(size_t tokens, size_t longest) const { return tokens <= tokens_ && longest <= longest_; }
  size_t bytes() const { return bytes_; }

  float *x, *query_key_value, *branch, *attended, *intermediate_rows;
  Operand operand, intermediate_operand;
  void* scratch;

 private:
  size_t tokens_, longest_, bytes_ = 0;
  void* memory_ = nullptr;
};

Network::Network(Model model, const Kernels& kernels) : model_(std::move(model)), kernels_(kernels) {}
Network::~Network() = default;

std::unique_ptr<Workspace> Network::borrow(size_t tokens, size_t longest) const {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = 0; i < idle_.size(); ++i)
      if (idle_[i]->fits(tokens, longest)) {
        auto found = std::move(idle_[i]);
        idle_.erase(idle_.begin() + ptrdiff_t(i));
        return found;
      }
    if (!idle_.empty()) idle_.pop_back();  // too small from now on: what is kept does not grow in number
  }
  return std::make_unique<Workspace>(model_, kernels_, tokens, longest);
}

void Network::give_back(std::unique_ptr<Workspace> workspace) const {
  if (workspace->bytes() > kKeptBytes) return;
  std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(std::move(workspace));
}

void Network::check(const Request& request) const {
  const Shape& shape = model_.shape;
  const auto refuse = [](const std::string& what) { throw std::invalid_argument(what); };
  if (request.end_layer > shape.layers || request.first_layer > request.end_layer)
    refuse("layers " + std::to_string(request.first_layer) + " to " + std::to_string(request.end_layer) +
           " were asked for; the network has 0 to " + std::to_string(shape.layers));
  if (request.start == nullptr && request.first_layer != 0)
    refuse("layer " + std::to_string(request.first_layer) + " can only be entered with the hidden states that enter it (start)");
  if (request.offsets[0] != 0 || size_t(request.offsets[request.texts]) != request.tokens)
    refuse("the offsets go from " + std::to_string(request.offsets[0]) + " to " + std::to_string(request.offsets[request.texts]) +
           ", not from 0 to the number of tokens, " + std::to_string(request.tokens));
  for (size_t text = 0; text < request.texts; ++text) {
    const int64_t length = int64_t(request.offsets[text + 1]) - request.offsets[text];
    if (length <= 0) refuse("text " + std::to_string(text) + " has " + std::to_string(length) + " tokens; it needs at least one");
    if (length > int64_t(shape.max_tokens()))
      refuse("text " + std::to_string(text) + " has " + std::to_string(length) + " tokens; the network takes at most " +
             std::to_string(shape.max_tokens()));
    if (request.seen != nullptr && (request.seen[text] < 1 || request.seen[text] > length))
      refuse("of text " + std::to_string(text) + " " + std::to_string(request.seen[text]) + " tokens were to be seen; it has " +
             std::to_string(length));
  }
  for (size_t token = 0; token < request.tokens; ++token)
    if (uint32_t(request.ids[token]) >= shape.vocabulary)
      refuse("token " + std::to_string(token) + " has the id " + std::to_string(request.ids[token]) + "; the vocabulary has 0 to " +
             std::to_string(shape.vocabulary - 1));
  const uint32_t types = std::max(shape.types, 1u);
  if (request.types != nullptr)
    for (size_t token = 0; token < request.tokens; ++token)
      if (uint32_t(request.types[token]) >= types)
        refuse("token " + std::to_string(token) + " has the type " + std::to_string(request.types[token]) + "; the network has 0 to " +
               std::to_string(types - 1));
}

void Network::run(const Request& request) const {
  check(request);
  if (request.texts == 0) return;

  // Texts of like length side by side, longest first, so that the last groups to be handed out are small.
  std::vector<uint32_t> order(request.texts);
  std::iota(order.begin(), order.end(), 0u);
  const auto length = [&](uint32_t text) { return size_t(request.offsets[text + 1] - request.offsets[text]); };
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return length(a) > length(b); });
  const size_t longest = length(order.front());

  const size_t wanted = std::max<size_t>(1, request.threads);
  const size_t share = wanted > 1 ? request.tokens / (3 * wanted) : kGroupTokens;
  const size_t budget = std::min(kGroupTokens, std::max(kLeastGroupTokens, share));
  std::vector<size_t> groups{0};
  size_t tokens = 0, most_tokens = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const size_t here = length(order[i]);
    if (tokens != 0 && tokens + here > budget) {
      groups.push_back(i);
      tokens = 0;
    }
    tokens += here;
    most_tokens = std::max(most_tokens, tokens);
  }
  groups.push_back(order.size());
  const size_t group_count = groups.size() - 1;

  const size_t workers = std::min(wanted, group_count);
  std::vector<std::unique_ptr<Workspace>> workspaces;  // all memory is taken before the first thread starts
  for (size_t i = 0; i < workers; ++i) workspaces.push_back(borrow(most_tokens, longest));
  std::atomic<size_t> next{0};
  const auto work = [&](size_t worker) noexcept {
    for (size_t group; (group = next.fetch_add(1, std::memory_order_relaxed)) < group_count;)
      run_group(request, order.data() + groups[group], groups[group + 1] - groups[group], *workspaces[worker]);
  };
  run_on_threads(workers, work);
  for (auto& workspace : workspaces) give_back(std::move(workspace));
}

void Network::run_group(const Request& request, const uint32_t* texts, size_t count, Workspace& workspace) const {
  const Shape& shape = model_.shape;
  const Precision precision = model_.precision;
  const size_t width = shape.width, stride = padded(shape.width), wide = 3 * stride;
  float* const x = workspace.x;
  const Operand& operand = workspace.operand;

  const auto begin_of = [&](size_t i) { return size_t(request.offsets[texts[i]]); };
  const auto length_of = [&](size_t i) { return size_t(request.offsets[texts[i] + 1] - request.offsets[texts[i]]); };

  // ---- what enters the first layer
  size_t rows = 0;
  for (size_t i = 0; i < count; ++i) {
    for (size_t t = 0; t < length_of(i); ++t, ++rows) {
      float* row = x + rows * stride;
      const size_t token = begin_of(i) + t;
      if (request.start != nullptr) {
        std::memcpy(row, request.start + token * width, width * 4);
        std::memset(row + width, 0, (stride - width) * 4);
      } else {
        const float* type = nullptr;
        if (shape.types != 0) type = model_.type_table + size_t(request.types != nullptr ? request.types[token] : 0) * stride;
        kernels_.embed(precision, model_.word_table, model_.position_table + (shape.position_offset + t) * stride, type,
                       request.ids[token], width, x + rows * stride);
      }
    }
  }
  if (request.start != nullptr)
    kernels_.prepare(precision, x, stride, rows, stride, operand);
  else
    kernels_.add_and_norm(precision, x, nullptr, model_.embedding_norm, width, shape.norm_epsilon, rows, operand);

  // ---- the layers
  const auto attend = [&](size_t i, size_t first, const float* query, size_t row, size_t asked, float* out, size_t out_stride) {
    AttentionTask task;
    task.query = query;
    task.key = workspace.query_key_value + first * wide + stride;
    task.value = workspace.query_key_value + first * wide + 2 * stride;
    task.stride = wide;
    task.out = out;
    task.out_stride = out_stride;
    task.tokens = request.seen != nullptr ? size_t(request.seen[texts[i]]) : length_of(i);
    task.first_row = row;
    task.rows = asked;
    task.heads = shape.heads;
    task.head_width = shape.head_width();
    if (shape.relative_buckets != 0) {
      task.relative = model_.relative_by_distance.data();
      task.relative_span = model_.relative_span;
      task.relative_stride = 2 * model_.relative_span - 1 + kPanel;
    }
    task.scratch = workspace.scratch;
    kernels_.attention(precision, task);
  };
  // From the attention's answer for rows row … row + height - 1 to the layer's.
  const auto finish_rows = [&](const Layer& layer, const Operand& attended, size_t row, size_t height) {
    float* branch = workspace.branch;
    const Operand here = operand.from(row);
    kernels_.linear(precision, attended, height, layer.attention_output, 0, stride, Activation::none, branch, stride);
    kernels_.add_and_norm(precision, x + row * stride, branch, layer.attention_norm, width, shape.norm_epsilon, height, here);
    const size_t intermediate = layer.intermediate.outputs;
    kernels_.linear(precision, here, height, layer.intermediate, 0, intermediate, shape.activation, workspace.intermediate_rows,
                    intermediate);
    kernels_.prepare(precision, workspace.intermediate_rows, intermediate, height, intermediate, workspace.intermediate_operand);
    kernels_.linear(precision, workspace.intermediate_operand, height, layer.output, 0, stride, Activation::none, branch, stride);
    kernels_.add_and_norm(precision, x + row * stride, branch, layer.output_norm, width, shape.norm_epsilon, height, here);
  };

  const bool one_row = request.hidden == nullptr && (request.pooling == Pooling::cls || request.pooling == Pooling::last);
  const auto row_asked = [&](size_t i) { return request.pooling == Pooling::last ? length_of(i) - 1 : 0; };
  bool gathered = false;  // x holds one row a text
  for (size_t index = request.first_layer; index < request.end_layer; ++index) {
    const Layer& layer = model_.layers[index];
    float* const qkv = workspace.query_key_value;
    if (one_row && index + 1 == request.end_layer) {
      // Only one token's answer is asked for: the others give their keys and values, and nothing more is computed for them.
      kernels_.linear(precision, operand, rows, layer.query_key_value, stride, wide, Activation::none, qkv, wide);
      for (size_t i = 0, first = 0; i < count; first += length_of(i), ++i) {
        const size_t from = first + row_asked(i);
        if (from == i) continue;
        std::memcpy(x + i * stride, x + from * stride, stride * 4);
        if (precision == Precision::fp32) continue;  // there the operand is x itself
        std::memcpy(operand.words + i * operand.stride, operand.words + from * operand.stride, operand.stride * 4);
        operand.scale[i] = operand.scale[from];
        operand.zero[i] = operand.zero[from];
      }
      for (size_t row = 0, first = 0; row < count; row += kBlockRows) {
        const size_t height = std::min(kBlockRows, count - row);
        kernels_.linear(precision, operand.from(row), height, layer.query_key_value, 0, stride, Activation::none,
                        workspace.attended, stride);
        for (size_t i = 0; i < height; first += length_of(row + i), ++i) {
          float* query = workspace.attended + i * stride;
          attend(row + i, first, query, row_asked(row + i), 1, query, stride);
        }
        Operand attended = operand.from(row);
        if (precision == Precision::fp32) attended = {reinterpret_cast<uint32_t*>(workspace.attended), stride, nullptr, nullptr};
        kernels_.prepare(precision, workspace.attended, stride, height, stride, attended);
        finish_rows(layer, attended, row, height);
      }
      gathered = true;
      continue;
    }
    kernels_.linear(precision, operand, rows, layer.query_key_value, 0, wide, Activation::none, qkv, wide);
    for (size_t i = 0, first = 0; i < count; first += length_of(i), ++i)  // the answer takes the queries' place
      attend(i, first, qkv + first * wide, 0, length_of(i), qkv + first * wide, wide);
    for (size_t row = 0; row < rows; row += kBlockRows) {
      const size_t height = std::min(kBlockRows, rows - row);
      Operand attended = operand.from(row);
      if (precision == Precision::fp32) attended = {reinterpret_cast<uint32_t*>(qkv + row * wide), wide, nullptr, nullptr};
      kernels_.prepare(precision, qkv + row * wide, wide, height, stride, attended);
      finish_rows(layer, attended, row, height);
    }
  }

  // ---- what is asked for
  for (size_t i = 0, first = 0; i < count; first += length_of(i), ++i) {
    const size_t tokens = length_of(i);
    const float* row = x + first * stride;
    if (request.hidden != nullptr)
      for (size_t t = 0; t < tokens; ++t)
        std::memcpy(request.hidden + (begin_of(i) + t) * width, row + t * stride, width * 4);
    if (request.pooled == nullptr) continue;
    float* out = request.pooled + size_t(texts[i]) * width;
    if (request.pooling == Pooling::cls || request.pooling == Pooling::last) {
      std::memcpy(out, gathered ? x + i * stride : row + row_asked(i) * stride, width * 4);
      continue;
    }
    std::memcpy(out, row, width * 4);
    for (size_t t = 1; t < tokens; ++t) {
      const float* other = row + t * stride;
      if (request.pooling == Pooling::max) {
        for (size_t c = 0; c < width; ++c) out[c] = std::max(out[c], other[c]);
      } else {
        const float weight = request.pooling == Pooling::weighted_mean ? float(t + 1) : 1.0f;
        for (size_t c = 0; c < width; ++c) out[c] += weight * other[c];
      }
    }
    if (request.pooling == Pooling::max) continue;
    const double total = request.pooling == Pooling::weighted_mean ? double(tokens) * double(tokens + 1) / 2.0 : double(tokens);
    const float inverse = float(1.0 / total);
    for (size_t c = 0; c < width; ++c) out[c] *= inverse;
  }
}

}  // namespace twinrank
