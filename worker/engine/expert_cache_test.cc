// Mixtures of experts that are larger than their budget: the bits of a resident one, whatever
// happens to their files; only chosen experts are read, and those that are used most stay.
#include "worker/engine/expert_cache.h"

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "worker/engine/layer_stack.h"
#include "worker/engine/residency_fixture.h"

namespace renga::engine {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kExperts = 8;
constexpr int64_t kUsed = 2;

class ExpertCacheTest : public ResidencyTest {
 protected:
  model::SyntheticModelOptions Options() const override {
    // Matrices of whole pages: then a budget is what it says.
    return {.n_layers = 4,
            .d_ff = 256,
            .n_experts = kExperts,
            .n_experts_used = kUsed,
            .type = base::DataType::kQ8_0,
            .seed = 3};
  }

  // With all experts on disk.
  void SetUp() override {
    ResidencyTest::SetUp();
    const LoadProgress nobody;
    WeightLoader loader(backend_.get(), disk_.get(), nobody, 0);
    for (const Bundle& expert : Experts()) {
      for (const BundleMatrix& matrix : expert.matrices) {
        std::unique_ptr<PackedFile> file;
        ASSERT_OK(PackToDisk(matrix, *backend_, *disk_, loader, file));
      }
    }
  }

  std::vector<Bundle> Experts() {
    auto bundles = LayerStack::Bundles(model_, whole_, *backend_, *disk_);
    EXPECT_OK(bundles.status());
    std::erase_if(*bundles, [](const Bundle& bundle) { return !bundle.is_expert; });
    return *std::move(bundles);
  }

  void EmptyDisk(bool at_hand) {
    disk_ = std::make_unique<FakeDisk>(weights_.get());
    disk_->at_hand = at_hand;
  }

  // The shard's experts alone, in so many places.
  std::unique_ptr<ExpertCache> MakeCache(int64_t places) {
    std::vector<Bundle> bundles = Experts();
    const int64_t bytes = bundles.front().RoomBytes();
    auto cache = std::make_unique<ExpertCache>(std::move(bundles), model_.config.n_layers,
                                               model::ExpertPlaces{.count = places, .bytes = bytes},
                                               backend_.get(), disk_.get());
    const LoadProgress nobody;
    WeightLoader loader(backend_.get(), disk_.get(), nobody, 0);
    EXPECT_OK(cache->TryDisk(loader));
    EXPECT_OK(cache->Start());
    return cache;
  }

