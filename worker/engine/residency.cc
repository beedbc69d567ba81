#include "worker/engine/residency.h"

#include <algorithm>
#include <system_error>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/direct_file.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace renga::engine {
namespace {

// What a read counts when the next one has come: some ten reads make the disk's speed.
constexpr double kReadMemory = 0.9;

// How far ahead of the reader pinned bundles are prefetched: reading 1.1 GB in 155 files took 1.07
// s when each was asked for after the one before had come, 0.84 s with 48 MiB or more on the way.
constexpr int64_t kPrefetchedBytes = int64_t{48} << 20;

// Bundles are packed beside steps: nobody follows their progress.
const LoadProgress kNoProgress;

}  // namespace

Residency::Residency(std::vector<Bundle> bundles, const model::ResidencyPlan& plan,
                     kernels::Backend* backend, WeightSource* source)
    : plan_(plan), backend_(backend), source_(source), ring_(plan.ring_bytes) {
  held_.resize(bundles.size());
  for (size_t i = 0; i < bundles.size(); ++i) {
    held_[i].bundle = std::move(bundles[i]);
    held_[i].pinned = plan_.pinned[i];
  }
  FindFiles();
}

Residency::~Residency() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  if (reader_.joinable()) reader_.join();
  if (prefetcher_.joinable()) prefetcher_.join();
}

void Residency::FindFiles() {
  absl::MutexLock lock(&mutex_);
  for (Held& held : held_) {
    held.files = OpenBundle(held.bundle, *source_);
    for (const auto& file : held.files) {
      if (file == nullptr) held.state = State::kToPack;
    }
  }
}

absl::Status Residency::AllocateRing() {
  if (plan_.ring_bytes == 0) return absl::OkStatus();
  RENGA_ASSIGN_OR_RETURN(ring_memory_, kernels::PageMemory::Allocate(plan_.ring_bytes));
  return absl::OkStatus();
}

int64_t Residency::UnpackedBytes() const {
  int64_t bytes = 0;
  for (const Held& held : held_) {
    if (!held.pinned) bytes += engine::UnpackedBytes(held.bundle, held.files);
  }
  return bytes;
}

absl::Status Residency::PackStreamed(WeightLoader& loader) {
  for (Held& held : held_) {
    for (size_t i = 0; !held.pinned && i < held.files.size(); ++i) {
      if (held.files[i] != nullptr) continue;
      RENGA_RETURN_IF_ERROR(
          PackToDisk(held.bundle.matrices[i], *backend_, *source_, loader, held.files[i]));
    }
  }
  return absl::OkStatus();
}

absl::Status Residency::Start() {
  RENGA_RETURN_IF_ERROR(AllocateRing());
  try {
    reader_ = std::thread([this] { ReadUntilEnd(); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no thread for reading weights: ", error.what()));
  }
  try {
    prefetcher_ = std::thread([this] { PrefetchUntilEnd(); });
  } catch (const std::system_error&) {
    // Slower, but it works.
  }
  return absl::OkStatus();
}

std::string Residency::Places() const {
  std::string places;
  absl::MutexLock lock(&mutex_);
  for (const Held& held : held_) {
    places += !held.pinned                   ? kStreamed
              : held.state == State::kHere   ? kInMemory
              : held.state == State::kOnDisk ? kComing
                                             : kToBePacked;
  }
  return places;
}

ResidencyReport Residency::report() const {
  return {.pinned = plan_.pinned_bytes,
          .pinned_now = pinned_now_,
          .streamed = plan_.streamed_bytes,
          .streamed_per_second = streamed_per_second_,
          .left_out = left_out_,
          .places = Places()};
}

// ---- The reader ---------------------------------------------------------------------------------

std::optional<size_t> Residency::NextToRead() const {
  bool may_stream = !stalled_;
  for (size_t i = 0; i < held_.size(); ++i) {
    const size_t bundle = (cursor_ + i) % held_.size();
    const Held& held = held_[bundle];
    if (held.pinned) {
      if (held.state == State::kOnDisk) return bundle;
    } else if (may_stream) {
      if (ring_.Find(held.bundle.RoomBytes()).has_value()) return bundle;
      // It comes first among those that pass through the ring.
      may_stream = false;
    }
  }
  return std::nullopt;
}

bool Residency::HasToRead() const { return ending_ || NextToRead().has_value(); }

void Residency::ReadUntilEnd() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(this, &Residency::HasToRead));
    if (ending_) return;
    const size_t bundle = *NextToRead();
    if (held_[bundle].pinned) {
      ReadPinned(bundle);
    } else {
      ReadStreamed(bundle);
    }
  }
}

void Residency::ReadPinned(size_t bundle) {
  Held& held = held_[bundle];
  held.prefetched = true;
  holding_ = bundle;
  mutex_.Unlock();
  absl::Status status = HoldBundle(held);
  if (status.ok()) pinned_now_ += held.bundle.RoomBytes();
  mutex_.Lock();
  held.state = status.ok() ? State::kHere : State::kFailed;
  held.failure = std::move(status);
}

