// Whole models of a few kilobytes.
#ifndef RENGA_TESTS_FUZZ_SMALL_MODEL_H_
#define RENGA_TESTS_FUZZ_SMALL_MODEL_H_

#include <string>

#include "model/testing/synthetic_model.h"

namespace renga::fuzz {

// One layer, two heads and the smallest vocabulary of the architecture.
model::SyntheticModelOptions SmallModel(const std::string& architecture, int64_t width);

// The bytes of the model's file. Aborts when it can't be made: a fuzz target is then wrong itself.
std::string ModelImage(const model::SyntheticModelOptions& options);

}  // namespace renga::fuzz

#endif  // RENGA_TESTS_FUZZ_SMALL_MODEL_H_
