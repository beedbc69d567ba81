#include "coordinator/cluster/manifest.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "coordinator/cluster/model_store.h"
#include "coordinator/cluster/testing/test_model.h"
#include "gtest/gtest.h"
#include "transport/dialer.h"

namespace renga::cluster {
namespace {

using ::renga::testing::StatusIs;

class ManifestTest : public ::testing::Test {
 protected:
  // Opens the model; `hashed` says whether anything was hashed.
  std::unique_ptr<ModelStore> Open(bool& hashed) {
    hashed = false;
    return model_.Open([&hashed](int64_t, int64_t) { hashed = true; });
  }
  std::string OnlyCacheFile() {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(model_.directory() + "/cache")) {
      files.push_back(entry.path().string());
    }
    EXPECT_EQ(files.size(), 1u);
    return files.empty() ? "" : files.front();
  }

  TestModel model_;
};

TEST_F(ManifestTest, HashesEveryPieceOfEveryTensorAShardCanNeed) {
  int64_t last_done = 0;
  int64_t total = 0;
  const auto store = model_.Open([&](int64_t done_bytes, int64_t total_bytes) {
    EXPECT_GT(done_bytes, last_done);
    last_done = done_bytes;
    total = total_bytes;
  });
  EXPECT_EQ(last_done, total);
  int64_t bytes = 0;
  for (uint32_t t = 0; t < store->manifest().tensors.size(); ++t) {
    const ManifestTensor& tensor = store->manifest().tensors[t];
    int64_t tensor_bytes = 0;
    for (uint32_t p = 0; p < tensor.pieces.size(); ++p) {
      ASSERT_OK_AND_ASSIGN(const auto piece, store->PieceBytes(t, p));
      EXPECT_EQ(base::HashBytes(piece), tensor.pieces[p]) << tensor.name << " piece " << p;
      EXPECT_LE(piece.size(), static_cast<size_t>(transport::kPieceBytes));
      tensor_bytes += static_cast<int64_t>(piece.size());
    }
    EXPECT_EQ(tensor_bytes, tensor.byte_size);
    bytes += tensor_bytes;
  }
  EXPECT_EQ(bytes, total);
  EXPECT_EQ(store->manifest().tensors.back().pieces.size(), 2u) << "the output matrix";
  EXPECT_THAT(store->PieceBytes(0, 1), StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(store->PieceBytes(10000, 0), StatusIs(absl::StatusCode::kOutOfRange));
}

TEST_F(ManifestTest, ASecondStartHashesNothing) {
  bool hashed = false;
  const base::ContentHash id = Open(hashed)->manifest().model_id;
  EXPECT_TRUE(hashed);
  const auto again = Open(hashed);
  EXPECT_FALSE(hashed);
  EXPECT_EQ(again->manifest().model_id, id);
  ASSERT_OK_AND_ASSIGN(const auto piece, again->PieceBytes(3, 0));
  EXPECT_EQ(base::HashBytes(piece), again->manifest().tensors[3].pieces[0]);
}

TEST_F(ManifestTest, DamagedCachesAreNotBelieved) {
  bool hashed = false;
  const base::ContentHash id = Open(hashed)->manifest().model_id;
  const std::string path = OnlyCacheFile();
  ASSERT_OK_AND_ASSIGN(const std::string good, base::ReadFile(path));
  for (size_t at = 0; at < good.size(); at += 37) {
    std::string damaged = good;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    ASSERT_OK(base::WriteFileAtomically(path, damaged));
    EXPECT_EQ(Open(hashed)->manifest().model_id, id);
    EXPECT_TRUE(hashed) << "byte " << at;
  }
  for (const std::string& torn : {std::string(), good.substr(0, 8), good + "x"}) {
    ASSERT_OK(base::WriteFileAtomically(path, torn));
    EXPECT_EQ(Open(hashed)->manifest().model_id, id);
    EXPECT_TRUE(hashed);
  }
}

TEST_F(ManifestTest, AChangedFileIsHashedAgain) {
  bool hashed = false;
  const base::ContentHash id = Open(hashed)->manifest().model_id;
  {
    std::fstream file(model_.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-3, std::ios::end);
    file.put('x');
  }
  const auto before = std::filesystem::last_write_time(model_.path());
  std::filesystem::last_write_time(model_.path(), before + std::chrono::seconds(1));
  EXPECT_NE(Open(hashed)->manifest().model_id, id);
  EXPECT_TRUE(hashed);
}

TEST_F(ManifestTest, TheSameModelElsewhereHasTheSameId) {
  bool hashed = false;
  const base::ContentHash id = Open(hashed)->manifest().model_id;
  const std::string copy = model_.directory() + "/copy.gguf";
  std::filesystem::copy_file(model_.path(), copy);
  ASSERT_OK_AND_ASSIGN(
      const auto store,
      ModelStore::Open(copy,
                       {.cache_directory = "/proc/no/such/folder", .threads = 1, .progress = {}}));
  EXPECT_EQ(store->manifest().model_id, id) << "an unusable cache folder costs only time";
}

TEST_F(ManifestTest, ShardsNeedTheirLayersAndTheHeadItsMatrix) {
  const auto store = model_.Open();
  const auto names = [&](const model::ShardSpec& spec) {
    std::set<std::string> result;
    for (uint32_t index : store->TensorsOf(spec)) {
      result.insert(store->manifest().tensors[index].name);
    }
    return result;
  };
  const auto head = names({.layers = {}, .head_rows = {10, 20}});
  EXPECT_EQ(head, (std::set<std::string>{"output_norm.weight", "output.weight"}));
  const auto layers = names({.layers = {2, 4}, .head_rows = {}});
  EXPECT_TRUE(layers.contains("blk.2.attn_q.weight"));
  EXPECT_TRUE(layers.contains("blk.3.ffn_down.weight"));
  for (const std::string& name : layers) {
    EXPECT_TRUE(name.starts_with("blk.2.") || name.starts_with("blk.3.")) << name;
  }
  EXPECT_EQ(names({.layers = {}, .head_rows = {}, .embedding = true}),
            (std::set<std::string>{"token_embd.weight"}));
  const model::ShardSpec everything = {.layers = {0, 6}, .head_rows = {0, 2100}, .embedding = true};
  EXPECT_EQ(store->TensorsOf(everything).size(), store->manifest().tensors.size());
}

}  // namespace
}  // namespace renga::cluster
