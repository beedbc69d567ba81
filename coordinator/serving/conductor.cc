#include "coordinator/serving/conductor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "coordinator/serving/combined_drafter.h"
#include "coordinator/serving/prompt_lookup.h"
#include "coordinator/serving/request_checks.h"

namespace renga::serving {
namespace {

// All logits of a row are vocab_size floats: a step brings no more rows than fit in this.
constexpr int64_t kMaxFullLogitBytesPerStep = int64_t{16} << 20;
// A pipeline takes no more steps than this at once (its edges' window).
constexpr int64_t kMaxStepsInFlight = 16;
// No prompt chunk is made smaller than this for the sake of others.
constexpr int64_t kSmallestChunk = 16;
// Of prompts beside answers.
constexpr int64_t kLargestChunk = 128;
// Of prompts that flow through stages: each waits for as long as the one before computes a chunk.
// Fewer tokens share the work of unpacking weights too rarely.
constexpr int64_t kFlowingChunk = 32;
// Of requests whose plan was given up for another one: a shard may have to be packed for it.
constexpr absl::Duration kLongestWaitForPlan = absl::Minutes(5);
constexpr absl::Duration kPlanLookInterval = absl::Milliseconds(50);

int64_t LeftOut(const cluster::StepOutcome& outcome) {
  int64_t left_out = 0;
  for (const cluster::StageTiming& timing : outcome.timings) left_out += timing.left_out;
  return left_out;
}

}  // namespace

void Conductor::Cancel(uint64_t request_id) {
  const auto it = sequences_.find(request_id);
  if (it != sequences_.end()) {
    Finish(*it->second, absl::CancelledError("the request was cancelled"));
  }
}

void Conductor::Turn() {
  const absl::Time now = absl::Now();
  last_turn_ = now;
  std::vector<Sequence*> late;
  for (auto& [id, sequence] : sequences_) {
    if (sequence->deadline() <= now) late.push_back(sequence.get());
  }
  for (Sequence* sequence : late) {
    Finish(*sequence, absl::DeadlineExceededError("the request took longer than it was given"));
  }
  LookForPlan();
  WithdrawVoidSteps();
  SendSteps();
}

absl::Time Conductor::NextDeadline() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [id, sequence] : sequences_) next = std::min(next, sequence->deadline());
  if (wait_for_plan_.has_value()) next = std::min(next, absl::Now() + kPlanLookInterval);
  // A frame that was due in the last turn was sent, or waits for an answer.
  const absl::Time frame = batcher_.has_value() ? batcher_->next_frame() : absl::InfiniteFuture();
  return frame > last_turn_ ? std::min(next, frame) : next;
}

void Conductor::EndAll(const absl::Status& status) {
  while (!sequences_.empty()) Finish(*sequences_.begin()->second, status);
}

ServingStats Conductor::Stats() const {
  ServingStats stats = stats_;
  stats.steps_in_flight = static_cast<int64_t>(in_flight_.size());
  if (batcher_.has_value()) {
    stats.requests_waiting = batcher_->waiting();
    stats.requests_running = batcher_->running();
    stats.kv_blocks = batcher_->blocks().block_count();
    stats.kv_blocks_free = batcher_->blocks().free_blocks();
    stats.preemptions += batcher_->preemptions();
    stats.replicas = 1;
    stats.epoch = pipeline_->epoch();
    stats.stage_count = pipeline_->stage_count();
  }
  return stats;
}

absl::Status Conductor::Prepare() {
  LookForPlan();
  const absl::Status status = EnsurePipeline();
  // LookForPlan goes on with what waits for a plan.
  return wait_for_plan_.has_value() ? absl::OkStatus() : status;
}

Conductor::WorkLoad Conductor::load() const {
  WorkLoad load{.waits_for_plan = wait_for_plan_.has_value(),
                .requests = std::ssize(sequences_),
                .prompt_tokens = 0};
  for (const auto& [id, sequence] : sequences_) {
    if (!sequence->decoding()) load.prompt_tokens += std::max<int64_t>(0, sequence->remaining());
  }
  return load;
}

