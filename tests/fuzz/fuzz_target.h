// What a fuzz target consists of: one function over any bytes, and a few valid inputs to start
// from. The same two are linked into a libFuzzer binary (RENGA_FUZZ=ON) and into an ordinary test
// that replays the seeds with deterministic damage.
#ifndef RENGA_TESTS_FUZZ_FUZZ_TARGET_H_
#define RENGA_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// Must return 0, and neither crash nor hang nor allocate without bound, whatever the bytes are.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace renga::fuzz {

// Inputs that go far into the code under test: the target's valid cases.
std::vector<std::string> Seeds();

}  // namespace renga::fuzz

#endif  // RENGA_TESTS_FUZZ_FUZZ_TARGET_H_
