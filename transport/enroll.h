// How a process without a certificate gets one: checks the authority's fingerprint, shows the
// token, has its key signed.
#ifndef RENGA_TRANSPORT_ENROLL_H_
#define RENGA_TRANSPORT_ENROLL_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "transport/identity.h"
#include "transport/join_line.h"

namespace renga::transport {

struct EnrollOptions {
  std::string coordinator_address;  // "host:port"
  JoinToken join_token;
  std::string worker_name = {};  // for people; the coordinator chooses the name in the certificate
  absl::Duration timeout = absl::Seconds(5);
};

// Blocks. kUnavailable when the coordinator can't be reached, kPermissionDenied for a wrong
// fingerprint or token, kFailedPrecondition for another protocol version.
absl::StatusOr<Identity> Enroll(const EnrollOptions& options);

// The identity kept in `directory`, if the authority of the join token signed it; otherwise enrols
// and keeps the result there. A damaged identity is replaced.
absl::StatusOr<Identity> LoadOrEnroll(const std::string& directory, const EnrollOptions& options);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_ENROLL_H_
