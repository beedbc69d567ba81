#include "cli/coordinator.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace renga::cli {
namespace {

// One for each model, as their shards differ.
std::string PlacementFile(const std::string& state_directory, const cluster::Manifest& manifest) {
  if (state_directory.empty()) return "";
  return absl::StrCat(state_directory, "/placement-", manifest.model_id.ToHex(), ".json");
}

}  // namespace

absl::Status Coordinator::OpenModel(const CoordinatorOptions& options) {
  cluster::ModelStore::Options store_options;
  store_options.progress = options.on_hash_progress;
  RENGA_ASSIGN_OR_RETURN(store_, cluster::ModelStore::Open(options.model_path, store_options));
  RENGA_ASSIGN_OR_RETURN(embeddings_,
                         model::EmbeddingTable::Create(store_->file(), store_->model().config));
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

absl::Status Coordinator::StartServing(CoordinatorOptions options) {
  RENGA_ASSIGN_OR_RETURN(partition::PlanRequest request,
                         ToPlanRequest(options.plan, store_->model().config));
  request.use_every_worker = options.use_every_worker;
  const int64_t context = request.context_tokens;
  manager_ = std::make_unique<cluster::ClusterManager>(cluster::ClusterManager::Options{
      .store = store_.get(),
      .membership = &membership_,
      .dialer = dialer_.get(),
      .request = request,
      .expected_workers = options.expected_workers,
      .on_change = std::move(options.on_change),
      .last_placement_file = PlacementFile(options.state_directory, store_->manifest())});
  serving::SchedulerOptions scheduler;
  scheduler.source = manager_.get();
  scheduler.embeddings = [this](std::span<const model::TokenId> tokens) {
    return embeddings_->Rows(tokens);
  };
  scheduler.is_end_token = [tokenizer = tokenizer_.get()](model::TokenId id) {
    return tokenizer->IsEndOfGeneration(id);
  };
  scheduler.context_tokens = context;
  scheduler_ = std::make_unique<serving::Scheduler>(std::move(scheduler));
  text_ = std::make_unique<serving::TextEngine>(tokenizer_.get(), chat_template_.get(),
                                                scheduler_.get());
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(CoordinatorOptions options) {
  std::unique_ptr<Coordinator> coordinator(new Coordinator);
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
