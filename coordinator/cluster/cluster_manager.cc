#include "coordinator/cluster/cluster_manager.h"

#include <algorithm>
#include <map>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/byte_size.h"
#include "base/log.h"
#include "coordinator/cluster/last_placement.h"
#include "coordinator/cluster/load_failures.h"
#include "coordinator/cluster/load_request.h"
#include "coordinator/cluster/pipeline_impl.h"
#include "coordinator/cluster/placement.h"
#include "coordinator/cluster/shard_load.h"
#include "coordinator/cluster/status_report.h"

namespace renga::cluster {
namespace {

// How often the manager looks around when nobody wakes it.
constexpr absl::Duration kTick = absl::Milliseconds(100);
// After a break the members get a moment to be noticed as lost: a broken stream is seen before
// the broken connection it belongs to.
constexpr absl::Duration kSettle = absl::Milliseconds(300);
// A plan without the links' times is better than none.
constexpr absl::Duration kLongestSurvey = absl::Seconds(5);
// A pipeline that breaks sooner than this was never good: the next one waits longer.
constexpr absl::Duration kShortLife = absl::Seconds(5);
constexpr absl::Duration kLongestSettle = absl::Seconds(30);

const Member* FindMember(const std::vector<Member>& members, const Member& wanted) {
  for (const Member& member : members) {
    if (member.id == wanted.id) return &member;
  }
  return nullptr;
}

// Whether the worker itself is there, or one of its name that has enrolled anew.
bool IsBack(const std::vector<Member>& members, const Member& wanted) {
  return std::any_of(members.begin(), members.end(), [&](const Member& member) {
    return member.alive && (member.id == wanted.id || member.name == wanted.name);
  });
}

// How `planned` is not there any more as it was when the plan was made.
struct Loss {
  bool left = false;     // it was told to end: no fault
  std::string sentence;  // "worker ada (w-12ab) is lost: its connection ended"
};
std::optional<Loss> LossOf(const std::vector<Member>& members, const Member& planned) {
  const auto lost = [&](absl::string_view reason) {
    return Loss{.sentence = absl::StrCat("worker ", DescribeWorker(planned), " is lost: ", reason)};
  };
  const Member* now = FindMember(members, planned);
  if (now == nullptr) return lost("it is no member any more");
  if (now->left) {
    return Loss{.left = true,
                .sentence = absl::StrCat("worker ", DescribeWorker(planned), " left")};
  }
  if (!now->alive) return lost(now->lost_reason);
  if (now->incarnation != planned.incarnation) return lost("it left and joined again");
  return std::nullopt;
}

// Why a plan does not do any more although `placed` is there: its offer is another one. A worker
// that reads weights from its disk should hold as many as it may.
std::optional<std::string> OtherOffer(const std::vector<Member>& members,
                                      const PlacedWorker& placed, bool lazy) {
  const Member* now = FindMember(members, placed.member);
  if (now == nullptr) return std::nullopt;
  const int64_t offered = now->offer.memory_bytes;
  const int64_t before = placed.member.offer.memory_bytes;
  const bool too_little = offered < before && (lazy || offered < placed.bytes.total());
  const bool would_do_better = offered > before && now->last_heartbeat.streamed_weight_bytes > 0;
  if (!too_little && !would_do_better) return std::nullopt;
  return absl::StrCat("worker ", DescribeWorker(placed.member), " offers ",
                      base::FormatByteSize(offered), " of memory instead of ",
                      base::FormatByteSize(before), ": planning anew");
}

// What a plan is made from, as far as it may change.
std::vector<std::tuple<std::string, uint64_t, int64_t>> Identify(
    const std::vector<Member>& members) {
  std::vector<std::tuple<std::string, uint64_t, int64_t>> identities;
  for (const Member& member : members) {
    identities.emplace_back(member.id, member.incarnation, member.offer.memory_bytes);
  }
  return identities;
}

}  // namespace

class ClusterManager::Impl {
 public:
  explicit Impl(Options options);
  ~Impl();

  absl::StatusOr<std::shared_ptr<Pipeline>> CurrentPipeline() const;
  ClusterStatus Status() const;
  absl::Status WaitUntilReady(absl::Duration timeout, const std::function<bool()>& cancelled) const;

 private:
  // Wakes the manager's thread. Outlives the manager where a pipeline does.
  class Wake {
   public:
    void Signal() {
      absl::MutexLock lock(&mutex_);
      set_ = true;
    }
    void Wait(absl::Duration timeout) {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&set_), timeout);
      set_ = false;
    }

