// Who may talk to whom, over real sockets on loopback.
#include "transport/dialer.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "proto/cluster.grpc.pb.h"
#include "transport/enroll.h"
#include "transport/grpc_status.h"
#include "transport/hello.h"
#include "transport/peer_identity.h"

namespace renga::transport {
namespace {

using ::renga::testing::IsOkAndHolds;
using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

// A coordinator with nothing but enrolment. A request without a token asks who the server thinks
// the caller is: the answer comes in the certificate field.
class TestCluster : public proto::Cluster::CallbackService {
 public:
  TestCluster(const Authority* authority, PeerPolicy policy)
      : authority_(authority), policy_(policy) {}

  grpc::ServerUnaryReactor* Enroll(grpc::CallbackServerContext* context,
                                   const proto::EnrollRequest* request,
                                   proto::EnrollReply* reply) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(Answer(*context, *request, *reply)));
    return reactor;
  }

 private:
  absl::Status Answer(const grpc::CallbackServerContext& context,
                      const proto::EnrollRequest& request, proto::EnrollReply& reply) const {
    absl::StatusOr<std::string> text;
    if (request.token().empty()) {
      text = PeerName(context, policy_);
      if (auto status = RequireMember(context, policy_); !status.ok()) return status;
      if (auto status = RequirePeer(context, policy_, "worker-1"); !status.ok()) return status;
    } else {
      if (auto status = CheckBuild(request.build(), "the worker"); !status.ok()) return status;
      if (!authority_->TokenMatches(request.token())) {
        return absl::PermissionDeniedError("wrong token");
      }
      text = authority_->SignRequest(request.certificate_request_pem(), "worker-1");
    }
    if (!text.ok()) return text.status();
    reply.set_certificate_pem(*text);
    return absl::OkStatus();
  }

  const Authority* const authority_;
  const PeerPolicy policy_;
};

struct TestServer {
  TestServer(const Authority* authority, std::shared_ptr<grpc::ServerCredentials> credentials,
             PeerPolicy policy)
      : service(authority, policy) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", std::move(credentials), &port);
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    address = absl::StrCat("127.0.0.1:", port);
  }
  ~TestServer() { server->Shutdown(std::chrono::system_clock::now()); }

  TestCluster service;
  std::unique_ptr<grpc::Server> server;
  std::string address;
};

// Asks the peer who it takes us for.
absl::StatusOr<std::string> Ask(Dialer& dialer, const PeerAddress& peer) {
  const auto stub = proto::Cluster::NewStub(dialer.Dial(peer, ChannelPurpose::kControl));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  proto::EnrollReply reply;
  const grpc::Status status = stub->Enroll(&context, proto::EnrollRequest(), &reply);
  if (!status.ok()) return FromGrpcStatus(status, "Enroll");
  return reply.certificate_pem();
}

class DialerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(authority_, Authority::CreateEphemeral());
    ASSERT_OK_AND_ASSIGN(coordinator_, authority_->IssueIdentity(kCoordinatorName));
    ASSERT_OK_AND_ASSIGN(worker_, authority_->IssueIdentity("worker-1"));
    server_ = std::make_unique<TestServer>(
        authority_.get(), TlsServerCredentials(coordinator_, false), PeerPolicy::kMutualTls);
  }

  PeerAddress Coordinator() const {
    return {.address = server_->address, .name = std::string(kCoordinatorName)};
  }
  JoinToken Token() const {
    return {.token = authority_->token(), .fingerprint = authority_->fingerprint()};
  }

  std::unique_ptr<Authority> authority_;
  Identity coordinator_;
  Identity worker_;
  std::unique_ptr<TestServer> server_;
};

TEST_F(DialerTest, MembersAreKnownByName) {
  EXPECT_THAT(Ask(*CreateTlsDialer(worker_), Coordinator()), IsOkAndHolds("worker-1"));
}

TEST_F(DialerTest, AMemberWithAnotherNameIsNotTheOneAskedFor) {
  ASSERT_OK_AND_ASSIGN(const Identity other, authority_->IssueIdentity("worker-2"));
  EXPECT_THAT(Ask(*CreateTlsDialer(other), Coordinator()),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("worker-2")));
}

