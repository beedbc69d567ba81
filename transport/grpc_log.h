// gRPC's own log lines (failed handshakes, refused connections) as this project's debug messages:
// what they say reaches users as the Status of a call, in one sentence instead of ten lines.
#ifndef RENGA_TRANSPORT_GRPC_LOG_H_
#define RENGA_TRANSPORT_GRPC_LOG_H_

namespace renga::transport {

// For the whole process; call it at start, before any channel or server.
void RouteGrpcLog();

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_GRPC_LOG_H_
