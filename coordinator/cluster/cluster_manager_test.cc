#include "coordinator/cluster/cluster_manager.h"

#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/data_type.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "coordinator/cluster/last_placement.h"
#include "coordinator/cluster/testing/fake_workers.h"
#include "coordinator/cluster/testing/test_model.h"
#include "gtest/gtest.h"
#include "transport/dialer.h"
#include "transport/identity.h"

namespace renga::cluster {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr model::TokenId kToken = 7;
constexpr int64_t kEnough = 64 << 20;  // memory for the whole model

class ClusterManagerTest : public ::testing::Test {
 protected:
  ClusterManagerTest() : store_(model_.Open()) {}

  FakeWorker& AddWorker(const std::string& id) {
    workers_.push_back(std::make_unique<FakeWorker>(&fakes_, id));
    workers_.back()->StartInProcess();
    dialer_.Register(id, workers_.back()->server());
    return *workers_.back();
  }
  Member Join(const FakeWorker& worker, int64_t memory_bytes = kEnough) {
    absl::StatusOr<Member> member = membership_.Join(worker.AsMember(memory_bytes));
    EXPECT_OK(member);
    return *member;
  }
  void Lose(const Member& member, const std::string& reason = "no heartbeat for 4.2 s") {
    membership_.Lose(member.id, member.incarnation, reason);
  }

  void StartManager(int expected_workers, absl::Duration rejoin_grace = absl::ZeroDuration(),
                    transport::Dialer* dialer = nullptr) {
    ClusterManager::Options options;
    options.store = store_.get();
    options.membership = &membership_;
    options.dialer = dialer != nullptr ? dialer : &dialer_;
    options.request.context_tokens = 128;
    options.request.max_step_tokens = 16;
    options.request.max_step_outputs = 4;
    options.request.use_every_worker = true;
    options.request.head_blocks = head_blocks_;
    options.request.max_sequences = 4;
    options.request.min_replicas = min_replicas_;
    options.request.max_replicas = max_replicas_;
    options.expected_workers = expected_workers;
    options.rejoin_grace = rejoin_grace;
    options.load_stall_limit = load_stall_limit_;
    options.step_deadline = step_deadline_;
    options.last_placement_file = last_placement_file_;
    manager_ = std::make_unique<ClusterManager>(std::move(options));
  }
  absl::Status WaitUntilReady() { return manager_->WaitUntilReady(absl::Seconds(20), nullptr); }
  bool Eventually(const std::function<bool(const ClusterStatus&)>& wanted) {
    for (int i = 0; i < 400; ++i) {
      if (wanted(manager_->Status())) return true;
      absl::SleepFor(absl::Milliseconds(25));
    }
    ADD_FAILURE() << "the last sentence was: " << manager_->Status().sentence;
    return false;
  }

  // One decode step with all logits, through whatever pipeline there is.
  absl::StatusOr<StepOutcome> Decode() {
    absl::StatusOr<std::shared_ptr<Pipeline>> pipeline = manager_->CurrentPipeline();
    if (!pipeline.ok()) return pipeline.status();
    return DecodeOn(**pipeline).get();
  }
  std::future<absl::StatusOr<StepOutcome>> DecodeOn(Pipeline& pipeline) {
    model::Step step;
    step.slots.push_back({.sequence = 1, .token_count = 1, .output_count = 1, .top_k = 0});
    auto promise = std::make_shared<std::promise<absl::StatusOr<StepOutcome>>>();
    auto future = promise->get_future();
    pipeline.Submit(
        std::move(step), {kToken},
        [promise](absl::StatusOr<StepOutcome> outcome) { promise->set_value(std::move(outcome)); },
        /*early=*/nullptr);
    return future;
  }
  void ExpectItWorks() {
    ASSERT_OK_AND_ASSIGN(const StepOutcome outcome, Decode());
    ASSERT_EQ(outcome.rows.size(), 1u);
    ASSERT_EQ(outcome.rows[0].logits.size(), 2100u);
    ASSERT_OK_AND_ASSIGN(const std::vector<float> row,
                         store_->embeddings().Rows(std::vector<model::TokenId>{kToken}));
    for (int64_t id = 0; id < 2100; id += 100) {
      EXPECT_EQ(outcome.rows[0].logits[static_cast<size_t>(id)], FakeLogit(row[0], id));
    }
  }

