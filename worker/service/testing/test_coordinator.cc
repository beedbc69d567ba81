#include "worker/service/testing/test_coordinator.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/content_hash.h"
#include "proto/cluster.grpc.pb.h"
#include "transport/dialer.h"
#include "transport/grpc_status.h"
#include "transport/hello.h"
#include "transport/wire.h"

namespace renga::worker::testing {
namespace {

using transport::kPieceBytes;

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::cerr << value.status() << std::endl;
  std::abort();
}

void AppendHash(const base::ContentHash& hash, std::string& to) {
  to.append(reinterpret_cast<const char*>(&hash.high), sizeof(hash.high));
  to.append(reinterpret_cast<const char*>(&hash.low), sizeof(hash.low));
}

}  // namespace

TestModel::TestModel(const std::string& path)
    : file_(Must(model::GgufFile::Open(path))), model_(Must(model::ReadModel(*file_))) {
  *manifest_.mutable_config() = transport::ToProto(model_.config);
  uint32_t index = 0;
  for (const model::GgufTensor& tensor : file_->tensors()) {
    proto::TensorEntry& entry = *manifest_.add_tensors();
    entry.set_index(index++);
    entry.set_name(tensor.name);
    entry.set_gguf_type(base::GetDataTypeInfo(tensor.type).gguf_id);
    entry.mutable_dims()->Add(tensor.dims.begin(), tensor.dims.end());
    entry.set_byte_size(tensor.byte_size);
    std::span<const std::byte> bytes = file_->TensorBytes(tensor);
    while (!bytes.empty()) {
      const size_t count = std::min<size_t>(bytes.size(), kPieceBytes);
      AppendHash(base::HashBytes(bytes.first(count)), *entry.mutable_piece_hashes());
      bytes = bytes.subspan(count);
    }
  }
  const std::string content = manifest_.SerializeAsString();
  AppendHash(base::HashBytes(std::as_bytes(std::span(content))), model_id_);
  manifest_.set_model_id(model_id_);
}

proto::LoadRequest TestModel::MakeRequest(uint64_t epoch, const model::ShardSpec& spec,
                                          const model::RuntimeLimits& limits) const {
  proto::LoadRequest request;
  request.set_epoch(epoch);
  *request.mutable_manifest() = manifest_;
  request.mutable_layers()->set_begin(spec.layers.begin);
  request.mutable_layers()->set_end(spec.layers.end);
  request.mutable_head_rows()->set_begin(spec.head_rows.begin);
  request.mutable_head_rows()->set_end(spec.head_rows.end);
  request.set_kv_blocks(limits.kv_blocks);
  request.set_max_step_tokens(limits.max_step_tokens);
  request.set_max_step_outputs(limits.max_step_outputs);
  request.set_kv_gguf_type(base::GetDataTypeInfo(limits.kv_type).gguf_id);
  request.set_activation_type(transport::ToProto(limits.wire_type));
  request.set_embedding(spec.embedding);
  return request;
}

class JoinReactor;

struct TestCoordinator::State {
  Options options;
  mutable absl::Mutex mutex;
  absl::Status refusal ABSL_GUARDED_BY(mutex);
  std::set<JoinReactor*> members ABSL_GUARDED_BY(mutex);
  int hellos ABSL_GUARDED_BY(mutex) = 0;
  int wanted_hellos ABSL_GUARDED_BY(mutex) = 0;
  proto::Hello hello ABSL_GUARDED_BY(mutex);
  bool has_heartbeat ABSL_GUARDED_BY(mutex) = false;
  proto::Heartbeat heartbeat ABSL_GUARDED_BY(mutex);
  int leaves ABSL_GUARDED_BY(mutex) = 0;
  int cut_after ABSL_GUARDED_BY(mutex) = -1;
  absl::Status cut_status ABSL_GUARDED_BY(mutex);
  int stall_after ABSL_GUARDED_BY(mutex) = -1;
  bool stalls_all ABSL_GUARDED_BY(mutex) = false;
  bool damage ABSL_GUARDED_BY(mutex) = false;
  int pieces_sent ABSL_GUARDED_BY(mutex) = 0;
  int fetches ABSL_GUARDED_BY(mutex) = 0;
};

