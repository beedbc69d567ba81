#include "worker/kernels/cuda/nccl_communicator.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "worker/kernels/cuda/device_memory.h"
#include "worker/kernels/cuda/kernel_list.h"
#include "worker/kernels/cuda/launch_shapes.h"

namespace renga::kernels::cuda {
namespace {

// Of each member's part that is on its way at one time: bounds the card's memory.
constexpr size_t kPieceBytes = size_t{1} << 20;

class NcclCommunicator : public base::Communicator {
 public:
  NcclCommunicator(const NcclApi& nccl, std::shared_ptr<Device> device, int rank, int size)
      : nccl_(nccl), device_(std::move(device)), rank_(rank), size_(size) {}
  ~NcclCommunicator() override;

  // Once, before anything else.
  absl::Status Connect(const NcclUniqueId& id);

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status AllReduce(std::span<float> values) override;
  absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  absl::Status Broadcast(int root, std::span<std::byte> bytes) override;
  absl::Duration TakeExchangeTime() override {
    return std::exchange(exchange_time_, absl::ZeroDuration());
  }
  void Cancel() override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // Runs an operation unless the group is broken; what fails breaks it.
  template <class Operation>
  absl::Status Run(const Operation& operation);
  // A call that queues work of all members. Others may cancel meanwhile.
  template <class Call>
  absl::Status Queue(absl::string_view what, const Call& call) ABSL_LOCKS_EXCLUDED(mutex_);
  // What went wrong since work was queued, when everything queued is done.
  absl::Status Finish();
  absl::Status SumPiece(std::span<float> values);
  absl::Status GatherPiece(std::span<const std::byte> mine, size_t at, std::span<std::byte> all);

