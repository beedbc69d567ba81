// Shards that are larger than their budget give the bits of a resident one, and go on after
// whatever happens to their files.
#include "worker/engine/residency.h"

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/direct_file.h"
#include "base/status_macros.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "model/embedding.h"
#include "model/testing/synthetic_model.h"
#include "worker/engine/local_weights.h"
#include "worker/kernels/backend_factory.h"

namespace renga::engine {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kEverything = int64_t{1} << 30;

// A disk of packed matrices in memory, with faults.
class FakeDisk : public WeightSource {
 public:
  explicit FakeDisk(WeightSource* file) : file_(file) {}

  absl::StatusOr<base::DataType> TensorType(const std::string& name) override {
    return file_->TensorType(name);
  }
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override {
    RENGA_RETURN_IF_ERROR(source_failure);
    source_bytes += static_cast<int64_t>(out.size());
    return file_->Read(name, offset, out);
  }
  std::unique_ptr<PackedFile> OpenPacked(const MatrixKey& key, int64_t bytes) override {
    const auto found = kept_.find(NameOf(key));
    if (found == kept_.end()) return nullptr;
    EXPECT_EQ(static_cast<int64_t>(found->second->bytes.size()), bytes);
    return std::make_unique<File>(this, found->second);
  }
  absl::Status KeepPacked(const MatrixKey& key, std::span<const std::byte> bytes) override {
    RENGA_RETURN_IF_ERROR(disk_failure);
    auto& kept = kept_[NameOf(key)];
    kept = std::make_shared<Kept>();
    kept->bytes.assign(bytes.begin(), bytes.end());
    kept_bytes += static_cast<int64_t>(bytes.size());
    return absl::OkStatus();
  }

  // The n-th read from now on (0: the next) and those after it get this, `times` of them.
  void FailReads(int n, int times, absl::Status status) {
    failure_ = std::move(status);
    reads_until_failure_ = n;
    failures_left_ = times;
  }
  void DamageEverything() {
    for (auto& [name, kept] : kept_) kept->damaged = true;
  }
  size_t files() const { return kept_.size(); }

  std::atomic<int64_t> streamed_bytes = 0;
  std::atomic<int64_t> source_bytes = 0;
  int64_t kept_bytes = 0;
  absl::Duration delay;
  absl::Status source_failure;
  absl::Status disk_failure;

 private:
  struct Kept {
    std::vector<std::byte> bytes;
    std::atomic<bool> damaged = false;
  };
  class File : public PackedFile {
   public:
    File(FakeDisk* disk, std::shared_ptr<Kept> kept) : disk_(disk), kept_(std::move(kept)) {}
    absl::Status Read(std::span<std::byte> room) override {
      absl::SleepFor(disk_->delay);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(room.data()) % base::kDirectAlignment, 0);
      EXPECT_GE(room.size(), kept_->bytes.size());
      // As of a read that stopped halfway.
      const bool fails = disk_->Fails();
      std::memset(room.data(), 0x55, room.size());
      if (fails) return disk_->failure_;
      if (kept_->damaged) return absl::DataLossError("the packed matrix is damaged");
      std::memcpy(room.data(), kept_->bytes.data(), kept_->bytes.size());
      disk_->streamed_bytes += static_cast<int64_t>(kept_->bytes.size());
      return absl::OkStatus();
    }
    absl::StatusOr<kernels::PackedBytes> Hold() override {
      absl::SleepFor(disk_->delay);
      if (disk_->Fails()) return disk_->failure_;
      if (kept_->damaged) return absl::DataLossError("the packed matrix is damaged");
      return kernels::PackedBytes{.bytes = kept_->bytes, .owner = kept_};
    }

   private:
    FakeDisk* const disk_;
    const std::shared_ptr<Kept> kept_;
  };

  static std::string NameOf(const MatrixKey& key) {
    return absl::StrCat(key.tensor, " ", key.rows.begin, " ", key.rows.end);
  }
  bool Fails() {
    if (reads_until_failure_.fetch_sub(1) > 0) return false;
    return failures_left_.fetch_sub(1) > 0;
  }

