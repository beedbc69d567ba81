// Who is who on the LAN: the coordinator's certificate authority, and the key and certificate of
// every process. Made at the first start, kept in a folder only its user can read.
//
// Trust: every link is mutual TLS under this authority. A worker enrols once with the cluster's
// token and the authority's fingerprint (both in the join line) and gets a certificate whose name
// is its worker id. Certificates name ids, not addresses, so machines may change addresses.
#ifndef RENGA_TRANSPORT_IDENTITY_H_
#define RENGA_TRANSPORT_IDENTITY_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace renga::transport {

// What a process shows to its peers. All PEM.
struct Identity {
  std::string name;             // in the certificate: "coordinator" or a worker id
  std::string certificate_pem;  // signed by the authority
  std::string private_key_pem;
  std::string authority_pem;  // the authority's own certificate: the only root that is trusted
};

inline constexpr absl::string_view kCoordinatorName = "coordinator";

// Names in certificates: 1 to 63 lower-case letters, digits and inner '-', a DNS label.
bool IsValidPeerName(absl::string_view name);

// The cluster's certificate authority. Immutable after creation; safe from any thread.
class Authority {
 public:
  // Loads authority and token from `directory`, or makes and stores them (files 0600).
  static absl::StatusOr<std::unique_ptr<Authority>> LoadOrCreate(const std::string& directory);
  // Kept in memory only: for clusters of local worker processes, and tests.
  static absl::StatusOr<std::unique_ptr<Authority>> CreateEphemeral();
  virtual ~Authority() = default;

  virtual const std::string& certificate_pem() const = 0;
  // SHA-256 of the authority's certificate, 64 hexadecimal digits: what the join line carries.
  virtual const std::string& fingerprint() const = 0;
  // The secret that lets a worker enrol. Compare with TokenMatches only.
  virtual const std::string& token() const = 0;
  // In constant time.
  virtual bool TokenMatches(absl::string_view token) const = 0;

  // A fresh key and certificate for this process's own server.
  virtual absl::StatusOr<Identity> IssueIdentity(absl::string_view name) const = 0;
  // Signs a worker's request under `name` (whatever name the request itself states).
  // kInvalidArgument when it is no valid, self-signed request.
  virtual absl::StatusOr<std::string> SignRequest(const std::string& request_pem,
                                                  absl::string_view name) const = 0;
};

// A new private key and a certificate request for it.
struct KeyAndRequest {
  std::string private_key_pem;
  std::string request_pem;
};
absl::StatusOr<KeyAndRequest> CreateKeyAndRequest(absl::string_view name);

// Connects to `address` by TLS and returns the authority certificate the server presents, if its
// SHA-256 fingerprint is `fingerprint`; kPermissionDenied otherwise, kUnavailable when unreachable
// within `timeout`, kInvalidArgument for a bad address. Blocks.
absl::StatusOr<std::string> FetchAuthority(const std::string& address,
                                           const std::string& fingerprint,
                                           absl::Duration timeout = absl::Seconds(5));

// The identity that `certificate_pem` (signed for the request of `private_key_pem`) gives a
// process. kPermissionDenied when key, certificate and authority don't belong together,
// kInvalidArgument when one of them is damaged.
absl::StatusOr<Identity> MakeIdentity(const std::string& certificate_pem,
                                      const std::string& private_key_pem,
                                      const std::string& authority_pem);

// An enrolled worker's identity, kept (one file, 0600, in a folder 0700) so that it joins again
// without enrolling. Load: kNotFound when there is none.
absl::Status SaveIdentity(const std::string& directory, const Identity& identity);
absl::StatusOr<Identity> LoadIdentity(const std::string& directory);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_IDENTITY_H_
