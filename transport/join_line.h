// What a user types on a new machine: where the coordinator is, and one string that carries both
// the cluster's token (lets the worker in) and the authority's fingerprint (tells the worker that
// it talks to the right coordinator).
//
//   renga worker 192.168.1.10:7420 --token 0f3c...e1.9ab4...77
#ifndef RENGA_TRANSPORT_JOIN_LINE_H_
#define RENGA_TRANSPORT_JOIN_LINE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace renga::transport {

struct JoinToken {
  std::string token;        // lower-case hexadecimal
  std::string fingerprint;  // SHA-256 of the authority's certificate, 64 digits
};

// "TOKEN.FINGERPRINT".
std::string FormatJoinToken(const JoinToken& join_token);
// kInvalidArgument says what is wrong (a part is missing, a digit was lost in copying).
absl::StatusOr<JoinToken> ParseJoinToken(absl::string_view text);

// The whole line for the coordinator at `address` ("host:port").
std::string FormatJoinLine(absl::string_view address, const JoinToken& join_token);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_JOIN_LINE_H_