  WeightSource* const file_;
  std::map<std::string, std::shared_ptr<Kept>> kept_;
  absl::Status failure_;
  std::atomic<int> reads_until_failure_ = 1 << 30;
  std::atomic<int> failures_left_ = 0;
};

class ResidencyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string path = absl::StrCat(renga::testing::NewTempFolder(), "/model.gguf");
    ASSERT_OK(model::WriteSyntheticModel(
        path, {.n_layers = 6, .d_ff = 768, .type = base::DataType::kQ8_0, .seed = 5}));
    ASSERT_OK_AND_ASSIGN(file_, model::GgufFile::Open(path));
    ASSERT_OK_AND_ASSIGN(model_, model::ReadModel(*file_));
    ASSERT_OK_AND_ASSIGN(weights_, LocalWeights::Create(file_.get()));
    ASSERT_OK_AND_ASSIGN(backend_, kernels::CreateBackend({.device = "cpu", .threads = 2}));
    disk_ = std::make_unique<FakeDisk>(weights_.get());
    whole_ = {.layers = {0, model_.config.n_layers}, .head_rows = {0, model_.config.vocab_size}};
    MemoryBudget plenty(kEverything);
    ASSERT_OK_AND_ASSIGN(auto eager, Shard::Load(model_, whole_, limits_, backend_.get(), &plenty,
                                                 weights_.get(), nullptr));
    whole_bytes_ = eager->memory_bytes();
    for (const HeldMatrix& matrix : eager->newly_packed()) layer_bytes_ += matrix.bytes.size();
    layer_bytes_ -= eager->newly_packed().back().bytes.size();  // the head
    ASSERT_OK_AND_ASSIGN(expected_, Feed(*eager));
  }

  // A lazy shard whose layers have this part of their bytes.
  absl::StatusOr<std::unique_ptr<Shard>> Load(int percent, LoadProgress progress = nullptr) {
    budgets_.push_back(std::make_unique<MemoryBudget>(
        whole_bytes_ - layer_bytes_ * (100 - percent) / 100 + int64_t{64} * 1024));  // whole pages
    budget_ = budgets_.back().get();
    return Shard::Load(model_, whole_, limits_, backend_.get(), budget_, disk_.get(), progress,
                       LoadMode::kLazy);
  }

  // Two sequences in chunks and then token by token, side by side; the bits of all logits.
  absl::StatusOr<std::vector<float>> Feed(Shard& shard) {
    shard.ResetSequences();
    std::vector<float> all;
    int64_t position = 0;
    for (const int64_t count : {7, 16, 1, 1, 3, 1}) {
      RENGA_RETURN_IF_ERROR(Step(shard, position, count, all));
      position += count;
    }
    return all;
  }

  absl::Status Step(Shard& shard, int64_t position, int64_t count, std::vector<float>& all) {
    model::Step step;
    std::vector<int32_t> tokens;
    for (const model::SequenceId id : {1, 2}) {
      if (position == 0) {
        step.commands.push_back({.kind = model::KvCommand::Kind::kAppendBlocks,
                                 .sequence = id,
                                 .blocks = {static_cast<int32_t>(id)}});
      }
      step.slots.push_back({.sequence = id,
                            .first_position = position,
                            .token_count = count,
                            .output_count = 1,
                            .top_k = 0});
      for (int64_t i = 0; i < count; ++i) {
        tokens.push_back(
            static_cast<int32_t>((position + i) * 31 * static_cast<int64_t>(id) % 500));
      }
    }
    RENGA_ASSIGN_OR_RETURN(const auto table, model::EmbeddingTable::Create(*file_, model_.config));
    RENGA_ASSIGN_OR_RETURN(std::vector<float> rows, table.Rows(tokens));
    RENGA_RETURN_IF_ERROR(shard.RunLayers(step, rows, nullptr));
    RENGA_ASSIGN_OR_RETURN(const auto answers,
                           shard.RunHead(step, GatherOutputs(step, rows, model_.config.d_model)));
    for (const model::HeadRow& row : answers) {
      all.insert(all.end(), row.logits.begin(), row.logits.end());
    }
    return absl::OkStatus();
  }

  void ExpectSameBits(Shard& shard) {
    ASSERT_OK_AND_ASSIGN(const std::vector<float> actual, Feed(shard));
    ASSERT_EQ(actual.size(), expected_.size());
    ASSERT_EQ(std::memcmp(actual.data(), expected_.data(), actual.size() * sizeof(float)), 0);
  }

  std::unique_ptr<model::GgufFile> file_;
  model::Model model_;
  std::unique_ptr<LocalWeights> weights_;
  std::unique_ptr<kernels::Backend> backend_;
  std::unique_ptr<FakeDisk> disk_;
  std::vector<std::unique_ptr<MemoryBudget>> budgets_;  // as long as the shards
  MemoryBudget* budget_ = nullptr;                      // the last
  model::ShardSpec whole_;
  model::RuntimeLimits limits_ = {.kv_blocks = 4,
                                  .max_step_tokens = 64,
                                  .max_step_outputs = 4,
                                  .kv_type = base::DataType::kF16};
  int64_t whole_bytes_ = 0;
  int64_t layer_bytes_ = 0;
  std::vector<float> expected_;
};