  static int64_t Count(const std::string& places, char letter) {
    return std::count(places.begin(), places.end(), letter);
  }
};

// What Want asks for, all of it, as a step would; the experts in the order in which they came.
std::vector<int32_t> UseAll(ExpertCache& cache, size_t layer, std::vector<int32_t> experts) {
  std::vector<ExpertRows> rows;
  for (const int32_t expert : experts) rows.push_back({.expert = expert, .count = 1});
  cache.Want(layer, rows);
  std::vector<int32_t> came;
  while (true) {
    const auto here = cache.Next();
    EXPECT_OK(here.status());
    if (!here.ok() || here->empty()) return came;
    for (const ExpertCache::Here& expert : *here) {
      EXPECT_EQ(expert.matrices.gate->rows(), 256);
      EXPECT_EQ(expert.matrices.down->columns(), 256);
      came.push_back(experts[expert.index]);
    }
    EXPECT_OK(cache.Release());
  }
}

TEST_F(ExpertCacheTest, SameBitsWhateverIsInMemory) {
  for (const int percent : {100, 75, 50, 30}) {
    SCOPED_TRACE(percent);
    ASSERT_OK_AND_ASSIGN(auto shard, Load(percent));
    EXPECT_LE(shard->memory_bytes(), budget_->total_bytes());
    disk_->streamed_bytes = 0;
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    const ResidencyReport report = shard->residency();
    EXPECT_EQ(report.pinned_now, report.pinned);
    EXPECT_EQ(report.streamed > 0, percent < 100);
    EXPECT_EQ(disk_->streamed_bytes > 0, percent < 100);
    EXPECT_LE(report.pinned + report.cached_now, layer_bytes_ * percent / 100 + 64 * 1024);
    // Queries with keys and values, what attention gives, the router, and the experts.
    ASSERT_EQ(report.places.size(), 4u * (3 + kExperts)) << report.places;
    EXPECT_EQ(report.places.find_first_not_of(percent < 100 ? "mca" : "m"), std::string::npos)
        << report.places;
    if (percent < 100) {
      EXPECT_EQ(report.places.substr(3 + kExperts, 3), "mmm");
      EXPECT_GT(Count(report.places, kCached), 0);
      EXPECT_GT(Count(report.places, kAbsentExpert), 0);
    }
  }
}

TEST_F(ExpertCacheTest, WhatIsChosenIsToldAndChangesNothing) {
  std::map<int, std::vector<std::pair<int64_t, ExpertRow>>> told;
  for (const int percent : {100, 50}) {
    ASSERT_OK_AND_ASSIGN(auto shard, Load(percent));
    ASSERT_OK(shard->ObserveExperts([&](int64_t layer, std::span<const ExpertRow> chosen) {
      for (const ExpertRow& row : chosen) told[percent].emplace_back(layer, row);
    }));
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    ASSERT_OK(shard->ObserveExperts(nullptr));
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  }
  // 29 tokens of two sequences.
  EXPECT_EQ(told[100].size(), 29u * 2 * 4 * kUsed);
  EXPECT_EQ(told[100], told[50]);
  std::set<int64_t> layers;
  for (const auto& [layer, row] : told[100]) {
    layers.insert(layer);
    EXPECT_TRUE(row.expert >= 0 && row.expert < kExperts && row.row >= 0 && row.row < 32);
  }
  EXPECT_EQ(layers, (std::set<int64_t>{0, 1, 2, 3}));
}

TEST_F(ExpertCacheTest, OnlyChosenExpertsAreReadAndOnlyOnce) {
  ASSERT_OK_AND_ASSIGN(auto shard, Load(75));
  const auto one_step = [&]() {
    shard->ResetSequences();
    std::vector<float> logits;
    EXPECT_OK(Step(*shard, 0, 1, logits));
    return logits;
  };
  EXPECT_EQ(Count(shard->residency().places, kCached), 0);
  disk_->streamed_bytes = 0;
  const std::vector<float> first = one_step();
  const int64_t here = Count(shard->residency().places, kCached);
  // Two rows, each with two experts of every layer.
  EXPECT_GE(here, 4 * kUsed);
  EXPECT_LE(here, 4 * 2 * kUsed);
  const int64_t expert_bytes = disk_->streamed_bytes / here;
  EXPECT_EQ(disk_->streamed_bytes, here * expert_bytes);
  EXPECT_EQ(expert_bytes, 3 * 256 * 256 * 34 / 32);
  EXPECT_EQ(one_step(), first);
  EXPECT_EQ(disk_->streamed_bytes, here * expert_bytes) << "those that were there were read again";
}

TEST_F(ExpertCacheTest, WhatIsUsedMostStays) {
  const auto cache = MakeCache(3);
  const int64_t expert_bytes = 3 * 256 * 256 * 34 / 32;
  disk_->streamed_bytes = 0;
  // One expert for every token, and another one each time: that passes through the other places.
  for (int32_t i = 0; i < 40; ++i) UseAll(*cache, 1, {0, 1 + i % 7});
  EXPECT_EQ(disk_->streamed_bytes, (1 + 40) * expert_bytes);
}

TEST_F(ExpertCacheTest, FavouritesOutliveStrangersAndAreForgottenInTime) {
  const auto cache = MakeCache(3);
  const auto is_here = [&](int32_t expert) {
    return cache->report().places[static_cast<size_t>(kExperts + expert)] == kCached;
  };
  for (int i = 0; i < 3000; ++i) UseAll(*cache, 1, {0});
  // As many strangers in a row as there are places, and more: whoever came last would drop it.
  for (int i = 0; i < 10; ++i) {
    for (const int32_t stranger : {1, 2, 3, 4, 5}) UseAll(*cache, 1, {stranger});
    EXPECT_TRUE(is_here(0));
  }
  // It has been used far more often than they, but long ago.
  for (int i = 0; i < 1200; ++i) UseAll(*cache, 1, {1 + i % 4});
  EXPECT_FALSE(is_here(0));
}

TEST_F(ExpertCacheTest, MoreExpertsThanPlaces) {
  const auto cache = MakeCache(2);
  for (size_t layer = 0; layer < 4; ++layer) {
    std::vector<int32_t> came = UseAll(*cache, layer, {0, 1, 2, 3, 4, 5, 6, 7});
    std::sort(came.begin(), came.end());
    EXPECT_EQ(came, std::vector<int32_t>({0, 1, 2, 3, 4, 5, 6, 7}));
  }
  EXPECT_EQ(Count(cache->report().places, kCached), 2);
  EXPECT_TRUE(UseAll(*cache, 0, {}).empty());
}

TEST_F(ExpertCacheTest, ThoseThatAreHereComeBeforeThoseThatAreRead) {
  const auto cache = MakeCache(6);
  UseAll(*cache, 2, {1, 4});
  disk_->delay = absl::Milliseconds(30);
  const std::vector<int32_t> came = UseAll(*cache, 2, {0, 1, 3, 4});
  ASSERT_EQ(came.size(), 4u);
  EXPECT_EQ(came[0], 1);
  EXPECT_EQ(came[1], 4);
}

TEST_F(ExpertCacheTest, MissingExpertsAreReadAtOneTime) {
  std::atomic<int> reading = 0;
  std::atomic<int> most = 0;
  disk_->before_read = [&](const std::string&) {
    const int now = ++reading;
    for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
    }
    // The others are on their way, unless nobody reads them meanwhile.
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (most < 3 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
    --reading;
  };
  const auto cache = MakeCache(4);
  UseAll(*cache, 0, {1, 3, 5});
  EXPECT_EQ(most, 3);
}

TEST_F(ExpertCacheTest, WhatWasNotWaitedForDoesNoHarm) {
  const auto cache = MakeCache(2);
  disk_->delay = absl::Milliseconds(2);
  for (int32_t i = 0; i < 20; ++i) {
    const std::vector<ExpertRows> rows = {{.expert = i % 8, .count = 1},
                                          {.expert = (i + 3) % 8, .count = 2},
                                          {.expert = (i + 5) % 8, .count = 1}};
    cache->Want(static_cast<size_t>(i % 4), rows);
    if (i % 3 == 0) {
      ASSERT_OK(cache->Next());
    }
    EXPECT_EQ(UseAll(*cache, static_cast<size_t>(i % 4), {i % 8, (i + 1) % 8}).size(), 2u);
  }
}

TEST_F(ExpertCacheTest, DamagedAndCutFilesArePackedAgain) {
  for (const absl::StatusCode code :
       {absl::StatusCode::kDataLoss, absl::StatusCode::kOutOfRange, absl::StatusCode::kNotFound}) {
    for (const int n : {0, 15, 40}) {
      ASSERT_OK_AND_ASSIGN(auto shard, Load(30));
      disk_->FailReads(n, 1, absl::Status(code, "injected"));
      ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    }
  }
  ASSERT_OK_AND_ASSIGN(auto shard, Load(50));
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  const int64_t kept = disk_->kept_bytes;
  disk_->DamageEverything();
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  EXPECT_GT(disk_->kept_bytes, kept);
}

TEST_F(ExpertCacheTest, EndsTheStepWhenNothingHelpsAndGoesOnLater) {
  for (const bool at_hand : {false, true}) {
    EmptyDisk(at_hand);
    ASSERT_OK_AND_ASSIGN(auto shard, Load(30));
    ASSERT_NO_FATAL_FAILURE(ExpectGoesOnAfterFaults(*shard));
  }
}

TEST_F(ExpertCacheTest, OfADiskThatCannotBeReadEachExpertIsPackedAgain) {
  ASSERT_OK_AND_ASSIGN(auto shard, Load(30));
  disk_->FailReads(0, 1 << 20, absl::UnavailableError("the disk broke"));
  const int64_t kept = disk_->kept_bytes;
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  EXPECT_GT(disk_->kept_bytes, kept);
}

TEST_F(ExpertCacheTest, OfAModelAtHandExpertsArePackedWhenTheyAreWanted) {
  EmptyDisk(/*at_hand=*/true);
  ASSERT_OK_AND_ASSIGN(auto shard, Load(75));
  EXPECT_EQ(disk_->files(), 3u) << "one, to try the disk";
  const int64_t expert_bytes = 3 * 256 * 256 * 34 / 32;
  std::vector<float> logits;
  ASSERT_OK(Step(*shard, 0, 1, logits));
  const int64_t here = Count(shard->residency().places, kCached);
  EXPECT_LE(here, 4 * 2 * kUsed);
  // The one that was packed before is read; the others are packed once.
  const int64_t packed = static_cast<int64_t>(disk_->files()) / 3 - 1;
  EXPECT_THAT(here - packed, ::testing::AnyOf(0, 1));
  EXPECT_EQ(disk_->kept_bytes, (1 + packed) * expert_bytes);
  EXPECT_EQ(disk_->streamed_bytes, (here - packed) * expert_bytes);
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
}

TEST_F(ExpertCacheTest, OfAModelAtHandTheBitsAreTheSameWhateverIsInMemoryOrOnDisk) {
  for (const int percent : {75, 50, 30}) {
    SCOPED_TRACE(percent);
    EmptyDisk(/*at_hand=*/true);
    ASSERT_OK_AND_ASSIGN(auto shard, Load(percent));
    for (int run = 0; run < 3; ++run) ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    shard.reset();
    ASSERT_OK_AND_ASSIGN(shard, Load(percent));  // with what the first one has left
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  }
}

TEST_F(ExpertCacheTest, AfterAFailureTheSameExpertsCanBeAskedForAgain) {
  EmptyDisk(/*at_hand=*/true);
  const auto cache = MakeCache(3);
  const std::vector<ExpertRows> rows = {{.expert = 5, .count = 1}};
  cache->Want(1, rows);
  disk_->source_failure = absl::UnavailableError("the file is gone");
  EXPECT_THAT(cache->Next(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("is gone")));
  EXPECT_THAT(cache->Next(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("is gone")));
  disk_->source_failure = absl::OkStatus();
  ASSERT_OK_AND_ASSIGN(const auto here, cache->Next());
  EXPECT_EQ(here.size(), 1u);
}

TEST_F(ExpertCacheTest, OfAModelAtHandADiskThatTakesNothingIsNoticedAtOnce) {
  EmptyDisk(/*at_hand=*/true);
  disk_->disk_failure = absl::ResourceExhaustedError("the disk is full");
  EXPECT_THAT(Load(50), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("place on disk")));
}

