// Linked into every libFuzzer binary: writes the target's seeds into the folder that the
// environment variable RENGA_FUZZ_SEEDS names, before libFuzzer reads its corpus.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const char* folder = std::getenv("RENGA_FUZZ_SEEDS");
  if (folder == nullptr) return 0;
  std::filesystem::create_directories(folder);
  int number = 0;
  for (const std::string& seed : renga::fuzz::Seeds()) {
    const auto path = std::filesystem::path(folder) / ("seed-" + std::to_string(number++));
    std::ofstream(path, std::ios::binary) << seed;
  }
  return 0;
}