  const NcclApi nccl_;
  const std::shared_ptr<Device> device_;
  const int rank_;
  const int size_;
  DeviceMemory mine_;  // a piece
  DeviceMemory all_;   // of every member
  NcclComm comm_ = nullptr;
  absl::Status failure_;
  absl::Duration exchange_time_;
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;  // comm_ is not to be used any more
};

NcclCommunicator::~NcclCommunicator() {
  const absl::MutexLock lock(&mutex_);
  if (comm_ == nullptr || cancelled_) return;
  // A broken group is not waited for.
  failure_.ok() ? nccl_.CommDestroy(comm_) : nccl_.CommAbort(comm_);
}

absl::Status NcclCommunicator::Connect(const NcclUniqueId& id) {
  RENGA_RETURN_IF_ERROR(device_->Stream().status());  // and makes the card this thread's
  RENGA_ASSIGN_OR_RETURN(mine_, DeviceMemory::Allocate(device_, kPieceBytes));
  RENGA_ASSIGN_OR_RETURN(all_, DeviceMemory::Allocate(device_, size_ * kPieceBytes));
  return NcclStatus(nccl_, nccl_.CommInitRank(&comm_, size_, id, rank_), "joining the group");
}

void NcclCommunicator::Cancel() {
  {
    const absl::MutexLock lock(&mutex_);
    if (std::exchange(cancelled_, true) || comm_ == nullptr) return;
  }
  // Ends what is under way on this card, and calls that wait for other members.
  nccl_.CommAbort(comm_);
}

template <class Operation>
absl::Status NcclCommunicator::Run(const Operation& operation) {
  RENGA_RETURN_IF_ERROR(failure_);
  const absl::Time begin = absl::Now();
  failure_ = operation();
  exchange_time_ += absl::Now() - begin;
  const absl::MutexLock lock(&mutex_);
  if (cancelled_) failure_ = absl::CancelledError("the group was cancelled");
  return failure_;
}

template <class Call>
absl::Status NcclCommunicator::Queue(absl::string_view what, const Call& call) {
  RENGA_ASSIGN_OR_RETURN(void* const stream, device_->Stream());
  {
    const absl::MutexLock lock(&mutex_);
    if (cancelled_) return absl::CancelledError("the group was cancelled");
  }
  return NcclStatus(nccl_, call(stream), what);
}

absl::Status NcclCommunicator::Finish() {
  RENGA_RETURN_IF_ERROR(device_->Synchronize());
  const absl::MutexLock lock(&mutex_);
  if (cancelled_) return absl::CancelledError("the group was cancelled");
  NcclResult error = kNcclSuccess;
  RENGA_RETURN_IF_ERROR(
      NcclStatus(nccl_, nccl_.CommGetAsyncError(comm_, &error), "asking for errors"));
  return NcclStatus(nccl_, error, "an exchange");
}

absl::Status NcclCommunicator::SumPiece(std::span<float> values) {
  const std::span<std::byte> bytes = std::as_writable_bytes(values);
  RENGA_RETURN_IF_ERROR(device_->Upload(bytes, mine_.data()));
  RENGA_RETURN_IF_ERROR(Queue("gathering", [&](void* stream) {
    return nccl_.AllGather(mine_.data(), all_.data(), values.size(), kNcclFloats, comm_, stream);
  }));
  const auto columns = static_cast<int64_t>(values.size());
  auto* const parts = reinterpret_cast<float*>(all_.data());
  for (int rank = 1; rank < size_; ++rank) {
    const RowsArgs add = {.a = parts + rank * columns,
                          .a_stride = columns,
                          .b = nullptr,
                          .b_stride = 0,
                          .out = parts,
                          .out_stride = columns,
                          .rows = 1,
                          .columns = columns};
    const LaunchShape shape = {.blocks_x = (columns + kRowThreads - 1) / kRowThreads,
                               .threads = kRowThreads};
    RENGA_RETURN_IF_ERROR(device_->Launch(Kernel::kAdd, shape, std::as_bytes(std::span(&add, 1))));
  }
  RENGA_RETURN_IF_ERROR(Finish());
  return device_->Download(all_.data(), bytes);
}

absl::Status NcclCommunicator::AllReduce(std::span<float> values) {
  return Run([&]() -> absl::Status {
    constexpr size_t kPiece = kPieceBytes / sizeof(float);
    for (size_t at = 0; at < values.size(); at += kPiece) {
      const size_t count = std::min(kPiece, values.size() - at);
      RENGA_RETURN_IF_ERROR(SumPiece(values.subspan(at, count)));
    }
    return absl::OkStatus();
  });
}

absl::Status NcclCommunicator::GatherPiece(std::span<const std::byte> mine, size_t at,
                                           std::span<std::byte> all) {
  const size_t count = std::min(kPieceBytes, mine.size() - at);
  RENGA_RETURN_IF_ERROR(device_->Upload(mine.subspan(at, count), mine_.data()));
  RENGA_RETURN_IF_ERROR(Queue("gathering", [&](void* stream) {
    return nccl_.AllGather(mine_.data(), all_.data(), count, kNcclBytes, comm_, stream);
  }));
  RENGA_RETURN_IF_ERROR(Finish());
  for (size_t rank = 0; rank < static_cast<size_t>(size_); ++rank) {
    RENGA_RETURN_IF_ERROR(
        device_->Download(all_.data() + rank * count, all.subspan(rank * mine.size() + at, count)));
  }
  return absl::OkStatus();
}

absl::Status NcclCommunicator::AllGather(std::span<const std::byte> mine,
                                         std::span<std::byte> all) {
  if (all.size() != mine.size() * static_cast<size_t>(size_)) {
    return absl::InvalidArgumentError(
        absl::StrCat("gathering ", size_, " parts of ", mine.size(), " bytes into ", all.size()));
  }
  return Run([&]() -> absl::Status {
    for (size_t at = 0; at < mine.size(); at += kPieceBytes) {
      RENGA_RETURN_IF_ERROR(GatherPiece(mine, at, all));
    }
    return absl::OkStatus();
  });
}

absl::Status NcclCommunicator::Broadcast(int root, std::span<std::byte> bytes) {
  if (root < 0 || root >= size_) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", root, " of a group of ", size_));
  }
  return Run([&]() -> absl::Status {
    for (size_t at = 0; at < bytes.size(); at += kPieceBytes) {
      const size_t count = std::min(kPieceBytes, bytes.size() - at);
      const std::span<std::byte> piece = bytes.subspan(at, count);
      if (rank_ == root) RENGA_RETURN_IF_ERROR(device_->Upload(piece, mine_.data()));
      RENGA_RETURN_IF_ERROR(Queue("handing round", [&](void* stream) {
        return nccl_.Broadcast(mine_.data(), mine_.data(), count, kNcclBytes, root, comm_, stream);
      }));
      RENGA_RETURN_IF_ERROR(Finish());
      if (rank_ != root) RENGA_RETURN_IF_ERROR(device_->Download(mine_.data(), piece));
    }
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<base::Communicator>> CreateNcclCommunicator(
    const NcclApi& nccl, std::shared_ptr<Device> device, base::Communicator& others) {
  NcclUniqueId id;
  if (others.rank() == 0) {
    RENGA_RETURN_IF_ERROR(NcclStatus(nccl, nccl.GetUniqueId(&id), "naming the group"));
  }
  RENGA_RETURN_IF_ERROR(others.Broadcast(0, std::as_writable_bytes(std::span(id.internal))));
  auto group =
      std::make_unique<NcclCommunicator>(nccl, std::move(device), others.rank(), others.size());
  RENGA_RETURN_IF_ERROR(group->Connect(id));
  return group;
}

}  // namespace renga::kernels::cuda
