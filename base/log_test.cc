#include "base/log.h"

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace renga::base {
namespace {

using ::testing::IsEmpty;
using ::testing::MatchesRegex;

class LogTest : public ::testing::Test {
 protected:
  void TearDown() override { SetLogThreshold(LogSeverity::kWarning); }
};

TEST_F(LogTest, OneLineWithSeverityTimeFileAndText) {
  ::testing::internal::CaptureStderr();
  RENGA_LOG(WARNING) << "worker " << 3 << " left";
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              MatchesRegex("W[0-9]+:[0-9]+:[0-9]+\\.[0-9]+ log_test.cc:[0-9]+\\] worker 3 left\n"));
}

TEST_F(LogTest, BelowTheThresholdNothingIsWrittenOrEvaluated) {
  int evaluated = 0;
  ::testing::internal::CaptureStderr();
  RENGA_LOG(INFO) << ++evaluated;
  SetLogThreshold(LogSeverity::kError);
  RENGA_LOG(WARNING) << ++evaluated;
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), IsEmpty());
  EXPECT_EQ(evaluated, 0);
  SetLogThreshold(LogSeverity::kDebug);
  ::testing::internal::CaptureStderr();
  RENGA_LOG(DEBUG) << ++evaluated;
  EXPECT_EQ(::testing::internal::GetCapturedStderr().front(), 'D');
  EXPECT_EQ(evaluated, 1);
}

TEST_F(LogTest, IsOneStatementInAnIf) {
  ::testing::internal::CaptureStderr();
  if (LogThreshold() == LogSeverity::kDebug)
    RENGA_LOG(ERROR) << "then";
  else
    RENGA_LOG(ERROR) << "else";
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), ::testing::EndsWith("] else\n"));
}

TEST_F(LogTest, LinesOfSeveralThreadsDoNotMix) {
  ::testing::internal::CaptureStderr();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 50; ++i) RENGA_LOG(ERROR) << "a long enough message to be cut in two";
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string text = ::testing::internal::GetCapturedStderr();
  const std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  EXPECT_EQ(lines.size(), 200u);
  EXPECT_THAT(lines,
              ::testing::Each(MatchesRegex("E.*\\] a long enough message to be cut in two")));
}

}  // namespace
}  // namespace renga::base