std::optional<size_t> Residency::NextToPrefetch() const {
  if (!holding_.has_value()) return std::nullopt;
  int64_t ahead = 0;
  for (size_t i = 1; i < held_.size() && ahead < kPrefetchedBytes; ++i) {
    const size_t bundle = (*holding_ + i) % held_.size();
    const Held& held = held_[bundle];
    if (!held.pinned || held.state != State::kOnDisk) continue;
    if (!held.prefetched) return bundle;
    ahead += held.bundle.RoomBytes();
  }
  return std::nullopt;
}

bool Residency::HasToPrefetch() const { return ending_ || NextToPrefetch().has_value(); }

void Residency::PrefetchUntilEnd() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    mutex_.Await(absl::Condition(this, &Residency::HasToPrefetch));
    if (ending_) return;
    Held& held = held_[*NextToPrefetch()];
    held.prefetched = true;
    mutex_.Unlock();
    for (const auto& file : held.files) file->Prefetch();
    mutex_.Lock();
  }
}

void Residency::ReadStreamed(size_t bundle) {
  const Held& held = held_[bundle];
  const int64_t size = held.bundle.RoomBytes();
  const int64_t begin = *ring_.Find(size);
  ring_.Take(begin, size);
  entries_.push_back({.bundle = bundle, .room = ring_memory_->data() + begin, .status = {}});
  std::byte* const room = entries_.back().room;
  cursor_ = (bundle + 1) % held_.size();
  reading_ = true;
  mutex_.Unlock();
  const absl::Time asked = absl::Now();
  absl::Status status = ReadBundle(held.bundle, held.files, room);
  if (status.ok()) Measure(size, absl::Now() - asked);
  mutex_.Lock();
  reading_ = false;
  if (entries_.back().skipped) {
    // It is the only one: nothing is read ahead of what is waited for.
    entries_.clear();
    ring_.FreeAll();
    return;
  }
  if (!status.ok()) stalled_ = true;
  // Entries go away only while nothing is read, or from the front when they are done.
  entries_.back().done = true;
  entries_.back().status = std::move(status);
}

void Residency::Measure(int64_t bytes, absl::Duration took) {
  recent_bytes_ = recent_bytes_ * kReadMemory + static_cast<double>(bytes);
  recent_seconds_ = recent_seconds_ * kReadMemory + absl::ToDoubleSeconds(took);
  // A clock may stand still for a short read.
  streamed_per_second_ = recent_bytes_ / std::max(recent_seconds_, 1e-9 * recent_bytes_ / 1e3);
}

absl::Status Residency::HoldBundle(Held& held) {
  held.bytes.clear();
  for (size_t i = 0; i < held.files.size(); ++i) {
    RENGA_RETURN_IF_ERROR(
        base::Annotate(ReadWithPatience([&]() -> absl::Status {
                         RENGA_ASSIGN_OR_RETURN(kernels::PackedBytes bytes, held.files[i]->Hold());
                         held.bytes.push_back(std::move(bytes));
                         return absl::OkStatus();
                       }),
                       absl::StrCat("reading ", held.bundle.matrices[i].tensor.name)));
  }
  return absl::OkStatus();
}

// ---- The engine's thread ------------------------------------------------------------------------

absl::StatusOr<Residency::Lease> Residency::Acquire(size_t bundle) {
  Held& held = held_[bundle];
  return held.pinned ? AcquirePinned(held) : AcquireStreamed(bundle);
}

absl::StatusOr<Residency::Lease> Residency::AcquirePinned(Held& held) {
  if (!held.matrices.empty()) return Lease(nullptr, held.matrices);
  absl::Status failure;
  State state;
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](State* now) { return *now != State::kOnDisk; }, &held.state));
    state = held.state;
    failure = held.failure;
  }
  if (state == State::kHere) {
    RENGA_RETURN_IF_ERROR(Adopt(held, std::exchange(held.bytes, {})));
    return Lease(nullptr, held.matrices);
  }
  held.bytes.clear();
  if (!failure.ok()) {
    RENGA_LOG(WARNING) << failure.message() << "; packing it again";
  }
  RENGA_RETURN_IF_ERROR(PackPinned(held));
  return Lease(nullptr, held.matrices);
}

absl::Status Residency::Adopt(Held& held, std::vector<kernels::PackedBytes> bytes) {
  RENGA_ASSIGN_OR_RETURN(held.matrices, AdoptBundle(held.bundle, std::move(bytes), *backend_));
  return absl::OkStatus();
}

absl::Status Residency::PackPinned(Held& held) {
  WeightLoader loader(backend_, source_, kNoProgress, 0);
  // An expert's matrices lie far apart in the model; others come in its order.
  if (held.bundle.is_expert) {
    std::vector<MatrixKey> keys;
    AppendKeys(held.bundle, keys);
    source_->Expect(keys);
  }
  std::vector<std::unique_ptr<kernels::WeightMatrix>> packed;
  for (const BundleMatrix& matrix : held.bundle.matrices) {
    RENGA_ASSIGN_OR_RETURN(packed.emplace_back(), loader.PackMatrix(matrix.tensor, matrix.part));
  }
  RENGA_RETURN_IF_ERROR(backend_->Synchronize());
  held.matrices = std::move(packed);
  for (size_t i = 0; i < held.matrices.size(); ++i) {
    newly_packed_.push_back(
        {.key = held.bundle.matrices[i].key, .bytes = backend_->BytesOf(*held.matrices[i])});
  }
  pinned_now_ += held.bundle.RoomBytes();
  absl::MutexLock lock(&mutex_);
  held.state = State::kHere;
  return absl::OkStatus();
}