  TestModel model_;
  std::unique_ptr<ModelStore> store_;
  // Nobody looks for silent members here, so those of these tests need no heartbeats.
  Membership membership_;
  FakeWorkers fakes_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  transport::InProcessDialer dialer_{nullptr};
  absl::Duration load_stall_limit_ = absl::Seconds(30);
  absl::Duration step_deadline_ = absl::Seconds(30);
  std::string last_placement_file_;
  int64_t head_blocks_ = 2;
  int64_t min_replicas_ = 1;
  int64_t max_replicas_ = 1;
  std::unique_ptr<ClusterManager> manager_;
};

TEST_F(ClusterManagerTest, WaitsForWorkersThenLoadsThemAndRuns) {
  FakeWorker& a = AddWorker("w-a");
  FakeWorker& b = AddWorker("w-b");
  StartManager(2);
  EXPECT_TRUE(Eventually([](const ClusterStatus& status) {
    return status.sentence == "waiting for workers: 0 of 2 have joined";
  }));
  EXPECT_THAT(manager_->CurrentPipeline(), StatusIs(absl::StatusCode::kUnavailable));
  Join(a);
  EXPECT_TRUE(Eventually([](const ClusterStatus& status) {
    return status.sentence == "waiting for workers: 1 of 2 have joined";
  }));
  Join(b);
  ASSERT_OK(WaitUntilReady());
  ExpectItWorks();

  const proto::LoadRequest first = a.load_request();
  const proto::LoadRequest second = b.load_request();
  EXPECT_EQ(first.worker_index(), 0u);
  EXPECT_EQ(second.worker_index(), 1u);
  EXPECT_EQ(first.epoch(), second.epoch());
  EXPECT_EQ(first.layers().begin(), 0);
  EXPECT_EQ(first.layers().end(), second.layers().begin());
  EXPECT_EQ(second.layers().end(), 6);
  EXPECT_EQ(first.next_stage(0).worker_id(), "w-b");
  EXPECT_EQ(first.next_stage(0).address(), workers_[1]->data_address());
  EXPECT_EQ(first.heads_size(), 0);
  EXPECT_EQ(second.next_stage_size(), 0);
  EXPECT_EQ(second.heads_size(), 2);
  for (const proto::TensorEntry& entry : first.manifest().tensors()) {
    const ManifestTensor& tensor = store_->manifest().tensors[entry.index()];
    EXPECT_EQ(entry.name(), tensor.name);
    EXPECT_EQ(entry.piece_hashes().size(), 16 * tensor.pieces.size());
  }

  const ClusterStatus status = manager_->Status();
  EXPECT_EQ(status.state, ClusterState::kReady);
  EXPECT_EQ(status.epoch, first.epoch());
  EXPECT_EQ(status.replicas[0].stages.size(), 2u);
  EXPECT_FALSE(status.plan_text.empty());
  EXPECT_EQ(status.replicas[0].times.steps, 1u);
  ASSERT_EQ(status.workers.size(), 2u);
  EXPECT_EQ(status.workers[0].state, WorkerState::kActive);
  EXPECT_EQ(status.workers[0].load.fetched, 100);
  EXPECT_EQ(status.workers[0].load.cached, 300);
  EXPECT_GT(status.workers[0].planned_bytes, 0);
  EXPECT_EQ(status.workers[0].times.decode_layers_us, 40);
}

TEST_F(ClusterManagerTest, SaysWithNumbersWhatDoesNotFit) {
  FakeWorker& a = AddWorker("w-a");
  Join(a, 1 << 20);
  StartManager(1);
  EXPECT_THAT(WaitUntilReady(), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("MiB")));
  EXPECT_THAT(manager_->Status().sentence, HasSubstr("1.0 MiB"));
  EXPECT_EQ(a.load_count(), 0);
  // Another worker makes it fit.
  Join(AddWorker("w-b"));
  EXPECT_TRUE(
      Eventually([](const ClusterStatus& status) { return status.state == ClusterState::kReady; }));
}

TEST_F(ClusterManagerTest, AnOfferThatIsTooSmallNowMakesANewPlan) {
  FakeWorker& a = AddWorker("w-a");
  const Member member = Join(a);
  StartManager(1);
  ASSERT_OK(WaitUntilReady());
  ASSERT_OK_AND_ASSIGN(const auto pipeline, manager_->CurrentPipeline());
  const auto offer = [&](int64_t bytes) {
    Heartbeat heartbeat;
    heartbeat.memory_offered_bytes = bytes;
    EXPECT_TRUE(membership_.Heard(member.id, member.incarnation, heartbeat));
  };
  // A little less does not matter.
  offer(member.offer.memory_bytes - 1);
  absl::SleepFor(absl::Milliseconds(300));
  EXPECT_OK(pipeline->status());
  offer(1 << 20);
  EXPECT_TRUE(Eventually([](const ClusterStatus& status) {
    return status.state == ClusterState::kBroken &&
           status.sentence.find("offers 1.0 MiB of memory instead of") != std::string::npos;
  }));
  EXPECT_THAT(pipeline->status(), StatusIs(absl::StatusCode::kAborted, HasSubstr("w-a")));
  offer(member.offer.memory_bytes);
  ASSERT_OK(WaitUntilReady());
  ExpectItWorks();
}

