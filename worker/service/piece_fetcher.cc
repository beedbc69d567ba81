#include "worker/service/piece_fetcher.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/client_callback.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
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

// One operation is under way at a time: the start, then a read after the other, then the end.
struct PieceFetcher::Call {
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  std::unique_ptr<grpc::ClientAsyncReader<proto::Piece>> reader;
  bool under_way = true;  // an operation
  bool started = false;   // the operation was not the start

  // How the operation ended; nullopt when it has not by then.
  std::optional<bool> Wait(absl::Time deadline) {
    void* tag = nullptr;
    bool ok = false;
    const auto next = queue.AsyncNext(&tag, &ok, absl::ToChronoTime(deadline));
    if (next != grpc::CompletionQueue::GOT_EVENT) return std::nullopt;
    under_way = false;
    started = true;
    return ok;
  }
  // Whether a piece has come.
  std::optional<bool> Read(proto::Piece& piece, absl::Time deadline) {
    if (!started) {
      const std::optional<bool> ok = Wait(deadline);
      if (!ok.has_value() || !*ok) return ok;
    }
    under_way = true;
    reader->Read(&piece, this);
    return Wait(deadline);
  }
};

PieceFetcher::PieceFetcher(const std::shared_ptr<grpc::Channel>& channel, std::string model_id)
    : stub_(std::make_unique<Stub>(Stub{proto::Pieces::NewStub(channel)})),
      model_id_(std::move(model_id)) {}

PieceFetcher::~PieceFetcher() { End(); }

void PieceFetcher::Begin(const std::vector<PieceId>& wanted) {
  End();
  auto call = std::make_unique<Call>();
  call->reader = stub_->pieces->AsyncFetch(&call->context, MakeRequest(model_id_, wanted),
                                           &call->queue, call.get());
  expected_.assign(wanted.begin(), wanted.end());
  absl::MutexLock lock(&mutex_);
  if (cancelled_) call->context.TryCancel();
  call_ = std::move(call);
}

absl::StatusOr<std::string> PieceFetcher::Next(absl::Duration patience) {
  Call* call = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    // Only this thread replaces the call; others but reach into it.
    call = call_.get();
  }
  if (call == nullptr || expected_.empty()) {
    return absl::FailedPreconditionError("no pieces were asked for");
  }
  proto::Piece piece;
  const std::optional<bool> came = call->Read(piece, absl::Now() + patience);
  if (!came.has_value()) {
    // The read that is under way still has `piece`.
    End();
    return absl::DeadlineExceededError(
        absl::StrCat("no piece has come for ", absl::FormatDuration(patience)));
  }
  if (!*came) {
    expected_.clear();
    const std::unique_ptr<Call> ended = TakeCall();
    const absl::Status status = Finish(*ended);
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return absl::CancelledError("loading was cancelled");
    return status.ok() ? absl::UnavailableError("the stream of pieces ended early") : status;
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

void PieceFetcher::SetCancelled(bool cancelled) {
  absl::MutexLock lock(&mutex_);
  cancelled_ = cancelled;
  if (cancelled && call_ != nullptr) call_->context.TryCancel();
}

std::unique_ptr<PieceFetcher::Call> PieceFetcher::TakeCall() {
  absl::MutexLock lock(&mutex_);
  return std::move(call_);
}

absl::Status PieceFetcher::Finish(Call& call) {
  if (call.under_way) call.Wait(absl::InfiniteFuture());
  grpc::Status status;
  call.reader->Finish(&status, &call);
  call.Wait(absl::InfiniteFuture());
  call.queue.Shutdown();
  while (call.Wait(absl::InfiniteFuture()).has_value()) {
  }
  return status.ok() ? absl::OkStatus() : transport::FromGrpcStatus(status, "fetching pieces");
}

void PieceFetcher::End() {
  expected_.clear();
  const std::unique_ptr<Call> call = TakeCall();
  if (call == nullptr) return;
  // What was begun ends soon after this.
  call->context.TryCancel();
  Finish(*call).IgnoreError();
}

}  // namespace renga::worker
