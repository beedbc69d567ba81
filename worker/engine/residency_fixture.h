// Shards larger than their budget over a disk that tests command.
#ifndef RENGA_WORKER_ENGINE_RESIDENCY_FIXTURE_H_
#define RENGA_WORKER_ENGINE_RESIDENCY_FIXTURE_H_

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/direct_file.h"
#include "base/status_macros.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "model/embedding.h"
#include "model/testing/synthetic_model.h"
#include "worker/engine/local_weights.h"
#include "worker/engine/residency.h"
#include "worker/kernels/backend_factory.h"

namespace renga::engine {

// A disk of packed matrices in memory, with faults.
class FakeDisk : public WeightSource {
 public:
  explicit FakeDisk(WeightSource* file) : file_(file) {}

  absl::StatusOr<base::DataType> TensorType(const std::string& name) override {
    return file_->TensorType(name);
  }
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override {
    if (before_source_read) before_source_read(name);
    RENGA_RETURN_IF_ERROR(source_failure);
    source_bytes += static_cast<int64_t>(out.size());
    return file_->Read(name, offset, out);
  }
  bool IsAtHand() const override { return at_hand; }
  void Expect(std::span<const MatrixKey> next) override {
    expected.emplace_back(next.begin(), next.end());
  }
  absl::Status PlanToKeep(int64_t bytes) override {
    RENGA_RETURN_IF_ERROR(disk_failure);
    planned_bytes = bytes;
    return absl::OkStatus();
  }
  std::unique_ptr<PackedFile> OpenPacked(const MatrixKey& key, int64_t bytes) override {
    const auto found = kept_.find(NameOf(key));
    if (found == kept_.end()) return nullptr;
    EXPECT_EQ(static_cast<int64_t>(found->second->bytes.size()), bytes);
    return std::make_unique<File>(this, key.tensor, found->second);
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
    absl::MutexLock lock(&mutex_);
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
  std::atomic<int> prefetched = 0;  // files
  // Nothing is held before so many are.
  std::atomic<int> hold_after_prefetched = 0;
  int64_t kept_bytes = 0;
  int64_t planned_bytes = 0;
  std::vector<std::vector<MatrixKey>> expected;  // one for each call
  bool at_hand = false;                          // what is not on it
  absl::Duration delay;
  // On the reader's thread, before a streamed matrix of the tensor is read; set while no shard is
  // there.
  std::function<void(const std::string& tensor)> before_read;
  // Before bytes of the tensor come from the source.
  std::function<void(const std::string& tensor)> before_source_read;
  absl::Status source_failure;
  absl::Status disk_failure;

 private:
  struct Kept {
    std::vector<std::byte> bytes;
    std::atomic<bool> damaged = false;
  };
  class File : public PackedFile {
   public:
    File(FakeDisk* disk, std::string tensor, std::shared_ptr<Kept> kept)
        : disk_(disk), tensor_(std::move(tensor)), kept_(std::move(kept)) {}
    void Prefetch() override {
      EXPECT_FALSE(prefetched_.exchange(true)) << tensor_;
      ++disk_->prefetched;
    }
    absl::Status Read(std::span<std::byte> room) override {
      EXPECT_FALSE(prefetched_) << tensor_ << " is streamed";
      absl::SleepFor(disk_->delay);
      if (disk_->before_read) disk_->before_read(tensor_);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(room.data()) % base::kDirectAlignment, 0);
      EXPECT_GE(room.size(), kept_->bytes.size());
      // As of a read that stopped halfway.
      std::memset(room.data(), 0x55, room.size());
      RENGA_RETURN_IF_ERROR(disk_->NextRead());
      if (kept_->damaged) return absl::DataLossError("the packed matrix is damaged");
      std::memcpy(room.data(), kept_->bytes.data(), kept_->bytes.size());
      disk_->streamed_bytes += static_cast<int64_t>(kept_->bytes.size());
      return absl::OkStatus();
    }
    absl::StatusOr<kernels::PackedBytes> Hold() override {
      const absl::Time deadline = absl::Now() + absl::Seconds(30);
      while (disk_->prefetched < disk_->hold_after_prefetched && absl::Now() < deadline) {
        absl::SleepFor(absl::Milliseconds(1));
      }
      EXPECT_GE(disk_->prefetched, disk_->hold_after_prefetched);
      absl::SleepFor(disk_->delay);
      RENGA_RETURN_IF_ERROR(disk_->NextRead());
      if (kept_->damaged) return absl::DataLossError("the packed matrix is damaged");
      return kernels::PackedBytes{.bytes = kept_->bytes, .owner = kept_};
    }

   private:
    FakeDisk* const disk_;
    const std::string tensor_;
    const std::shared_ptr<Kept> kept_;
    std::atomic<bool> prefetched_ = false;
  };