TEST_F(ClusterManagerTest, TheNextPlanCountsOnWhatWasMeasuredMeanwhile) {
  last_placement_file_ = testing::NewTempFolder() + "/last_placement.json";
  const Member a = Join(AddWorker("w-a"));
  const Member b = Join(AddWorker("w-b"));
  StartManager(2);
  ASSERT_OK(WaitUntilReady());
  const auto of = [](const ClusterStatus& status, const std::string& id) {
    for (const WorkerStatus& worker : status.workers) {
      if (worker.id == id) return worker;
    }
    return WorkerStatus();
  };
  const double before = b.offer.weight_bytes_per_second;
  EXPECT_EQ(of(manager_->Status(), "w-b").planned_weight_bytes_per_second, before);
  EXPECT_EQ(of(manager_->Status(), "w-b").speed_age, std::nullopt);
  Heartbeat heartbeat;
  heartbeat.speed = MeasuredSpeed{.kernels = {{base::DataType::kF32, before / 4, before}},
                                  .age = absl::Minutes(3),
                                  .confirmed = true};
  ASSERT_TRUE(membership_.Heard("w-b", b.incarnation, heartbeat));
  // At once for whoever asks, and in the file that the next plan begins with.
  EXPECT_EQ(of(manager_->Status(), "w-b").offer.weight_bytes_per_second, before / 4);
  EXPECT_EQ(of(manager_->Status(), "w-b").planned_weight_bytes_per_second, before);
  EXPECT_GE(of(manager_->Status(), "w-b").speed_age, absl::Minutes(3));
  EXPECT_TRUE(Eventually([&](const ClusterStatus&) {
    const auto last = ReadLastPlacement(last_placement_file_);
    return last.ok() && last->size() == 2 && (*last)[1].worker_id == "w-b" &&
           (*last)[1].weight_bytes_per_second == before / 4;
  }));
  EXPECT_EQ(workers_[1]->load_count(), 1) << "a plan that runs is not changed";
  const int64_t layers = of(manager_->Status(), "w-b").shard.layers.size();
  Lose(a);
  Join(*workers_[0]);
  ASSERT_OK(WaitUntilReady());
  EXPECT_TRUE(Eventually([&](const ClusterStatus& status) {
    return of(status, "w-b").planned_weight_bytes_per_second == before / 4;
  }));
  EXPECT_LT(of(manager_->Status(), "w-b").shard.layers.size(), layers);
}

