#include "worker/service/piece_fetcher.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>
#include <grpcpp/support/sync_stream.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/cluster.grpc.pb.h"
#include "transport/grpc_status.h"

namespace renga::worker {
namespace {

// Consecutive pieces of a tensor become one range.
proto::PieceRequest MakeRequest(const std::string& model_id, const std::vector<PieceId>& wanted) {
  proto::PieceRequest request;
  request.set_model_id(model_id);
  for (const PieceId& id : wanted) {
    if (request.ranges_size() > 0) {
      proto::PieceRange& last = *request.mutable_ranges(request.ranges_size() - 1);
      if (last.tensor() == id.tensor && last.first_piece() + last.piece_count() == id.piece) {
        last.set_piece_count(last.piece_count() + 1);
        continue;
      }
    }
    proto::PieceRange& range = *request.add_ranges();
    range.set_tensor(id.tensor);
    range.set_first_piece(id.piece);
    range.set_piece_count(1);
  }
  return request;
}

}  // namespace

struct PieceFetcher::Stub {
  std::unique_ptr<proto::Pieces::Stub> pieces;
};

struct PieceFetcher::Call {
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<proto::Piece>> reader;
};

PieceFetcher::PieceFetcher(const std::shared_ptr<grpc::Channel>& channel, std::string model_id)
    : stub_(std::make_unique<Stub>(Stub{proto::Pieces::NewStub(channel)})),
      model_id_(std::move(model_id)) {}

PieceFetcher::~PieceFetcher() { End(); }

void PieceFetcher::Begin(const std::vector<PieceId>& wanted, absl::Time deadline) {
  End();
  auto call = std::make_unique<Call>();
  if (deadline != absl::InfiniteFuture()) call->context.set_deadline(absl::ToChronoTime(deadline));
  call->reader = stub_->pieces->Fetch(&call->context, MakeRequest(model_id_, wanted));
  expected_.assign(wanted.begin(), wanted.end());
  absl::MutexLock lock(&mutex_);
  if (cancelled_) call->context.TryCancel();
  call_ = std::move(call);
}

absl::StatusOr<std::string> PieceFetcher::Next() {
  Call* call = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    // Only this thread replaces the call; Cancel but reaches into it.
    call = call_.get();
  }
  if (call == nullptr || expected_.empty()) {
    return absl::FailedPreconditionError("no pieces were asked for");
  }
  proto::Piece piece;
  if (!call->reader->Read(&piece)) {
    const grpc::Status status = call->reader->Finish();
    {
      absl::MutexLock lock(&mutex_);
      call_.reset();
      expected_.clear();
      if (cancelled_) return absl::CancelledError("loading was cancelled");
    }
    if (status.ok()) return absl::UnavailableError("the stream of pieces ended early");
    return transport::FromGrpcStatus(status, "fetching pieces");
  }
  const PieceId wanted = expected_.front();
  expected_.pop_front();
  if (piece.tensor() != wanted.tensor || piece.piece() != wanted.piece) {
    End();
    return absl::DataLossError(absl::StrCat("asked for piece ", wanted.piece, " of tensor ",
                                            wanted.tensor, ", got piece ", piece.piece(),
                                            " of tensor ", piece.tensor()));
  }
  return std::move(*piece.mutable_data());
}

void PieceFetcher::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  if (call_ != nullptr) call_->context.TryCancel();
}

void PieceFetcher::End() {
  expected_.clear();
  std::unique_ptr<Call> call;
  {
    absl::MutexLock lock(&mutex_);
    call = std::move(call_);
  }
  if (call == nullptr) return;
  call->context.TryCancel();
  // gRPC wants a stream read to its end before its status; after the cancellation that is soon.
  proto::Piece piece;
  while (call->reader->Read(&piece)) {
  }
  call->reader->Finish();
}

}  // namespace renga::worker
