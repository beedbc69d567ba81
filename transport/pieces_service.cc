#include "transport/pieces_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <deque>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "proto/cluster.grpc.pb.h"
#include "transport/grpc_status.h"

namespace renga::transport {
namespace {

// More ranges than the tensors of any model.
constexpr int kMaxRanges = 1 << 16;

}  // namespace

class PiecesService::Impl : public proto::Pieces::CallbackService {
 public:
  Impl(PieceSource* source, PeerPolicy policy)
      : source_(source), policy_(policy), reader_([this] { ReadPieces(); }) {}
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

  PieceSource* const source_;
  const PeerPolicy policy_;
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
    absl::Status status = RequireMember(*context, service->policy_);
    if (status.ok() && request.ranges_size() > kMaxRanges) {
      status = absl::InvalidArgumentError(
          absl::StrCat("more than ", kMaxRanges, " ranges in one request"));
    }
    if (status.ok()) status = service->source_->Check(request);
    if (!status.ok()) {
      Finish(ToGrpcStatus(status));
      return;
    }
    model_id_ = request.model_id();
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
    const absl::Status status =
        service_->source_->Read(model_id_, piece_.tensor(), piece_.piece(), *piece_.mutable_data());
    if (!status.ok()) {
      Finish(ToGrpcStatus(status));
      return;
    }
    StartWrite(&piece_);
  }

 private:
  Impl* const service_;
  grpc::CallbackServerContext* const context_;
  std::string model_id_;
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

PiecesService::PiecesService(PieceSource* source, PeerPolicy policy)
    : impl_(std::make_unique<Impl>(source, policy)) {}
PiecesService::~PiecesService() = default;
grpc::Service* PiecesService::service() { return impl_.get(); }

}  // namespace renga::transport
