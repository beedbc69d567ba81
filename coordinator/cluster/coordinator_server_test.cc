// Workers meet the coordinator over real sockets on loopback, with certificates and without.
#include "coordinator/cluster/coordinator_server.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/server.h>

#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/data_type.h"
#include "base/testing/status_matchers.h"
#include "coordinator/cluster/testing/test_model.h"
#include "gtest/gtest.h"
#include "proto/cluster.grpc.pb.h"
#include "transport/dialer.h"
#include "transport/enroll.h"
#include "transport/grpc_status.h"
#include "transport/hello.h"
#include "transport/identity.h"

namespace renga::cluster {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

proto::Hello GoodHello() {
  proto::Hello hello;
  *hello.mutable_build() = transport::ThisBuild();
  hello.set_worker_name("ada");
  hello.set_listen_port(7421);
  hello.set_data_port(7422);
  hello.mutable_offer()->set_device_path("cpu-portable-1");
  hello.mutable_offer()->set_memory_bytes(100 << 20);
  hello.mutable_offer()->set_memory_available_bytes(200 << 20);
  hello.mutable_offer()->set_weight_bytes_per_second(1e9);
  hello.mutable_offer()->set_threads(2);
  return hello;
}

proto::KernelSpeed Kernel(double decode, double prefill) {
  proto::KernelSpeed kernel;
  kernel.set_gguf_type(base::GetDataTypeInfo(base::DataType::kQ4_K).gguf_id);
  kernel.set_decode_bytes_per_second(decode);
  kernel.set_prefill_bytes_per_second(prefill);
  return kernel;
}

// A worker's Join stream, blocking.
class JoinClient {
 public:
  explicit JoinClient(std::shared_ptr<grpc::Channel> channel)
      : stub_(proto::Cluster::NewStub(std::move(channel))), stream_(stub_->Join(&context_)) {}
  ~JoinClient() {
    context_.TryCancel();
    if (!finished_) stream_->Finish();
  }
  void Say(const proto::Hello& hello) {
    proto::WorkerReport report;
    *report.mutable_hello() = hello;
    Report(report);
  }
  void Report(const proto::WorkerReport& report) { stream_->Write(report); }
  void Beat(const proto::Heartbeat& heartbeat) {
    proto::WorkerReport report;
    *report.mutable_heartbeat() = heartbeat;
    stream_->Write(report);
  }
  std::optional<proto::CoordinatorNotice> Hear() {
    proto::CoordinatorNotice notice;
    if (!stream_->Read(&notice)) return std::nullopt;
    return notice;
  }
  absl::Status End() {
    finished_ = true;
    return transport::FromGrpcStatus(stream_->Finish(), "Join");
  }
  void Leave() {
    proto::WorkerReport report;
    report.mutable_leave();
    stream_->Write(report);
  }
  void HangUp() { stream_->WritesDone(); }