   private:
    absl::Mutex mutex_;
    bool set_ ABSL_GUARDED_BY(mutex_) = false;
  };

  absl::Duration Now() const { return options_.membership->Now(); }
  void Run();
  void LookAround();

  // Waiting or broken.
  void TryToPlan(const std::vector<Member>& members);
  std::optional<std::string> ReasonToWait(const std::vector<Member>& members) const;
  bool WaitsForLinks();
  void GoOnWaiting(const std::string& reason);
  void Refuse(const absl::Status& refusal);
  void StartLoading(Placement placement, const std::vector<Member>& members);
  uint64_t NextEpoch(const std::vector<Member>& members);
  // Loading.
  void CheckLoads(const std::vector<Member>& members);
  void LoadFailed(const Member& member, const absl::Status& failure);
  // `expected`: nothing that anybody need be warned of.
  void AbandonLoading(const absl::Status& why, bool expected);
  bool Stalled(size_t worker);
  void RecallPlacement();
  void RememberPlacement();
  void StartPipeline();
  // Ready.
  void CheckPipeline(const std::vector<Member>& members);

  void SetState(ClusterState state, std::string sentence);
  void TellChange();
  std::string ModelName() const;

  const Options options_;
  const std::shared_ptr<Wake> wake_ = std::make_shared<Wake>();
  int listener_ = 0;

  // The thread's own.
  struct Load {
    std::unique_ptr<ShardLoad> call;
    uint64_t reports = 0;
    absl::Duration last_report;
  };
  std::vector<Load> loads_;  // by worker index
  LoadFailures failures_;
  std::shared_ptr<const Placement> last_placement_;  // what the cluster recovers from
  LastPlacement last_;                               // what stood last, maybe before a restart
  std::string trouble_;  // why there is no pipeline, beyond what the planner says
  bool ever_ready_ = false;
  absl::Duration not_before_;                   // the next plan
  std::optional<absl::Duration> survey_began_;  // that a plan waits for
  absl::Duration broken_at_ = -absl::InfiniteDuration();
  absl::Duration ready_at_;
  absl::Duration settle_ = kSettle;
  uint64_t last_epoch_ = 0;
  std::optional<std::vector<std::tuple<std::string, uint64_t, int64_t>>> refused_for_;
  absl::Duration told_at_ = -absl::InfiniteDuration();
  bool changed_ = true;

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  ClusterView view_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<PipelineImpl> pipeline_ ABSL_GUARDED_BY(mutex_);
  // Why the cluster cannot become ready with the workers that are there; OK while that is open.
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses the rest
};

ClusterManager::Impl::Impl(Options options) : options_(std::move(options)) {
  view_.sentence = "waiting for workers";
  RecallPlacement();
  listener_ = options_.membership->AddListener([wake = wake_] { wake->Signal(); });
  thread_ = std::thread([this] { Run(); });
}

ClusterManager::Impl::~Impl() {
  options_.membership->RemoveListener(listener_);
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  wake_->Signal();
  thread_.join();
  absl::MutexLock lock(&mutex_);
  if (pipeline_ != nullptr) {
    pipeline_->Break(absl::UnavailableError("the coordinator is stopping"));
  }
}

void ClusterManager::Impl::Run() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) break;
    }
    LookAround();
    TellChange();
    wake_->Wait(kTick);
  }
  loads_.clear();
}

void ClusterManager::Impl::LookAround() {
  ClusterState state;
  {
    absl::MutexLock lock(&mutex_);
    state = view_.state;
  }
  const std::vector<Member> members = options_.membership->Members();
  switch (state) {
    case ClusterState::kWaiting:
    case ClusterState::kBroken:
      return TryToPlan(members);
    case ClusterState::kLoading:
      return CheckLoads(members);
    case ClusterState::kReady:
      return CheckPipeline(members);
  }
}

std::optional<std::string> ClusterManager::Impl::ReasonToWait(
    const std::vector<Member>& members) const {
  const auto alive = std::count_if(members.begin(), members.end(),
                                   [](const Member& member) { return member.alive; });
  if (!ever_ready_ && alive < options_.expected_workers) {
    return absl::StrCat("waiting for workers: ", alive, " of ", options_.expected_workers,
                        " have joined");
  }
  if (last_placement_ != nullptr && Now() < broken_at_ + options_.rejoin_grace) {
    for (const PlacedWorker& placed : last_placement_->workers) {
      if (!IsBack(members, placed.member)) {
        return absl::StrCat("waiting for worker ", DescribeWorker(placed.member), " to come back");
      }
    }
  }
  if (alive == 0) return "waiting for workers: there are none";
  return std::nullopt;
}

