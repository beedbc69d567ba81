// A small model on disk and its ModelStore, for tests of the coordinator.
#ifndef RENGA_COORDINATOR_CLUSTER_TESTING_TEST_MODEL_H_
#define RENGA_COORDINATOR_CLUSTER_TESTING_TEST_MODEL_H_

#include <memory>
#include <string>

#include "coordinator/cluster/model_store.h"

namespace renga::cluster {

// A folder of its own, with everything removed at the end.
class TestModel {
 public:
  // 6 layers of d_model 128, a vocabulary of 2100 rows: 4.5 MiB in float32, the output matrix in
  // two pieces.
  TestModel();
  ~TestModel();
  TestModel(const TestModel&) = delete;
  TestModel& operator=(const TestModel&) = delete;

  const std::string& directory() const { return directory_; }
  const std::string& path() const { return path_; }
  // Opens it, with its hashes kept in `cache` under the directory.
  std::unique_ptr<ModelStore> Open(HashProgress progress = nullptr) const;

 private:
  std::string directory_;
  std::string path_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_TESTING_TEST_MODEL_H_