TEST_F(ResidencyTest, SameBitsWhateverIsInMemory) {
  for (const int percent : {100, 75, 50, 30}) {
    SCOPED_TRACE(percent);
    ASSERT_OK_AND_ASSIGN(auto shard, Load(percent));
    EXPECT_LE(shard->memory_bytes(), budget_->total_bytes());
    const ResidencyReport report = shard->residency();
    EXPECT_EQ(report.streamed > 0, percent < 100);
    EXPECT_LE(report.pinned, layer_bytes_ * percent / 100 + 64 * 1024);
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    EXPECT_EQ(shard->residency().pinned_now, report.pinned);
    // Twelve steps and what was read ahead of the thirteenth; only what is streamed.
    if (percent < 100) {
      EXPECT_GE(disk_->streamed_bytes, 12 * (report.streamed * 98 / 100));
      EXPECT_LE(disk_->streamed_bytes, 13 * report.streamed);
    }
    disk_->streamed_bytes = 0;
  }
}

TEST_F(ResidencyTest, PacksOnceOneMatrixAfterTheOther) {
  int64_t done = 0;
  int64_t total = 0;
  const auto progress = [&](int64_t d, int64_t t) {
    done = d;
    total = t;
    return true;
  };
  ASSERT_OK_AND_ASSIGN(auto shard, Load(30, progress));
  EXPECT_EQ(done, total);
  // What is streamed was kept; what is pinned is packed when it is needed, and kept by the caller.
  EXPECT_GE(disk_->kept_bytes, shard->residency().streamed * 98 / 100);
  EXPECT_LE(disk_->kept_bytes, shard->residency().streamed);
  EXPECT_EQ(shard->residency().pinned_now, 0);
  ASSERT_OK_AND_ASSIGN(bool more, shard->LoadMore());
  EXPECT_TRUE(more);
  EXPECT_GT(shard->residency().pinned_now, 0);
  EXPECT_LT(shard->residency().pinned_now, shard->residency().pinned);
  while (more) {
    ASSERT_OK_AND_ASSIGN(more, shard->LoadMore());
  }
  EXPECT_EQ(shard->residency().pinned_now, shard->residency().pinned);
  for (const HeldMatrix& matrix : shard->newly_packed()) {
    ASSERT_OK(disk_->KeepPacked(matrix.key, matrix.bytes));
  }
  EXPECT_EQ(disk_->files(), 7 * static_cast<size_t>(model_.config.n_layers) + 1);
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  shard.reset();

  const int64_t read = disk_->source_bytes;
  ASSERT_OK_AND_ASSIGN(shard, Load(50));
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  // Norms, and the head, which is not a lazy one's.
  EXPECT_LT(disk_->source_bytes - read, layer_bytes_ / 4);
}