bool ClusterManager::Impl::WaitsForLinks() {
  if (options_.links == nullptr || options_.links->Complete()) {
    survey_began_.reset();
    return false;
  }
  if (!survey_began_.has_value()) survey_began_ = Now();
  return Now() < *survey_began_ + kLongestSurvey;
}

// Nothing is to be done before `reason` is over.
void ClusterManager::Impl::GoOnWaiting(const std::string& reason) {
  refused_for_.reset();
  absl::MutexLock lock(&mutex_);
  refusal_ = absl::OkStatus();
  std::string sentence = trouble_.empty() ? reason : absl::StrCat(trouble_, "; ", reason);
  changed_ = changed_ || sentence != view_.sentence;
  view_.sentence = std::move(sentence);
}

void ClusterManager::Impl::TryToPlan(const std::vector<Member>& members) {
  if (const std::optional<std::string> reason = ReasonToWait(members)) return GoOnWaiting(*reason);
  if (Now() < not_before_) return;
  std::vector<Member> candidates;
  for (const Member& member : members) {
    if (member.alive && !failures_.LeavesOut(member, Now())) candidates.push_back(member);
  }
  if (refused_for_ == Identify(candidates)) return;
  if (WaitsForLinks()) return GoOnWaiting("measuring the links between the workers");
  absl::StatusOr<Placement> placement =
      candidates.empty() ? absl::UnavailableError("no worker is left that can be asked")
                         : PlaceModel(*options_.store, candidates, options_.request, last_,
                                      options_.links != nullptr ? options_.links->Links()
                                                                : std::vector<LinkProfile>());
  {
    absl::MutexLock lock(&mutex_);
    view_.left_out = failures_.Reasons(members, Now());
  }
  if (placement.ok()) {
    StartLoading(*std::move(placement), members);
  } else {
    refused_for_ = Identify(candidates);
    Refuse(placement.status());
  }
}

void ClusterManager::Impl::Refuse(const absl::Status& refusal) {
  const std::string sentence = trouble_.empty() ? std::string(refusal.message())
                                                : absl::StrCat(trouble_, "; ", refusal.message());
  RENGA_LOG(INFO) << "no plan: " << sentence;
  absl::MutexLock lock(&mutex_);
  view_.sentence = sentence;
  refusal_ = absl::Status(refusal.code(), sentence);
  changed_ = true;
}

uint64_t ClusterManager::Impl::NextEpoch(const std::vector<Member>& members) {
  // Grows over restarts too, and beyond what any worker has seen should the clock have gone back.
  uint64_t epoch = static_cast<uint64_t>(std::max<int64_t>(1, absl::ToUnixMillis(absl::Now())));
  epoch = std::max(epoch, last_epoch_ + 1);
  for (const Member& member : members) {
    epoch = std::max({epoch, member.resident_epoch + 1, member.last_heartbeat.epoch + 1});
  }
  last_epoch_ = epoch;
  return epoch;
}

void ClusterManager::Impl::StartLoading(Placement placement, const std::vector<Member>& members) {
  const uint64_t epoch = NextEpoch(members);
  auto shared = std::make_shared<const Placement>(std::move(placement));
  for (uint32_t worker = 0; worker < shared->workers.size(); ++worker) {
    const Member& member = shared->workers[worker].member;
    loads_.push_back({.call = std::make_unique<ShardLoad>(
                          options_.dialer->Dial({member.address, member.id},
                                                transport::ChannelPurpose::kControl),
                          MakeLoadRequest(*options_.store, *shared, worker, epoch),
                          [wake = wake_] { wake->Signal(); }),
                      .last_report = Now()});
  }
  refused_for_.reset();
  last_placement_ = shared;
  {
    absl::MutexLock lock(&mutex_);
    view_.epoch = epoch;
    view_.placement = shared;
    view_.loads.assign(shared->workers.size(), {});
    view_.times = {};
    refusal_ = absl::OkStatus();
  }
  SetState(ClusterState::kLoading,
           absl::StrCat("loading ", ModelName(), " onto ", shared->workers.size(), " workers"));
}

bool ClusterManager::Impl::Stalled(size_t worker) {
  Load& load = loads_[worker];
  const uint64_t reports = load.call->reports();
  if (reports != load.reports) {
    load.reports = reports;
    load.last_report = Now();
    changed_ = true;
  }
  return Now() - load.last_report > options_.load_stall_limit;
}

