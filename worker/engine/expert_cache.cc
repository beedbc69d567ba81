#include "worker/engine/expert_cache.h"

#include <algorithm>
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
// What a read counts when the next one has come: some ten reads make the disk's speed.
constexpr double kReadWeight = 0.9;

const LoadProgress kNobodyWatches;

bool HasAll(const BundleFiles& files) {
  return std::all_of(files.begin(), files.end(), [](const auto& file) { return file != nullptr; });
}

}  // namespace

ExpertCache::ExpertCache(std::vector<Bundle> experts, int64_t layers,
                         const model::ExpertPlaces& places, kernels::Backend* backend,
                         WeightSource* source)
    : per_layer_(experts.size() / static_cast<size_t>(layers)),
      plan_(places),
      backend_(backend),
      source_(source),
      experts_(experts.size()),
      uses_(experts.size()),
      in_place_(static_cast<size_t>(places.count)),
      may_go_(places.count) {
  for (size_t i = 0; i < experts.size(); ++i) {
    experts_[i].bundle = std::move(experts[i]);
    experts_[i].files = OpenBundle(experts_[i].bundle, *source_);
    experts_[i].packed = HasAll(experts_[i].files);
  }
}

ExpertCache::~ExpertCache() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  for (std::thread& reader : readers_) reader.join();
}

const ExpertCache::Expert* ExpertCache::ToTry() const {
  if (!source_->IsAtHand()) return nullptr;
  const auto first = std::find_if(experts_.begin(), experts_.end(),
                                  [](const Expert& expert) { return !HasAll(expert.files); });
  return first == experts_.end() ? nullptr : &*first;
}

int64_t ExpertCache::UnpackedBytes() const {
  const Expert* const expert = ToTry();
  return expert == nullptr ? 0 : engine::UnpackedBytes(expert->bundle, expert->files);
}

absl::Status ExpertCache::TryDisk(WeightLoader& loader) {
  if (!source_->IsAtHand()) {
    int64_t bytes = 0;
    for (const Expert& expert : experts_) {
      for (size_t i = 0; i < expert.files.size(); ++i) {
        if (expert.files[i] == nullptr) bytes += expert.bundle.matrices[i].bytes;
      }
    }
    if (bytes == 0) return absl::OkStatus();
    return base::Annotate(source_->PlanToKeep(bytes), NoPlaceOnDisk("experts"));
  }
  const Expert* const first = ToTry();
  if (first == nullptr) return absl::OkStatus();
  Expert& expert = experts_[static_cast<size_t>(first - experts_.data())];
  for (size_t i = 0; i < expert.files.size(); ++i) {
    if (expert.files[i] != nullptr) continue;
    RENGA_RETURN_IF_ERROR(
        PackToDisk(expert.bundle.matrices[i], *backend_, *source_, loader, expert.files[i]));
  }
  absl::MutexLock lock(&mutex_);
  expert.packed = true;
  return absl::OkStatus();
}

