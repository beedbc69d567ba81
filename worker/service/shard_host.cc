#include "worker/service/shard_host.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/byte_size.h"
#include "base/data_type.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "transport/group_communicator.h"
#include "worker/engine/screen_file.h"
#include "worker/engine/screened_head.h"
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
  if (order.spec.slice.has_value()) {
    const auto share = [](const model::Range& part, int64_t whole) {
      return absl::StrCat(part.size(), " of ", whole);
    };
    parts.back() += absl::StrCat(" (", share(order.spec.slice->heads, order.model.config.n_heads),
                                 " heads, ", share(order.spec.slice->ff, order.model.config.d_ff),
                                 " feed-forward columns)");
  }
  if (!order.spec.head_rows.empty()) parts.push_back(rows("head rows", order.spec.head_rows));
  const model::ModelConfig& config = order.model.config;
  const std::string& name = config.name.empty() ? config.architecture : config.name;
  // The name is a peer's text.
  return absl::StrCat(absl::StrJoin(parts, " and "), " of ",
                      absl::Utf8SafeCHexEscape(name.substr(0, 80)));
}

// The screen of the head of the order's model; null when there is none that can be used.
std::shared_ptr<const engine::ScreenFile> OpenScreen(const std::string& directory,
                                                     const LoadOrder& order) {
  if (directory.empty() || order.spec.head_rows.empty()) return nullptr;
  const base::DataType type = order.tensors.at(model::OutputTensor(order.model.config).name).type;
  if (!engine::CanScreen(type)) {
    RENGA_LOG(WARNING) << "the head is loaded whole: in " << base::GetDataTypeInfo(type).name
                       << " it is small as it is; leaving it on disk pays from six bits on";
    return nullptr;
  }
  const std::string id = absl::BytesToHexString(order.model_id);
  auto screen = engine::ScreenFile::Open(engine::ScreenPath(directory, id));
  absl::Status status = screen.status();
  if (status.ok() && (*screen)->model_id() != id) {
    status = absl::DataLossError("its screen is another model's");
  }
  if (status.ok()) return *std::move(screen);
  RENGA_LOG(WARNING) << "the head is loaded whole: " << status.message()
                     << "; `renga regions` builds its screen";
  return nullptr;
}

// Whether a shard that was loaded for one order does for another.
bool IsSameShard(const LoadOrder& a, const LoadOrder& b) {
  return a.model_id == b.model_id && a.spec == b.spec && a.mode == b.mode &&
         a.limits.kv_blocks == b.limits.kv_blocks &&
         a.limits.max_step_tokens == b.limits.max_step_tokens &&
         a.limits.max_step_outputs == b.limits.max_step_outputs &&
         a.limits.kv_type == b.limits.kv_type && a.limits.approximation == b.limits.approximation &&
         model::SameRows(a.limits.near_rows, b.limits.near_rows);
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
  while (JobQueue::Job job = jobs_.Pop(options_.frame_looker)) job();
  stage_.reset();
  // Its members are destroyed in another order.
  DropShard();
}

void ShardHost::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    if (ticket_ != nullptr) ticket_->Cancel();
    if (group_ != nullptr) group_->Cancel();
    if (cancelled_weights_ != nullptr) cancelled_weights_->Cancel();
    stopped_ = true;
  }
  jobs_.Close();
  outbox_.Close(absl::UnavailableError("the worker is leaving"));
  if (thread_.joinable()) thread_.join();
}

