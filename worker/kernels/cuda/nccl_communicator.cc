#include "worker/kernels/cuda/nccl_communicator.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "worker/kernels/cuda/device_memory.h"
#include "worker/kernels/cuda/kernel_launcher.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/group_agreement.h"

namespace renga::kernels::cuda {
namespace {

// Of one member's part that is on its way at one time: one piece of this member, one of each.
constexpr size_t kMostPieceBytes = size_t{1} << 20;
constexpr size_t kPieceAlignment = 256;

// A wait asks again and again for this long, as the driver's own would, and then once in a while.
constexpr absl::Duration kSpin = absl::Milliseconds(2);
constexpr absl::Duration kNap = absl::Microseconds(50);
constexpr absl::Duration kLookAtMembers = absl::Milliseconds(10);

size_t PieceBytes(int size) {
  const size_t share = kNcclBytesOnCard / (static_cast<size_t>(size) + 1);
  return std::min(kMostPieceBytes, share / kPieceAlignment * kPieceAlignment);
}

class NcclCommunicator : public base::Communicator {
 public:
  NcclCommunicator(const NcclApi& nccl, std::shared_ptr<Device> device, base::Communicator& others,
                   const NcclLimits& limits)
      : nccl_(nccl),
        launcher_(std::move(device)),
        others_(others),
        limits_(limits),
        piece_bytes_(PieceBytes(others.size())) {}
  ~NcclCommunicator() override;

  // Once, before anything else; fails when the others do not come.
  absl::Status Connect(const NcclUniqueId& id);

  int rank() const override { return others_.rank(); }
  int size() const override { return others_.size(); }
  absl::Status AllReduce(std::span<float> values) override;
  absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  absl::Status Broadcast(int root, std::span<std::byte> bytes) override;
  bool sums_on_devices() const override { return true; }
  absl::Status SumOnDevices(float* values, size_t count) override;
  absl::Status WaitForDevices() override;
  absl::Status CheckMembers() override { return others_.CheckMembers(); }
  absl::Duration TakeExchangeTime() override {
    return std::exchange(exchange_time_, absl::ZeroDuration());
  }
  void Cancel() override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  Device& device() const { return *launcher_.device(); }
  // Runs an operation unless the group is broken; what fails breaks it, on the card too.
  template <class Operation>
  absl::Status Run(const Operation& operation);
  // A call of NCCL's, and the wait until it has queued its work in the device's stream.
  template <class NcclCall>
  absl::Status Call(absl::string_view what, const NcclCall& call) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Gather(const std::byte* mine, size_t count, int type);
  // Until `done`; ends with the group, and when a member is gone.
  absl::Status WaitUntil(absl::FunctionRef<absl::StatusOr<bool>()> done, absl::Duration limit,
                         absl::string_view what) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status WaitForStream();
  void Abort() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status SumPiece(float* values, size_t count);
  absl::Status GatherPiece(std::span<const std::byte> mine, size_t at, std::span<std::byte> all);
  absl::Status SendPiece(int root, std::span<std::byte> piece);

