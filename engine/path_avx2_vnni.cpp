// The path avx2-vnni: Alder Lake and its successors, whose AVX-512 is switched off.
#define TWINRANK_VNNI 1
#include "path_avx2.hpp"

#include "kernels_impl.hpp"
#include "maxsim_impl.hpp"
#include "scan_impl.hpp"

namespace twinrank {
namespace {
const Kernels kTable = {
    "avx2-vnni", "vpdpbusd, 256 bits", kLanes, DotInt8::kLeftWords,
    linear, prepare, add_and_norm, embed, attention, spin,
    scan_prepare, scan_block, maxsim_prepare, maxsim_tokens};
}  // namespace
const Kernels* const kAvx2Vnni = &kTable;
}  // namespace twinrank