std::vector<MatrixKey> ExpertCache::Unpacked() const {
  std::vector<MatrixKey> keys;
  absl::MutexLock lock(&mutex_);
  for (const Expert& expert : experts_) {
    if (!expert.packed) AppendKeys(expert.bundle, keys);
  }
  return keys;
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
    report.places += here ? kCached : expert.packed ? kAbsentExpert : kUnpackedExpert;
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

void ExpertCache::Read(Expert& expert) {
  std::byte* const room = TakePlace(expert);
  if (reading_++ == 0) reading_since_ = absl::Now();
  mutex_.Unlock();
  absl::Status status = ReadBundle(expert.bundle, expert.files, room);
  mutex_.Lock();
  Measure(expert.bundle.RoomBytes());
  if (status.ok()) return Came(expert);
  DidNotCome(expert);
  // Whoever wants it later reads it again.
  if (expert.wanted) Lack(expert, std::move(status));
}

void ExpertCache::Measure(int64_t bytes) {
  const absl::Time now = absl::Now();
  recent_bytes_ = recent_bytes_ * kReadWeight + static_cast<double>(bytes);
  recent_seconds_ = recent_seconds_ * kReadWeight + absl::ToDoubleSeconds(now - reading_since_);
  reading_since_ = now;
  --reading_;
}

// ---- Places -------------------------------------------------------------------------------------

std::byte* ExpertCache::TakePlace(Expert& expert) {
  const size_t place = FindPlace();
  --may_go_;
  in_place_[place] = &expert;
  expert.place = place;
  expert.state = State::kOnItsWay;
  return RoomOf(place);
}

size_t ExpertCache::FindPlace() {
  size_t least = in_place_.size();
  for (size_t i = 0; i < in_place_.size(); ++i) {
    Expert* const other = in_place_[i];
    if (other == nullptr) return i;
    if (other->state != State::kHere || other->wanted) continue;
    if (least == in_place_.size() || UsesOf(*other) < UsesOf(*in_place_[least])) least = i;
  }
  Expert& gone = *in_place_[least];
  gone.matrices.clear();
  gone.place.reset();
  gone.state = State::kAbsent;
  return least;
}

void ExpertCache::Came(Expert& expert) {
  expert.state = State::kHere;
  ++(expert.wanted ? ready_ : may_go_);
}

void ExpertCache::DidNotCome(Expert& expert) {
  in_place_[*expert.place] = nullptr;
  expert.place.reset();
  expert.state = State::kAbsent;
  ++may_go_;
}

// ---- The engine's thread ------------------------------------------------------------------------

void ExpertCache::Forget() {
  asked_.clear();
  for (Expert* const expert : wanted_) {
    if (!expert->wanted) continue;  // released
    expert->wanted = false;
    if (expert->state == State::kHere) ++may_go_;
    if (expert->state == State::kAsked || expert->state == State::kLacking) {
      expert->state = State::kAbsent;
    }
  }
  wanted_.clear();
  ready_ = 0;
  lacking_ = 0;
}

void ExpertCache::CountUses(size_t layer, std::span<const ExpertRows> rows) {
  if (layer <= last_layer_) uses_.BeginStep();
  last_layer_ = layer;
  for (const ExpertRows& used : rows) {
    uses_.Count(layer * per_layer_ + static_cast<size_t>(used.expert),
                static_cast<double>(used.count));
  }
}

void ExpertCache::Want(size_t layer, std::span<const ExpertRows> rows) {
  Choose(layer, rows);
  ExpectLacking();
}

void ExpertCache::Choose(size_t layer, std::span<const ExpertRows> rows) {
  absl::MutexLock lock(&mutex_);
  Forget();
  CountUses(layer, rows);
  for (const ExpertRows& used : rows) {
    Expert& expert = experts_[layer * per_layer_ + static_cast<size_t>(used.expert)];
    wanted_.push_back(&expert);
    expert.wanted = true;
    expert.handed_out = false;
    if (expert.state == State::kHere) {
      --may_go_;
      ++ready_;
    } else if (expert.state == State::kAbsent && !HasAll(expert.files)) {
      Lack(expert, absl::OkStatus());
    } else if (expert.state == State::kAbsent) {
      expert.state = State::kAsked;
      asked_.push_back(&expert);
    }
  }
}

void ExpertCache::ExpectLacking() {
  std::vector<MatrixKey> keys;
  {
    absl::MutexLock lock(&mutex_);
    for (const Expert* const expert : wanted_) {
      if (expert->state == State::kLacking) AppendKeys(expert->bundle, keys);
    }
  }
  if (!keys.empty()) source_->Expect(keys);
}

void ExpertCache::Lack(Expert& expert, absl::Status failure) {
  expert.state = State::kLacking;
  expert.failure = std::move(failure);
  ++lacking_;
}

absl::StatusOr<std::vector<ExpertCache::Here>> ExpertCache::Next() {
  while (true) {
    Expert* lacking = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      const bool all = std::all_of(wanted_.begin(), wanted_.end(),
                                   [](const Expert* expert) { return expert->handed_out; });
      if (all) return std::vector<Here>();
      mutex_.Await(absl::Condition(this, &ExpertCache::CanGoOn));
      // Those that are here first: their places may be what the others wait for.
      if (ready_ == 0) lacking = &FirstLacking();
    }
    if (lacking == nullptr) return HandOut();
    // Meanwhile the readers read what the disk has.
    RENGA_RETURN_IF_ERROR(Pack(*lacking));
  }
}

ExpertCache::Expert& ExpertCache::FirstLacking() {
  return **std::find_if(wanted_.begin(), wanted_.end(),
                        [](const Expert* expert) { return expert->state == State::kLacking; });
}

absl::Status ExpertCache::Pack(Expert& expert) {
  absl::Status failure;
  {
    absl::MutexLock lock(&mutex_);
    failure = expert.failure;
  }
  // One that could not be read was not among those that the source was told of.
  if (!failure.ok()) ExpectLacking();
  std::byte* room = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    // A reader may have taken the place that there was.
    if (may_go_ == 0) return absl::OkStatus();
    --lacking_;
    room = TakePlace(expert);
  }
  if (!failure.ok()) {
    RENGA_LOG(WARNING) << failure.message() << "; packing it again";
  }
  const absl::Status status = PackInto(expert, room);
  absl::MutexLock lock(&mutex_);
  expert.packed = HasAll(expert.files);
  if (status.ok()) {
    Came(expert);
    return status;
  }
  DidNotCome(expert);
  Lack(expert, failure);
  return failure.ok() ? status : base::Annotate(status, std::string(failure.message()));
}

absl::Status ExpertCache::PackInto(Expert& expert, std::byte* room) {
  // Plans leave as much room for this as an expert takes.
  WeightLoader loader(backend_, source_, kNobodyWatches, 0);
  for (size_t i = 0; i < expert.files.size(); ++i) {
    const BundleMatrix& matrix = expert.bundle.matrices[i];
    RENGA_RETURN_IF_ERROR(PackToDisk(matrix, *backend_, *source_, loader, expert.files[i], room));
    room += matrix.RoomBytes();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ExpertCache::Here>> ExpertCache::HandOut() {
  std::vector<Here> here;
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < wanted_.size(); ++i) {
    Expert& expert = *wanted_[i];
    if (expert.handed_out || expert.state != State::kHere) continue;
    if (expert.matrices.empty()) {
      RENGA_ASSIGN_OR_RETURN(
          expert.matrices,
          AdoptBundle(expert.bundle, BytesIn(expert.bundle, RoomOf(*expert.place)), *backend_));
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
