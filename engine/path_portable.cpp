// The path portable: any CPU; plain C++ that compilers turn into SSE2, NEON or whatever is there.
#include "path_portable.hpp"

#include "kernels_impl.hpp"
#include "maxsim_impl.hpp"
#include "scan_impl.hpp"

namespace twinrank {
namespace {
const Kernels kTable = {
    "portable", "none", kLanes, DotInt8::kLeftWords,
    linear, prepare, add_and_norm, embed, attention, spin,
    scan_prepare, scan_block, maxsim_prepare, maxsim_tokens};
}  // namespace
const Kernels* const kPortable = &kTable;
}  // namespace twinrank