TEST_F(ClusterManagerTest, ALostWorkerFailsStepsAtOnceAndIsNamed) {
  AddWorker("w-a");
  FakeWorker& b = AddWorker("w-b");
  Join(*workers_[0]);
  const Member member = Join(b);
  StartManager(2, absl::Hours(1));
  ASSERT_OK(WaitUntilReady());
  b.set_misbehaviour(Misbehaviour::kSilent);
  ASSERT_OK_AND_ASSIGN(const auto pipeline, manager_->CurrentPipeline());
  auto step = DecodeOn(*pipeline);
  Lose(member);
  EXPECT_THAT(step.get(),
              StatusIs(absl::StatusCode::kUnavailable, AllOf(HasSubstr("name-of-w-b (w-b) is lost"),
                                                             HasSubstr("no heartbeat for 4.2 s"))));
  EXPECT_THAT(pipeline->status(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(Eventually([](const ClusterStatus& status) {
    return status.state == ClusterState::kBroken &&
           status.sentence.find("waiting for worker name-of-w-b (w-b) to come back") !=
               std::string::npos;
  }));
  const ClusterStatus status = manager_->Status();
  EXPECT_EQ(status.workers.back().state, WorkerState::kLost);
  EXPECT_EQ(status.workers.back().detail, "no heartbeat for 4.2 s");

  // It comes back: a new epoch, and everything works.
  b.set_misbehaviour(Misbehaviour::kNone);
  Join(b);
  ASSERT_OK(WaitUntilReady());
  ExpectItWorks();
  EXPECT_GT(manager_->Status().epoch, pipeline->epoch());
  EXPECT_EQ(manager_->Status().workers.size(), 2u);
}

// Its heartbeats say that weights came for the step; those of another plan say nothing.
TEST_F(ClusterManagerTest, WhatWorkersTellOfTheirWeightsCountsForTheStepsDeadline) {
  FakeWorker& a = AddWorker("w-a");
  a.set_misbehaviour(Misbehaviour::kSilent);
  step_deadline_ = absl::Seconds(2);
  for (const bool of_this_plan : {false, true}) {
    SCOPED_TRACE(of_this_plan);
    StartManager(1);
    const Member member = Join(a);
    ASSERT_OK(WaitUntilReady());
    ASSERT_OK_AND_ASSIGN(const auto pipeline, manager_->CurrentPipeline());
    auto future = DecodeOn(*pipeline);
    const Heartbeat heartbeat = {.epoch = pipeline->epoch() - (of_this_plan ? 0 : 1),
                                 .step = 1,
                                 .weight_bytes_brought = 1000};
    ASSERT_TRUE(membership_.Heard(member.id, member.incarnation, heartbeat));
    const absl::Status status = future.get().status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("within 2s")));
    EXPECT_EQ(absl::StrContains(status.message(), "after the last weights"), of_this_plan);
    manager_ = nullptr;
  }
}

TEST_F(ClusterManagerTest, AWorkerThatLeavesIsNotCalledLost) {
  AddWorker("w-a");
  const Member member = Join(*workers_[0]);
  StartManager(1, absl::Hours(1));
  ASSERT_OK(WaitUntilReady());
  ASSERT_OK_AND_ASSIGN(const auto pipeline, manager_->CurrentPipeline());
  membership_.Leave(member.id, member.incarnation);
  EXPECT_TRUE(Eventually([](const ClusterStatus& status) {
    return status.state == ClusterState::kBroken &&
           status.sentence ==
               "worker name-of-w-a (w-a) left; waiting for worker name-of-w-a (w-a) to come back";
  }));
  EXPECT_THAT(pipeline->status(),
              StatusIs(absl::StatusCode::kUnavailable, "worker name-of-w-a (w-a) left"));
  Join(*workers_[0]);
  ASSERT_OK(WaitUntilReady());
  ExpectItWorks();
}

TEST_F(ClusterManagerTest, TheRestTakesOverWhenItIsEnough) {
  AddWorker("w-a");
  AddWorker("w-b");
  Join(*workers_[0]);
  const Member member = Join(*workers_[1]);
  StartManager(2);
  ASSERT_OK(WaitUntilReady());
  workers_[1]->Kill();
  Lose(member, "its connection ended");
  EXPECT_TRUE(Eventually([](const ClusterStatus& status) {
    return status.state == ClusterState::kReady && status.replicas[0].stages.size() == 1;
  }));
  ExpectItWorks();
  const ClusterStatus status = manager_->Status();
  EXPECT_EQ(status.workers.back().state, WorkerState::kLost) << "it stays listed";
}

