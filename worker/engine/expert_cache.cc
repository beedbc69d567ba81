#include "worker/engine/expert_cache.h"

#include <algorithm>
#include <cmath>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace renga::engine {
namespace {

// At one time: solid-state disks give more to several than to one.
constexpr int kReaders = 4;
// After so many steps a use counts half: some texts' length. Not tuned on a real model.
constexpr double kHalfLifeSteps = 256;
// Where the weight of a use begins anew, long before doubles end.
constexpr double kLargestUse = 1e200;
// What a read counts when the next one has come: some ten reads make the disk's speed.
constexpr double kReadWeight = 0.9;

const LoadProgress kNobodyWatches;

}  // namespace

ExpertCache::ExpertCache(std::vector<Bundle> experts, int64_t layers,
                         const model::ExpertPlaces& places, kernels::Backend* backend,
                         WeightSource* source)
    : per_layer_(experts.size() / static_cast<size_t>(layers)),
      plan_(places),
      backend_(backend),
      source_(source),
      experts_(experts.size()),
      in_place_(static_cast<size_t>(places.count)),
      may_go_(places.count) {
  for (size_t i = 0; i < experts.size(); ++i) {
    experts_[i].bundle = std::move(experts[i]);
    experts_[i].files = OpenBundle(experts_[i].bundle, *source_);
  }
}

ExpertCache::~ExpertCache() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  for (std::thread& reader : readers_) reader.join();
}

int64_t ExpertCache::UnpackedBytes() const {
  int64_t bytes = 0;
  for (const Expert& expert : experts_) {
    bytes += engine::UnpackedBytes(expert.bundle, expert.files);
  }
  return bytes;
}

absl::Status ExpertCache::PackAll(WeightLoader& loader) {
  for (Expert& expert : experts_) {
    for (size_t i = 0; i < expert.files.size(); ++i) {
      if (expert.files[i] != nullptr) continue;
      RENGA_RETURN_IF_ERROR(
          PackToDisk(expert.bundle.matrices[i], *backend_, *source_, loader, expert.files[i]));
    }
  }
  return absl::OkStatus();
}

absl::Status ExpertCache::Start() {
  RENGA_ASSIGN_OR_RETURN(memory_, kernels::PageMemory::Allocate(plan_.count * plan_.bytes));
  for (int i = 0; i < kReaders; ++i) {
    try {
      readers_.emplace_back([this] { ReadUntilEnd(); });
    } catch (const std::system_error& error) {
      if (!readers_.empty()) break;  // slower, but it works
      return absl::ResourceExhaustedError(
          absl::StrCat("no thread for reading experts: ", error.what()));
    }
  }
  return absl::OkStatus();
}

ExpertCache::Report ExpertCache::report() const {
  Report report;
  absl::MutexLock lock(&mutex_);
  for (const Expert& expert : experts_) {
    const bool here = expert.state == State::kHere;
    report.places += here ? kCached : kAbsentExpert;
    if (here) report.held_bytes += expert.bundle.RoomBytes();
  }
  if (recent_seconds_ > 0) report.read_per_second = recent_bytes_ / recent_seconds_;
  return report;
}

// ---- The readers --------------------------------------------------------------------------------

bool ExpertCache::CanRead() const { return ending_ || (!asked_.empty() && may_go_ > 0); }

void ExpertCache::ReadUntilEnd() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(this, &ExpertCache::CanRead));
    if (ending_) return;
    Expert& expert = *asked_.front();
    asked_.pop_front();
    Read(expert);
  }
}

size_t ExpertCache::TakePlace() {
  size_t least = in_place_.size();
  for (size_t i = 0; i < in_place_.size(); ++i) {
    Expert* const other = in_place_[i];
    if (other == nullptr) return i;
    if (other->state != State::kHere || other->wanted) continue;
    if (least == in_place_.size() || other->uses < in_place_[least]->uses) least = i;
  }
  Expert& gone = *in_place_[least];
  gone.matrices.clear();
  gone.place.reset();
  gone.state = State::kAbsent;
  return least;
}

void ExpertCache::Read(Expert& expert) {
  const size_t place = TakePlace();
  --may_go_;
  in_place_[place] = &expert;
  expert.place = place;
  expert.state = State::kReading;
  if (reading_++ == 0) reading_since_ = absl::Now();
  mutex_.Unlock();
  absl::Status status = ReadBundle(expert.bundle, expert.files,
                                   memory_->data() + static_cast<int64_t>(place) * plan_.bytes);
  mutex_.Lock();
  Measure(expert.bundle.RoomBytes());
  if (status.ok()) {
    expert.state = State::kHere;
  } else {
    in_place_[place] = nullptr;
    expert.place.reset();
    expert.state = expert.wanted ? State::kFailed : State::kAbsent;
    expert.failure = std::move(status);
  }
  if (expert.wanted) ++ready_;
  if (!expert.wanted || expert.state != State::kHere) ++may_go_;
}