TEST_F(ExpertCacheTest, RefusesWhatCannotWork) {
  EXPECT_THAT(Load(12), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("experts")));
  EXPECT_EQ(budget_->used_bytes(), 0);
  EXPECT_THAT(Load(50, [](int64_t, int64_t) { return false; }),
              StatusIs(absl::StatusCode::kCancelled));
  ASSERT_OK_AND_ASSIGN(backend_, kernels::CreateBackend({.device = "reference"}));
  EXPECT_THAT(Load(50), StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("--lazy")));
}

// ---- A source that ships: nothing is at hand
// -----------------------------------------------------

constexpr int64_t kExpertBytes = 3 * 256 * 256 * 34 / 32;

bool IsOfExperts(const std::string& tensor) { return tensor.find("_exps") != std::string::npos; }

TEST_F(ExpertCacheTest, ShippedExpertsComeWhenTheyAreChosenThoseOfALayerTogether) {
  EmptyDisk(/*at_hand=*/false);
  std::atomic<int> expert_reads = 0;
  disk_->before_source_read = [&](const std::string& tensor) {
    if (IsOfExperts(tensor)) ++expert_reads;
  };
  int64_t done = 0;
  int64_t total = 0;
  ASSERT_OK_AND_ASSIGN(auto shard, Load(75, [&](int64_t d, int64_t t) {
                         done = d;
                         total = t;
                         return true;
                       }));
  EXPECT_EQ(done, total);
  EXPECT_EQ(expert_reads, 0);
  EXPECT_EQ(disk_->files(), 0u);
  EXPECT_EQ(disk_->planned_bytes, 4 * kExperts * kExpertBytes);
  EXPECT_EQ(shard->Unpacked().size(), 4u * kExperts * 3);
  EXPECT_EQ(Count(shard->residency().places, kUnpackedExpert), 4 * kExperts);

  std::vector<float> logits;
  ASSERT_OK(Step(*shard, 0, 1, logits));
  const int64_t here = Count(shard->residency().places, kCached);
  EXPECT_GE(here, 4 * kUsed);
  EXPECT_LE(here, 4 * 2 * kUsed);
  EXPECT_EQ(disk_->kept_bytes, here * kExpertBytes);
  EXPECT_EQ(disk_->streamed_bytes, 0);
  EXPECT_EQ(Count(shard->residency().places, kUnpackedExpert), 4 * kExperts - here);
  ASSERT_EQ(disk_->expected.size(), 4u) << "one request for each layer";
  size_t asked = 0;
  for (size_t layer = 0; layer < 4; ++layer) {
    asked += disk_->expected[layer].size();
    for (const MatrixKey& key : disk_->expected[layer]) {
      EXPECT_THAT(key.tensor, HasSubstr(absl::StrCat("blk.", layer, ".ffn_")));
    }
  }
  EXPECT_EQ(asked, static_cast<size_t>(here) * 3);
  ASSERT_OK(Step(*shard, 1, 1, logits));
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  EXPECT_LE(disk_->kept_bytes, 4 * kExperts * kExpertBytes) << "one was packed twice";
}