// Ends by hand of the state's owner, or when the worker goes.
class JoinReactor : public grpc::ServerBidiReactor<proto::WorkerReport, proto::CoordinatorNotice> {
 public:
  struct Handlers {
    // Answers a hello: the refusal, or OK.
    std::function<absl::Status(const proto::Hello&)> on_hello;
    std::function<void(const proto::Heartbeat&)> on_heartbeat;
    std::function<void()> on_leave;
    std::function<void(JoinReactor*)> on_done;
    uint32_t heartbeat_ms;
    uint32_t protocol_version;
  };
  explicit JoinReactor(Handlers handlers) : handlers_(std::move(handlers)) { StartRead(&report_); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      End(absl::OkStatus());
      return;
    }
    if (report_.has_leave()) {
      handlers_.on_leave();
      End(absl::OkStatus());
    }
    if (report_.has_heartbeat()) handlers_.on_heartbeat(report_.heartbeat());
    if (report_.has_hello()) {
      const absl::Status status = handlers_.on_hello(report_.hello());
      if (!status.ok()) {
        End(status);
        return;
      }
      absl::MutexLock lock(&mutex_);
      if (ended_) return;
      proto::Welcome& welcome = *notice_.mutable_welcome();
      *welcome.mutable_build() = transport::ThisBuild();
      welcome.mutable_build()->set_protocol_version(handlers_.protocol_version);
      welcome.set_worker_id("w");
      welcome.set_heartbeat_ms(handlers_.heartbeat_ms);
      writing_ = true;
      StartWrite(&notice_);
    }
    absl::MutexLock lock(&mutex_);
    if (!ended_) StartRead(&report_);
  }
  void OnWriteDone(bool) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (ended_) Finish(transport::ToGrpcStatus(end_));
  }
  void OnDone() override {
    handlers_.on_done(this);
    delete this;
  }
  void End(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    if (ended_) return;
    ended_ = true;
    end_ = status;
    if (!writing_) Finish(transport::ToGrpcStatus(status));
  }

 private:
  const Handlers handlers_;
  proto::WorkerReport report_;
  absl::Mutex mutex_;
  proto::CoordinatorNotice notice_;
  bool writing_ = false;
  bool ended_ = false;
  absl::Status end_;
};

class TestCoordinator::Cluster : public proto::Cluster::CallbackService {
 public:
  explicit Cluster(State* state) : state_(state) {}

  grpc::ServerBidiReactor<proto::WorkerReport, proto::CoordinatorNotice>* Join(
      grpc::CallbackServerContext*) override {
    JoinReactor::Handlers handlers;
    handlers.on_hello = [s = state_](const proto::Hello& hello) {
      absl::MutexLock lock(&s->mutex);
      ++s->hellos;
      s->hello = hello;
      return s->refusal;
    };
    handlers.on_heartbeat = [s = state_](const proto::Heartbeat& heartbeat) {
      absl::MutexLock lock(&s->mutex);
      s->has_heartbeat = true;
      s->heartbeat = heartbeat;
    };
    handlers.on_leave = [s = state_] {
      absl::MutexLock lock(&s->mutex);
      ++s->leaves;
    };
    handlers.on_done = [s = state_](JoinReactor* reactor) {
      absl::MutexLock lock(&s->mutex);
      s->members.erase(reactor);
    };
    handlers.heartbeat_ms = state_->options.heartbeat_ms;
    handlers.protocol_version = state_->options.protocol_version;
    absl::MutexLock lock(&state_->mutex);
    auto* reactor = new JoinReactor(std::move(handlers));
    state_->members.insert(reactor);
    return reactor;
  }

 private:
  State* const state_;
};

// Blocking service methods: simple, and a test has few streams at once.
class TestCoordinator::Pieces : public proto::Pieces::Service {
 public:
  explicit Pieces(State* state) : state_(state) {}