void ExpertCache::Measure(int64_t bytes) {
  const absl::Time now = absl::Now();
  recent_bytes_ = recent_bytes_ * kReadWeight + static_cast<double>(bytes);
  recent_seconds_ = recent_seconds_ * kReadWeight + absl::ToDoubleSeconds(now - reading_since_);
  reading_since_ = now;
  --reading_;
}

// ---- The engine's thread ------------------------------------------------------------------------

void ExpertCache::Forget() {
  asked_.clear();
  for (Expert* const expert : wanted_) {
    if (!expert->wanted) continue;  // released
    expert->wanted = false;
    if (expert->state == State::kHere) ++may_go_;
    if (expert->state == State::kAsked || expert->state == State::kFailed) {
      expert->state = State::kAbsent;
    }
  }
  wanted_.clear();
  ready_ = 0;
}

void ExpertCache::CountUses(size_t layer, std::span<const ExpertRows> rows) {
  if (layer <= last_layer_) use_ *= std::exp2(1 / kHalfLifeSteps);
  last_layer_ = layer;
  if (use_ > kLargestUse) {
    for (Expert& expert : experts_) expert.uses /= kLargestUse;
    use_ /= kLargestUse;
  }
  for (const ExpertRows& used : rows) {
    Expert& expert = experts_[layer * per_layer_ + static_cast<size_t>(used.expert)];
    expert.uses += use_ * static_cast<double>(used.count);
  }
}

void ExpertCache::Want(size_t layer, std::span<const ExpertRows> rows) {
  absl::MutexLock lock(&mutex_);
  Forget();
  CountUses(layer, rows);
  for (const ExpertRows& used : rows) {
    Expert& expert = experts_[layer * per_layer_ + static_cast<size_t>(used.expert)];
    wanted_.push_back(&expert);
    expert.wanted = true;
    expert.handed_out = false;
    expert.repaired = false;
    if (expert.state == State::kHere) {
      --may_go_;
      ++ready_;
    } else if (expert.state == State::kAbsent) {
      expert.state = State::kAsked;
      asked_.push_back(&expert);
    }
  }
}

absl::StatusOr<std::vector<ExpertCache::Here>> ExpertCache::Next() {
  while (true) {
    Expert* failed = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      const bool all = std::all_of(wanted_.begin(), wanted_.end(),
                                   [](const Expert* expert) { return expert->handed_out; });
      if (all) return std::vector<Here>();
      mutex_.Await(absl::Condition(this, &ExpertCache::SomeAreReady));
      // Those that are here first: their places may be what a repaired one waits for.
      if (Find(State::kHere) == nullptr) failed = Find(State::kFailed);
    }
    if (failed == nullptr) return HandOut();
    RENGA_RETURN_IF_ERROR(Repair(*failed));
  }
}

ExpertCache::Expert* ExpertCache::Find(State state) {
  for (Expert* const expert : wanted_) {
    if (expert->state == state && !expert->handed_out) return expert;
  }
  return nullptr;
}

absl::Status ExpertCache::Repair(Expert& expert) {
  // Nobody reads what has failed, or changes it.
  const absl::Status failure = expert.failure;
  if (std::exchange(expert.repaired, true)) return failure;
  RENGA_LOG(WARNING) << failure.message() << "; packing it again";
  // Plans leave as much room for this as an expert takes.
  WeightLoader loader(backend_, source_, kNobodyWatches, 0);
  for (size_t i = 0; i < expert.files.size(); ++i) {
    RENGA_RETURN_IF_ERROR(base::Annotate(
        PackToDisk(expert.bundle.matrices[i], *backend_, *source_, loader, expert.files[i]),
        std::string(failure.message())));
  }
  absl::MutexLock lock(&mutex_);
  --ready_;
  expert.state = State::kAsked;
  asked_.push_front(&expert);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ExpertCache::Here>> ExpertCache::HandOut() {
  std::vector<Here> here;
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < wanted_.size(); ++i) {
    Expert& expert = *wanted_[i];
    if (expert.handed_out || expert.state != State::kHere) continue;
    if (expert.matrices.empty()) {
      std::byte* const room = memory_->data() + static_cast<int64_t>(*expert.place) * plan_.bytes;
      RENGA_ASSIGN_OR_RETURN(expert.matrices,
                             AdoptBundle(expert.bundle, BytesIn(expert.bundle, room), *backend_));
    }
    expert.handed_out = true;
    --ready_;
    here.push_back({.index = i,
                    .matrices = {.gate = expert.matrices[0].get(),
                                 .up = expert.matrices[1].get(),
                                 .down = expert.matrices[2].get()}});
  }
  return here;
}

absl::Status ExpertCache::Release() {
  RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  absl::MutexLock lock(&mutex_);
  for (Expert* const expert : wanted_) {
    if (!expert->handed_out || !expert->wanted) continue;
    expert->wanted = false;
    ++may_go_;
  }
  return absl::OkStatus();
}

}  // namespace renga::engine
