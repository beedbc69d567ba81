#include "transport/group_communicator.h"

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "base/testing/communicator_contract.h"
#include "base/testing/status_matchers.h"
#include "transport/identity.h"
#include "transport/tcp.h"

namespace renga::transport {
namespace {

using ::testing::HasSubstr;

std::string NameOf(int rank) { return absl::StrCat("w-", rank); }

// Members on threads of this process, with certificates of one authority.
// How members are connected.
struct Way {
  const char* name;
  bool tls;
  Route route;
};
constexpr Way kWays[] = {
    {.name = "Plain", .tls = false, .route = Route::kPastTcp},
    {.name = "Tls", .tls = true, .route = Route::kPastTcp},
    {.name = "TlsOverTcp", .tls = true, .route = Route::kTcp},
};
std::string NameOfWay(const ::testing::TestParamInfo<Way>& way) { return way.param.name; }

class GroupTest : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override { ASSERT_OK_AND_ASSIGN(authority_, Authority::CreateEphemeral()); }

  std::shared_ptr<const SocketCredentials> CredentialsOf(const std::string& name,
                                                         const Authority& authority) {
    if (!GetParam().tls) return SocketCredentials::CreateInsecureLoopback();
    auto identity = authority.IssueIdentity(name);
    EXPECT_OK(identity);
    auto credentials = SocketCredentials::CreateTls(*identity);
    EXPECT_OK(credentials);
    return *credentials;
  }

  void Listen(int size) {
    for (int rank = 0; rank < size; ++rank) {
      credentials_.push_back(CredentialsOf(NameOf(rank), *authority_));
      ASSERT_OK_AND_ASSIGN(listeners_.emplace_back(),
                           PeerListener::Start("127.0.0.1", 0, credentials_[rank]));
      addresses_.push_back(
          {.address = absl::StrCat("127.0.0.1:", listeners_[rank]->port()), .name = NameOf(rank)});
    }
  }

  void Close() {
    credentials_.clear();
    listeners_.clear();
    addresses_.clear();
  }

  GroupCommunicator::Options OptionsOf(int rank, uint64_t epoch = 1) {
    return {.epoch = epoch,
            .rank = rank,
            .members = addresses_,
            .listener = listeners_[rank].get(),
            .wire_type = wire_type_,
            .credentials = credentials_[rank],
            .route = GetParam().route,
            .connect_timeout = absl::Seconds(20)};
  }

  using Work = std::function<absl::Status(GroupCommunicator&)>;
  // Runs `work` in every member and returns how each ended.
  std::vector<absl::Status> RunAll(const Work& work, uint64_t epoch = 1) {
    std::vector<absl::Status> ends(listeners_.size());
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < listeners_.size(); ++rank) {
      threads.emplace_back([&, rank] {
        auto group = GroupCommunicator::Create(OptionsOf(static_cast<int>(rank), epoch));
        ends[rank] = group.ok() ? work(**group) : group.status();
      });
    }
    for (std::thread& thread : threads) thread.join();
    return ends;
  }
  void ExpectAllOk(const Work& work, uint64_t epoch = 1) {
    for (const absl::Status& end : RunAll(work, epoch)) EXPECT_OK(end);
  }

  // For the contract: a new group each time.
  testing::RunGroup GroupsOfOwn() {
    return [this, epoch = uint64_t{0}](int size, const testing::GroupWork& work) mutable {
      Close();
      Listen(size);
      return RunAll(work, ++epoch);
    };
  }

  std::unique_ptr<Authority> authority_;
  std::vector<std::shared_ptr<const SocketCredentials>> credentials_;
  std::vector<std::unique_ptr<PeerListener>> listeners_;
  std::vector<PeerAddress> addresses_;
  base::DataType wire_type_ = base::DataType::kF32;
};

TEST_P(GroupTest, SumsInRankOrder) {
  for (const int size : {2, 3, 4}) testing::ExpectSumsInRankOrder(GroupsOfOwn(), size);
}