  grpc::Status Fetch(grpc::ServerContext* context, const proto::PieceRequest* request,
                     grpc::ServerWriter<proto::Piece>* writer) override {
    const TestModel* model = state_->options.model;
    {
      absl::MutexLock lock(&state_->mutex);
      ++state_->fetches;
    }
    if (model == nullptr || request->model_id() != model->model_id()) {
      return {grpc::StatusCode::NOT_FOUND, "no such model"};
    }
    for (const proto::PieceRange& range : request->ranges()) {
      for (uint32_t i = 0; i < range.piece_count(); ++i) {
        proto::Piece piece = MakePiece(*model, range.tensor(), range.first_piece() + i);
        while (StallsAll() && !context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
        if (Stalls()) {
          while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
        }
        if (const absl::Status status = Allow(piece); !status.ok()) {
          return transport::ToGrpcStatus(status);
        }
        if (!writer->Write(piece)) return grpc::Status::CANCELLED;
      }
    }
    return grpc::Status::OK;
  }

 private:
  static proto::Piece MakePiece(const TestModel& model, uint32_t tensor, uint32_t number) {
    const auto bytes = model.file().TensorBytes(model.file().tensors().at(tensor));
    const size_t begin = static_cast<size_t>(number) * kPieceBytes;
    const auto part = bytes.subspan(begin, std::min<size_t>(kPieceBytes, bytes.size() - begin));
    proto::Piece piece;
    piece.set_tensor(tensor);
    piece.set_piece(number);
    piece.set_data(std::string(reinterpret_cast<const char*>(part.data()), part.size()));
    return piece;
  }

  bool StallsAll() {
    absl::MutexLock lock(&state_->mutex);
    return state_->stalls_all;
  }

  bool Stalls() {
    absl::MutexLock lock(&state_->mutex);
    return state_->stall_after >= 0 && state_->stall_after-- == 0;
  }

  absl::Status Allow(proto::Piece& piece) {
    absl::MutexLock lock(&state_->mutex);
    if (state_->cut_after == 0) {
      state_->cut_after = -1;
      return state_->cut_status;
    }
    if (state_->cut_after > 0) --state_->cut_after;
    if (state_->damage) piece.mutable_data()->front() ^= 1;
    ++state_->pieces_sent;
    return absl::OkStatus();
  }

  State* const state_;
};

TestCoordinator::TestCoordinator(const Options& options)
    : state_(std::make_unique<State>()),
      cluster_(std::make_unique<Cluster>(state_.get())),
      pieces_(std::make_unique<Pieces>(state_.get())) {
  state_->options = options;
  grpc::ServerBuilder builder;
  transport::ConfigureServer(builder);
  int port = 0;
  builder.AddListeningPort(options.address,
                           options.identity.has_value()
                               ? transport::TlsServerCredentials(*options.identity, false)
                               : transport::InsecureServerCredentialsForLoopback(),
                           &port);
  builder.RegisterService(cluster_.get());
  builder.RegisterService(pieces_.get());
  server_ = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

TestCoordinator::~TestCoordinator() {
  EndMemberships(absl::OkStatus());
  server_->Shutdown(std::chrono::system_clock::now());
  // gRPC has waited for them, but by ways that a sanitizer does not see.
  const auto all_left = [this]() ABSL_SHARED_LOCKS_REQUIRED(state_->mutex) {
    return state_->members.empty();
  };
  absl::MutexLock lock(&state_->mutex);
  state_->mutex.Await(absl::Condition(&all_left));
}

void TestCoordinator::RefuseJoins(const absl::Status& status) {
  absl::MutexLock lock(&state_->mutex);
  state_->refusal = status;
}

void TestCoordinator::EndMemberships(const absl::Status& status) {
  absl::MutexLock lock(&state_->mutex);
  for (JoinReactor* member : state_->members) member->End(status);
}

void TestCoordinator::CutFetchAfter(int pieces, const absl::Status& status) {
  absl::MutexLock lock(&state_->mutex);
  state_->cut_after = pieces;
  state_->cut_status = status;
}

void TestCoordinator::StallFetchAfter(int pieces) {
  absl::MutexLock lock(&state_->mutex);
  state_->stall_after = pieces;
}

void TestCoordinator::StallFetches(bool stall) {
  absl::MutexLock lock(&state_->mutex);
  state_->stalls_all = stall;
}

void TestCoordinator::DamagePieces(bool damage) {
  absl::MutexLock lock(&state_->mutex);
  state_->damage = damage;
}

proto::Hello TestCoordinator::WaitForHello(int count) {
  absl::MutexLock lock(&state_->mutex);
  state_->wanted_hellos = count;
  state_->mutex.Await(absl::Condition(
      +[](State* s)
           ABSL_EXCLUSIVE_LOCKS_REQUIRED(s->mutex) { return s->hellos >= s->wanted_hellos; },
      state_.get()));
  return state_->hello;
}

proto::Heartbeat TestCoordinator::WaitForHeartbeat() {
  absl::MutexLock lock(&state_->mutex);
  state_->has_heartbeat = false;
  state_->mutex.Await(absl::Condition(&state_->has_heartbeat));
  return state_->heartbeat;
}

int TestCoordinator::leaves() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->leaves;
}

int TestCoordinator::pieces_sent() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->pieces_sent;
}

int TestCoordinator::fetches() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->fetches;
}

}  // namespace renga::worker::testing