absl::StatusOr<bool> Residency::LoadMore() {
  const auto to_pack = [this](const Held& held) {
    absl::MutexLock lock(&mutex_);
    return held.pinned && held.state == State::kToPack;
  };
  auto next = held_.begin();
  while (next != held_.end() && !to_pack(*next)) ++next;
  if (next == held_.end()) return false;
  RENGA_RETURN_IF_ERROR(PackPinned(*next));
  return true;
}

bool Residency::WaitFor(size_t bundle, absl::Time deadline) {
  Held& held = held_[bundle];
  if (!held.matrices.empty()) return true;
  if (!held.pinned && !ring_memory_.has_value()) return true;
  absl::MutexLock lock(&mutex_);
  if (held.pinned) {
    return mutex_.AwaitWithDeadline(
        absl::Condition(
            +[](State* now) { return *now != State::kOnDisk; }, &held.state),
        deadline);
  }
  if (!Expects(bundle)) GoTo(bundle);
  return mutex_.AwaitWithDeadline(absl::Condition(this, &Residency::FrontIsDone), deadline);
}

void Residency::Skip(size_t from, size_t to) {
  const auto skipped = [&](const Entry& entry) {
    return entry.bundle >= from && entry.bundle < to;
  };
  absl::MutexLock lock(&mutex_);
  while (!entries_.empty() && entries_.front().done && skipped(entries_.front())) {
    entries_.pop_front();
    ring_.FreeFirst();
  }
  if (!entries_.empty() && skipped(entries_.front())) entries_.front().skipped = true;
  if (entries_.empty() || entries_.front().skipped) {
    cursor_ = to % held_.size();
    stalled_ = false;
  }
}

bool Residency::FrontIsDone() const {
  return !entries_.empty() && !entries_.front().skipped && entries_.front().done;
}

bool Residency::Expects(size_t bundle) const {
  if (!entries_.empty() && !entries_.front().skipped) return entries_.front().bundle == bundle;
  if (stalled_) return false;
  size_t next = cursor_;
  while (held_[next].pinned) next = (next + 1) % held_.size();
  return next == bundle;
}

void Residency::GoTo(size_t bundle) {
  mutex_.Await(absl::Condition(
      +[](bool* reading) { return !*reading; }, &reading_));
  entries_.clear();
  ring_.FreeAll();
  cursor_ = bundle;
  stalled_ = false;
}

absl::StatusOr<Residency::Lease> Residency::AcquireStreamed(size_t bundle) {
  Held& held = held_[bundle];
  // A repair may have found no memory for it; the reader stands still since.
  if (!ring_memory_.has_value()) RENGA_RETURN_IF_ERROR(AllocateRing());
  absl::Status failure;
  for (int attempt = 0; attempt < 2; ++attempt) {
    std::byte* room = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      if (!Expects(bundle)) GoTo(bundle);
      mutex_.Await(absl::Condition(this, &Residency::FrontIsDone));
      failure = entries_.front().status;
      room = entries_.front().room;
    }
    if (failure.ok()) {
      RENGA_RETURN_IF_ERROR(Adopt(held, BytesIn(held.bundle, room)));
      return Lease(this, held.matrices);
    }
    if (attempt == 0)
      RENGA_RETURN_IF_ERROR(base::Annotate(Repair(bundle), std::string(failure.message())));
  }
  // The next Acquire reads it again.
  absl::MutexLock lock(&mutex_);
  GoTo(bundle);
  return failure;
}

void Residency::ReleaseFront() {
  // The device may still be reading it.
  const absl::Status status = backend_->Synchronize();
  if (!status.ok()) {
    RENGA_LOG(WARNING) << status.message();
  }
  absl::MutexLock lock(&mutex_);
  held_[entries_.front().bundle].matrices.clear();
  entries_.pop_front();
  ring_.FreeFirst();
}

absl::Status Residency::Repair(size_t bundle) {
  Held& held = held_[bundle];
  {
    absl::MutexLock lock(&mutex_);
    RENGA_LOG(WARNING) << entries_.front().status.message() << "; packing it again";
    GoTo(bundle);
    stalled_ = true;
  }
  // The ring's memory is what the matrices are packed in.
  ring_memory_.reset();
  absl::Status status;
  WeightLoader loader(backend_, source_, kNoProgress, 0);
  for (size_t i = 0; i < held.files.size() && status.ok(); ++i) {
    status = PackToDisk(held.bundle.matrices[i], *backend_, *source_, loader, held.files[i]);
  }
  RENGA_RETURN_IF_ERROR(AllocateRing());
  absl::MutexLock lock(&mutex_);
  GoTo(bundle);
  return status;
}

}  // namespace renga::engine
