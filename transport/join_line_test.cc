#include "transport/join_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/testing/status_matchers.h"

namespace renga::transport {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

const std::string kToken = "0123456789abcdef0123456789abcdef";
const std::string kFingerprint = std::string(32, 'a') + std::string(32, '7');

TEST(JoinLineTest, TokenGoesBothWays) {
  const JoinToken token = {.token = kToken, .fingerprint = kFingerprint};
  EXPECT_EQ(FormatJoinLine("10.0.0.1:7420", token),
            "renga worker 10.0.0.1:7420 --token " + kToken + "." + kFingerprint);
  ASSERT_OK_AND_ASSIGN(const JoinToken parsed, ParseJoinToken(FormatJoinToken(token)));
  EXPECT_EQ(parsed.token, kToken);
  EXPECT_EQ(parsed.fingerprint, kFingerprint);
}

TEST(JoinLineTest, UpperCaseAndSpaceAroundAreAccepted) {
  ASSERT_OK_AND_ASSIGN(const JoinToken parsed,
                       ParseJoinToken("  0123456789ABCDEF0123456789ABCDEF." + kFingerprint + "\n"));
  EXPECT_EQ(parsed.token, kToken);
}

TEST(JoinLineTest, DamagedTokensSayWhatIsWrong) {
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(ParseJoinToken(""), StatusIs(code, HasSubstr("TOKEN.FINGERPRINT")));
  EXPECT_THAT(ParseJoinToken(kToken), StatusIs(code, HasSubstr("TOKEN.FINGERPRINT")));
  EXPECT_THAT(ParseJoinToken(kToken.substr(1) + "." + kFingerprint),
              StatusIs(code, HasSubstr("31 characters")));
  EXPECT_THAT(ParseJoinToken(kToken + "." + kFingerprint.substr(5)),
              StatusIs(code, HasSubstr("fingerprint")));
  EXPECT_THAT(ParseJoinToken(kToken + "." + std::string(64, 'g')), StatusIs(code));
  EXPECT_THAT(ParseJoinToken(kToken + "." + kFingerprint + "." + kToken), StatusIs(code));
}

}  // namespace
}  // namespace renga::transport
