// The path avx2: Haswell and Zen 1 on.
#include "path_avx2.hpp"

#include "kernels_impl.hpp"
#include "maxsim_impl.hpp"
#include "scan_impl.hpp"

namespace twinrank {
namespace {
const Kernels kTable = {
    "avx2", "vpmaddwd, 256 bits", kLanes, DotInt8::kLeftWords,
    linear, prepare, add_and_norm, embed, attention, spin,
    scan_prepare, scan_block, maxsim_prepare, maxsim_tokens};
}  // namespace
const Kernels* const kAvx2 = &kTable;
}  // namespace twinrank