void ShardHost::Load(proto::LoadRequest request, std::shared_ptr<LoadStream> stream) {
  ++orders_;
  auto ticket = std::make_shared<LoadTicket>();
  {
    absl::MutexLock lock(&mutex_);
    if (stopped_) {
      stream->End(absl::UnavailableError("the worker is leaving"));
      return;
    }
    if (ticket_ != nullptr) ticket_->Cancel();
    ticket_ = ticket;
    // The plan they belong to is over: its members may be gone, and nobody waits for its steps.
    if (request.epoch() > loaded_epoch_) {
      if (group_ != nullptr) group_->Cancel();
      if (cancelled_weights_ != nullptr) cancelled_weights_->Cancel();
    }
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

bool ShardHost::Holds(const LoadOrder& order) const {
  if (shard_ == nullptr || !IsSameShard(*order_, order)) return false;
  // How much of a lazy one stays in memory was decided by the offer of that time.
  const int64_t offered = options_.budget->total_bytes();
  return order.mode == engine::LoadMode::kEager ? shard_->memory_bytes() <= offered
                                                : offered == offered_bytes_;
}

absl::Status ShardHost::DoLoad(const proto::LoadRequest& request, LoadTicket& ticket,
                               LoadStream& stream) {
  const absl::StatusOr<LoadOrder> checked = CheckOrder(request);
  if (checked.ok()) DropStage();
  ResumeFetching(ticket);
  RENGA_RETURN_IF_ERROR(checked.status());
  const LoadOrder& order = *checked;
  newest_epoch_ = order.epoch;
  outbox_.Begin(order.epoch);
  proto::LoadProgress ready;
  if (Holds(order)) {
    shard_->ResetSequences();
  } else {
    RENGA_RETURN_IF_ERROR(LoadShard(order, ticket, stream, ready));
  }
  // Also of a shard that is kept, whose loading may have been interrupted.
  if (saver_ == nullptr) PushLoadMore();
  RENGA_RETURN_IF_ERROR(JoinGroup(order));
  StartStage(order);
  TellHolding(order, ready);
  ready.set_ready(true);
  ready.set_memory_bytes(shard_->memory_bytes());
  stream.Write(ready);
  return absl::OkStatus();
}

absl::StatusOr<LoadOrder> ShardHost::CheckOrder(const proto::LoadRequest& request) const {
  RENGA_ASSIGN_OR_RETURN(LoadOrder order, FromProto(request));
  if (order.epoch > newest_epoch_) return order;
  return absl::AbortedError(
      absl::StrCat("epoch ", order.epoch, " is not newer than ", newest_epoch_));
}

void ShardHost::ResumeFetching(const LoadTicket& ticket) {
  absl::MutexLock lock(&mutex_);
  if (weights_ != nullptr && ticket_.get() == &ticket && !stopped_) weights_->Resume();
}

absl::Status ShardHost::LoadShard(const LoadOrder& order, LoadTicket& ticket, LoadStream& stream,
                                  proto::LoadProgress& last) {
  DropShard();
  const int64_t offered = options_.budget->total_bytes();
  order_ = std::make_unique<const LoadOrder>(order);
  packed_ = std::make_unique<PackedCache>(options_.packed_directory, order.model_id,
                                          options_.backend->layout_name());
  std::vector<std::shared_ptr<grpc::Channel>> holders;
  for (const PieceHolder& holder : order_->piece_holders) {
    holders.push_back(options_.dialer->Dial(holder.address, transport::ChannelPurpose::kShards));
  }
  weights_ = std::make_unique<ShippedWeights>(
      order_.get(), ShippedWeights::Places{
                        .local_model = options_.local_model,
                        .cache_directory = options_.cache_directory,
                        .screen = OpenScreen(options_.screen_directory, order),
                        .packed = packed_.get(),
                        .channels = {.coordinator = options_.dialer->Dial(
                                         options_.coordinator, transport::ChannelPurpose::kShards),
                                     .holders = std::move(holders)},
                        // Other devices load all of their layers at once.
                        .lazy = order.mode == engine::LoadMode::kLazy &&
                                !options_.backend->layout_name().empty()});
  ShippedWeights& weights = *weights_;
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
  auto shard = engine::Shard::Load(order_->model, order_->spec, order_->limits, options_.backend,
                                   options_.budget, &weights, progress, order_->mode);
  ticket.SetWeights(nullptr);
  // Staging buffers and messages are gone; give their pages back before KV blocks fill up.
  malloc_trim(0);
  if (!shard.ok()) {
    DropShard();
    return shard.status();
  }
  shard_ = *std::move(shard);
  offered_bytes_ = offered;
  last.set_fetched_bytes(weights.fetched_bytes());
  last.set_cached_bytes(weights.cached_bytes());
  packed_->RememberChecked();
  if (order_->mode == engine::LoadMode::kEager) weights_.reset();
  if (std::vector<engine::MatrixKey> unpacked = shard_->Unpacked(); !unpacked.empty()) {
    collector_ = std::make_unique<PieceCollector>(weights_.get(), weights_->Lacking(unpacked));
  }
  ++shards_loaded_;
  absl::MutexLock lock(&mutex_);
  reported_shard_ = shard_.get();
  reported_collector_ = collector_.get();
  cancelled_weights_ = weights_.get();
  return stopped_ ? absl::CancelledError("the worker is leaving") : absl::OkStatus();
}

void ShardHost::PushLoadMore() {
  jobs_.Push([this, number = shards_loaded_] {
    if (shard_ != nullptr && shards_loaded_ == number) LoadMore();
  });
}

void ShardHost::LoadMore() {
  const absl::StatusOr<bool> more = shard_->LoadMore();
  if (!more.ok()) {
    if (absl::IsCancelled(more.status())) return;
    // Steps ask for what they need themselves, and say so when it does not come.
    RENGA_LOG(WARNING) << "loading stands still: " << more.status().message();
    if (collector_ != nullptr) collector_->Begin();
  } else if (*more) {
    PushLoadMore();
  } else if (saver_ == nullptr) {
    StartSaver();
    if (collector_ != nullptr) collector_->Begin();
  }
}

void ShardHost::StartSaver() {
  std::vector<PackedSaver::Item> items;
  for (const engine::HeldMatrix& matrix : shard_->newly_packed()) {
    items.push_back({.id = PackedIdOf(*order_, matrix.key), .bytes = matrix.bytes});
  }
  saver_ = std::make_unique<PackedSaver>(packed_.get(), std::move(items));
}

engine::ResidencyReport ShardHost::residency() const {
  absl::MutexLock lock(&mutex_);
  if (reported_shard_ == nullptr) return {};
  engine::ResidencyReport report = reported_shard_->residency();
  if (reported_collector_ != nullptr) report.to_come = reported_collector_->missing_bytes();
  return report;
}

ShardHost::Progress ShardHost::progress() const {
  absl::MutexLock lock(&mutex_);
  return {.step = step_,
          .weight_bytes = cancelled_weights_ == nullptr ? 0 : cancelled_weights_->read_bytes()};
}

void ShardHost::DropShard() {
  {
    absl::MutexLock lock(&mutex_);
    reported_shard_ = nullptr;
    reported_collector_ = nullptr;
    cancelled_weights_ = nullptr;
  }
  collector_.reset();
  saver_.reset();
  shard_.reset();
  weights_.reset();
  packed_.reset();
  malloc_trim(0);
}

void ShardHost::TellHolding(const LoadOrder& order, const proto::LoadProgress& progress) const {
  const bool kept = progress.total_bytes() == 0;
  const std::string line = absl::StrCat(
      "holding ", DescribeShard(order), ": fetched ", progress.fetched_bytes(), " bytes, ",
      kept ? "held already" : absl::StrCat(progress.cached_bytes(), " from the cache"),
      options_.local_model != nullptr && progress.fetched_bytes() > 0
          ? "; the file of --model lacks some of these weights, or has other ones"
          : "");
  RENGA_LOG(INFO) << line << ", " << base::FormatByteSize(shard_->memory_bytes()) << " in memory";
  if (options_.on_event) options_.on_event(line);
}

absl::Status ShardHost::JoinGroup(const LoadOrder& order) {
  if (!order.group.has_value()) return absl::OkStatus();
  if (options_.listener == nullptr) {
    return absl::FailedPreconditionError(
        "this worker has no port for tensor-parallel groups: start it with --listen, or plan with "
        "--tensor-parallel 1");
  }
  RENGA_ASSIGN_OR_RETURN(
      std::unique_ptr<transport::GroupCommunicator> connections,
      transport::GroupCommunicator::Create({.epoch = order.epoch,
                                            .rank = order.group->rank,
                                            .members = order.group->members,
                                            .listener = options_.listener,
                                            .wire_type = order.limits.wire_type,
                                            .credentials = options_.socket_credentials}));
  auto group = std::make_shared<StageGroup>(
      StageGroup::Options{.connections = std::move(connections),
                          .backend = order.group->sums_on_cards ? options_.backend : nullptr,
                          .on_event = options_.on_event});
  absl::MutexLock lock(&mutex_);
  if (stopped_) return absl::CancelledError("the worker is leaving");
  group_ = std::move(group);
  return absl::OkStatus();
}

void ShardHost::StartStage(const LoadOrder& order) {
  const int64_t d_model = order.model.config.d_model;
  Stage::Options options;
  options.epoch = order.epoch;
  options.worker_index = order.worker_index;
  options.d_model = d_model;
  options.vocab_size = order.model.config.vocab_size;
  options.wire_type = order.limits.wire_type;
  options.routes = order.routes;
  options.shard = shard_.get();
  {
    absl::MutexLock lock(&mutex_);
    options.group = group_.get();
    withdrawn_ = std::make_shared<WithdrawnSteps>(order.epoch);
    options.withdrawn = withdrawn_;
  }
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
  // FromProto has seen that rows are whole blocks.
  const base::DataTypeInfo& wire = base::GetDataTypeInfo(order.limits.wire_type);
  const int64_t frame_bytes =
      order.limits.max_step_tokens * (d_model / wire.block_elements * wire.block_bytes);
  max_frame_bytes_ = static_cast<size_t>(frame_bytes);
  edge_window_ = EdgeWindow(frame_bytes);
  if (options_.on_loaded) options_.on_loaded(edge_window_);
}

void ShardHost::DropStage() {
  loaded_epoch_ = 0;
  stage_.reset();
  absl::MutexLock lock(&mutex_);
  group_.reset();
  withdrawn_.reset();
}

void ShardHost::Unload(uint64_t epoch, std::function<void()> done) {
  ++orders_;
  {
    absl::MutexLock lock(&mutex_);
    // A step may wait for members that are gone, or for weights.
    if (epoch == loaded_epoch_) {
      if (group_ != nullptr) group_->Cancel();
      if (cancelled_weights_ != nullptr) cancelled_weights_->Cancel();
    }
  }
  jobs_.Push([this, epoch, done = std::move(done)] {
    if (stage_ != nullptr && stage_->epoch() == epoch) {
      DropStage();
      outbox_.Close(absl::AbortedError("the plan was unloaded"));
      DropShard();
    }
    done();
  });
}

void ShardHost::RunFrame(proto::StepFrame frame, std::function<void()> done) {
  ++orders_;
  jobs_.Push([this, frame = std::move(frame), done = std::move(done),
              arrival = Clock::now()]() mutable {
    const auto queued =
        std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - arrival);
    if (collector_ != nullptr) collector_->StepBegins();
    step_ = frame.step().number();
    if (stage_ != nullptr && stage_->Run(std::move(frame), static_cast<uint64_t>(queued.count()))) {
      ++steps_done_;
    }
    step_ = 0;
    if (collector_ != nullptr) collector_->StepEnds();
    done();
  });
}

bool ShardHost::RunQuietly(absl::FunctionRef<void(const GiveWay&)> work) {
  bool ran = false;
  absl::Notification over;
  // Also over when the job is dropped, because the worker is leaving.
  jobs_.Push([&, tell = absl::MakeCleanup([&over] { over.Notify(); })] {
    if (jobs_.HasWork()) return;
    ran = true;
    work([this] { return jobs_.HasWork(); });
  });
  over.WaitForNotification();
  return ran;
}

void ShardHost::AttachResults(uint64_t epoch, std::shared_ptr<transport::ResultSink> sink) {
  outbox_.Attach(epoch, std::move(sink));
}

void ShardHost::WithdrawSteps(uint64_t epoch, std::span<const uint64_t> numbers) {
  absl::MutexLock lock(&mutex_);
  if (withdrawn_ != nullptr && withdrawn_->epoch() == epoch) withdrawn_->Add(numbers);
}

}  // namespace renga::worker