 private:
  const std::unique_ptr<proto::Cluster::Stub> stub_;
  grpc::ClientContext context_;
  const std::unique_ptr<grpc::ClientReaderWriter<proto::WorkerReport, proto::CoordinatorNotice>>
      stream_;
  bool finished_ = false;
};

class CoordinatorServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = model_.Open();
    ASSERT_OK_AND_ASSIGN(authority_, transport::Authority::CreateEphemeral());
    membership_.AddListener([this] {
      absl::MutexLock lock(&mutex_);
      ++news_;
    });
    ASSERT_OK_AND_ASSIGN(server_, Start(authority_.get(), "127.0.0.1:0"));
    address_ = absl::StrCat("127.0.0.1:", server_->port());
  }
  absl::StatusOr<std::unique_ptr<CoordinatorServer>> Start(const transport::Authority* authority,
                                                           const std::string& address) {
    return CoordinatorServer::Start({&membership_, store_.get(), authority, address});
  }
  absl::Duration Now() {
    absl::MutexLock lock(&mutex_);
    return now_;
  }
  void Advance(absl::Duration duration) {
    absl::MutexLock lock(&mutex_);
    now_ += duration;
  }
  void AwaitNews(int count) {
    absl::MutexLock lock(&mutex_);
    auto enough = [&] { return news_ >= count; };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&enough), absl::Seconds(20)));
  }
  absl::StatusOr<transport::Identity> Enroll(std::string token) {
    return transport::Enroll({.coordinator_address = address_,
                              .join_token = {std::move(token), authority_->fingerprint()},
                              .worker_name = "ada"});
  }
  std::shared_ptr<grpc::Channel> Dial(const transport::Identity& identity) {
    dialer_ = transport::CreateTlsDialer(identity);
    return dialer_->Dial({address_, std::string(transport::kCoordinatorName)},
                         transport::ChannelPurpose::kControl);
  }
  std::shared_ptr<grpc::Channel> DialAsMember() {
    absl::StatusOr<transport::Identity> identity = Enroll(authority_->token());
    EXPECT_OK(identity);
    return Dial(*identity);
  }
  // What becomes of a stream that begins with `hello`.
  absl::Status Refusal(const proto::Hello& hello) {
    JoinClient client(DialAsMember());
    client.Say(hello);
    const auto notice = client.Hear();
    if (notice.has_value() && notice->has_welcome()) return absl::OkStatus();
    const absl::Status end = client.End();
    if (notice.has_value()) {
      EXPECT_EQ(notice->goodbye().message(), end.message());
      EXPECT_EQ(notice->goodbye().code(), static_cast<int>(end.code()));
    }
    return end;
  }

  absl::Mutex mutex_;
  absl::Duration now_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(1000);
  int news_ ABSL_GUARDED_BY(mutex_) = 0;
  TestModel model_;
  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<transport::Authority> authority_;
  Membership membership_{[this] { return Now(); }};
  std::unique_ptr<CoordinatorServer> server_;
  std::string address_;
  std::unique_ptr<transport::Dialer> dialer_;
};

TEST_F(CoordinatorServerTest, AnEnrolledWorkerJoinsUnderTheNameInItsCertificate) {
  ASSERT_OK_AND_ASSIGN(const transport::Identity identity, Enroll(authority_->token()));
  JoinClient client(Dial(identity));
  proto::Hello hello = GoodHello();
  *hello.mutable_offer()->add_kernels() = Kernel(2e9, 3e10);
  hello.mutable_offer()->add_kernels()->set_gguf_type(9999);  // of a newer build: left out
  hello.mutable_offer()->set_disk_bytes_per_second(5e8);
  client.Say(hello);
  const auto notice = client.Hear();
  ASSERT_TRUE(notice.has_value());
  EXPECT_EQ(notice->welcome().worker_id(), identity.name);
  EXPECT_EQ(notice->welcome().heartbeat_ms(), 1000u);
  ASSERT_EQ(membership_.Members().size(), 1u);
  const Member member = membership_.Members()[0];
  EXPECT_EQ(member.id, identity.name);
  EXPECT_EQ(member.name, "ada");
  EXPECT_EQ(member.address, "127.0.0.1:7421") << "the host the coordinator sees";
  EXPECT_EQ(member.data_address, "127.0.0.1:7422");
  EXPECT_EQ(member.offer.memory_bytes, 100 << 20);
  EXPECT_EQ(member.offer.disk_bytes_per_second, 5e8);
  ASSERT_EQ(member.offer.kernels.size(), 1u);
  EXPECT_EQ(member.offer.kernels[0].type, base::DataType::kQ4_K);
  EXPECT_EQ(member.offer.kernels[0].prefill_bytes_per_second, 3e10);
  EXPECT_TRUE(member.alive);
}

TEST_F(CoordinatorServerTest, AStreamsEndIsALossAtOnce) {
  {
    JoinClient client(DialAsMember());
    client.Say(GoodHello());
    ASSERT_TRUE(client.Hear().has_value());
  }
  AwaitNews(2);
  ASSERT_EQ(membership_.Members().size(), 1u);
  EXPECT_FALSE(membership_.Members()[0].alive);
  EXPECT_THAT(membership_.Members()[0].lost_reason, HasSubstr("connection ended"));
}

TEST_F(CoordinatorServerTest, AWorkerMayLeave) {
  JoinClient client(DialAsMember());
  client.Say(GoodHello());
  ASSERT_TRUE(client.Hear().has_value());
  client.Leave();
  EXPECT_FALSE(client.Hear().has_value()) << "there is nothing to say";
  EXPECT_OK(client.End());
  EXPECT_FALSE(membership_.Members()[0].alive);
  EXPECT_TRUE(membership_.Members()[0].left);
  EXPECT_EQ(membership_.Members()[0].lost_reason, "it left");
}

