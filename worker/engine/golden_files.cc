#include "worker/engine/golden_files.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

namespace renga::engine {
namespace {

namespace fs = std::filesystem;

constexpr char kSuffix[] = ".golden.json";

nlohmann::json ReadJson(const std::string& name) {
  std::ifstream in(fs::path(SharedDataFolder()) / "models" / (name + kSuffix));
  return nlohmann::json::parse(in);
}

std::vector<std::vector<float>> ReadLogits(const fs::path& path, size_t rows, size_t columns) {
  std::vector<std::vector<float>> logits(rows, std::vector<float>(columns));
  std::ifstream in(path, std::ios::binary);
  for (std::vector<float>& row : logits) {
    in.read(reinterpret_cast<char*>(row.data()),
            static_cast<std::streamsize>(columns * sizeof(float)));
  }
  if (!in) std::abort();
  return logits;
}

double ToleranceOf(const nlohmann::json& tensor_types) {
  double tolerance = 1e-6;
  for (const auto& [type, count] : tensor_types.items()) {
    if (type == "F32") continue;
    tolerance = std::max(tolerance, type == "F16" || type == "BF16" ? 1e-4 : 2e-3);
  }
  return tolerance;
}

}  // namespace

std::string SharedDataFolder() {
  const char* set = std::getenv("RENGA_SHARED_DATA");
  const std::string folder = set != nullptr ? set : RENGA_SOURCE_DIR "/../shared/data";
  return fs::is_directory(fs::path(folder) / "models") ? folder : "";
}

std::vector<std::string> GoldenNames() {
  std::vector<std::string> names;
  if (SharedDataFolder().empty()) return names;
  for (const auto& entry : fs::directory_iterator(fs::path(SharedDataFolder()) / "models")) {
    const std::string file = entry.path().filename().string();
    if (!file.ends_with(kSuffix)) continue;
    const std::string name = file.substr(0, file.size() - (sizeof(kSuffix) - 1));
    const std::string family = ReadJson(name).at("arch");
    if (family == "llama" || family == "qwen2" || family == "qwen3" || family == "gemma3")
      names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Golden ReadGolden(const std::string& name) {
  const nlohmann::json json = ReadJson(name);
  const fs::path folder = fs::path(SharedDataFolder()) / "models";
  Golden golden;
  golden.name = name;
  golden.model_path = (folder / json.at("file").get<std::string>()).string();
  golden.architecture = json.at("arch");
  json.at("token_ids").get_to(golden.token_ids);
  golden.logits = ReadLogits(folder / json.at("logits_file").get<std::string>(),
                             json.at("logits_shape")[0], json.at("logits_shape")[1]);
  golden.logits_std = json.at("logits_std");
  json.at("greedy").at("prompt").get_to(golden.greedy_prompt);
  json.at("greedy").at("tokens").get_to(golden.greedy_tokens);
  json.at("greedy").at("margin").get_to(golden.greedy_margins);
  golden.tolerance = ToleranceOf(json.at("tensor_types"));
  return golden;
}

double NormalisedError(const std::vector<std::vector<float>>& a,
                       const std::vector<std::vector<float>>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double error = 0;
  double norm = 0;
  for (size_t r = 0; r < b.size(); ++r) {
    if (a[r].size() != b[r].size()) return std::numeric_limits<double>::infinity();
    for (size_t c = 0; c < b[r].size(); ++c) {
      const double difference = double{a[r][c]} - b[r][c];
      error += difference * difference;
      norm += double{b[r][c]} * b[r][c];
    }
  }
  return error / norm;
}

}  // namespace renga::engine