TEST_F(DialerTest, WithoutACertificateOnlyEnrolmentIsOpen) {
  EXPECT_THAT(Ask(*CreateEnrollDialer(authority_->certificate_pem()), Coordinator()),
              StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(DialerTest, AServerThatRequiresCertificatesRefusesStrangers) {
  TestServer strict(authority_.get(), TlsServerCredentials(coordinator_, true),
                    PeerPolicy::kMutualTls);
  const PeerAddress peer = {.address = strict.address, .name = std::string(kCoordinatorName)};
  EXPECT_THAT(Ask(*CreateTlsDialer(worker_), peer), IsOkAndHolds("worker-1"));
  EXPECT_THAT(Ask(*CreateEnrollDialer(authority_->certificate_pem()), peer),
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(DialerTest, AMemberOfAnotherClusterIsRefused) {
  ASSERT_OK_AND_ASSIGN(const auto stranger, Authority::CreateEphemeral());
  // It trusts this server but shows a certificate of another authority.
  ASSERT_OK_AND_ASSIGN(Identity identity, stranger->IssueIdentity("worker-1"));
  identity.authority_pem = authority_->certificate_pem();
  EXPECT_THAT(Ask(*CreateTlsDialer(identity), Coordinator()),
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(DialerTest, AServerOfAnotherClusterIsRefused) {
  ASSERT_OK_AND_ASSIGN(const auto stranger, Authority::CreateEphemeral());
  ASSERT_OK_AND_ASSIGN(const Identity identity, stranger->IssueIdentity("worker-1"));
  EXPECT_THAT(Ask(*CreateTlsDialer(identity), Coordinator()),
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(DialerTest, AServerWithAnotherNameIsRefused) {
  EXPECT_THAT(Ask(*CreateTlsDialer(worker_), {.address = server_->address, .name = "worker-3"}),
              StatusIs(absl::StatusCode::kUnavailable));
  // No name to insist on, or no address: no call at all.
  EXPECT_THAT(Ask(*CreateTlsDialer(worker_), {.address = server_->address, .name = ""}),
              ::testing::Not(::renga::testing::IsOk()));
  EXPECT_THAT(Ask(*CreateTlsDialer(worker_), {.address = "nowhere", .name = "coordinator"}),
              ::testing::Not(::renga::testing::IsOk()));
}

TEST_F(DialerTest, PlainTextDoesNotReachATlsServer) {
  EXPECT_THAT(Ask(*CreateInsecureLoopbackDialer(), Coordinator()),
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(DialerTest, InsecureIsForLoopbackOnly) {
  TestServer plain(authority_.get(), InsecureServerCredentialsForLoopback(),
                   PeerPolicy::kTrustEveryone);
  const auto dialer = CreateInsecureLoopbackDialer();
  EXPECT_THAT(Ask(*dialer, {.address = plain.address, .name = "coordinator"}), IsOkAndHolds(""));
  EXPECT_THAT(Ask(*dialer, {.address = "192.0.2.1:7420", .name = "coordinator"}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(DialerTest, InProcessServersAreReachedByName) {
  TestServer plain(authority_.get(), InsecureServerCredentialsForLoopback(),
                   PeerPolicy::kTrustEveryone);
  InProcessDialer dialer(CreateTlsDialer(worker_));
  dialer.Register("worker-a", plain.server.get());
  EXPECT_THAT(Ask(dialer, {.address = "inproc:worker-a", .name = "worker-a"}), IsOkAndHolds(""));
  EXPECT_THAT(Ask(dialer, {.address = "inproc:worker-b", .name = "worker-b"}),
              ::testing::Not(::renga::testing::IsOk()));
  EXPECT_THAT(Ask(dialer, Coordinator()), IsOkAndHolds("worker-1"));
}

TEST_F(DialerTest, EnrolmentGivesAnIdentityThatOpensDoors) {
  ASSERT_OK_AND_ASSIGN(const Identity identity, Enroll({.coordinator_address = server_->address,
                                                        .join_token = Token(),
                                                        .worker_name = "pi"}));
  EXPECT_EQ(identity.name, "worker-1");
  EXPECT_THAT(Ask(*CreateTlsDialer(identity), Coordinator()), IsOkAndHolds("worker-1"));
}

TEST_F(DialerTest, AnIdentityIsKeptForItsClusterOnly) {
  const std::string folder = testing::NewTempFolder();
  EnrollOptions options = {.coordinator_address = server_->address, .join_token = Token()};
  ASSERT_OK_AND_ASSIGN(const Identity first, LoadOrEnroll(folder, options));
  EnrollOptions wrong_token = options;
  wrong_token.join_token.token = std::string(32, '0');
  ASSERT_OK_AND_ASSIGN(const Identity second, LoadOrEnroll(folder, wrong_token));
  EXPECT_EQ(first.certificate_pem, second.certificate_pem);
  // Another cluster: the kept identity is of no use there.
  options.join_token.fingerprint = std::string(64, '0');
  EXPECT_THAT(LoadOrEnroll(folder, options), StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST_F(DialerTest, EnrolmentNeedsTheTokenAndTheFingerprint) {
  JoinToken token = Token();
  token.token = std::string(32, '0');
  EXPECT_THAT(Enroll({.coordinator_address = server_->address, .join_token = token}),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("wrong token")));
  token = Token();
  token.fingerprint = std::string(64, '0');
  EXPECT_THAT(Enroll({.coordinator_address = server_->address, .join_token = token}),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("fingerprint")));
}

TEST_F(DialerTest, EnrolmentWhereNobodyOrSomethingElseListens) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  EnrollOptions options = {
      .coordinator_address = absl::StrCat("127.0.0.1:", ntohs(address.sin_port)),
      .join_token = Token(),
      .timeout = absl::Milliseconds(300)};
  // Bound but not listening: refused.
  EXPECT_THAT(Enroll(options), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("refused")));
  // Listening but silent: given up after the timeout.
  ASSERT_EQ(::listen(fd, 1), 0);
  EXPECT_THAT(Enroll(options),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("does not answer")));
  ::close(fd);

  TestServer plain(authority_.get(), InsecureServerCredentialsForLoopback(),
                   PeerPolicy::kTrustEveryone);
  options.coordinator_address = plain.address;
  options.timeout = absl::Seconds(5);
  EXPECT_THAT(Enroll(options), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("TLS")));
  options.coordinator_address = "no-port";
  EXPECT_THAT(Enroll(options), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(HelloTest, AnotherProtocolIsRefusedWithBothVersions) {
  EXPECT_OK(CheckBuild(ThisBuild(), "worker w"));
  proto::Build build = ThisBuild();
  build.set_protocol_version(kProtocolVersion + 1);
  build.set_build_version("9.9.9");
  EXPECT_THAT(CheckBuild(build, "worker w"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("9.9.9")));
  EXPECT_THAT(CheckBuild(build, "worker w"), StatusIs(absl::StatusCode::kFailedPrecondition,
                                                      HasSubstr(std::string(BuildVersion()))));
}

TEST(HostPortTest, AddressesAreSplitAndChecked) {
  ASSERT_OK_AND_ASSIGN(HostPort parsed, ParseHostPort("server.lan:7420"));
  EXPECT_EQ(parsed.host, "server.lan");
  EXPECT_EQ(parsed.port, 7420);
  ASSERT_OK_AND_ASSIGN(parsed, ParseHostPort("[fe80::1]:1"));
  EXPECT_EQ(parsed.host, "fe80::1");
  for (const char* bad : {"", ":", "host", "host:", ":80", "host:65536", "host:-1", "host:+1",
                          "host:80x", "::1:80", "[::1", "[]:80", "a b:80", "dns:///x:80"}) {
    EXPECT_THAT(ParseHostPort(bad), StatusIs(absl::StatusCode::kInvalidArgument)) << bad;
  }
}

TEST(HostPortTest, Loopback) {
  for (const char* host : {"localhost", "::1", "127.0.0.1", "127.3.2.1"}) {
    EXPECT_TRUE(IsLoopbackHost(host)) << host;
  }
  for (const char* host : {"", "0.0.0.0", "10.0.0.1", "127.evil.example", "127.0.0.1.evil", "::"}) {
    EXPECT_FALSE(IsLoopbackHost(host)) << host;
  }
}

TEST(GrpcStatusTest, CodesAndTextSurvive) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "a sentence");
    EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(status), "x"), status);
  }
  EXPECT_OK(FromGrpcStatus(ToGrpcStatus(absl::OkStatus()), "x"));
  EXPECT_THAT(FromGrpcStatus(grpc::Status(grpc::StatusCode::INTERNAL, ""), "the Load call"),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("the Load call")));
  EXPECT_EQ(StatusCodeFromWire(14), absl::StatusCode::kUnavailable);
  EXPECT_EQ(StatusCodeFromWire(17), absl::StatusCode::kUnknown);
  EXPECT_EQ(StatusCodeFromWire(-1), absl::StatusCode::kUnknown);
}

}  // namespace
}  // namespace renga::transport