void Conductor::Start(std::unique_ptr<Sequence> owned) {
  Sequence& sequence = *owned;
  sequences_[sequence.request_id] = std::move(owned);
  const bool guesses = options_.optimistic || options_.speculation != SpeculationMode::kOff;
  if (guesses && !sequence.is_score()) {
    sequence.speculation = std::make_unique<Speculation>(NewDrafter());
  }
  if (!wait_for_plan_.has_value()) Enqueue({&sequence}, absl::OkStatus());
}

void Conductor::Refuse(std::unique_ptr<Sequence> owned, const absl::Status& status) {
  Sequence& sequence = *owned;
  sequences_[sequence.request_id] = std::move(owned);
  Finish(sequence, status);
}

std::unique_ptr<Drafter> Conductor::NewDrafter() {
  // With an optimistic head it is not asked.
  auto lookup = std::make_unique<PromptLookup>();
  if (options_.optimistic || draft_ == nullptr || options_.speculation != SpeculationMode::kAuto) {
    return lookup;
  }
  return std::make_unique<CombinedDrafter>(std::move(lookup),
                                           std::make_unique<ModelDrafter>(draft_));
}

absl::Status Conductor::EnsurePipeline() {
  if (pipeline_ != nullptr) {
    if (absl::Status status = pipeline_->status(); !status.ok()) Break(status);
  }
  const bool idle = batcher_.has_value() && batcher_->waiting() + batcher_->running() == 0;
  if (pipeline_ != nullptr && !idle) return absl::OkStatus();
  // Idle: the source may have a newer plan by now.
  absl::StatusOr<std::shared_ptr<cluster::Pipeline>> current =
      options_.replicas[replica_]->CurrentPipeline();
  if (!current.ok()) return pipeline_ != nullptr ? absl::OkStatus() : current.status();
  if (*current == pipeline_) return absl::OkStatus();
  if (*current == distrusted_.lock()) {
    return absl::UnavailableError("a step failed on the present plan; waiting for a new one");
  }
  RENGA_RETURN_IF_ERROR((*current)->status());
  UsePipeline(*std::move(current));
  return absl::OkStatus();
}

void Conductor::UsePipeline(std::shared_ptr<cluster::Pipeline> pipeline) {
  if (batcher_.has_value()) stats_.preemptions += batcher_->preemptions();
  pipeline_ = std::move(pipeline);
  in_flight_.clear();
  prefill_us_per_token_ = 0;
  const model::RuntimeLimits& limits = pipeline_->limits();
  BatchLimits batch;
  batch.kv_blocks = limits.kv_blocks;
  batch.max_step_tokens = limits.max_step_tokens;
  batch.max_step_outputs = limits.max_step_outputs;
  batch.max_full_rows = std::max<int64_t>(
      1, kMaxFullLogitBytesPerStep / (vocab_size() * static_cast<int64_t>(sizeof(float))));
  batch.vocab_size = vocab_size();
  batch.stage_count = std::max<int64_t>(1, pipeline_->stage_count());
  batch.max_running = options_.max_requests;
  // Void frames may still be on their way when the next one is sent.
  batch.max_frames = options_.max_steps_in_flight > 0 ? max_in_flight() : kMaxStepsInFlight - 4;
  batch.optimistic = options_.optimistic;
  batcher_.emplace(batch, options_.speculation);
}

void Conductor::Break(const absl::Status& status) {
  RENGA_LOG(WARNING) << "epoch " << pipeline_->epoch() << " ends: " << status.message();
  if (pipeline_->status().ok()) distrusted_ = pipeline_;
  stats_.preemptions += batcher_->preemptions();
  pipeline_.reset();
  batcher_.reset();
  in_flight_.clear();

  if (absl::IsAborted(status)) {
    wait_for_plan_ = absl::Now() + kLongestWaitForPlan;
    return LookForPlan();
  }
  std::vector<Sequence*> running;
  for (auto it = sequences_.begin(); it != sequences_.end();) {
    // One that was sent back to wait is an answer under way, too.
    if (it->second->started != absl::InfinitePast()) {
      running.push_back(it++->second.get());
    } else {
      homeless_.push_back(std::move(it->second));
      it = sequences_.erase(it);
    }
  }
  for (Sequence* sequence : running) Finish(*sequence, status);
}