TEST_F(ExpertCacheTest, OfAShippedModelTheBitsAreTheSameWhateverIsInMemoryOrOnDisk) {
  for (const int percent : {75, 30}) {
    SCOPED_TRACE(percent);
    EmptyDisk(/*at_hand=*/false);
    disk_->before_source_read = [](const std::string& tensor) {
      if (IsOfExperts(tensor)) absl::SleepFor(absl::Microseconds(300));
    };
    ASSERT_OK_AND_ASSIGN(auto shard, Load(percent));
    for (int run = 0; run < 2; ++run) ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    shard.reset();
    ASSERT_OK_AND_ASSIGN(shard, Load(percent));
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  }
}

TEST_F(ExpertCacheTest, WhatIsShippedWrongOrNotAtAllEndsTheStepAndTheNextTriesAgain) {
  for (const absl::Status& failure :
       {absl::UnavailableError("the coordinator is gone"),
        absl::DeadlineExceededError("no piece has come"), absl::DataLossError("other bytes")}) {
    for (const int after : {0, 1, 7, 20}) {
      SCOPED_TRACE(absl::StrCat(after, " ", failure.ToString()));
      EmptyDisk(/*at_hand=*/false);
      ASSERT_OK_AND_ASSIGN(auto shard, Load(50));
      // On one thread: that of the reads ahead.
      int reads = 0;
      disk_->before_source_read = [&](const std::string& tensor) {
        if (IsOfExperts(tensor) && reads++ == after) disk_->source_failure = failure;
      };
      EXPECT_THAT(Feed(*shard), StatusIs(failure.code(), HasSubstr(failure.message())));
      disk_->source_failure = absl::OkStatus();
      ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    }
  }
}

