// The path avx512-vnni-bf16: server CPUs from Cooper Lake and Zen 4 on.
#define TWINRANK_BF16 1
#include "path_avx512.hpp"

#include "kernels_impl.hpp"
#include "maxsim_impl.hpp"
#include "scan_impl.hpp"

namespace twinrank {
namespace {
const Kernels kTable = {
    "avx512-vnni-bf16", "vpdpbusd, 512 bits", kLanes, DotInt8::kLeftWords,
    linear, prepare, add_and_norm, embed, attention, spin,
    scan_prepare, scan_block, maxsim_prepare, maxsim_tokens};
}  // namespace
const Kernels* const kAvx512VnniBf16 = &kTable;
}  // namespace twinrank
