#include "worker/service/shard_host.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/byte_size.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/service/shipped_weights.h"

namespace renga::worker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);
// Frames that wait on one edge take at most about this much memory beside what was offered.
constexpr int64_t kEdgeBufferBytes = int64_t{12} << 20;
constexpr uint32_t kMinEdgeWindow = 2;  // one computed, one on its way

uint32_t EdgeWindow(int64_t frame_bytes) {
  const int64_t frames = kEdgeBufferBytes / std::max<int64_t>(frame_bytes, 1);
  return static_cast<uint32_t>(
      std::clamp<int64_t>(frames, kMinEdgeWindow, transport::kEdgeWindowFrames));
}

// "layers 0-14 and head rows 0-49151 of SmolLM2": for people, so the last one is named too.
std::string DescribeShard(const LoadOrder& order) {
  const auto rows = [](absl::string_view what, const model::Range& range) {
    return absl::StrCat(what, " ", range.begin, "-", range.end - 1);
  };
  std::vector<std::string> parts;
  if (!order.spec.layers.empty()) parts.push_back(rows("layers", order.spec.layers));
  if (!order.spec.head_rows.empty()) parts.push_back(rows("head rows", order.spec.head_rows));
  const model::ModelConfig& config = order.model.config;
  const std::string& name = config.name.empty() ? config.architecture : config.name;
  // The name is a peer's text.
  return absl::StrCat(absl::StrJoin(parts, " and "), " of ",
                      absl::Utf8SafeCHexEscape(name.substr(0, 80)));
}

bool SameLimits(const model::RuntimeLimits& a, const model::RuntimeLimits& b) {
  return a.kv_blocks == b.kv_blocks && a.max_step_tokens == b.max_step_tokens &&
         a.max_step_outputs == b.max_step_outputs && a.kv_type == b.kv_type;
}

}  // namespace

// Lets other threads end a load. Thread-safe.
class ShardHost::LoadTicket {
 public:
  void Cancel() {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (weights_ != nullptr) weights_->Cancel();
  }
  bool cancelled() {
    absl::MutexLock lock(&mutex_);
    return cancelled_;
  }
  // What to wake on Cancel; null again before it goes away.
  void SetWeights(ShippedWeights* weights) {
    absl::MutexLock lock(&mutex_);
    weights_ = weights;
    if (cancelled_ && weights_ != nullptr) weights_->Cancel();
  }

 private:
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  ShippedWeights* weights_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

ShardHost::ShardHost(Options options)
    : options_(std::move(options)), thread_([this] { RunJobs(); }) {}

ShardHost::~ShardHost() { Stop(); }

void ShardHost::RunJobs() {
  while (JobQueue::Job job = jobs_.Pop()) job();
  stage_.reset();
}

void ShardHost::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    if (ticket_ != nullptr) ticket_->Cancel();
    stopped_ = true;
  }
  jobs_.Close();
  outbox_.Close(absl::UnavailableError("the worker is leaving"));
  if (thread_.joinable()) thread_.join();
}

void ShardHost::Load(proto::LoadRequest request, std::shared_ptr<LoadStream> stream) {
  auto ticket = std::make_shared<LoadTicket>();
  {
    absl::MutexLock lock(&mutex_);
    if (stopped_) {
      stream->End(absl::UnavailableError("the worker is leaving"));
      return;
    }
    if (ticket_ != nullptr) ticket_->Cancel();
    ticket_ = ticket;
  }
  stream->SetOnCancel([ticket] { ticket->Cancel(); });
  jobs_.Push([this, request = std::move(request), ticket, stream = std::move(stream)] {
    const absl::Status status = DoLoad(request, *ticket, *stream);
    if (!status.ok() && !absl::IsCancelled(status)) {
      RENGA_LOG(WARNING) << "loading failed: " << status.message();
    }
    stream->End(status);
  });
}

absl::Status ShardHost::DoLoad(const proto::LoadRequest& request, LoadTicket& ticket,
                               LoadStream& stream) {
  RENGA_ASSIGN_OR_RETURN(const LoadOrder order, FromProto(request));
  if (order.epoch <= newest_epoch_) {
    return absl::AbortedError(
        absl::StrCat("epoch ", order.epoch, " is not newer than ", newest_epoch_));
  }
  newest_epoch_ = order.epoch;
  DropStage();
  outbox_.Begin(order.epoch);
  proto::LoadProgress ready;
  if (shard_ != nullptr && model_id_ == order.model_id && shard_->spec() == order.spec &&
      SameLimits(limits_, order.limits)) {
    shard_->ResetSequences();
  } else {
    RENGA_RETURN_IF_ERROR(LoadShard(order, ticket, stream, ready));
  }
  StartStage(order);
  TellHolding(order, ready);
  ready.set_ready(true);
  ready.set_memory_bytes(shard_->memory_bytes());
  stream.Write(ready);
  return absl::OkStatus();
}

