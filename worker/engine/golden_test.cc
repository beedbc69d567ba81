// Every golden model of the families renga knows, against logits it did not compute itself.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <tuple>

#include "base/testing/status_matchers.h"
#include "base/testing/tested_cards.h"
#include "worker/engine/golden_files.h"
#include "worker/engine/test_pipeline.h"

namespace renga::engine {
namespace {

bool IsAvailable(const std::string& device) {
  const std::vector<std::string> devices = kernels::AvailableDevices();
  if (device == "reference" || kernels::IsCard(device)) return true;
#if RENGA_EMULATED_CUDA
  if (device.starts_with("emulated-cuda")) return true;
#endif
  return std::any_of(devices.begin(), devices.end(), [&](const std::string& available) {
    return available == device || (device == "cpu" && available.starts_with("cpu"));
  });
}

// How many greedy tokens count: up to the first step that the tolerance may decide.
size_t ComparableSteps(const Golden& golden) {
  const double least = 6 * std::sqrt(golden.tolerance) * golden.logits_std;
  size_t steps = 0;
  while (steps < golden.greedy_tokens.size() && golden.greedy_margins[steps] >= least) ++steps;
  return steps;
}

void CheckGolden(const Golden& golden, const PipelineOptions& options) {
  ASSERT_OK_AND_ASSIGN(auto pipeline, TestPipeline::Create(golden.model_path, options));
  ASSERT_OK_AND_ASSIGN(const auto logits, pipeline->Feed(1, golden.token_ids, 256));
  const double error = NormalisedError(logits, golden.logits);
  EXPECT_LE(error, golden.tolerance);
  std::printf("%s on %s, KV %s: NMSE %.2e\n", golden.name.c_str(), options.device.c_str(),
              base::GetDataTypeInfo(options.limits.kv_type).name.data(), error);

  const std::vector<int32_t>& prompt = golden.greedy_prompt;
  const size_t steps = ComparableSteps(golden);
  if (prompt.size() > 1) {
    ASSERT_OK(pipeline->Feed(2, std::span(prompt).first(prompt.size() - 1), 256));
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> tokens,
                       pipeline->Greedy(2, prompt.back(), static_cast<int>(steps)));
  EXPECT_EQ(tokens, std::vector<int32_t>(golden.greedy_tokens.begin(),
                                         golden.greedy_tokens.begin() + steps));
}

// (golden name, device, KV type)
using Case = std::tuple<std::string, std::string, base::DataType>;

class GoldenTest : public ::testing::TestWithParam<Case> {};

TEST_P(GoldenTest, LogitsAndGreedyTokens) {
  const auto& [name, device, kv_type] = GetParam();
  if (!IsAvailable(device)) GTEST_SKIP() << "this machine cannot run " << device;
  PipelineOptions options{.device = device};
  options.limits.kv_type = kv_type;
  CheckGolden(ReadGolden(name), options);
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const std::string& name : GoldenNames()) {
    for (const std::string device : {"cpu", "reference"}) {
      cases.emplace_back(name, device, base::DataType::kF32);
      cases.emplace_back(name, device, base::DataType::kF16);
    }
  }
  if (SharedDataFolder().empty()) return cases;
  // The card's kernels, on an imitated card: every model once, where that is not too slow.
  for (const std::string& name : GoldenNames()) {
#if defined(__SANITIZE_ADDRESS__)
    if (name != "llama-gqa-q6_k") continue;
#endif
    cases.emplace_back(name, "emulated-cuda", base::DataType::kF16);
  }
  cases.emplace_back("llama-gqa-q4_k", "emulated-cuda", base::DataType::kF32);
  cases.emplace_back("llama-gqa-q4_k", "emulated-cuda-mma", base::DataType::kF16);
  cases.emplace_back("llama-gqa-q8_0", "emulated-cuda-mma", base::DataType::kF16);
  cases.emplace_back("llama-gqa-f16", "emulated-cuda-half", base::DataType::kF16);
  for (const std::string& card : testing::TestedCards()) {
    for (const std::string& name : GoldenNames()) {
      cases.emplace_back(name, card, base::DataType::kF16);
    }
    cases.emplace_back("llama-gqa-q4_k", card, base::DataType::kF32);
    cases.emplace_back("llama-gqa-q6_k", card, base::DataType::kQ8_0);
  }
  // The cache's rounding counts among the weights' and activations'.
  for (const std::string device : {"cpu", "reference"}) {
    cases.emplace_back("llama-gqa-q6_k", device, base::DataType::kQ8_0);
    cases.emplace_back("llama-gqa-q4_0", device, base::DataType::kQ8_0);
  }
  cases.emplace_back("llama-gqa-q6_k", "emulated-cuda", base::DataType::kQ8_0);
  for (const std::string& device : kernels::AvailableDevices()) {
    if (device == "cpu" || device == "reference") continue;
    cases.emplace_back("llama-gqa-q6_k", device, base::DataType::kF32);
    cases.emplace_back("story-f32", device, base::DataType::kF16);
  }
  return cases;
}

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  const auto& [name, device, kv_type] = info.param;
  std::string text = name + "_" + device + "_" + std::string(base::GetDataTypeInfo(kv_type).name);
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '-' || c == ':'; }, '_');
  return text;
}

INSTANTIATE_TEST_SUITE_P(Shared, GoldenTest, ::testing::ValuesIn(Cases()), CaseName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenTest);

TEST(GoldenDataTest, IsThere) {
  if (SharedDataFolder().empty()) GTEST_SKIP() << "the shared golden models are not here";
  EXPECT_GE(GoldenNames().size(), 18u);
}

}  // namespace
}  // namespace renga::engine
