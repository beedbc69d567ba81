// Which real cards tests run on: none, unless the environment names some. deploy/gpu-check does.
#ifndef RENGA_BASE_TESTING_TESTED_CARDS_H_
#define RENGA_BASE_TESTING_TESTED_CARDS_H_

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"

namespace renga::testing {

// The names of devices in $RENGA_TEST_CARDS, apart by commas: "cuda-dp4a,cuda-mma".
inline std::vector<std::string> TestedCards() {
  const char* names = std::getenv("RENGA_TEST_CARDS");
  if (names == nullptr) return {};
  return absl::StrSplit(names, ',', absl::SkipEmpty());
}

}  // namespace renga::testing

#endif  // RENGA_BASE_TESTING_TESTED_CARDS_H_
