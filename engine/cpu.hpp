// Which paths this CPU can run, asked of the CPU itself when the program runs.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace twinrank {

// Best first; the last is always `portable`.
std::vector<const Kernels*> available_kernels();
// The best path, or the one named; throws std::invalid_argument naming those that this CPU has.
const Kernels& choose_kernels(const std::string& name);

}  // namespace twinrank