  const NcclApi nccl_;
  const KernelLauncher launcher_;
  base::Communicator& others_;
  const NcclLimits limits_;
  const size_t piece_bytes_;
  DeviceScratch mine_;  // a piece; none where all sums stay on the card
  DeviceMemory all_;    // a piece of every member
  absl::Status failure_;
  absl::Duration exchange_time_;
  absl::Mutex mutex_;
  // Null before Connect and once it is aborted.
  NcclComm comm_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

// Aborting waits for nobody; destroying a group in NCCL's other way may.
NcclCommunicator::~NcclCommunicator() { Abort(); }

void NcclCommunicator::Abort() {
  const absl::MutexLock lock(&mutex_);
  if (comm_ != nullptr) nccl_.CommAbort(std::exchange(comm_, nullptr));
}

void NcclCommunicator::Cancel() {
  {
    const absl::MutexLock lock(&mutex_);
    cancelled_ = true;
  }
  // Ends what is under way on this card, and so the waits for it.
  Abort();
}

template <class NcclCall>
absl::Status NcclCommunicator::Call(absl::string_view what, const NcclCall& call) {
  RENGA_ASSIGN_OR_RETURN(void* const stream, device().Stream());
  NcclResult result = kNcclSuccess;
  {
    const absl::MutexLock lock(&mutex_);
    if (cancelled_) return absl::CancelledError("the group was cancelled");
    result = call(stream);
  }
  if (result != kNcclInProgress) return NcclStatus(nccl_, result, what);
  const auto done = [&]() -> absl::StatusOr<bool> {
    const absl::MutexLock lock(&mutex_);
    if (comm_ == nullptr) return absl::CancelledError("the group was cancelled");
    RENGA_RETURN_IF_ERROR(NcclStatus(nccl_, nccl_.CommGetAsyncError(comm_, &result), what));
    if (result == kNcclInProgress) return false;
    RENGA_RETURN_IF_ERROR(NcclStatus(nccl_, result, what));
    return true;
  };
  return WaitUntil(done, limits_.join, what);
}

absl::Status NcclCommunicator::WaitUntil(absl::FunctionRef<absl::StatusOr<bool>()> done,
                                         absl::Duration limit, absl::string_view what) {
  const absl::Time begin = absl::Now();
  absl::Time next_look = begin + kLookAtMembers;
  while (true) {
    RENGA_ASSIGN_OR_RETURN(const bool is_done, done());
    if (is_done) return absl::OkStatus();
    {
      const absl::MutexLock lock(&mutex_);
      if (cancelled_) return absl::CancelledError("the group was cancelled");
    }
    const absl::Time now = absl::Now();
    if (now - begin > limit) {
      return absl::UnavailableError(absl::StrCat("NCCL: ", what, " took more than ",
                                                 absl::FormatDuration(limit),
                                                 ": is a card of the group stuck?"));
    }
    if (now >= next_look) {
      RENGA_RETURN_IF_ERROR(others_.CheckMembers());
      next_look = now + kLookAtMembers;
    }
    if (now - begin > kSpin) absl::SleepFor(kNap);
  }
}

absl::Status NcclCommunicator::Connect(const NcclUniqueId& id) {
  RENGA_ASSIGN_OR_RETURN(
      all_, DeviceMemory::Allocate(launcher_.device(),
                                   static_cast<int64_t>(piece_bytes_) * int64_t{size()}));
  // Sums are small: one block of threads for each, so that NCCL takes little of the card's memory.
  NcclConfig config;
  config.blocking = 0;
  config.min_ctas = 1;
  config.max_ctas = 1;
  return Run([&] {
    return Call("joining the group", [&](void*) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return nccl_.CommInitRank(&comm_, size(), id, rank(), &config);
    });
  });
}

template <class Operation>
absl::Status NcclCommunicator::Run(const Operation& operation) {
  RENGA_RETURN_IF_ERROR(failure_);
  const absl::Time begin = absl::Now();
  failure_ = operation();
  exchange_time_ += absl::Now() - begin;
  // What is queued may wait for others for ever.
  if (!failure_.ok()) Abort();
  return failure_;
}

absl::Status NcclCommunicator::WaitForStream() {
  RENGA_RETURN_IF_ERROR(
      WaitUntil([this] { return device().IsIdle(); }, limits_.wait, "the card's work"));
  const absl::MutexLock lock(&mutex_);
  if (comm_ == nullptr) return absl::CancelledError("the group was cancelled");
  NcclResult error = kNcclSuccess;
  RENGA_RETURN_IF_ERROR(
      NcclStatus(nccl_, nccl_.CommGetAsyncError(comm_, &error), "asking for errors"));
  return NcclStatus(nccl_, error, "an exchange");
}

absl::Status NcclCommunicator::WaitForDevices() {
  return Run([this] { return WaitForStream(); });
}

absl::Status NcclCommunicator::Gather(const std::byte* mine, size_t count, int type) {
  return Call("gathering", [&](void* stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return nccl_.AllGather(mine, all_.data(), count, type, comm_, stream);
  });
}

absl::Status NcclCommunicator::SumPiece(float* values, size_t count) {
  RENGA_RETURN_IF_ERROR(Gather(reinterpret_cast<const std::byte*>(values), count, kNcclFloats));
  return launcher_.LaunchThreads(Kernel::kSumParts, static_cast<int64_t>(count),
                                 SumPartsArgs{.parts = reinterpret_cast<const float*>(all_.data()),
                                              .members = size(),
                                              .count = static_cast<int64_t>(count),
                                              .out = values});
}

absl::Status NcclCommunicator::SumOnDevices(float* values, size_t count) {
  return Run([&]() -> absl::Status {
    const size_t step = piece_bytes_ / sizeof(float);
    for (size_t at = 0; at < count; at += step) {
      RENGA_RETURN_IF_ERROR(SumPiece(values + at, std::min(step, count - at)));
    }
    return absl::OkStatus();
  });
}

absl::Status NcclCommunicator::AllReduce(std::span<float> values) {
  return Run([&]() -> absl::Status {
    RENGA_ASSIGN_OR_RETURN(std::byte* const memory,
                           mine_.Reserve(launcher_.device(), static_cast<int64_t>(piece_bytes_)));
    const size_t step = piece_bytes_ / sizeof(float);
    for (size_t at = 0; at < values.size(); at += step) {
      const auto piece = values.subspan(at, std::min(step, values.size() - at));
      RENGA_RETURN_IF_ERROR(device().Upload(std::as_bytes(piece), memory));
      RENGA_RETURN_IF_ERROR(SumPiece(reinterpret_cast<float*>(memory), piece.size()));
      RENGA_RETURN_IF_ERROR(WaitForStream());
      RENGA_RETURN_IF_ERROR(device().Download(memory, std::as_writable_bytes(piece)));
    }
    return absl::OkStatus();
  });
}

absl::Status NcclCommunicator::GatherPiece(std::span<const std::byte> mine, size_t at,
                                           std::span<std::byte> all) {
  RENGA_ASSIGN_OR_RETURN(std::byte* const memory,
                         mine_.Reserve(launcher_.device(), static_cast<int64_t>(piece_bytes_)));
  const size_t count = std::min(piece_bytes_, mine.size() - at);
  RENGA_RETURN_IF_ERROR(device().Upload(mine.subspan(at, count), memory));
  RENGA_RETURN_IF_ERROR(Gather(memory, count, kNcclBytes));
  RENGA_RETURN_IF_ERROR(WaitForStream());
  for (size_t from = 0; from < static_cast<size_t>(size()); ++from) {
    RENGA_RETURN_IF_ERROR(
        device().Download(all_.data() + from * count, all.subspan(from * mine.size() + at, count)));
  }
  return absl::OkStatus();
}

absl::Status NcclCommunicator::AllGather(std::span<const std::byte> mine,
                                         std::span<std::byte> all) {
  if (all.size() != mine.size() * static_cast<size_t>(size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("gathering ", size(), " parts of ", mine.size(), " bytes into ", all.size()));
  }
  return Run([&]() -> absl::Status {
    for (size_t at = 0; at < mine.size(); at += piece_bytes_) {
      RENGA_RETURN_IF_ERROR(GatherPiece(mine, at, all));
    }
    return absl::OkStatus();
  });
}

absl::Status NcclCommunicator::SendPiece(int root, std::span<std::byte> piece) {
  RENGA_ASSIGN_OR_RETURN(std::byte* const memory,
                         mine_.Reserve(launcher_.device(), static_cast<int64_t>(piece_bytes_)));
  if (rank() == root) RENGA_RETURN_IF_ERROR(device().Upload(piece, memory));
  RENGA_RETURN_IF_ERROR(
      Call("handing round", [&](void* stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return nccl_.Broadcast(memory, memory, piece.size(), kNcclBytes, root, comm_, stream);
      }));
  RENGA_RETURN_IF_ERROR(WaitForStream());
  return rank() == root ? absl::OkStatus() : device().Download(memory, piece);
}

absl::Status NcclCommunicator::Broadcast(int root, std::span<std::byte> bytes) {
  if (root < 0 || root >= size()) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", root, " of a group of ", size()));
  }
  return Run([&]() -> absl::Status {
    for (size_t at = 0; at < bytes.size(); at += piece_bytes_) {
      RENGA_RETURN_IF_ERROR(
          SendPiece(root, bytes.subspan(at, std::min(piece_bytes_, bytes.size() - at))));
    }
    return absl::OkStatus();
  });
}

// What this member needs before it can join, and the id where it is the one that names the group.
absl::Status Prepare(const absl::StatusOr<NcclApi>& nccl, Device& device, bool names_group,
                     NcclUniqueId& id) {
  RENGA_RETURN_IF_ERROR(nccl.status());
  RENGA_RETURN_IF_ERROR(device.Stream().status());  // and makes the card this thread's
  if (!names_group) return absl::OkStatus();
  return NcclStatus(*nccl, nccl->GetUniqueId(&id), "naming the group");
}

}  // namespace

absl::StatusOr<std::unique_ptr<base::Communicator>> JoinNcclGroup(
    const absl::StatusOr<NcclApi>& nccl, std::shared_ptr<Device> device, base::Communicator& others,
    const NcclLimits& limits) {
  NcclUniqueId id;
  RENGA_RETURN_IF_ERROR(AgreeInGroup(others, Prepare(nccl, *device, others.rank() == 0, id)));
  RENGA_RETURN_IF_ERROR(others.Broadcast(0, std::as_writable_bytes(std::span(id.internal))));
  auto group = std::make_unique<NcclCommunicator>(*nccl, std::move(device), others, limits);
  const absl::Status connected = group->Connect(id);
  RENGA_RETURN_IF_ERROR(AgreeInGroup(others, connected));
  return group;
}

}  // namespace renga::kernels::cuda
