#include "transport/enroll.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "proto/cluster.grpc.pb.h"
#include "transport/certificate.h"
#include "transport/dialer.h"
#include "transport/grpc_status.h"
#include "transport/hello.h"

namespace renga::transport {

absl::StatusOr<Identity> Enroll(const EnrollOptions& options) {
  RENGA_ASSIGN_OR_RETURN(
      const std::string authority_pem,
      FetchAuthority(options.coordinator_address, options.join_token.fingerprint, options.timeout));
  RENGA_ASSIGN_OR_RETURN(const KeyAndRequest key, CreateKeyAndRequest("worker"));

  const std::unique_ptr<Dialer> dialer = CreateEnrollDialer(authority_pem);
  const auto stub = proto::Cluster::NewStub(
      dialer->Dial({.address = options.coordinator_address, .name = std::string(kCoordinatorName)},
                   ChannelPurpose::kControl));
  proto::EnrollRequest request;
  *request.mutable_build() = ThisBuild();
  request.set_token(options.join_token.token);
  request.set_certificate_request_pem(key.request_pem);
  request.set_worker_name(options.worker_name);
  proto::EnrollReply reply;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       absl::ToChronoMilliseconds(options.timeout));
  const grpc::Status status = stub->Enroll(&context, request, &reply);
  RENGA_RETURN_IF_ERROR(
      base::Annotate(FromGrpcStatus(status, "Enroll"),
                     absl::StrCat("the coordinator at ", options.coordinator_address)));
  return MakeIdentity(reply.certificate_pem(), key.private_key_pem, authority_pem);
}

absl::StatusOr<Identity> LoadOrEnroll(const std::string& directory, const EnrollOptions& options) {
  absl::StatusOr<Identity> kept = LoadIdentity(directory);
  if (kept.ok()) {
    RENGA_ASSIGN_OR_RETURN(const CertificatePtr authority, ParseCertificate(kept->authority_pem));
    RENGA_ASSIGN_OR_RETURN(const std::string fingerprint, CertificateFingerprint(authority.get()));
    if (fingerprint == options.join_token.fingerprint) return kept;
  }
  RENGA_ASSIGN_OR_RETURN(Identity identity, Enroll(options));
  RENGA_RETURN_IF_ERROR(SaveIdentity(directory, identity));
  return identity;
}

}  // namespace renga::transport