void Conductor::LookForPlan() {
  if (!wait_for_plan_.has_value()) return;
  const absl::Status status = EnsurePipeline();
  if (!status.ok() && absl::Now() < *wait_for_plan_) return;
  wait_for_plan_.reset();
  std::vector<Sequence*> all;
  for (auto& [id, sequence] : sequences_) all.push_back(sequence.get());
  Enqueue(all, status);
}

void Conductor::Enqueue(const std::vector<Sequence*>& sequences, const absl::Status& status) {
  for (Sequence* sequence : sequences) {
    sequence->run = 0;
    sequence->submitted = 0;
    if (sequence->speculation != nullptr) sequence->speculation->Clear();
    absl::Status usable =
        status.ok() ? CheckRequest(*sequence, vocab_size(), context_tokens()) : status;
    if (usable.ok()) usable = BeginGrammar(*sequence, vocab_size());
    if (!usable.ok()) {
      Finish(*sequence, usable);
      continue;
    }
    if (sequence->started == absl::InfinitePast()) {
      GuardHotRows(*sequence, pipeline_->limits().approximation);
    }
    batcher_->Enqueue(sequence);
  }
}

void Conductor::SendSteps() {
  while (pipeline_ != nullptr && static_cast<int64_t>(in_flight_.size()) < kMaxStepsInFlight) {
    int64_t live = 0;
    int64_t decodes = 0;
    for (const InFlight& flight : in_flight_) {
      if (!IsLive(flight)) continue;
      ++live;
      decodes += flight.decodes ? 1 : 0;
    }
    const bool many = batcher_->streaming() || options_.optimistic;
    if (live >= (many ? kMaxStepsInFlight : max_in_flight())) return;
    std::optional<PlannedStep> planned = batcher_->NextStep(decodes, PrefillChunk(), absl::Now());
    if (!planned.has_value()) return;
    SendStep(*std::move(planned));
  }
}

bool Conductor::IsLive(const InFlight& flight) const {
  for (size_t i = 0; i < flight.slots.size(); ++i) {
    const Sequence* sequence = batcher_->FindRun(flight.slots[i].sequence);
    if (sequence != nullptr && sequence->forks == flight.forks[i]) return true;
  }
  return false;
}

void Conductor::WithdrawVoidSteps() {
  if (pipeline_ == nullptr) return;
  std::vector<uint64_t> numbers;
  for (InFlight& flight : in_flight_) {
    if (flight.withdrawn || flight.outcome.has_value() || IsLive(flight)) continue;
    flight.withdrawn = true;
    numbers.push_back(flight.number);
  }
  if (!numbers.empty()) pipeline_->Withdraw(numbers);
}

void Conductor::SendStep(PlannedStep planned) {
  const uint64_t ticket = ++last_ticket_;
  const std::vector<model::StepSlot> slots = planned.step.slots;
  const bool prompts_ahead = std::any_of(in_flight_.begin(), in_flight_.end(),
                                         [](const InFlight& flight) { return flight.prompts; });
  in_flight_.push_back({.ticket = ticket,
                        .slots = slots,
                        .forks = std::move(planned.forks),
                        .tokens = planned.step.token_count(),
                        .decodes = planned.decodes,
                        .undisturbed = !planned.prompts && !prompts_ahead,
                        .prompts = planned.prompts,
                        .outcome = std::nullopt});
  stats_.drafted_tokens += static_cast<uint64_t>(planned.drafted);
  // A frame of nothing but guesses is a step that would not be without them.
  if (planned.drafted == in_flight_.back().tokens) --stats_.saved_steps;
  const absl::Time now = absl::Now();
  for (const model::StepSlot& slot : slots) {
    Sequence* sequence = batcher_->FindRun(slot.sequence);
    if (sequence->started == absl::InfinitePast()) sequence->started = now;
  }
  ++stats_.steps;
  cluster::Pipeline::EarlyCallback early;
  if (options_.optimistic) {
    early = [inbox = inbox_, replica = replica_, ticket](std::vector<model::HeadRow> rows) {
      const std::shared_ptr<Inbox> open = inbox.lock();
      if (open != nullptr) open->Put(EarlyEvent{replica, ticket, std::move(rows)});
    };
  }
  in_flight_.back().number = pipeline_->Submit(
      std::move(planned.step), std::move(planned.tokens),
      [inbox = inbox_, replica = replica_, ticket](absl::StatusOr<cluster::StepOutcome> outcome) {
        const std::shared_ptr<Inbox> open = inbox.lock();
        if (open != nullptr) open->Put(StepEvent{replica, ticket, std::move(outcome)});
      },
      std::move(early));
}

