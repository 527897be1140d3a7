// Work spread over threads that live for one call.
#pragma once

#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

namespace twinrank {

// Calls work(0) on this thread and work(1) … work(workers - 1) on others, and waits for all. `work` must not throw, and must
// do everything also where the system gives fewer threads: it takes what there is to do from a counter.
template <class Work>
void run_on_threads(size_t workers, const Work& work) {
  std::vector<std::thread> threads;
  threads.reserve(workers);
  for (size_t i = 1; i < workers; ++i) {
    try {
      threads.emplace_back(work, i);
    } catch (const std::system_error&) {
      break;  // the system gives no more threads: those that are there do the work
    }
  }
  work(0);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace twinrank
