#include "cli/coordinator.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "coordinator/cluster/manifest.h"
#include "partition/planner.h"
#include "worker/engine/head_block.h"
#include "worker/engine/screen_file.h"
#include "worker/engine/screened_head.h"

namespace renga::cli {
namespace {

// Sent to measure a link's bandwidth.
constexpr int64_t kLargePayloadBytes = int64_t{256} << 10;

// One for each model, as their shards differ.
std::string PlacementFile(const std::string& state_directory, const cluster::Manifest& manifest) {
  if (state_directory.empty()) return "";
  return absl::StrCat(state_directory, "/placement-", manifest.model_id.ToHex(), ".json");
}

// Plans count what workers hold of a head that stays on disk: a part of the screen each, and what
// computes rows. Without a screen, which is false, workers say so and hold all rows.
bool CountScreen(const CoordinatorOptions& options, cluster::ModelStore& store) {
  const std::string id = absl::BytesToHexString(cluster::WireBytes(store.manifest().model_id));
  const auto screen = engine::ScreenFile::Open(engine::ScreenPath(options.screen_directory, id));
  const model::ModelConfig& config = store.model().config;
  if (!screen.ok() || !engine::HeadBlock::CanUse(**screen, config, store.footprint().head_type)) {
    return false;
  }
  const int64_t whole = engine::ScreenedHead::ResidentBytes(**screen, {0, config.vocab_size});
  const int64_t least = engine::ScreenedHead::ResidentBytes(**screen, {0, 1});
  store.CountHead(whole + (std::max(1, options.expected_workers) - 1) * least);
  return true;
}

// Whether a plan without the disk has room for the model and all of its head.
bool WholeHeadFits(const CoordinatorOptions& options, const cluster::ModelStore& store) {
  absl::StatusOr<partition::PlanRequest> request =
      ToPlanRequest(options.plan, store.model().config);
  if (!request.ok()) return true;  // said where the plan is made
  request->lazy = false;
  std::vector<partition::WorkerProfile> workers;
  for (const int64_t bytes : options.whole_head_within) {
    // Whether something fits has nothing to do with speed.
    workers.push_back({.id = absl::StrCat("worker ", workers.size() + 1),
                       .memory_bytes = bytes,
                       .bytes_per_second = 1e9});
  }
  return partition::MakePlan(store.model(), store.footprint(), workers, *request).ok();
}

}  // namespace

absl::Status Coordinator::OpenModel(const CoordinatorOptions& options) {
  cluster::ModelStore::Options store_options;
  store_options.progress = options.on_hash_progress;
  RENGA_ASSIGN_OR_RETURN(store_, cluster::ModelStore::Open(options.model_path, store_options));
  RENGA_ASSIGN_OR_RETURN(const model::Approximation approximation,
                         ToApproximation(options.plan.approximation, store_->model().config));
  RENGA_RETURN_IF_ERROR(store_->CountApproximation(approximation));
  if (!options.screen_directory.empty()) {
    const bool chosen = options.whole_head_within.empty();
    uses_screen_ = chosen;
    if (chosen || !WholeHeadFits(options, *store_)) {
      uses_screen_ = CountScreen(options, *store_) || chosen;
    }
    if (uses_screen_ && !chosen) {
      RENGA_LOG(INFO) << "the output matrix stays on disk: with it the model does not fit";
    }
  }
  RENGA_ASSIGN_OR_RETURN(tokenizer_, model::Tokenizer::Create(store_->file().metadata()));
  auto chat_template = model::ChatTemplate::Create(store_->file().metadata());
  if (chat_template.ok()) {
    chat_template_ = *std::move(chat_template);
  } else {
    RENGA_LOG(WARNING) << "this model's chat template can't be used, so chats are refused: "
                       << chat_template.status().message();
  }
  return absl::OkStatus();
}

absl::Status Coordinator::StartServer(const CoordinatorOptions& options) {
  std::unique_ptr<transport::Dialer> network;
  if (authority_ != nullptr) {
    RENGA_ASSIGN_OR_RETURN(transport::Identity identity,
                           authority_->IssueIdentity(transport::kCoordinatorName));
    network = transport::CreateTlsDialer(std::move(identity));
  } else if (!options.listen_address.empty()) {
    network = transport::CreateInsecureLoopbackDialer();
  }
  dialer_ = std::make_unique<transport::InProcessDialer>(std::move(network));
  RENGA_ASSIGN_OR_RETURN(server_,
                         cluster::CoordinatorServer::Start({.membership = &membership_,
                                                            .store = store_.get(),
                                                            .authority = authority_.get(),
                                                            .address = options.listen_address}));
  dialer_->Register(std::string(transport::kCoordinatorName), server_->server());
  return absl::OkStatus();
}

// Messages of the size of a decoded token's, and of a long prompt's chunk.
cluster::LinkSurvey::Options Coordinator::LinkOptions(const CoordinatorOptions& options,
                                                      base::DataType wire_type) {
  const base::DataTypeInfo& wire = base::GetDataTypeInfo(wire_type);
  const int64_t row_bytes = store_->model().config.d_model / wire.block_elements * wire.block_bytes;
  cluster::LinkSurvey::Options links;
  links.membership = &membership_;
  links.dialer = dialer_.get();
  links.payload_bytes = {std::min(row_bytes, kLargePayloadBytes / 2), kLargePayloadBytes};
  if (!options.state_directory.empty()) links.file = options.state_directory + "/links.json";
  return links;
}

absl::Status Coordinator::StartServing(CoordinatorOptions options) {
  RENGA_ASSIGN_OR_RETURN(partition::PlanRequest request,
                         ToPlanRequest(options.plan, store_->model().config));
  RENGA_ASSIGN_OR_RETURN(const serving::SpeculationMode speculation,
                         ToSpeculationMode(options.plan));
  request.use_every_worker = options.use_every_worker;
  const int64_t context = request.context_tokens;
  if (options.measure_links) {
    links_ = std::make_unique<cluster::LinkSurvey>(LinkOptions(options, request.wire_type));
  }
  manager_ = std::make_unique<cluster::ClusterManager>(cluster::ClusterManager::Options{
      .store = store_.get(),
      .membership = &membership_,
      .dialer = dialer_.get(),
      .links = links_.get(),
      .request = request,
      .expected_workers = options.expected_workers,
      .on_change = std::move(options.on_change),
      .last_placement_file = PlacementFile(options.state_directory, store_->manifest())});
  serving::SchedulerOptions scheduler;
  scheduler.replicas = manager_->Sources();
  if (draft_ != nullptr) {
    RENGA_RETURN_IF_ERROR(draft_->CheckTokens(*tokenizer_));
    scheduler.draft = draft_->source();
  }
  scheduler.is_end_token = [tokenizer = tokenizer_.get()](model::TokenId id) {
    return tokenizer->IsEndOfGeneration(id);
  };
  scheduler.context_tokens = context;
  scheduler.speculation = speculation;
  scheduler.optimistic = options.plan.optimistic;
  scheduler_ = std::make_unique<serving::Scheduler>(std::move(scheduler));
  text_ = std::make_unique<serving::TextEngine>(tokenizer_.get(), chat_template_.get(),
                                                scheduler_.get());
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(CoordinatorOptions options) {
  std::unique_ptr<Coordinator> coordinator(new Coordinator);
  coordinator->draft_ = std::move(options.draft);
  coordinator->authority_ = std::move(options.authority);
  RENGA_RETURN_IF_ERROR(coordinator->OpenModel(options));
  RENGA_RETURN_IF_ERROR(coordinator->StartServer(options));
  RENGA_RETURN_IF_ERROR(coordinator->StartServing(std::move(options)));
  return coordinator;
}

Coordinator::~Coordinator() {
  if (scheduler_ != nullptr) scheduler_->Stop();
}

}  // namespace renga::cli