absl::Status ShardHost::LoadShard(const LoadOrder& order, LoadTicket& ticket, LoadStream& stream,
                                  proto::LoadProgress& last) {
  shard_.reset();
  malloc_trim(0);
  ShippedWeights weights(&order, {.local_model = options_.local_model,
                                  .cache_directory = options_.cache_directory,
                                  .coordinator = options_.dialer->Dial(
                                      options_.coordinator, transport::ChannelPurpose::kShards)});
  ticket.SetWeights(&weights);
  absl::Time next_report = absl::InfinitePast();
  const auto progress = [&](int64_t done_bytes, int64_t total_bytes) {
    const absl::Time now = absl::Now();
    if (now >= next_report || done_bytes == total_bytes) {
      next_report = now + kProgressInterval;
      last.set_done_bytes(done_bytes);
      last.set_total_bytes(total_bytes);
      last.set_fetched_bytes(weights.fetched_bytes());
      last.set_cached_bytes(weights.cached_bytes());
      last.set_memory_bytes(options_.budget->used_bytes());
      stream.Write(last);
    }
    return !ticket.cancelled();
  };
  auto shard = engine::Shard::Load(order.model, order.spec, order.limits, options_.backend,
                                   options_.budget, &weights, progress);
  ticket.SetWeights(nullptr);
  // Staging buffers and messages are gone; give their pages back before KV blocks fill up.
  malloc_trim(0);
  if (!shard.ok()) return shard.status();
  shard_ = *std::move(shard);
  model_id_ = order.model_id;
  limits_ = order.limits;
  last.set_fetched_bytes(weights.fetched_bytes());
  last.set_cached_bytes(weights.cached_bytes());
  return absl::OkStatus();
}

void ShardHost::TellHolding(const LoadOrder& order, const proto::LoadProgress& progress) const {
  const bool kept = progress.total_bytes() == 0;
  const std::string line = absl::StrCat(
      "holding ", DescribeShard(order), ": fetched ", progress.fetched_bytes(), " bytes, ",
      kept ? "held already" : absl::StrCat(progress.cached_bytes(), " from the cache"));
  RENGA_LOG(INFO) << line << ", " << base::FormatByteSize(shard_->memory_bytes()) << " in memory";
  if (options_.on_event) options_.on_event(line);
}

void ShardHost::StartStage(const LoadOrder& order) {
  const int64_t d_model = order.model.config.d_model;
  Stage::Options options;
  options.epoch = order.epoch;
  options.worker_index = order.worker_index;
  options.d_model = d_model;
  options.routes = order.routes;
  options.shard = shard_.get();
  options.dialer = options_.dialer;
  options.emit = [this](proto::StepResult result) { outbox_.Push(std::move(result)); };
  options.on_edge_broken = [this, epoch = order.epoch](const std::string& peer,
                                                       const absl::Status& status) {
    jobs_.Push([this, epoch, peer, status] {
      if (stage_ != nullptr && stage_->epoch() == epoch) stage_->ReportBrokenEdge(peer, status);
    });
  };
  stage_ = std::make_unique<Stage>(std::move(options));
  loaded_epoch_ = order.epoch;
  const int64_t frame_bytes =
      order.limits.max_step_tokens * d_model * static_cast<int64_t>(sizeof(float));
  max_frame_bytes_ = static_cast<size_t>(frame_bytes);
  edge_window_ = EdgeWindow(frame_bytes);
  if (options_.on_loaded) options_.on_loaded(edge_window_);
}

void ShardHost::DropStage() {
  loaded_epoch_ = 0;
  stage_.reset();
}

void ShardHost::Unload(uint64_t epoch, std::function<void()> done) {
  jobs_.Push([this, epoch, done = std::move(done)] {
    if (stage_ != nullptr && stage_->epoch() == epoch) {
      DropStage();
      outbox_.Close(absl::AbortedError("the plan was unloaded"));
      shard_.reset();
      malloc_trim(0);
    }
    done();
  });
}

void ShardHost::RunFrame(proto::StepFrame frame, std::function<void()> done) {
  jobs_.Push([this, frame = std::move(frame), done = std::move(done),
              arrival = Clock::now()]() mutable {
    const auto queued =
        std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - arrival);
    if (stage_ != nullptr && stage_->Run(std::move(frame), static_cast<uint64_t>(queued.count()))) {
      ++steps_done_;
    }
    done();
  });
}

void ShardHost::AttachResults(uint64_t epoch, std::shared_ptr<ResultOutbox::Stream> stream) {
  outbox_.Attach(epoch, std::move(stream));
}

}  // namespace renga::worker
