// gRPC's status and absl::Status, both ways: the one place where they meet.
#ifndef RENGA_TRANSPORT_GRPC_STATUS_H_
#define RENGA_TRANSPORT_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace renga::transport {

// A code as a number in a message (Goodbye, StepResult); kUnknown for one that doesn't exist.
absl::StatusCode StatusCodeFromWire(int code);

// The codes are the same numbers. A message without text gets one that names `what`.
absl::Status FromGrpcStatus(const grpc::Status& status, absl::string_view what);
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_GRPC_STATUS_H_