TEST_P(GroupTest, SumsUnderWayAreThoseOneAfterTheOther) {
  for (const int size : {2, 3, 4}) testing::ExpectSumsUnderWay(GroupsOfOwn(), size);
}

TEST_P(GroupTest, OneThingAfterTheOther) {
  ASSERT_NO_FATAL_FAILURE(Listen(2));
  ExpectAllOk([](GroupCommunicator& group) -> absl::Status {
    EXPECT_EQ(group.FinishSum().code(), absl::StatusCode::kFailedPrecondition);
    std::vector<float> values(64, 1.0f);
    RENGA_RETURN_IF_ERROR(group.BeginSum(values));
    std::vector<float> others(64, 1.0f);
    EXPECT_EQ(group.AllReduce(others).code(), absl::StatusCode::kFailedPrecondition);
    RENGA_RETURN_IF_ERROR(group.FinishSum());
    EXPECT_EQ(values[0], 2.0f);
    return group.AllReduce(others);
  });
}

// Narrow parts: every member adds up the same rounded numbers.
TEST_P(GroupTest, NarrowSumsAreTheSameEverywhere) {
  uint64_t epoch = 0;
  for (const base::DataType type : {base::DataType::kF16, base::DataType::kQ8_0}) {
    for (const int size : {2, 3}) {
      Close();
      wire_type_ = type;
      ASSERT_NO_FATAL_FAILURE(Listen(size));
      // In one round, in two, and with parts of different sizes.
      for (const size_t count : {size_t{64}, size_t{20'000 / 32 * 32}, size_t{300'000 / 32 * 32}}) {
        std::vector<std::vector<float>> sums(size);
        ExpectAllOk(
            [&](GroupCommunicator& group) {
              std::vector<float>& values = sums[group.rank()];
              values.resize(count);
              for (size_t i = 0; i < count; ++i) values[i] = testing::GroupValue(group.rank(), i);
              return group.AllReduce(values);
            },
            ++epoch);
        for (int rank = 1; rank < size; ++rank) EXPECT_EQ(sums[rank], sums[0]);
        for (size_t i = 0; i < count; ++i) {
          float exact = 0;
          for (int rank = 0; rank < size; ++rank) exact += testing::GroupValue(rank, i);
          ASSERT_NEAR(sums[0][i], exact, 0.02) << i << " of " << count;
        }
      }
    }
  }
}

