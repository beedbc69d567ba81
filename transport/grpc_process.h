// What gRPC keeps for the whole process: its threads, and its log.
#ifndef RENGA_TRANSPORT_GRPC_PROCESS_H_
#define RENGA_TRANSPORT_GRPC_PROCESS_H_

namespace renga::transport {

// One in main, before any channel or server and until all of them are gone. gRPC's own log lines
// (failed handshakes, refused connections) become this project's debug messages: what they say
// reaches users as the Status of a call, in one sentence instead of ten lines.
class GrpcProcess {
 public:
  GrpcProcess();
  // Waits for gRPC's threads. Otherwise they end beside the process's exit, which takes down the
  // OpenSSL that they still use.
  ~GrpcProcess();
  GrpcProcess(const GrpcProcess&) = delete;
  GrpcProcess& operator=(const GrpcProcess&) = delete;
};

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_GRPC_PROCESS_H_
