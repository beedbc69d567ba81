#include "coordinator/serving/dispatcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace renga::serving {

Dispatcher::Dispatcher(const SchedulerOptions& options, std::weak_ptr<Inbox> inbox)
    : options_(options) {
  if (options_.draft != nullptr) draft_.emplace(options_.draft);
  for (size_t replica = 0; replica < options_.replicas.size(); ++replica) {
    conductors_.push_back(std::make_unique<Conductor>(
        options_, replica, draft_.has_value() ? &*draft_ : nullptr, inbox));
  }
}

void Dispatcher::Handle(Event event) {
  if (auto* sequence = std::get_if<std::unique_ptr<Sequence>>(&event)) {
    prompt_tokens_ += static_cast<uint64_t>((*sequence)->prompt_tokens);
    Start(std::move(*sequence));
  } else if (auto* cancel = std::get_if<CancelEvent>(&event)) {
    for (const auto& conductor : conductors_) conductor->Cancel(cancel->request_id);
  } else if (auto* early = std::get_if<EarlyEvent>(&event)) {
    conductors_[early->replica]->GuessFrom(*early);
  } else {
    auto& done = std::get<StepEvent>(event);
    newest_step_ = done.replica;
    conductors_[done.replica]->StepDone(std::move(done));
  }
}

void Dispatcher::Turn() {
  StartAgain();
  for (const auto& conductor : conductors_) conductor->Turn();
}

void Dispatcher::StartAgain() {
  // Looking for a place may show that another pipeline has broken.
  bool again = true;
  while (std::exchange(again, false)) {
    for (const auto& conductor : conductors_) {
      for (std::unique_ptr<Sequence>& sequence : conductor->TakeHomeless()) {
        Start(std::move(sequence));
        again = true;
      }
    }
  }
}

void Dispatcher::Start(std::unique_ptr<Sequence> sequence) {
  if (request_count() >= options_.max_requests) {
    return conductors_.front()->Refuse(
        std::move(sequence),
        absl::ResourceExhaustedError(absl::StrCat("too many requests: ", options_.max_requests,
                                                  " are already waiting or running")));
  }
  Conductor* best = nullptr;
  absl::Status status;
  for (const auto& conductor : conductors_) {
    const absl::Status usable = conductor->Prepare();
    status.Update(usable);
    if (usable.ok() && (best == nullptr || conductor->load() < best->load())) {
      best = conductor.get();
    }
  }
  if (best == nullptr) return conductors_.front()->Refuse(std::move(sequence), status);
  best->Start(std::move(sequence));
}

int64_t Dispatcher::request_count() const {
  int64_t count = 0;
  for (const auto& conductor : conductors_) count += conductor->load().requests;
  return count;
}

absl::Time Dispatcher::NextDeadline() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& conductor : conductors_) next = std::min(next, conductor->NextDeadline());
  return next;
}

void Dispatcher::EndAll(const absl::Status& status) {
  for (const auto& conductor : conductors_) conductor->EndAll(status);
}

ServingStats Dispatcher::Stats() const {
  ServingStats stats = conductors_[newest_step_]->Stats();
  for (size_t replica = 0; replica < conductors_.size(); ++replica) {
    if (replica != newest_step_) stats.Add(conductors_[replica]->Stats());
  }
  stats.prompt_tokens = prompt_tokens_;
  return stats;
}

}  // namespace renga::serving