void ClusterManager::Impl::CheckLoads(const std::vector<Member>& members) {
  std::vector<LoadBytes> bytes;
  size_t ready = 0;
  for (size_t worker = 0; worker < loads_.size(); ++worker) {
    const Member& member = last_placement_->workers[worker].member;
    if (const std::optional<Loss> loss = LossOf(members, member)) {
      return AbandonLoading(absl::UnavailableError(absl::StrCat("while loading: ", loss->sentence)),
                            loss->left);
    }
    const std::optional<absl::Status> result = loads_[worker].call->result();
    if (result.has_value() && !result->ok()) return LoadFailed(member, *result);
    if (!result.has_value() && Stalled(worker)) {
      return LoadFailed(member,
                        absl::DeadlineExceededError(absl::StrCat(
                            "no progress for ", absl::FormatDuration(options_.load_stall_limit))));
    }
    ready += result.has_value() ? 1 : 0;
    bytes.push_back(loads_[worker].call->progress());
  }
  {
    absl::MutexLock lock(&mutex_);
    view_.loads = bytes;
  }
  if (ready == loads_.size()) StartPipeline();
}

void ClusterManager::Impl::LoadFailed(const Member& member, const absl::Status& failure) {
  const absl::Status why(failure.code(),
                         absl::StrCat("worker ", DescribeWorker(member),
                                      " could not load its shard: ", failure.message()));
  failures_.Add(member, std::string(why.message()), Now());
  AbandonLoading(why, /*expected=*/false);
}

void ClusterManager::Impl::AbandonLoading(const absl::Status& why, bool expected) {
  if (!expected) {
    RENGA_LOG(WARNING) << why.message();
  }
  loads_.clear();
  trouble_ = std::string(why.message());
  broken_at_ = Now();
  {
    absl::MutexLock lock(&mutex_);
    view_.placement = nullptr;
    view_.loads.clear();
    view_.epoch = 0;
    refusal_ = absl::OkStatus();
  }
  SetState(ever_ready_ ? ClusterState::kBroken : ClusterState::kWaiting, trouble_);
}

// Neither recalling nor remembering may fail: at worst, weights are shipped again.
void ClusterManager::Impl::RecallPlacement() {
  if (options_.last_placement_file.empty()) return;
  absl::StatusOr<LastPlacement> last = ReadLastPlacement(options_.last_placement_file);
  if (last.ok()) {
    last_ = *std::move(last);
  } else if (!absl::IsNotFound(last.status())) {
    RENGA_LOG(WARNING) << last.status().message();
  }
}

void ClusterManager::Impl::RememberPlacement() {
  last_ = Remember(*last_placement_);
  if (options_.last_placement_file.empty()) return;
  const absl::Status written = WriteLastPlacement(options_.last_placement_file, last_);
  if (!written.ok()) {
    RENGA_LOG(WARNING) << written.message();
  }
}

void ClusterManager::Impl::StartPipeline() {
  PipelineOptions options;
  options.dialer = options_.dialer;
  options.model = options_.store->model();
  options.limits = last_placement_->limits;
  options.stages = last_placement_->stages;
  options.embedding_worker = last_placement_->embedding;
  options.embed = [store = options_.store](std::span<const model::TokenId> tokens) {
    return store->embeddings().Rows(tokens);
  };
  if (last_placement_->heads.size() > 1) options.near_head = last_placement_->heads.front();
  options.step_deadline = options_.step_deadline;
  options.on_broken = [wake = wake_] { wake->Signal(); };
  for (const PlacedWorker& placed : last_placement_->workers) {
    const Member& member = placed.member;
    options.workers.push_back({.id = member.id,
                               .name = DescribeWorker(member),
                               .address = member.data_address,
                               .head_rows = model::BlockRows::At(
                                   placed.spec.head_rows, last_placement_->limits.near_rows.get(),
                                   options.model.config.vocab_size)});
    failures_.Forgive(member.id);
  }
  loads_.clear();
  RememberPlacement();
  options.epoch = last_epoch_;
  auto pipeline = std::make_shared<PipelineImpl>(std::move(options));
  trouble_.clear();
  ever_ready_ = true;
  ready_at_ = Now();
  {
    absl::MutexLock lock(&mutex_);
    pipeline_ = std::move(pipeline);
  }
  SetState(ClusterState::kReady,
           absl::StrCat(ModelName(), " is ready on ", last_placement_->workers.size(),
                        last_placement_->workers.size() == 1 ? " worker" : " workers"));
}