  static std::string NameOf(const MatrixKey& key) {
    return absl::StrCat(key.tensor, " ", key.rows.begin, " ", key.rows.end);
  }
  // How it ends, by FailReads.
  absl::Status NextRead() {
    absl::MutexLock lock(&mutex_);
    if (reads_until_failure_-- > 0) return absl::OkStatus();
    return failures_left_-- > 0 ? failure_ : absl::OkStatus();
  }

  WeightSource* const file_;
  std::map<std::string, std::shared_ptr<Kept>> kept_;
  absl::Mutex mutex_;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  int reads_until_failure_ ABSL_GUARDED_BY(mutex_) = 1 << 30;
  int failures_left_ ABSL_GUARDED_BY(mutex_) = 0;
};

class ResidencyTest : public ::testing::Test {
 protected:
  virtual model::SyntheticModelOptions Options() const {
    return {.n_layers = 6, .d_ff = 768, .type = base::DataType::kQ8_0, .seed = 5};
  }

  void SetUp() override {
    const std::string path = absl::StrCat(renga::testing::NewTempFolder(), "/model.gguf");
    ASSERT_OK(model::WriteSyntheticModel(path, Options()));
    ASSERT_OK_AND_ASSIGN(file_, model::GgufFile::Open(path));
    ASSERT_OK_AND_ASSIGN(model_, model::ReadModel(*file_));
    ASSERT_OK_AND_ASSIGN(weights_, LocalWeights::Create(file_.get()));
    ASSERT_OK_AND_ASSIGN(backend_, kernels::CreateBackend({.device = "cpu", .threads = 2}));
    disk_ = std::make_unique<FakeDisk>(weights_.get());
    whole_ = {.layers = {0, model_.config.n_layers}, .head_rows = {0, model_.config.vocab_size}};
    MemoryBudget plenty(int64_t{1} << 30);
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

  // Faults that nothing helps against end a step, with a sentence that says both of them; later
  // steps are as if none had been.
  void ExpectGoesOnAfterFaults(Shard& shard) {
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(shard));
    disk_->DamageEverything();
    disk_->source_failure = absl::UnavailableError("the coordinator is gone");
    EXPECT_THAT(Feed(shard),
                renga::testing::StatusIs(
                    absl::StatusCode::kUnavailable,
                    ::testing::AllOf(::testing::HasSubstr("damaged"),
                                     ::testing::HasSubstr("the coordinator is gone"))));
    disk_->source_failure = absl::OkStatus();
    disk_->disk_failure = absl::ResourceExhaustedError("the disk is full");
    EXPECT_THAT(Feed(shard), renga::testing::StatusIs(absl::StatusCode::kResourceExhausted,
                                                      ::testing::HasSubstr("the disk is full")));
    disk_->disk_failure = absl::OkStatus();
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(shard));
  }

  // The same of a disk of which nothing can be read.
  void ExpectGoesOnAfterADeadDisk(Shard& shard) {
    disk_->FailReads(0, 1 << 20, absl::UnavailableError("the disk broke"));
    EXPECT_THAT(Feed(shard), renga::testing::StatusIs(absl::StatusCode::kUnavailable,
                                                      ::testing::HasSubstr("the disk broke")));
    disk_->FailReads(1 << 30, 0, absl::OkStatus());
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(shard));
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

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_RESIDENCY_FIXTURE_H_