TEST_P(GroupTest, NarrowSumsAreOfWholeBlocks) {
  wire_type_ = base::DataType::kQ8_0;
  ASSERT_NO_FATAL_FAILURE(Listen(2));
  for (const absl::Status& end : RunAll([](GroupCommunicator& group) {
         std::vector<float> values(33);
         return group.AllReduce(values);
       })) {
    EXPECT_EQ(end.code(), absl::StatusCode::kInvalidArgument);
  }
  wire_type_ = base::DataType::kQ4_0;
  EXPECT_EQ(GroupCommunicator::Create(OptionsOf(0)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(GroupTest, GathersAndBroadcasts) { testing::ExpectGathersAndBroadcasts(GroupsOfOwn(), 3); }

TEST_P(GroupTest, CancelEndsAWait) { testing::ExpectCancelEndsAWait(GroupsOfOwn()); }

TEST_P(GroupTest, AMemberThatEndsIsNamed) {
  ASSERT_NO_FATAL_FAILURE(Listen(2));
  const auto ends = RunAll([](GroupCommunicator& group) {
    std::vector<float> values(100, 1.0f);
    absl::Status status = group.AllReduce(values);
    // The second member leaves after the first sum.
    if (group.rank() == 1) return status;
    while (status.ok()) status = group.AllReduce(values);
    EXPECT_EQ(group.AllReduce(values), status) << "a broken group stays broken";
    EXPECT_EQ(group.FinishSum(), status);
    return status;
  });
  EXPECT_OK(ends[1]);
  EXPECT_EQ(ends[0].code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(ends[0].message()), HasSubstr("w-1"));
}

// Without an exchange, and whatever it had sent before.
TEST_P(GroupTest, AMemberThatEndsIsNamedToWhoeverAsks) {
  ASSERT_NO_FATAL_FAILURE(Listen(2));
  const auto ends = RunAll([](GroupCommunicator& group) {
    std::vector<float> values(100, 1.0f);
    absl::Status status = group.AllReduce(values);
    if (group.rank() == 1 || !status.ok()) return status;
    while (status.ok()) {
      absl::SleepFor(absl::Milliseconds(1));
      status = group.CheckMembers();
    }
    EXPECT_EQ(group.AllReduce(values), status) << "a broken group stays broken";
    return status;
  });
  EXPECT_OK(ends[1]);
  EXPECT_EQ(ends[0].code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(ends[0].message()), HasSubstr("w-1"));
  // While all are there: nothing.
  ExpectAllOk(
      [](GroupCommunicator& group) {
        std::vector<float> values(1);
        RENGA_RETURN_IF_ERROR(group.CheckMembers());
        RENGA_RETURN_IF_ERROR(group.AllReduce(values));
        const absl::Status there = group.CheckMembers();
        RENGA_RETURN_IF_ERROR(group.AllReduce(values));
        return there;
      },
      2);
}

TEST_P(GroupTest, MembersAtDifferentStepsNotice) {
  ASSERT_NO_FATAL_FAILURE(Listen(2));
  const auto ends = RunAll([](GroupCommunicator& group) {
    std::vector<float> values(100 + group.rank(), 1.0f);
    const absl::Status status = group.AllReduce(values);
    group.Cancel();
    return status;
  });
  // The one that expects fewer bytes sees that they are others; the one that expects more loses it.
  EXPECT_EQ(ends[0].code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(ends[1].ok());
}

TEST_P(GroupTest, CancelEndsEveryWait) {
  ASSERT_NO_FATAL_FAILURE(Listen(2));
  for (const bool connected : {false, true}) {
    std::vector<std::unique_ptr<GroupCommunicator>> groups(2);
    const uint64_t epoch = connected ? 2 : 1;
    ASSERT_OK_AND_ASSIGN(groups[0], GroupCommunicator::Create(OptionsOf(0, epoch)));
    if (connected) {
      ASSERT_OK_AND_ASSIGN(groups[1], GroupCommunicator::Create(OptionsOf(1, epoch)));
    }
    std::thread canceller([&] {
      absl::SleepFor(absl::Milliseconds(50));
      groups[0]->Cancel();
    });
    std::vector<float> values(10);
    EXPECT_EQ(groups[0]->AllReduce(values).code(), absl::StatusCode::kCancelled);
    canceller.join();
    EXPECT_EQ(groups[0]->AllReduce(values).code(), absl::StatusCode::kCancelled);
  }
}

TEST_P(GroupTest, AMissingMemberIsNamed) {
  ASSERT_NO_FATAL_FAILURE(Listen(2));
  GroupCommunicator::Options options = OptionsOf(0);
  options.connect_timeout = absl::Milliseconds(50);
  ASSERT_OK_AND_ASSIGN(auto first, GroupCommunicator::Create(options));
  std::vector<float> values(10);
  const absl::Status status = first->AllReduce(values);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("w-1 did not connect"));
  listeners_[0].reset();
  options = OptionsOf(1);
  options.connect_timeout = absl::Milliseconds(500);
  const auto second = GroupCommunicator::Create(options);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("w-0"));
}

TEST_P(GroupTest, RanksMakeSense) {
  ASSERT_NO_FATAL_FAILURE(Listen(1));
  for (const int rank : {-1, 0, 1}) {
    GroupCommunicator::Options options = OptionsOf(0);
    options.rank = rank;
    EXPECT_EQ(GroupCommunicator::Create(options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

// Whoever is no member, or of another epoch or rank, is never taken for the one waited for.
TEST_P(GroupTest, StrangersAreNotClaimed) {
  ASSERT_NO_FATAL_FAILURE(Listen(2));
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  const auto say = [&](const std::string& bytes) {
    auto socket = SecureSocket::Connect(addresses_[0], credentials_[1], deadline);
    if (!socket.ok()) return;
    (*socket)->WriteAll(std::as_bytes(std::span(bytes)), deadline).IgnoreError();
    std::byte end;
    (*socket)->ReadAll(std::span(&end, 1), absl::Now() + absl::Milliseconds(30)).IgnoreError();
  };
  const auto text_of = [](const PeerHello& hello) {
    return std::string(reinterpret_cast<const char*>(&hello), sizeof(hello));
  };
  PeerHello hello = {
      .protocol_version = kProtocolVersion, .epoch = 1, .from_rank = 1, .to_rank = 0};
  say("");
  say("GET / HTTP/1.1\r\n\r\n12345678");
  for (const auto& change : std::vector<std::function<void(PeerHello&)>>{
           [](PeerHello& other) { other.epoch = 2; }, [](PeerHello& other) { other.from_rank = 2; },
           [](PeerHello& other) { other.to_rank = 1; },
           [](PeerHello& other) { other.protocol_version = kProtocolVersion + 1; }}) {
    PeerHello other = hello;
    change(other);
    say(text_of(other));
  }
  const std::atomic<bool> cancelled = false;
  const auto claim = [&](const std::string& name, absl::Duration patience) {
    return listeners_[0]->Claim(hello, name, cancelled, absl::Now() + patience).status();
  };
  EXPECT_EQ(claim("w-1", absl::Milliseconds(50)).code(), absl::StatusCode::kUnavailable);
  auto right = SecureSocket::Connect(addresses_[0], credentials_[1], deadline);
  ASSERT_OK(right);
  ASSERT_OK((*right)->WriteAll(std::as_bytes(std::span(&hello, 1)), deadline));
  if (GetParam().tls) {
    EXPECT_EQ(claim("w-2", absl::Milliseconds(100)).code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_OK(claim("w-1", absl::Seconds(10)));
}

// Plain connections have no certificates.
using TlsGroupTest = GroupTest;

TEST_P(TlsGroupTest, OnlyTheClustersOwnCertificatesConnect) {
  ASSERT_NO_FATAL_FAILURE(Listen(2));
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  PeerAddress wrong = addresses_[0];
  wrong.name = "w-7";
  EXPECT_EQ(SecureSocket::Connect(wrong, credentials_[1], deadline).status().code(),
            absl::StatusCode::kPermissionDenied);
  ASSERT_OK_AND_ASSIGN(const auto others, Authority::CreateEphemeral());
  EXPECT_FALSE(SecureSocket::Connect(addresses_[0], CredentialsOf("w-1", *others), deadline).ok());
  EXPECT_EQ(SecureSocket::Connect({.address = "192.0.2.1:1", .name = "w-0"},
                                  SocketCredentials::CreateInsecureLoopback(), deadline)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_OK_AND_ASSIGN(Identity identity, authority_->IssueIdentity("w-3"));
  ASSERT_OK_AND_ASSIGN(const Identity stranger, others->IssueIdentity("w-3"));
  identity.private_key_pem = stranger.private_key_pem;
  EXPECT_FALSE(SocketCredentials::CreateTls(identity).ok());
  identity.private_key_pem = "no key";
  EXPECT_FALSE(SocketCredentials::CreateTls(identity).ok());
}

INSTANTIATE_TEST_SUITE_P(All, TlsGroupTest, ::testing::ValuesIn(std::span(kWays).last(2)),
                         NameOfWay);
INSTANTIATE_TEST_SUITE_P(All, GroupTest, ::testing::ValuesIn(kWays), NameOfWay);

}  // namespace
}  // namespace renga::transport