TEST_F(ExpertCacheTest, DamagedOnesAreAskedForLikeThoseThatHaveToCome) {
  EmptyDisk(/*at_hand=*/false);
  const auto cache = MakeCache(6);
  UseAll(*cache, 0, {1, 2});
  // Others take their places.
  UseAll(*cache, 3, {0, 1, 2, 3, 4, 5});
  disk_->DamageEverything();
  disk_->expected.clear();
  EXPECT_EQ(UseAll(*cache, 0, {1, 4}).size(), 2u);
  // How many at a time depends on when the damage was found.
  std::set<int64_t> asked;
  for (const auto& keys : disk_->expected) {
    for (const MatrixKey& key : keys) {
      if (key.tensor == "blk.0.ffn_gate_exps.weight") asked.insert(key.rows.begin / 256);
    }
  }
  EXPECT_EQ(asked, std::set<int64_t>({1, 4}));
}

TEST_F(ExpertCacheTest, ADiskWithoutRoomForShippedExpertsIsRefusedBeforeAnyIsShipped) {
  EmptyDisk(/*at_hand=*/false);
  disk_->disk_failure = absl::ResourceExhaustedError("the disk is full");
  EXPECT_THAT(Load(50), StatusIs(absl::StatusCode::kResourceExhausted,
                                 ::testing::AllOf(HasSubstr("place on disk"),
                                                  HasSubstr("the disk is full"))));
  EXPECT_EQ(disk_->source_bytes, 0);
}

TEST_F(ExpertCacheTest, AStepThatNobodyWantsAnyMoreDoesNotWaitForFurtherExperts) {
  EmptyDisk(/*at_hand=*/false);
  ASSERT_OK_AND_ASSIGN(auto shard, Load(50));
  std::atomic<int> expert_reads = 0;
  disk_->before_source_read = [&](const std::string& tensor) {
    if (IsOfExperts(tensor)) ++expert_reads;
  };
  model::Step step;
  step.commands.push_back(
      {.kind = model::KvCommand::Kind::kAppendBlocks, .sequence = 1, .blocks = {1}});
  step.slots.push_back({.sequence = 1, .first_position = 0, .token_count = 16, .output_count = 1});
  std::vector<float> rows(16 * 256, 0.5f);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i * 37 % 101) - 50;
  // Nobody does since the first expert has begun to come.
  ASSERT_OK(shard->RunLayers(step, rows, nullptr, [&] { return expert_reads > 0; }));
  EXPECT_EQ(disk_->files(), 3u) << "the one that had begun";
  disk_->before_source_read = nullptr;
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
}

}  // namespace
}  // namespace renga::engine