int64_t Conductor::PrefillChunk() const {
  int64_t chunk = options_.prefill_chunk;
  if (chunk <= 0) chunk = pipeline_->stage_count() > 1 ? kFlowingChunk : kLargestChunk;
  if (prefill_us_per_token_ > 0 && batcher_->decoding() > 0) {
    const double fits = absl::ToDoubleMicroseconds(options_.chunk_time) / prefill_us_per_token_;
    const int64_t smallest = std::min(chunk, kSmallestChunk);
    if (fits < static_cast<double>(chunk)) {
      chunk = std::max(smallest, static_cast<int64_t>(fits));
    }
  }
  return chunk;
}

void Conductor::StepDone(StepEvent event) {
  for (InFlight& flight : in_flight_) {
    if (flight.ticket == event.ticket) flight.outcome = std::move(event.outcome);
  }
  // In the order they were sent, whatever the order of the answers.
  while (!in_flight_.empty() && in_flight_.front().outcome.has_value()) {
    const InFlight flight = std::move(in_flight_.front());
    in_flight_.pop_front();
    if (!flight.outcome->ok()) return Break(flight.outcome->status());
    if ((*flight.outcome)->skipped) {
      ++stats_.skipped_steps;
      continue;
    }
    int64_t outputs = 0;
    for (const model::StepSlot& slot : flight.slots) outputs += slot.output_count;
    const cluster::StepOutcome& outcome = **flight.outcome;
    if (static_cast<int64_t>(outcome.rows.size()) != outputs) {
      return Break(absl::InternalError(
          absl::StrCat("a step answered ", outcome.rows.size(), " rows instead of ", outputs)));
    }
    Measure(flight, outcome);
    Deliver(flight, outcome);
  }
}

void Conductor::GuessFrom(const EarlyEvent& event) {
  const auto flight = std::find_if(in_flight_.begin(), in_flight_.end(),
                                   [&](const InFlight& f) { return f.ticket == event.ticket; });
  if (flight == in_flight_.end()) return;
  size_t next = 0;  // row
  for (size_t i = 0; i < flight->slots.size(); ++i) {
    const model::StepSlot& slot = flight->slots[i];
    next += static_cast<size_t>(slot.output_count);
    if (slot.output_count == 0 || next > event.rows.size()) continue;
    Sequence* sequence = batcher_->FindRun(slot.sequence);
    if (sequence == nullptr || sequence->forks != flight->forks[i]) continue;
    GuessNext(*sequence, slot, event.rows[next - 1]);
  }
}

void Conductor::GuessNext(Sequence& sequence, const model::StepSlot& slot,
                          const model::HeadRow& row) const {
  if (sequence.is_score() || sequence.speculation == nullptr || row.logits.empty()) return;
  // Of the newest step of the sequence alone, and once.
  const bool newest = slot.first_position + slot.token_count == sequence.submitted;
  const std::span<const Guess> sent = sequence.speculation->guesses();
  if (!newest || sequence.remaining() > 0 || std::ssize(sent) != -sequence.remaining()) return;
  std::vector<TokenId> tokens = sequence.tokens;
  for (const Guess& guess : sent) tokens.push_back(guess.token);
  const GenerateRequest& request = std::get<GenerateJob>(sequence.job).request;
  const absl::StatusOr<SampledToken> sampled =
      SampleToken(row, {tokens, sequence.prompt_tokens}, request.sampling, request.alternatives,
                  vocab_size(), slot.allowed_at(slot.output_count - 1));
  // No usable numbers, or the answer seems to end here: the whole head has the word.
  if (!sampled.ok()) return;
  if (!request.ignore_eos && options_.is_end_token && options_.is_end_token(sampled->id)) return;
  sequence.speculation->Add({.token = sampled->id, .evidence = 0});
}