TEST_F(CoordinatorServerTest, WhoHangsUpWithoutAWordIsLost) {
  JoinClient client(DialAsMember());
  client.Say(GoodHello());
  ASSERT_TRUE(client.Hear().has_value());
  client.HangUp();
  EXPECT_OK(client.End());
  EXPECT_FALSE(membership_.Members()[0].alive);
  EXPECT_FALSE(membership_.Members()[0].left);
}

TEST_F(CoordinatorServerTest, SilenceIsALossAndTheStreamEnds) {
  JoinClient client(DialAsMember());
  client.Say(GoodHello());
  ASSERT_TRUE(client.Hear().has_value());
  Advance(absl::Seconds(5));
  AwaitNews(2);
  EXPECT_THAT(membership_.Members()[0].lost_reason, HasSubstr("no heartbeat for 5.0 s"));
  const auto notice = client.Hear();
  ASSERT_TRUE(notice.has_value());
  EXPECT_THAT(notice->goodbye().message(), HasSubstr("join again"));
  EXPECT_THAT(client.End(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(CoordinatorServerTest, AStreamWithoutHelloIsEnded) {
  JoinClient client(DialAsMember());
  // The stream exists once its headers are there, which a heartbeat out of place would end.
  Advance(absl::Seconds(1));
  proto::Heartbeat heartbeat;
  client.Beat(heartbeat);
  client.Hear();
  EXPECT_THAT(client.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("hello")));
}

TEST_F(CoordinatorServerTest, HeartbeatsAreKept) {
  JoinClient client(DialAsMember());
  client.Say(GoodHello());
  ASSERT_TRUE(client.Hear().has_value());
  proto::Heartbeat heartbeat;
  heartbeat.set_epoch(12);
  heartbeat.set_memory_used_bytes(34);
  client.Beat(heartbeat);
  heartbeat.set_memory_used_bytes(-1);
  client.Beat(heartbeat);
  client.Hear();
  EXPECT_THAT(client.End(), StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_EQ(membership_.Members().size(), 1u);
  EXPECT_EQ(membership_.Members()[0].last_heartbeat.epoch, 12u);
  EXPECT_EQ(membership_.Members()[0].last_heartbeat.memory_used_bytes, 34);
}

proto::Heartbeat MeasuredHeartbeat(double decode) {
  proto::Heartbeat heartbeat;
  proto::MeasuredSpeed& speed = *heartbeat.mutable_speed();
  proto::KernelSpeed& kernel = *speed.add_kernels();
  kernel.set_gguf_type(base::GetDataTypeInfo(base::DataType::kQ8_0).gguf_id);
  kernel.set_decode_bytes_per_second(decode);
  kernel.set_prefill_bytes_per_second(30e9);
  speed.set_copy_bytes_per_second(4e9);
  speed.set_disk_bytes_per_second(2e8);
  speed.set_layer_us(60);
  speed.set_age_s(90);
  speed.set_confirmed(true);
  return heartbeat;
}

TEST_F(CoordinatorServerTest, WhatIsMeasuredAgainTakesTheOffersPlace) {
  JoinClient client(DialAsMember());
  client.Say(GoodHello());
  ASSERT_TRUE(client.Hear().has_value());
  client.Beat(MeasuredHeartbeat(5e9));
  client.Beat(MeasuredHeartbeat(0));
  client.Hear();
  EXPECT_THAT(client.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no speed")));
  const Member member = membership_.Members()[0];
  EXPECT_EQ(member.offer.weight_bytes_per_second, 5e9);
  ASSERT_EQ(member.offer.kernels.size(), 1u);
  EXPECT_EQ(member.offer.kernels[0].type, base::DataType::kQ8_0);
  EXPECT_EQ(member.offer.kernels[0].prefill_bytes_per_second, 30e9);
  EXPECT_EQ(member.offer.copy_bytes_per_second, 4e9);
  EXPECT_EQ(member.offer.disk_bytes_per_second, 2e8);
  EXPECT_EQ(member.offer.layer_us, 60);
  ASSERT_TRUE(member.last_heartbeat.speed.has_value());
  EXPECT_EQ(member.last_heartbeat.speed->age, absl::Seconds(90));
  EXPECT_TRUE(member.last_heartbeat.speed->confirmed);
}

TEST_F(CoordinatorServerTest, AbsurdMeasurementsAreNotHeard) {
  const auto refused = [&](const std::function<void(proto::MeasuredSpeed&)>& change) {
    JoinClient client(DialAsMember());
    client.Say(GoodHello());
    ASSERT_TRUE(client.Hear().has_value());
    proto::Heartbeat heartbeat = MeasuredHeartbeat(5e9);
    change(*heartbeat.mutable_speed());
    client.Beat(heartbeat);
    client.Hear();
    EXPECT_THAT(client.End(), StatusIs(absl::StatusCode::kInvalidArgument));
    EXPECT_FALSE(membership_.Members()[0].last_heartbeat.speed.has_value());
  };
  refused([](proto::MeasuredSpeed& speed) { speed.set_layer_us(-1); });
  refused([](proto::MeasuredSpeed& speed) { speed.set_disk_bytes_per_second(1e300); });
  refused([](proto::MeasuredSpeed& speed) { speed.set_copy_bytes_per_second(-1); });
  refused([](proto::MeasuredSpeed& speed) { *speed.add_kernels() = speed.kernels(0); });
}

TEST_F(CoordinatorServerTest, AbsurdEpochsAreNotHeard) {
  JoinClient client(DialAsMember());
  client.Say(GoodHello());
  ASSERT_TRUE(client.Hear().has_value());
  proto::Heartbeat heartbeat;
  heartbeat.set_epoch(~uint64_t{0});  // no plan could be newer
  client.Beat(heartbeat);
  client.Hear();
  EXPECT_THAT(client.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("epoch")));
  EXPECT_EQ(membership_.Members()[0].last_heartbeat.epoch, 0u);
}

TEST_F(CoordinatorServerTest, PlacesOfWeightsThatNobodyKnowsAreNotHeard) {
  for (const std::string& places : {std::string("mmdx"), std::string(100'000, 'm')}) {
    JoinClient client(DialAsMember());
    client.Say(GoodHello());
    ASSERT_TRUE(client.Hear().has_value());
    proto::Heartbeat heartbeat;
    heartbeat.set_weight_places("mdpsca");
    client.Beat(heartbeat);
    heartbeat.set_weight_places(places);
    client.Beat(heartbeat);
    client.Hear();
    EXPECT_THAT(client.End(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("places")));
    EXPECT_EQ(membership_.Members()[0].last_heartbeat.weight_places, "mdpsca");
  }
}

TEST_F(CoordinatorServerTest, AnotherProtocolIsRefusedWithBothVersions) {
  proto::Hello hello = GoodHello();
  hello.mutable_build()->set_protocol_version(99);
  hello.mutable_build()->set_build_version("9.9.9");
  EXPECT_THAT(Refusal(hello),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("protocol 99"), HasSubstr("9.9.9"),
                             HasSubstr(absl::StrCat("protocol ", transport::kProtocolVersion)))));
  EXPECT_TRUE(membership_.Members().empty());
}

TEST_F(CoordinatorServerTest, AbsurdHellosAreRefused) {
  const auto changed = [](auto&& change) {
    proto::Hello hello = GoodHello();
    change(hello);
    return hello;
  };
  const std::vector<proto::Hello> hellos = {
      changed([](proto::Hello& h) { h.set_worker_name(std::string(65, 'x')); }),
      changed([](proto::Hello& h) { h.set_worker_name("a\nb"); }),
      changed([](proto::Hello& h) { h.set_listen_port(0); }),
      changed([](proto::Hello& h) { h.set_listen_port(65536); }),
      changed([](proto::Hello& h) { h.set_data_port(0); }),
      changed([](proto::Hello& h) { h.set_data_port(65536); }),
      changed([](proto::Hello& h) { h.set_advertise_host("inproc:x"); }),
      changed([](proto::Hello& h) { h.set_advertise_host(std::string(300, 'x')); }),
      changed([](proto::Hello& h) { h.set_resident_epoch(~uint64_t{0}); }),
      changed([](proto::Hello& h) { h.mutable_offer()->set_memory_bytes(0); }),
      changed([](proto::Hello& h) { h.mutable_offer()->set_memory_bytes(int64_t{1} << 60); }),
      changed([](proto::Hello& h) { h.mutable_offer()->set_memory_available_bytes(-1); }),
      changed([](proto::Hello& h) { h.mutable_offer()->set_threads(1u << 20); }),
      changed([](proto::Hello& h) { h.mutable_offer()->set_disk_bytes_per_second(-1); }),
      changed([](proto::Hello& h) { h.mutable_offer()->set_copy_bytes_per_second(1e30); }),
      changed([](proto::Hello& h) { *h.mutable_offer()->add_kernels() = Kernel(0, 1e9); }),
      changed([](proto::Hello& h) { *h.mutable_offer()->add_kernels() = Kernel(1e9, -1); }),
      changed([](proto::Hello& h) {
        for (int i = 0; i < 2; ++i) *h.mutable_offer()->add_kernels() = Kernel(1e9, 1e9);
      }),
      changed([](proto::Hello& h) {
        for (int i = 0; i < 65; ++i) *h.mutable_offer()->add_kernels() = Kernel(1e9, 1e9);
      }),
      changed([](proto::Hello& h) { h.mutable_offer()->set_weight_bytes_per_second(-1); }),
      changed([](proto::Hello& h) {
        h.mutable_offer()->set_weight_bytes_per_second(std::numeric_limits<double>::quiet_NaN());
      }),
  };
  for (const proto::Hello& hello : hellos) {
    EXPECT_THAT(Refusal(hello), StatusIs(absl::StatusCode::kInvalidArgument))
        << hello.ShortDebugString();
  }
  EXPECT_TRUE(membership_.Members().empty());
  EXPECT_OK(Refusal(GoodHello()));
}

TEST_F(CoordinatorServerTest, DamagedReportsNeverBringItDown) {
  const auto channel = DialAsMember();
  proto::WorkerReport good;
  *good.mutable_hello() = GoodHello();
  const std::string bytes = good.SerializeAsString();
  std::mt19937 random(7);
  int sent = 0;
  for (int i = 0; i < 500; ++i) {
    std::string damaged = bytes;
    for (int k = 0; k <= i % 3; ++k) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    proto::WorkerReport report;
    if (!report.ParseFromString(damaged)) continue;
    JoinClient client(channel);
    client.Report(report);
    client.Hear();
    ++sent;
  }
  EXPECT_GT(sent, 100);
  for (const Member& member : membership_.Members()) {
    membership_.Lose(member.id, member.incarnation, "over");
  }
  JoinClient client(channel);
  client.Say(GoodHello());
  const auto notice = client.Hear();
  ASSERT_TRUE(notice.has_value());
  EXPECT_TRUE(notice->has_welcome()) << notice->goodbye().message();
}

TEST_F(CoordinatorServerTest, StrangersCanOnlyEnrol) {
  const auto dialer = transport::CreateEnrollDialer(authority_->certificate_pem());
  const auto channel = dialer->Dial({address_, ""}, transport::ChannelPurpose::kControl);
  JoinClient client(channel);
  client.Say(GoodHello());
  EXPECT_FALSE(client.Hear().has_value() && client.Hear().has_value());
  EXPECT_THAT(client.End(), StatusIs(absl::StatusCode::kUnauthenticated));
  grpc::ClientContext context;
  proto::PieceRequest request;
  request.set_model_id(WireBytes(store_->manifest().model_id));
  const auto pieces = proto::Pieces::NewStub(channel);
  proto::Piece piece;
  const auto reader = pieces->Fetch(&context, request);
  EXPECT_FALSE(reader->Read(&piece));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(CoordinatorServerTest, WrongTokensAreRefusedAndThenSlowedDown) {
  for (int i = 0; i < 10; ++i) {
    EXPECT_THAT(Enroll("00ff"), StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("token")));
  }
  EXPECT_THAT(Enroll(authority_->token()),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("127.0.0.1")));
  Advance(absl::Seconds(3));
  EXPECT_OK(Enroll(authority_->token()));
}

TEST_F(CoordinatorServerTest, TheCoordinatorSaysGoodbye) {
  JoinClient client(DialAsMember());
  client.Say(GoodHello());
  ASSERT_TRUE(client.Hear().has_value());
  server_.reset();
  const auto notice = client.Hear();
  ASSERT_TRUE(notice.has_value());
  EXPECT_THAT(notice->goodbye().message(), HasSubstr("leaving"));
  EXPECT_TRUE(membership_.Members()[0].alive) << "nobody is lost by the coordinator's own end";
}

TEST_F(CoordinatorServerTest, ShipsTheVeryPiecesThatWereAskedFor) {
  const auto pieces = proto::Pieces::NewStub(DialAsMember());
  proto::PieceRequest request;
  request.set_model_id(WireBytes(store_->manifest().model_id));
  const auto last = static_cast<uint32_t>(store_->manifest().tensors.size() - 1);
  for (const auto& [tensor, first, count] :
       {std::tuple{last, 0u, 2u}, std::tuple{4u, 0u, 1u}, std::tuple{5u, 1u, 0u}}) {
    proto::PieceRange* range = request.add_ranges();
    range->set_tensor(tensor);
    range->set_first_piece(first);
    range->set_piece_count(count);
  }
  grpc::ClientContext context;
  const auto reader = pieces->Fetch(&context, request);
  std::vector<std::pair<uint32_t, uint32_t>> got;
  proto::Piece piece;
  while (reader->Read(&piece)) {
    got.emplace_back(piece.tensor(), piece.piece());
    const auto& hashes = store_->manifest().tensors[piece.tensor()].pieces;
    EXPECT_EQ(base::HashBytes(std::as_bytes(std::span(piece.data()))), hashes[piece.piece()]);
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(got, (std::vector<std::pair<uint32_t, uint32_t>>{{last, 0}, {last, 1}, {4, 0}}));
}

TEST_F(CoordinatorServerTest, PiecesThatAreNotThereAreRefused) {
  const auto pieces = proto::Pieces::NewStub(DialAsMember());
  const auto fetch = [&](std::string model_id, uint32_t tensor, uint32_t first, uint32_t count,
                         int ranges = 1) {
    proto::PieceRequest request;
    request.set_model_id(std::move(model_id));
    for (int i = 0; i < ranges; ++i) {
      proto::PieceRange* range = request.add_ranges();
      range->set_tensor(tensor);
      range->set_first_piece(first);
      range->set_piece_count(count);
    }
    grpc::ClientContext context;
    const auto reader = pieces->Fetch(&context, request);
    proto::Piece piece;
    while (reader->Read(&piece)) {
    }
    return reader->Finish().error_code();
  };
  const std::string id = WireBytes(store_->manifest().model_id);
  EXPECT_EQ(fetch("another", 0, 0, 1), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(fetch(id, 9999, 0, 1), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(fetch(id, 0, 1, 1), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(fetch(id, 0, 0xffffffffu, 2), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(fetch(id, 0, 0, 1), grpc::StatusCode::OK);
  EXPECT_EQ(fetch(id, 0, 0, 1, 70'000), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(CoordinatorServerTest, AddressesThatCannotBeUsedAreExplained) {
  EXPECT_THAT(Start(authority_.get(), address_),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       AllOf(HasSubstr(address_), HasSubstr("another program"))));
  EXPECT_THAT(Start(nullptr, "0.0.0.0:0"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("loopback only")));
  EXPECT_THAT(Start(authority_.get(), "127.0.0.1"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Start(authority_.get(), "192.0.2.1:7000"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("192.0.2.1")));
}

TEST_F(CoordinatorServerTest, InProcessWorkersNeedNoCertificate) {
  ASSERT_OK_AND_ASSIGN(const auto server, Start(nullptr, ""));
  JoinClient client(server->server()->InProcessChannel({}));
  proto::Hello hello = GoodHello();
  hello.set_advertise_host("inproc:local");
  hello.set_listen_port(0);
  client.Say(hello);
  const auto notice = client.Hear();
  ASSERT_TRUE(notice.has_value());
  EXPECT_FALSE(notice->welcome().worker_id().empty());
  EXPECT_EQ(membership_.Members()[0].address, "inproc:local");
  EXPECT_EQ(membership_.Members()[0].data_address, "inproc:local");
}

}  // namespace
}  // namespace renga::cluster
