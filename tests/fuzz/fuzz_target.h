// What a fuzz target consists of: one function over any bytes, and a few valid inputs to start
// from. The same two are linked into a libFuzzer binary (RENGA_FUZZ=ON) and into an ordinary test
// that replays the seeds with deterministic damage.
#ifndef RENGA_TESTS_FUZZ_FUZZ_TARGET_H_
#define RENGA_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

// Must return 0, and neither crash nor hang nor allocate without bound, whatever the bytes are.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace renga::fuzz {

// Inputs that go far into the code under test: the target's valid cases.
std::vector<std::string> Seeds();

// Ends the process, naming the caller's line, when what must hold for every input does not.
inline void Require(bool condition, const char* file = __builtin_FILE(),
                    int line = __builtin_LINE()) {
  if (condition) return;
  std::fprintf(stderr, "%s:%d: what must hold for every input does not hold for this one\n", file,
               line);
  std::abort();
}

}  // namespace renga::fuzz

#endif  // RENGA_TESTS_FUZZ_FUZZ_TARGET_H_