void Conductor::Measure(const InFlight& flight, const cluster::StepOutcome& outcome) {
  stats_.step_time.Add(static_cast<double>(outcome.round_trip_us) * 1e-6);
  stats_.round_trip_us = outcome.round_trip_us;
  stats_.stage_timings = outcome.timings;
  uint64_t slowest_us = 0;
  for (const cluster::StageTiming& timing : outcome.timings) {
    if (!timing.head) slowest_us = std::max(slowest_us, timing.compute_us);
  }
  if (flight.undisturbed) {
    const bool full_rows = std::any_of(flight.slots.begin(), flight.slots.end(),
                                       [](const model::StepSlot& slot) { return slot.top_k == 0; });
    batcher_->policy().Measure(flight.tokens, full_rows, CostOf(outcome));
  }
  // Smaller steps say what it costs to read the weights, not what a prompt token costs.
  if (flight.tokens < kSmallestChunk || slowest_us == 0) return;
  const double measured = static_cast<double>(slowest_us) / static_cast<double>(flight.tokens);
  prefill_us_per_token_ =
      prefill_us_per_token_ == 0 ? measured : 0.75 * prefill_us_per_token_ + 0.25 * measured;
}

void Conductor::Deliver(const InFlight& flight, const cluster::StepOutcome& outcome) {
  const model::HeadRow* row = outcome.rows.data();
  const int64_t left_out = LeftOut(outcome);  // of every token of the step
  stats_.left_out += static_cast<uint64_t>(left_out * flight.tokens);
  for (size_t i = 0; i < flight.slots.size(); ++i) {
    const model::StepSlot& slot = flight.slots[i];
    // A sequence that ended, or was sent back to wait, since the step was sent has no such run.
    Sequence* sequence = batcher_->FindRun(slot.sequence);
    const bool counts = sequence != nullptr && sequence->forks == flight.forks[i];
    if (counts) sequence->left_out += left_out * slot.token_count;
    if (counts && slot.output_count > 0) {
      if (sequence->is_score()) {
        DeliverScores(*sequence, slot, row);
      } else {
        DeliverTokens(*sequence, {row, static_cast<size_t>(slot.output_count)}, left_out);
      }
    }
    row += slot.output_count;
  }
}

void Conductor::DeliverTokens(Sequence& sequence, std::span<const model::HeadRow> rows,
                              int64_t left_out) {
  for (const model::HeadRow& row : rows) {
    if (IsApproximated(sequence, left_out)) ++sequence.approximated_tokens;
    if (!DeliverToken(sequence, row)) return;
    if (!batcher_->Settle(&sequence)) return;
    ++sequence.counts.accepted;
    ++stats_.accepted_tokens;
    ++stats_.saved_steps;
  }
}

