#include "coordinator/cluster/testing/test_model.h"

#include <cstdlib>
#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "gtest/gtest.h"
#include "model/testing/synthetic_model.h"

namespace renga::cluster {

TestModel::TestModel() {
  directory_ = testing::NewTempFolder();
  path_ = directory_ + "/model.gguf";
  model::SyntheticModelOptions options;
  options.n_layers = 6;
  options.d_model = 128;
  options.d_ff = 256;
  options.vocab_size = 2100;
  EXPECT_OK(model::WriteSyntheticModel(path_, options));
}

TestModel::~TestModel() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

std::unique_ptr<ModelStore> TestModel::Open(HashProgress progress) const {
  absl::StatusOr<std::unique_ptr<ModelStore>> store = ModelStore::Open(
      path_,
      {.cache_directory = directory_ + "/cache", .threads = 2, .progress = std::move(progress)});
  EXPECT_OK(store);
  return store.ok() ? *std::move(store) : nullptr;
}

}  // namespace renga::cluster
