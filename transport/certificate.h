// Keys, certificates and certificate requests (OpenSSL), as absl::Status. Internal to transport/:
// everybody else sees PEM text through identity.h.
//
// Keys are P-256. Certificates do not expire (the dates are those RFC 5280 gives for "no
// expiration date"): a cluster's only root is its own authority, a compromised cluster makes a new
// one, and machines without a battery-backed clock must be able to join.
#ifndef RENGA_TRANSPORT_CERTIFICATE_H_
#define RENGA_TRANSPORT_CERTIFICATE_H_

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace renga::transport {

struct OpenSslDeleter {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(X509_REQ* request) const { X509_REQ_free(request); }
};
using KeyPtr = std::unique_ptr<EVP_PKEY, OpenSslDeleter>;
using CertificatePtr = std::unique_ptr<X509, OpenSslDeleter>;
using RequestPtr = std::unique_ptr<X509_REQ, OpenSslDeleter>;

// kInternal with `what` and what OpenSSL says; empties OpenSSL's error queue of this thread.
absl::Status OpenSslError(absl::string_view what);

// `bytes` random bytes as hexadecimal digits.
absl::StatusOr<std::string> RandomHex(int bytes);

absl::StatusOr<KeyPtr> GenerateKey();
absl::StatusOr<CertificatePtr> MakeAuthorityCertificate(EVP_PKEY* key);
// A certificate for `name` (see IsValidPeerName) and `public_key`, for both ends of TLS.
absl::StatusOr<CertificatePtr> MakeLeafCertificate(absl::string_view name, EVP_PKEY* public_key,
                                                   X509* authority, EVP_PKEY* authority_key);
absl::StatusOr<RequestPtr> MakeRequest(absl::string_view name, EVP_PKEY* key);

// The first block of its kind in the text. kInvalidArgument when there is none or it is damaged;
// encrypted keys are not asked a password for.
absl::StatusOr<KeyPtr> ParseKey(absl::string_view pem);
absl::StatusOr<CertificatePtr> ParseCertificate(absl::string_view pem);
absl::StatusOr<RequestPtr> ParseRequest(absl::string_view pem);

absl::StatusOr<std::string> KeyToPem(EVP_PKEY* key);
absl::StatusOr<std::string> CertificateToPem(X509* certificate);
absl::StatusOr<std::string> RequestToPem(X509_REQ* request);

// SHA-256 of the certificate, 64 lower-case hexadecimal digits.
absl::StatusOr<std::string> CertificateFingerprint(X509* certificate);
// The DNS name in it. kInvalidArgument unless there is exactly one valid peer name.
absl::StatusOr<std::string> CertificateName(X509* certificate);
// kPermissionDenied unless `authority`'s key signed `certificate` and `key` is the certificate's.
absl::Status CheckKeyAndSignature(X509* certificate, EVP_PKEY* key, X509* authority);

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_CERTIFICATE_H_
