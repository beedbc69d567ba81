#include "transport/grpc_status.h"

#include "absl/strings/str_cat.h"

namespace renga::transport {
namespace {

constexpr int kHighestCode = static_cast<int>(absl::StatusCode::kUnauthenticated);

}  // namespace

absl::StatusCode StatusCodeFromWire(int code) {
  return code >= 0 && code <= kHighestCode ? static_cast<absl::StatusCode>(code)
                                           : absl::StatusCode::kUnknown;
}

absl::Status FromGrpcStatus(const grpc::Status& status, absl::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const absl::StatusCode code = StatusCodeFromWire(static_cast<int>(status.error_code()));
  if (status.error_message().empty()) {
    return absl::Status(code, absl::StrCat(what, ": ", absl::StatusCodeToString(code)));
  }
  return absl::Status(code, status.error_message());
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.raw_code()),
                      std::string(status.message()));
}

}  // namespace renga::transport
