#include "coordinator/cluster/pieces_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <deque>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "proto/cluster.grpc.pb.h"
#include "transport/grpc_status.h"

namespace renga::cluster {
namespace {

// More ranges than the tensors of any model.
constexpr int kMaxRanges = 1 << 16;

absl::Status CheckRequest(const ModelStore& store, const proto::PieceRequest& request) {
  if (request.model_id() != WireBytes(store.manifest().model_id)) {
    return absl::NotFoundError("the coordinator serves another model");
  }
  if (request.ranges_size() > kMaxRanges) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", kMaxRanges, " ranges in one request"));
  }
  for (const proto::PieceRange& range : request.ranges()) {
    const auto& tensors = store.manifest().tensors;
    const uint64_t end = uint64_t{range.first_piece()} + range.piece_count();
    if (range.tensor() >= tensors.size() || end > tensors[range.tensor()].pieces.size()) {
      return absl::OutOfRangeError(absl::StrCat("the model has no pieces ", range.first_piece(),
                                                " to ", end, " of tensor ", range.tensor()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

class PiecesService::Impl : public proto::Pieces::CallbackService {
 public:
  Impl(const ModelStore* store, transport::PeerPolicy policy)
      : store_(store), policy_(policy), reader_([this] { ReadPieces(); }) {}
  ~Impl() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    reader_.join();
  }

  grpc::ServerWriteReactor<proto::Piece>* Fetch(grpc::CallbackServerContext* context,
                                                const proto::PieceRequest* request) override;

 private:
  class FetchStream;

  // `stream` wants its next piece read.
  void Enqueue(FetchStream* stream) {
    absl::MutexLock lock(&mutex_);
    wanting_.push_back(stream);
  }
  void ReadPieces();
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || !wanting_.empty(); }

  const ModelStore* const store_;
  const transport::PeerPolicy policy_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // Streams here have not finished, so they are alive.
  std::deque<FetchStream*> wanting_ ABSL_GUARDED_BY(mutex_);
  std::thread reader_;  // last: it uses the rest
};

// Belongs to gRPC until OnDone, which comes only after Finish.
class PiecesService::Impl::FetchStream : public grpc::ServerWriteReactor<proto::Piece> {
 public:
  FetchStream(Impl* service, grpc::CallbackServerContext* context,
              const proto::PieceRequest& request)
      : service_(service), context_(context) {
    absl::Status status = transport::RequireMember(*context, service->policy_);
    if (status.ok()) status = CheckRequest(*service->store_, request);
    if (!status.ok()) {
      Finish(transport::ToGrpcStatus(status));
      return;
    }
    ranges_.assign(request.ranges().begin(), request.ranges().end());
    service_->Enqueue(this);
  }

  void OnWriteDone(bool ok) override {
    if (ok) {
      service_->Enqueue(this);
    } else {
      Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the worker went away"));
    }
  }

  void OnDone() override { delete this; }

  // On the reader's thread: the next piece, or the end.
  void SendNext() {
    while (range_ < ranges_.size() && offset_ >= ranges_[range_].piece_count()) {
      ++range_;
      offset_ = 0;
    }
    if (range_ == ranges_.size() || context_->IsCancelled()) {
      Finish(context_->IsCancelled() ? grpc::Status::CANCELLED : grpc::Status::OK);
      return;
    }
    piece_.set_tensor(ranges_[range_].tensor());
    piece_.set_piece(ranges_[range_].first_piece() + offset_++);
    const absl::StatusOr<std::span<const std::byte>> bytes =
        service_->store_->PieceBytes(piece_.tensor(), piece_.piece());
    if (!bytes.ok()) {
      Finish(transport::ToGrpcStatus(bytes.status()));
      return;
    }
    piece_.set_data(bytes->data(), bytes->size());
    StartWrite(&piece_);
  }

 private:
  Impl* const service_;
  grpc::CallbackServerContext* const context_;
  std::vector<proto::PieceRange> ranges_;
  size_t range_ = 0;
  uint32_t offset_ = 0;  // pieces sent of that range
  proto::Piece piece_;   // of the write that is under way
};

grpc::ServerWriteReactor<proto::Piece>* PiecesService::Impl::Fetch(
    grpc::CallbackServerContext* context, const proto::PieceRequest* request) {
  return new FetchStream(this, context, *request);
}

void PiecesService::Impl::ReadPieces() {
  while (true) {
    FetchStream* stream = nullptr;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &Impl::HasWork));
      if (wanting_.empty()) return;
      stream = wanting_.front();
      wanting_.pop_front();
    }
    stream->SendNext();
  }
}

PiecesService::PiecesService(const ModelStore* store, transport::PeerPolicy policy)
    : impl_(std::make_unique<Impl>(store, policy)) {}
PiecesService::~PiecesService() = default;
grpc::Service* PiecesService::service() { return impl_.get(); }

}  // namespace renga::cluster
