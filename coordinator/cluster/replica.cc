#include "coordinator/cluster/replica.h"

#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/log.h"
#include "coordinator/cluster/load_request.h"
#include "coordinator/cluster/status_report.h"
#include "model/block_rows.h"

namespace renga::cluster {
namespace {

const Member* FindMember(const std::vector<Member>& members, const Member& wanted) {
  for (const Member& member : members) {
    if (member.id == wanted.id) return &member;
  }
  return nullptr;
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

Replica::End LoadFailed(const Member& member, const absl::Status& failure) {
  return {.why = absl::Status(failure.code(),
                              absl::StrCat("worker ", DescribeWorker(member),
                                           " could not load its shard: ", failure.message())),
          .expected = false,
          .failed = member};
}

}  // namespace

Replica::Replica(Options options, std::shared_ptr<const Placement> placement, uint64_t epoch,
                 absl::Duration now)
    : options_(std::move(options)), placement_(std::move(placement)), epoch_(epoch) {
  for (uint32_t worker = 0; worker < placement_->workers.size(); ++worker) {
    const Member& member = placement_->workers[worker].member;
    loads_.push_back(
        {.call = std::make_unique<ShardLoad>(
             options_.dialer->Dial({member.address, member.id},
                                   transport::ChannelPurpose::kControl),
             MakeLoadRequest(*options_.store, *placement_, worker, epoch), options_.wake),
         .last_report = now});
  }
  loaded_.resize(placement_->workers.size());
}

Replica::~Replica() {
  if (pipeline_ != nullptr) {
    pipeline_->Break(absl::UnavailableError("the coordinator is stopping"));
  }
}

std::optional<Replica::End> Replica::LookAround(const std::vector<Member>& members,
                                                absl::Duration now) {
  return pipeline_ == nullptr ? CheckLoads(members, now) : CheckPipeline(members);
}

bool Replica::TakeProgress() { return std::exchange(progress_, false); }

bool Replica::Stalled(size_t worker, absl::Duration now) {
  Load& load = loads_[worker];
  const uint64_t reports = load.call->reports();
  if (reports != load.reports) {
    load.reports = reports;
    load.last_report = now;
    progress_ = true;
  }
  return now - load.last_report > options_.load_stall_limit;
}

std::optional<Replica::End> Replica::CheckLoads(const std::vector<Member>& members,
                                                absl::Duration now) {
  size_t ready = 0;
  for (size_t worker = 0; worker < loads_.size(); ++worker) {
    const Member& member = placement_->workers[worker].member;
    if (const std::optional<Loss> loss = LossOf(members, member)) {
      return End{.why = absl::UnavailableError(absl::StrCat("while loading: ", loss->sentence)),
                 .expected = loss->left,
                 .failed = {}};
    }
    const std::optional<absl::Status> result = loads_[worker].call->result();
    if (result.has_value() && !result->ok()) return LoadFailed(member, *result);
    if (!result.has_value() && Stalled(worker, now)) {
      return LoadFailed(member,
                        absl::DeadlineExceededError(absl::StrCat(
                            "no progress for ", absl::FormatDuration(options_.load_stall_limit))));
    }
    ready += result.has_value() ? 1 : 0;
    loaded_[worker] = loads_[worker].call->progress();
  }
  if (ready == loads_.size()) StartPipeline(now);
  return std::nullopt;
}

void Replica::StartPipeline(absl::Duration now) {
  PipelineOptions options;
  options.epoch = epoch_;
  options.dialer = options_.dialer;
  options.model = options_.store->model();
  options.limits = placement_->limits;
  options.stages = placement_->stages;
  options.embedding_worker = placement_->embedding;
  options.embed = [store = options_.store](std::span<const model::TokenId> tokens) {
    return store->embeddings().Rows(tokens);
  };
  if (placement_->heads.size() > 1) options.near_head = placement_->heads.front();
  options.step_deadline = options_.step_deadline;
  options.on_broken = options_.wake;
  for (const PlacedWorker& placed : placement_->workers) {
    const Member& member = placed.member;
    options.workers.push_back({.id = member.id,
                               .name = DescribeWorker(member),
                               .address = member.data_address,
                               .head_rows = model::BlockRows::At(placed.spec.head_rows,
                                                                 placement_->limits.near_rows.get(),
                                                                 options.model.config.vocab_size)});
  }
  loads_.clear();
  pipeline_ = std::make_shared<PipelineImpl>(std::move(options));
  ready_at_ = now;
}

void Replica::TellProgress(uint32_t worker, const Heartbeat& heartbeat) {
  if (heartbeat.epoch != epoch_) return;
  pipeline_->Heard(worker,
                   {.step = heartbeat.step, .weight_bytes = heartbeat.weight_bytes_brought});
}

std::optional<Replica::End> Replica::CheckPipeline(const std::vector<Member>& members) {
  bool left = false;
  for (uint32_t worker = 0; worker < placement_->workers.size(); ++worker) {
    const PlacedWorker& placed = placement_->workers[worker];
    if (const std::optional<Loss> loss = LossOf(members, placed.member)) {
      pipeline_->Break(absl::UnavailableError(loss->sentence));
      left = left || loss->left;
    } else if (const auto why = OtherOffer(members, placed, placement_->lazy)) {
      pipeline_->Break(absl::AbortedError(*why));
    } else {
      TellProgress(worker, FindMember(members, placed.member)->last_heartbeat);
    }
  }
  const absl::Status status = pipeline_->status();
  if (status.ok()) return std::nullopt;
  if (!left) {
    RENGA_LOG(INFO) << "epoch " << epoch_ << " is over: " << status.message();
  }
  return End{.why = status, .expected = left, .failed = {}};
}

}  // namespace renga::cluster