TEST_F(ResidencyTest, AnswersBeforeAllIsThere) {
  ASSERT_OK_AND_ASSIGN(auto shard, Load(100));
  // Norms and the head.
  EXPECT_LT(disk_->source_bytes, whole_bytes_ / 4);
  EXPECT_EQ(shard->residency().pinned_now, 0);
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  EXPECT_EQ(shard->residency().pinned_now, shard->residency().pinned);
  ASSERT_OK_AND_ASSIGN(const bool more, shard->LoadMore());
  EXPECT_FALSE(more);
  for (const HeldMatrix& matrix : shard->newly_packed()) {
    ASSERT_OK(disk_->KeepPacked(matrix.key, matrix.bytes));
  }
  // From a slow disk, one bundle after the other.
  disk_->delay = absl::Milliseconds(5);
  ASSERT_OK_AND_ASSIGN(shard, Load(100));
  EXPECT_LT(shard->residency().pinned_now, shard->residency().pinned);
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
}

TEST_F(ResidencyTest, AReadThatFailsOnceIsTriedAgain) {
  for (const int n : {0, 3, 20}) {
    ASSERT_OK_AND_ASSIGN(auto shard, Load(50));
    const int64_t kept = disk_->kept_bytes;
    disk_->FailReads(n, 2, absl::UnavailableError("the disk stumbles"));
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    EXPECT_EQ(disk_->kept_bytes, kept);
  }
}

TEST_F(ResidencyTest, DamagedAndCutFilesArePackedAgain) {
  for (const absl::StatusCode code :
       {absl::StatusCode::kDataLoss, absl::StatusCode::kOutOfRange, absl::StatusCode::kNotFound}) {
    for (const int n : {0, 5, 30}) {
      ASSERT_OK_AND_ASSIGN(auto shard, Load(50));
      const int64_t kept = disk_->kept_bytes;
      disk_->FailReads(n, 1, absl::Status(code, "injected"));
      ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
      EXPECT_LE(shard->residency().pinned_now, shard->residency().pinned);
      if (shard->residency().pinned_now == 0) {
        EXPECT_GT(disk_->kept_bytes, kept);
      }
    }
  }
}

TEST_F(ResidencyTest, EveryFileDamaged) {
  ASSERT_OK_AND_ASSIGN(auto shard, Load(30));
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  disk_->DamageEverything();
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
}

TEST_F(ResidencyTest, EndsTheStepWhenNothingHelpsAndGoesOnLater) {
  ASSERT_OK_AND_ASSIGN(auto shard, Load(50));
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  disk_->DamageEverything();
  disk_->source_failure = absl::UnavailableError("the coordinator is gone");
  EXPECT_THAT(Feed(*shard), StatusIs(absl::StatusCode::kUnavailable,
                                     ::testing::AllOf(HasSubstr("damaged"),
                                                      HasSubstr("the coordinator is gone"))));
  disk_->source_failure = absl::OkStatus();
  disk_->disk_failure = absl::ResourceExhaustedError("the disk is full");
  EXPECT_THAT(Feed(*shard),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("the disk is full")));
  disk_->disk_failure = absl::OkStatus();
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  disk_->FailReads(0, 1 << 20, absl::UnavailableError("the disk broke"));
  EXPECT_THAT(Feed(*shard), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("the disk broke")));
  disk_->FailReads(1 << 30, 0, absl::OkStatus());
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
}

TEST_F(ResidencyTest, RefusesWhatCannotWork) {
  EXPECT_THAT(Load(3), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("a layer")));
  EXPECT_EQ(budget_->used_bytes(), 0);
  disk_->disk_failure = absl::ResourceExhaustedError("the disk is full");
  EXPECT_THAT(Load(50), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("place on disk")));
  EXPECT_EQ(budget_->used_bytes(), 0);
  ASSERT_OK_AND_ASSIGN(backend_, kernels::CreateBackend({.device = "reference"}));
  EXPECT_THAT(Load(100), StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("--lazy")));
}

TEST_F(ResidencyTest, CanBeCancelledWhilePacking) {
  EXPECT_THAT(Load(50, [](int64_t, int64_t) { return false; }),
              StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace renga::engine
