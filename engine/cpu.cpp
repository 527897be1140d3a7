// Reads the CPU's feature bits and picks the path.
#include "cpu.hpp"

#include <stdexcept>

#ifdef TWINRANK_X86
#include <cpuid.h>
#endif

namespace twinrank {
namespace {

struct Features {
  bool avx2 = false, avx_vnni = false, avx512_vnni = false, avx512_bf16 = false;
};

Features detect() {
  Features found;
#ifdef TWINRANK_X86
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return found;
  const auto bit = [](unsigned word, int at) { return (word >> at & 1u) != 0; };
  if (!bit(ecx, 27) || !bit(ecx, 28) || !bit(ecx, 12)) return found;  // OSXSAVE, AVX, FMA
  unsigned saved_low, saved_high;
  asm volatile("xgetbv" : "=a"(saved_low), "=d"(saved_high) : "c"(0));
  if ((saved_low & 0x06) != 0x06) return found;  // the system saves the 256-bit registers
  const bool wide = (saved_low & 0xe6) == 0xe6;  // and the 512-bit ones
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return found;
  const unsigned most = eax;
  found.avx2 = bit(ebx, 5);
  const bool avx512 = wide && bit(ebx, 16) && bit(ebx, 17) && bit(ebx, 30) && bit(ebx, 31);  // F, DQ, BW, VL
  found.avx512_vnni = avx512 && bit(ecx, 11);
  if (most >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) {
    found.avx_vnni = found.avx2 && bit(eax, 4);
    found.avx512_bf16 = found.avx512_vnni && bit(eax, 5);
  }
#endif
  return found;
}

}  // namespace

std::vector<const Kernels*> available_kernels() {
  const Features features = detect();
  std::vector<const Kernels*> paths;
#ifdef TWINRANK_X86
  if (features.avx512_bf16) paths.push_back(kAvx512VnniBf16);
  if (features.avx512_vnni) paths.push_back(kAvx512Vnni);
  if (features.avx_vnni) paths.push_back(kAvx2Vnni);
  if (features.avx2) paths.push_back(kAvx2);
#else
  (void)features;
#endif
  paths.push_back(kPortable);
  return paths;
}

const Kernels& choose_kernels(const std::string& name) {
  const auto paths = available_kernels();
  if (name.empty()) return *paths.front();
  std::string names;
  for (const Kernels* path : paths) {
    if (name == path->name) return *path;
    names += std::string(names.empty() ? "" : ", ") + path->name;
  }
  throw std::invalid_argument("this CPU has no path '" + name + "'; it has " + names);
}

}  // namespace twinrank
