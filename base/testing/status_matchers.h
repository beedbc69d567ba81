// GoogleMock matchers for absl::Status and absl::StatusOr, in the call shapes of newer Abseil.
// For tests only.
#ifndef RENGA_BASE_TESTING_STATUS_MATCHERS_H_
#define RENGA_BASE_TESTING_STATUS_MATCHERS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace renga::testing {

inline const absl::Status& GetStatus(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).ok();
}

MATCHER_P(IsOkAndHolds, value_matcher, "is OK and holds a matching value") {
  if (!arg.ok()) {
    *result_listener << arg.status().ToString();
    return false;
  }
  return ::testing::ExplainMatchResult(value_matcher, *arg, result_listener);
}

MATCHER_P(StatusIs, code, "has the status code") {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).code() == code;
}

// The message matters where a user acts on it: give a matcher such as HasSubstr("--memory").
MATCHER_P2(StatusIs, code, message_matcher, "has the status code and a matching message") {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).code() == code &&
         ::testing::ExplainMatchResult(message_matcher, std::string(GetStatus(arg).message()),
                                       result_listener);
}

}  // namespace renga::testing

#define ASSERT_OK(expr) ASSERT_THAT(expr, ::renga::testing::IsOk())
#define EXPECT_OK(expr) EXPECT_THAT(expr, ::renga::testing::IsOk())
// ASSERT_OK_AND_ASSIGN(auto x, F()): fails the test unless F() is OK.
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_INNER(RENGA_TEST_CONCAT(renga_test_, __LINE__), lhs, expr)
#define RENGA_TEST_CONCAT_INNER(a, b) a##b
#define RENGA_TEST_CONCAT(a, b) RENGA_TEST_CONCAT_INNER(a, b)
#define ASSERT_OK_AND_ASSIGN_INNER(statusor, lhs, expr) \
  auto statusor = (expr);                               \
  ASSERT_THAT(statusor, ::renga::testing::IsOk());      \
  lhs = std::move(statusor).value()

#endif  // RENGA_BASE_TESTING_STATUS_MATCHERS_H_