void ClusterManager::Impl::CheckPipeline(const std::vector<Member>& members) {
  std::shared_ptr<PipelineImpl> pipeline;
  {
    absl::MutexLock lock(&mutex_);
    pipeline = pipeline_;
  }
  bool left = false;
  for (const PlacedWorker& placed : last_placement_->workers) {
    if (const std::optional<Loss> loss = LossOf(members, placed.member)) {
      pipeline->Break(absl::UnavailableError(loss->sentence));
      left = left || loss->left;
    } else if (const auto why = OtherOffer(members, placed, last_placement_->lazy)) {
      pipeline->Break(absl::AbortedError(*why));
    }
  }
  const absl::Status status = pipeline->status();
  if (status.ok()) return;
  if (!left) {
    RENGA_LOG(INFO) << "epoch " << pipeline->epoch() << " is over: " << status.message();
  }
  trouble_ = std::string(status.message());
  broken_at_ = Now();
  settle_ = broken_at_ - ready_at_ < kShortLife ? std::min(2 * settle_, kLongestSettle) : kSettle;
  not_before_ = broken_at_ + settle_;
  {
    absl::MutexLock lock(&mutex_);
    pipeline_ = nullptr;
    view_.placement = nullptr;
    view_.loads.clear();
    view_.epoch = 0;
    view_.times = {};
  }
  SetState(ClusterState::kBroken, trouble_);
}

std::string ClusterManager::Impl::ModelName() const {
  const model::ModelConfig& config = options_.store->model().config;
  return config.name.empty() ? config.architecture : config.name;
}

void ClusterManager::Impl::SetState(ClusterState state, std::string sentence) {
  absl::MutexLock lock(&mutex_);
  RENGA_LOG(INFO) << ClusterStateName(state) << ": " << sentence;
  view_.state = state;
  view_.sentence = std::move(sentence);
  changed_ = true;
  told_at_ = -absl::InfiniteDuration();
}

void ClusterManager::Impl::TellChange() {
  if (!options_.on_change || !changed_ || Now() - told_at_ < kTick) return;
  changed_ = false;
  told_at_ = Now();
  options_.on_change(Status());
}

absl::StatusOr<std::shared_ptr<Pipeline>> ClusterManager::Impl::CurrentPipeline() const {
  absl::MutexLock lock(&mutex_);
  if (view_.state != ClusterState::kReady) return absl::UnavailableError(view_.sentence);
  const absl::Status status = pipeline_->status();
  if (!status.ok()) return absl::UnavailableError(status.message());
  return std::shared_ptr<Pipeline>(pipeline_);
}

ClusterStatus ClusterManager::Impl::Status() const {
  ClusterView view;
  {
    absl::MutexLock lock(&mutex_);
    view = view_;
    if (pipeline_ != nullptr) view.times = pipeline_->times();
  }
  ClusterStatus status = MakeStatus(view, *options_.store, options_.membership->Members(), Now());
  if (options_.links != nullptr) status.links = options_.links->Links();
  return status;
}

absl::Status ClusterManager::Impl::WaitUntilReady(absl::Duration timeout,
                                                  const std::function<bool()>& cancelled) const {
  const absl::Duration deadline = Now() + timeout;
  absl::MutexLock lock(&mutex_);
  while (view_.state != ClusterState::kReady) {
    if (options_.expected_workers > 0 && !refusal_.ok()) return refusal_;
    if (Now() >= deadline) return absl::DeadlineExceededError(view_.sentence);
    auto decided = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return view_.state == ClusterState::kReady;
    };
    mutex_.AwaitWithTimeout(absl::Condition(&decided), kTick);
    mutex_.Unlock();
    const bool stop = cancelled && cancelled();
    mutex_.Lock();
    if (stop) return absl::CancelledError("interrupted while the model was loading");
  }
  return absl::OkStatus();
}

ClusterManager::ClusterManager(Options options)
    : impl_(std::make_unique<Impl>(std::move(options))) {}
ClusterManager::~ClusterManager() = default;
absl::StatusOr<std::shared_ptr<Pipeline>> ClusterManager::CurrentPipeline() {
  return impl_->CurrentPipeline();
}
ClusterStatus ClusterManager::Status() const { return impl_->Status(); }
absl::Status ClusterManager::WaitUntilReady(absl::Duration timeout,
                                            const std::function<bool()>& cancelled) {
  return impl_->WaitUntilReady(timeout, cancelled);
}

}  // namespace renga::cluster