TEST_F(ClusterManagerTest, TheLossOfAWorkerBreaksItsReplicaAlone) {
  head_blocks_ = 1;
  min_replicas_ = max_replicas_ = 2;
  const std::map<std::string, Member> members = {{"w-a", Join(AddWorker("w-a"))},
                                                 {"w-b", Join(AddWorker("w-b"))}};
  StartManager(2, absl::Hours(1));
  ASSERT_OK(WaitUntilReady());
  EXPECT_THAT(manager_->Status().sentence, HasSubstr("ready on 2 workers in 2 replicas"));
  const std::vector<PipelineSource*> sources = manager_->Sources();
  ASSERT_EQ(sources.size(), 2u);
  ASSERT_OK_AND_ASSIGN(const auto stays, sources[0]->CurrentPipeline());
  ASSERT_OK_AND_ASSIGN(const auto breaks, sources[1]->CurrentPipeline());
  EXPECT_NE(stays->epoch(), breaks->epoch());
  const auto status = manager_->Status();
  const std::string lost = status.workers[1].id;
  EXPECT_EQ(status.workers[1].replica, 1u);
  FakeWorker& worker = *workers_[lost == "w-a" ? 0 : 1];

  Lose(members.at(lost));
  EXPECT_TRUE(Eventually([&](const ClusterStatus& now) {
    return now.replicas.size() == 1 && now.state == ClusterState::kReady &&
           now.sentence.find("a replica is missing: worker name-of-" + lost) != std::string::npos;
  }));
  EXPECT_THAT(breaks->status(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr(lost)));
  EXPECT_THAT(sources[1]->CurrentPipeline(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_OK(DecodeOn(*stays).get());

  Join(worker);
  ASSERT_OK(WaitUntilReady());
  ASSERT_OK_AND_ASSIGN(const auto anew, sources[1]->CurrentPipeline());
  EXPECT_GT(anew->epoch(), breaks->epoch());
  EXPECT_OK(DecodeOn(*anew).get());
  EXPECT_OK(stays->status());
}

TEST_F(ClusterManagerTest, WorkersThatJoinLaterAreAnotherReplica) {
  head_blocks_ = 1;
  max_replicas_ = partition::kMaxReplicas;
  Join(AddWorker("w-a"));
  StartManager(1);
  ASSERT_OK(WaitUntilReady());
  ASSERT_OK_AND_ASSIGN(const auto first, manager_->CurrentPipeline());
  // What is left over may be too small.
  Join(AddWorker("w-b"), 1 << 20);
  Join(AddWorker("w-c"));
  EXPECT_TRUE(Eventually([](const ClusterStatus& status) {
    return status.replicas.size() == 2 && status.replicas[1].state == ClusterState::kReady;
  }));
  EXPECT_OK(first->status());
  EXPECT_OK(DecodeOn(*first).get());
}

TEST_F(ClusterManagerTest, AsManyReplicasAsWereAskedForMustFitAtFirst) {
  head_blocks_ = 1;
  min_replicas_ = max_replicas_ = 2;
  Join(AddWorker("w-a"));
  StartManager(1);
  EXPECT_THAT(WaitUntilReady(),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("2 replicas do not fit")));
  EXPECT_TRUE(manager_->Status().replicas.empty());
  Join(AddWorker("w-b"));
  EXPECT_TRUE(Eventually([](const ClusterStatus& status) {
    return status.state == ClusterState::kReady && status.replicas.size() == 2;
  }));
}

TEST_F(ClusterManagerTest, AWorkerThatJoinsAgainIsNotTheOneThatWasLoaded) {
  AddWorker("w-a");
  Join(*workers_[0]);
  StartManager(1);
  ASSERT_OK(WaitUntilReady());
  const uint64_t epoch = manager_->Status().epoch;
  Join(*workers_[0]);
  EXPECT_TRUE(Eventually([&](const ClusterStatus& status) {
    return status.state == ClusterState::kReady && status.epoch > epoch;
  }));
  EXPECT_EQ(workers_[0]->load_count(), 2);
}

TEST_F(ClusterManagerTest, AWorkerThatCannotLoadIsLeftOutWhenOthersSuffice) {
  AddWorker("w-a");
  AddWorker("w-b").set_misbehaviour(Misbehaviour::kRefusesLoad);
  Join(*workers_[0]);
  Join(*workers_[1]);
  StartManager(2);
  ASSERT_OK(WaitUntilReady());
  const ClusterStatus status = manager_->Status();
  EXPECT_EQ(status.replicas[0].stages.size(), 1u);
  EXPECT_EQ(status.workers[1].state, WorkerState::kIdle);
  EXPECT_THAT(status.workers[1].detail,
              AllOf(HasSubstr("could not load"), HasSubstr("60 MiB wanted, 50 MiB offered")));
}

TEST_F(ClusterManagerTest, AnUnreachableWorkerIsNamed) {
  FakeWorker& a = AddWorker("w-a");
  JoinRequest request = a.AsMember(kEnough);
  request.address = "inproc:nowhere";
  ASSERT_OK(membership_.Join(request));
  StartManager(1);
  EXPECT_THAT(WaitUntilReady(), StatusIs(absl::StatusCode::kUnavailable,
                                         AllOf(HasSubstr("name-of-w-a"), HasSubstr("load"))));
}

TEST_F(ClusterManagerTest, LoadsThatEndEarlyOrStallFail) {
  for (Misbehaviour misbehaviour : {Misbehaviour::kNeverReady, Misbehaviour::kHangsInLoad}) {
    AddWorker("w-a").set_misbehaviour(misbehaviour);
    const Member member = Join(*workers_.back());
    if (misbehaviour == Misbehaviour::kHangsInLoad) load_stall_limit_ = absl::Milliseconds(500);
    StartManager(1);
    EXPECT_THAT(WaitUntilReady(), StatusIs(absl::StatusCode::kUnavailable,
                                           HasSubstr(misbehaviour == Misbehaviour::kNeverReady
                                                         ? "before the shard was ready"
                                                         : "no progress for 500ms")));
    manager_.reset();
    Lose(member);
  }
}

TEST_F(ClusterManagerTest, LosingAWorkerInMidLoadIsNoticed) {
  AddWorker("w-a").set_misbehaviour(Misbehaviour::kHangsInLoad);
  const Member member = Join(*workers_[0]);
  StartManager(1);
  EXPECT_TRUE(Eventually(
      [](const ClusterStatus& status) { return status.state == ClusterState::kLoading; }));
  Lose(member);
  EXPECT_TRUE(Eventually([](const ClusterStatus& status) {
    return status.state == ClusterState::kWaiting &&
           status.sentence.find("while loading: worker name-of-w-a (w-a) is lost") !=
               std::string::npos;
  }));
  workers_[0]->set_misbehaviour(Misbehaviour::kNone);
  Join(*workers_[0]);
  EXPECT_OK(WaitUntilReady());
}

TEST_F(ClusterManagerTest, EpochsGrowBeyondWhatWorkersHold) {
  FakeWorker& a = AddWorker("w-a");
  JoinRequest request = a.AsMember(kEnough);
  request.resident_epoch = uint64_t{1} << 45;  // a clock that was far ahead
  ASSERT_OK(membership_.Join(request));
  StartManager(1);
  ASSERT_OK(WaitUntilReady());
  EXPECT_EQ(manager_->Status().epoch, request.resident_epoch + 1);
}

TEST_F(ClusterManagerTest, MixedPathsAreReported) {
  AddWorker("w-a");
  AddWorker("w-b");
  Join(*workers_[0]);
  JoinRequest request = workers_[1]->AsMember(kEnough);
  request.offer.device_path = "fake-2";
  ASSERT_OK(membership_.Join(request));
  StartManager(2);
  ASSERT_OK(WaitUntilReady());
  const std::vector<std::string> warnings = manager_->Status().warnings;
  ASSERT_FALSE(warnings.empty());
  EXPECT_THAT(warnings.back(), AllOf(HasSubstr("fake-1"), HasSubstr("fake-2")));
}

TEST_F(ClusterManagerTest, WaitingCanBeCancelled) {
  StartManager(1);
  EXPECT_THAT(manager_->WaitUntilReady(absl::InfiniteDuration(), [] { return true; }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(manager_->WaitUntilReady(absl::Milliseconds(50), nullptr),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("0 of 1")));
}

TEST_F(ClusterManagerTest, ThePipelineOutlivesTheManagerBroken) {
  AddWorker("w-a");
  Join(*workers_[0]);
  StartManager(1);
  ASSERT_OK(WaitUntilReady());
  ASSERT_OK_AND_ASSIGN(const auto pipeline, manager_->CurrentPipeline());
  manager_.reset();
  EXPECT_THAT(DecodeOn(*pipeline).get(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("stopping")));
}

TEST_F(ClusterManagerTest, RunsOverMutualTls) {
  ASSERT_OK_AND_ASSIGN(const auto authority, transport::Authority::CreateEphemeral());
  for (const char* id : {"w-a", "w-b"}) {
    workers_.push_back(std::make_unique<FakeWorker>(&fakes_, id));
    ASSERT_OK_AND_ASSIGN(const transport::Identity identity, authority->IssueIdentity(id));
    workers_.back()->StartTls(identity);
    JoinRequest request = workers_.back()->AsMember(kEnough);
    request.address = absl::StrCat("127.0.0.1:", workers_.back()->port());
    ASSERT_OK(membership_.Join(request));
  }
  ASSERT_OK_AND_ASSIGN(transport::Identity identity,
                       authority->IssueIdentity(transport::kCoordinatorName));
  const auto dialer = transport::CreateTlsDialer(std::move(identity));
  StartManager(2, absl::Hours(1), dialer.get());
  ASSERT_OK(WaitUntilReady());
  ExpectItWorks();
  // Nobody tells the table: the broken streams alone end the epoch.
  workers_[1]->Kill();
  EXPECT_TRUE(Eventually([](const ClusterStatus& status) {
    return status.state != ClusterState::kReady &&
           status.sentence.find("name-of-w-b") != std::string::npos;
  }));
  manager_.reset();
}

}  // namespace
}  // namespace renga::cluster
