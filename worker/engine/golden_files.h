// The shared golden models and what they must answer, for tests.
#ifndef RENGA_WORKER_ENGINE_GOLDEN_FILES_H_
#define RENGA_WORKER_ENGINE_GOLDEN_FILES_H_

#include <cstdint>
#include <string>
#include <vector>

namespace renga::engine {

struct Golden {
  std::string name;        // "llama-gqa-q4_k"
  std::string model_path;  // of the GGUF file
  std::string architecture;
  std::vector<int32_t> token_ids;
  std::vector<std::vector<float>> logits;  // one row per token
  double logits_std = 0;
  std::vector<int32_t> greedy_prompt;
  std::vector<int32_t> greedy_tokens;
  std::vector<double> greedy_margins;
  double tolerance = 0;  // of the normalised mean squared error, by the type of the weights
};

// The folder of shared test data: $RENGA_SHARED_DATA, or beside the checkout. Empty when absent.
std::string SharedDataFolder();

// Names of the golden models of families renga knows; empty when the data is absent.
std::vector<std::string> GoldenNames();

// Reads one; the process ends when the file is there but damaged.
Golden ReadGolden(const std::string& name);

// sum((a - b)^2) / sum(b^2) over all rows.
double NormalisedError(const std::vector<std::vector<float>>& a,
                       const std::vector<std::vector<float>>& b);

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_GOLDEN_FILES_H_
