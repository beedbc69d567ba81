// A worker: offers one device and an amount of memory to a coordinator, holds the shard it is told
// to hold, and runs the steps it is sent.
//
//   auto worker = WorkerServer::Create(options);       // device ready, speed measured, serving
//   in_process.Register("w", (*worker)->grpc_server());  // only where there is no port
//   (*worker)->Join();                                 // joins, and joins again when it must
//   absl::Status why = (*worker)->Wait();              // until it ends
#ifndef RENGA_WORKER_SERVICE_WORKER_SERVER_H_
#define RENGA_WORKER_SERVICE_WORKER_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "transport/dialer.h"
#include "transport/identity.h"
#include "worker/kernels/backend_factory.h"

namespace grpc {
class Server;
}  // namespace grpc

namespace renga::worker {

struct WorkerOptions {
  std::string name;  // for people
  kernels::BackendOptions device;
  int64_t memory_bytes = 0;  // offered: the shard, its KV cache and its scratch stay within it
  // This is the memory of a host beside its card, which another worker offers: plans use it only
  // for what fits nowhere else.
  bool spare = false;
  // How much is offered now, asked with every heartbeat on the link's thread; what is not above 0
  // is no answer. May be empty: then that never changes. The coordinator is told of a change, and
  // gives the worker another shard where the one it holds does not do any more.
  std::function<int64_t()> memory_bytes_now;

  // Mutual TLS with this identity. Without one the worker trusts every caller, so it serves on a
  // loopback address or, with an empty listen_address, inside this process only.
  std::optional<transport::Identity> identity;
  std::string listen_address;  // "0.0.0.0:0"; port 0 is any free one; "" is no port
  // Where steps and results travel, at the same host; 0 is any free one.
  int data_port = 0;
  // How the coordinator and other workers reach this one: "" is the address the coordinator sees
  // it under; "inproc:NAME" without a port.
  std::string advertise_host;

  transport::PeerAddress coordinator;
  transport::Dialer* dialer = nullptr;  // outlives the worker

  std::string cache_directory;   // of shipped pieces; "": none are kept
  std::string packed_directory;  // of matrices as the device wants them; "": none are kept
  std::string screen_directory;  // of heads that may stay on disk; "": heads are loaded whole
  std::string local_model_path;  // a copy of the model on this machine; "": none

  // False skips the measurement and states `assumed_weight_bytes_per_second`: for a worker alone
  // in its process, where nothing is divided by speed.
  bool measure_speed = true;
  double assumed_weight_bytes_per_second = 1e10;
  // How old a measurement gets: after that, and when the worker has been idle for as long (20
  // seconds at most), it is made again. Infinite: never.
  absl::Duration measure_again_after = absl::Minutes(30);

  // Lines for people: joined, holding a shard (with the bytes fetched and cached), left. From any
  // thread; quick. May be empty.
  std::function<void(const std::string& line)> on_event;

  // How long an unreachable coordinator is tried before Wait() returns.
  absl::Duration join_timeout = absl::Seconds(10);           // the first time
  absl::Duration rejoin_timeout = absl::InfiniteDuration();  // after having been a member
};

// Thread-safe. Ends with the object.
class WorkerServer {
 public:
  // Makes the device, measures it, listens. kInvalidArgument for options that make no sense,
  // kUnavailable when the address is taken; errors of the device and of the local model file.
  static absl::StatusOr<std::unique_ptr<WorkerServer>> Create(const WorkerOptions& options);
  virtual ~WorkerServer() = default;

  // Starts joining. Call once.
  virtual void Join() = 0;
  // Until the coordinator has welcomed the worker (OK), or it ended before (the reason).
  virtual absl::Status WaitForWelcome() = 0;
  // Until the worker ends: OK after Shutdown; otherwise why the coordinator refused it, or that it
  // could not be reached for too long.
  virtual absl::Status Wait() = 0;
  // Leaves, cancels what runs and stops serving. Wait() returns.
  virtual void Shutdown() = 0;

  virtual grpc::Server* grpc_server() = 0;
  // For a coordinator in this process.
  virtual std::shared_ptr<transport::LocalWorker> local_worker() = 0;
  virtual int port() const = 0;       // of gRPC; 0: none
  virtual int data_port() const = 0;  // 0: none
  virtual const std::string& device_path() const = 0;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_WORKER_SERVER_H_
