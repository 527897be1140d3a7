// Runs the portable path on numbers that follow from a seed and prints what came out, to compare one kind of CPU with another.
//
//   zig c++ -target aarch64-linux-musl -std=c++17 -O3 -ffp-contract=off engine/selfcheck.cpp engine/{cpu,maxsim,model,network,scan,path_portable}.cpp
//
// The scan and MaxSim give the same bits everywhere; the network's sums round differently where multiply-adds are fused.
#include <cstdio>
#include <random>
#include <vector>

#include "cpu.hpp"
#include "maxsim.hpp"
#include "network.hpp"
#include "scan.hpp"

using namespace twinrank;

namespace {

std::mt19937 generator(7);
float uniform() { return float(generator() >> 8) / float(1 << 23) - 1.0f; }
std::vector<float> floats(size_t count, float size) {
  std::vector<float> values(count);
  for (float& value : values) value = size * uniform();
  return values;
}

void run_network(Precision precision, const char* name) {
  Shape shape;
  shape.layers = 2;
  shape.width = 96;
  shape.heads = 4;
  shape.intermediate = 200;
  shape.vocabulary = 50;
  shape.positions = 40;
  shape.types = 2;
  generator.seed(7);
  std::vector<std::vector<float>> weights;
  std::vector<const float*> pointers;
  for (const WeightSpec& spec : weight_specs(shape)) {
    weights.push_back(floats(spec.rows * (spec.columns == 0 ? 1 : spec.columns), spec.columns == 0 ? 1.0f : 0.2f));
    pointers.push_back(weights.back().data());
  }
  const Network network(Model::pack(shape, precision, pointers), *kPortable);
  std::vector<int32_t> ids(33), offsets{0, 5, 33};
  for (int32_t& id : ids) id = int32_t(generator() % 50);
  std::vector<float> pooled(2 * shape.width);
  Request request;
  request.ids = ids.data();
  request.offsets = offsets.data();
  request.texts = 2;
  request.tokens = ids.size();
  request.pooled = pooled.data();
  request.end_layer = shape.layers;
  request.threads = 2;
  network.run(request);
  std::printf("%s:", name);
  for (size_t i = 0; i < pooled.size(); i += 31) std::printf(" %.5f", double(pooled[i]));
  std::printf("\n");
}

void run_scan_and_maxsim() {
  generator.seed(9);
  constexpr size_t kRows = 5000, kWidth = 100;
  std::vector<int8_t> codes(kRows * kWidth), parts(2 * kWidth);
  for (int8_t& code : codes) code = int8_t(generator() & 255);
  for (int8_t& part : parts) part = int8_t(generator() & 255);
  std::vector<float> scales = floats(kRows, 1.0f), errors(kRows, 0.5f), part_scales{1.0f, 0.01f};
  ScanRequest scanned;
  scanned.codes = codes.data();
  scanned.scales = scales.data();
  scanned.errors = errors.data();
  scanned.count = kRows;
  scanned.dimension = kWidth;
  scanned.parts = parts.data();
  scanned.part_scales = part_scales.data();
  scanned.part_count = 2;
  scanned.factor = 100.0;
  scanned.k = 5;
  const ScanResult found = scan(*kPortable, scanned);
  std::printf("scan: %zu rows,", found.rows.size());
  for (size_t i = 0; i < found.rows.size() && i < 5; ++i) std::printf(" %lld %a", (long long)found.rows[i], double(found.scores[i]));
  std::printf("\n");

  const std::vector<float> query = floats(7 * kWidth, 1.0f);
  const std::vector<int64_t> offsets{0, 30, 31, 200};
  std::vector<float> scores(3);
  MaxSimRequest request;
  request.query = query.data();
  request.query_tokens = 7;
  request.width = kWidth;
  request.parts = {{reinterpret_cast<const uint8_t*>(codes.data()), scales.data(), offsets.data(), 3}};
  request.scores = scores.data();
  maxsim(*kPortable, request);
  std::printf("maxsim: %a %a %a\n", double(scores[0]), double(scores[1]), double(scores[2]));
}

}  // namespace

int main() {
  run_network(Precision::int8, "int8");
  run_network(Precision::bf16, "bf16");
  run_network(Precision::fp32, "fp32");
  run_scan_and_maxsim();
}