bool Conductor::DeliverToken(Sequence& sequence, const model::HeadRow& row) {
  const auto end = [&](absl::StatusOr<FinishReason> reason) {
    Finish(sequence, std::move(reason));
    return false;
  };
  const auto& [request, sink] = std::get<GenerateJob>(sequence.job);
  if (row.sum_exp == 0) ++sequence.screened_tokens;
  grammar::GrammarWalk* const walk = sequence.grammar.get();
  const auto allowed = walk != nullptr ? walk->Allowed(walk->place()) : nullptr;
  absl::StatusOr<SampledToken> sampled =
      SampleToken(row, {sequence.tokens, sequence.prompt_tokens}, request.sampling,
                  request.alternatives, vocab_size(), allowed.get());
  if (!sampled.ok()) return end(sampled.status());
  const TokenId token = sampled->id;
  const int64_t position = static_cast<int64_t>(sequence.tokens.size());
  sequence.tokens.push_back(token);  // into the journal before anyone sees it
  ++stats_.generated_tokens;
  if (sequence.first_token == absl::InfinitePast()) {
    sequence.first_token = absl::Now();
    stats_.first_token_time.Add(absl::ToDoubleSeconds(sequence.first_token - sequence.arrived));
  }
  if (!request.ignore_eos && options_.is_end_token && options_.is_end_token(token)) {
    return end(FinishReason::kStop);
  }
  const absl::Status goes_on = walk != nullptr ? walk->Advance(token) : absl::OkStatus();
  if (sink.on_token &&
      sink.on_token(TokenEvent{*std::move(sampled), position}) == SinkAction::kStop) {
    return end(FinishReason::kStop);
  }
  if (!goes_on.ok()) return end(goes_on);
  if (walk != nullptr && walk->Complete()) return end(FinishReason::kStop);
  if (sequence.generated() >= request.max_tokens) return end(FinishReason::kLength);
  return true;
}

void Conductor::DeliverScores(Sequence& sequence, const model::StepSlot& slot,
                              const model::HeadRow* rows) {
  const ScoreSink& sink = std::get<ScoreJob>(sequence.job).sink;
  const int64_t first = slot.first_position + slot.token_count - slot.output_count;
  for (int64_t i = 0; i < slot.output_count; ++i) {
    if (static_cast<int64_t>(rows[i].logits.size()) != vocab_size()) {
      return Finish(sequence,
                    absl::InternalError(absl::StrCat("the head answered ", rows[i].logits.size(),
                                                     " logits instead of ", vocab_size())));
    }
    sequence.next_row = first + i + 1;
    if (!sink.on_row) continue;
    const absl::Status status = sink.on_row(first + i, rows[i].logits);
    if (!status.ok()) return Finish(sequence, status);
  }
  if (sequence.next_row == sequence.prompt_tokens) Finish(sequence, FinishReason::kStop);
}

void Conductor::Finish(Sequence& sequence, absl::StatusOr<FinishReason> reason) {
  if (batcher_.has_value()) batcher_->Remove(&sequence);
  const auto it = sequences_.find(sequence.request_id);
  const std::unique_ptr<Sequence> owned = std::move(it->second);
  sequences_.erase(it);
  if (reason.ok()) {
    ++stats_.requests_finished;
  } else if (absl::IsCancelled(reason.status())) {
    ++stats_.requests_cancelled;
  } else {
    ++stats_.requests_failed;
  }
  TellEnd(*owned, std::move(reason), absl::Now());
}

bool Conductor::IsApproximated(const Sequence& sequence, int64_t left_out) const {
  if (left_out > 0) return true;
  const model::Approximation& approximation = pipeline_->limits().approximation;
  const bool on = approximation.late_percent > 0 || approximation.cold_neurons != nullptr ||
                  approximation.missing_percent > 0 || approximation.leaves_out_parts() ||
                  (approximation.hot_rows != nullptr && !sequence.all_rows);
  return on && approximation.Applies(static_cast<int64_t>(sequence.tokens.size()) - 1);
}

int64_t Conductor::context_tokens() const {
  const int64_t held = pipeline_->limits().kv_blocks * model::kKvBlockTokens;
  return options_.context_tokens > 0 ? std::min(options_.context_tokens, held) : held;
}

int64_t Conductor::max_in_flight() const {
  if (options_.max_steps_in_flight > 0) {
    return std::min(options_.max_steps_in_flight, kMaxStepsInFlight);
  }
  // A chunk takes one stage longer than the other now and then: with two steps waiting neither has
  // to wait for it. An answer's next token would have to wait for both.
  const int64_t waiting = batcher_->decoding() > 0 ? 1 : 2;
  return std::clamp<int64_t>(pipeline_->stage_count() + waiting, 1, kMaxStepsInFlight);
}

}  // namespace renga::serving
