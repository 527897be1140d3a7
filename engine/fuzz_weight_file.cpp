// Fuzz target: whatever bytes lie in a weight file, the reader refuses them or gives a network that runs without touching
// memory that is not its own. With clang it is a libFuzzer target; with gcc a driver of its own mutates a true file.
//
// Checksums would stop nearly every mutation at the door, so they are set right after each one, every other time.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu.hpp"
#include "network.hpp"
#include "weight_file.hpp"

using namespace twinrank;

namespace {

constexpr size_t kPayloadCrcAt = 104, kHeaderCrcAt = 108;  // see Header in weight_file.cpp

Shape small_shape() {
  Shape shape;
  shape.layers = 1;
  shape.width = 20;
  shape.heads = 2;
  shape.intermediate = 24;
  shape.vocabulary = 8;
  shape.positions = 6;
  shape.types = 1;
  shape.relative_buckets = 8;
  return shape;
}

void try_bytes(std::vector<uint8_t> bytes, bool right_checksums) {
  const Shape shape = small_shape();
  const Key key{};
  for (const Precision precision : {Precision::int8, Precision::bf16, Precision::fp32}) {
    std::vector<uint8_t> file = bytes;
    if (right_checksums && file.size() >= kHeaderBytes) {
      const uint32_t payload = crc32c(file.data() + kHeaderBytes, file.size() - kHeaderBytes);
      std::memcpy(file.data() + kPayloadCrcAt, &payload, 4);
      const uint32_t header = crc32c(file.data(), kHeaderCrcAt);
      std::memcpy(file.data() + kHeaderCrcAt, &header, 4);
    }
    try {
      const size_t payload_bytes = verify_header(file.data(), file.size(), shape, precision, key);
      verify_payload(file.data(), file.data() + kHeaderBytes, payload_bytes);
      auto arena = Arena::allocate(payload_bytes);
      std::memcpy(arena->data, file.data() + kHeaderBytes, payload_bytes);
      const Model model = Model::over(shape, precision, std::move(arena));
      const int32_t ids[] = {0, 7, 3, 1, 2}, offsets[] = {0, 3, 5};
      for (const Kernels* kernels : available_kernels()) {
        Network network(model, *kernels);
        std::vector<float> pooled(2 * shape.width), hidden(5 * shape.width);
        Request request;
        request.ids = ids;
        request.offsets = offsets;
        request.texts = 2;
        request.tokens = 5;
        request.pooled = pooled.data();
        request.hidden = hidden.data();
        request.end_layer = shape.layers;
        network.run(request);
      }
    } catch (const std::runtime_error&) {
      // refused, as it should be
    }
  }
}

std::vector<uint8_t> true_file(Precision precision) {
  const Shape shape = small_shape();
  std::vector<std::vector<float>> values;
  std::vector<const float*> pointers;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const WeightSpec& spec : weight_specs(shape)) {
    values.emplace_back(spec.rows * std::max<size_t>(1, spec.columns));
    for (float& value : values.back()) value = normal(random);
    pointers.push_back(values.back().data());
  }
  char name[] = "/tmp/twinrank-fuzz-XXXXXX";
  const int descriptor = mkstemp(name);
  if (descriptor < 0) throw std::runtime_error("no temporary file");
  const std::string path = std::string(name) + ".weights";
  write_weights(path, Model::pack(shape, precision, pointers), Key{});
  std::FILE* file = std::fopen(path.c_str(), "rb");
  std::vector<uint8_t> bytes(1 << 20);
  bytes.resize(std::fread(bytes.data(), 1, bytes.size(), file));
  std::fclose(file);
  std::remove(path.c_str());
  std::remove(name);
  return bytes;
}

}  // namespace

#ifdef TWINRANK_LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const std::vector<uint8_t> seeds[] = {true_file(Precision::int8), true_file(Precision::bf16), true_file(Precision::fp32)};
  // The first byte says whether the rest is a file or a list of (place, value) changes to a true one.
  std::vector<uint8_t> bytes(data + 1, data + size);
  if (data[0] & 1) {
    bytes = seeds[(data[0] >> 1) % 3];
    for (size_t i = 1; i + 4 <= size; i += 4)
      bytes[(data[i] | size_t(data[i + 1]) << 8 | size_t(data[i + 2]) << 16) % bytes.size()] = data[i + 3];
  }
  try_bytes(bytes, data[0] & 8);
  return 0;
}
#else
int main(int count, char** arguments) {
  const long rounds = count > 1 ? std::atol(arguments[1]) : 20000;
  std::mt19937_64 random(count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 7);
  const std::vector<uint8_t> seeds[] = {true_file(Precision::int8), true_file(Precision::bf16), true_file(Precision::fp32)};
  for (const auto& seed : seeds) try_bytes(seed, false);
  for (long round = 0; round < rounds; ++round) {
    std::vector<uint8_t> bytes = seeds[random() % 3];
    const auto below = [&](size_t end) { return size_t(random() % std::max<size_t>(1, end)); };
    for (size_t change = 1 + below(8); change > 0 && !bytes.empty(); --change) {
      switch (random() % 6) {
        case 0: bytes[below(128)] = uint8_t(random()); break;                             // the header
        case 1: bytes[below(bytes.size())] ^= uint8_t(1u << random() % 8); break;         // one bit
        case 2: bytes.resize(below(bytes.size() + 100)); break;                           // torn or grown
        case 3: {                                                                         // a number that hurts
          const uint32_t numbers[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x7f800000, 0x7fc00000, 0xff800000};
          const size_t at = below(bytes.size()) & ~size_t(3);
          if (at + 4 <= bytes.size()) std::memcpy(bytes.data() + at, numbers + random() % 8, 4);
          break;
        }
        case 4: {                                                                         // a stretch of one value
          const size_t at = below(bytes.size()), length = below(std::min<size_t>(bytes.size() - at, 4096));
          std::memset(bytes.data() + at, int(random() % 3 * 127), length);
          break;
        }
        default: {                                                                        // a stretch of noise
          const size_t at = below(bytes.size()), length = below(std::min<size_t>(bytes.size() - at, 256));
          for (size_t i = at; i < at + length; ++i) bytes[i] = uint8_t(random());
        }
      }
      if (bytes.size() < 128) break;
    }
    try_bytes(std::move(bytes), random() & 1);
  }
  std::printf("%ld mutated files: every one was refused or ran\n", rounds);
  return 0;
}
#endif
