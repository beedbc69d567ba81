// What the scheduler does about approximate modes: the guard of hot rows, and the counts.
#include <memory>
#include <vector>

#include "absl/time/clock.h"
#include "base/testing/status_matchers.h"
#include "coordinator/serving/hot_rows_guard.h"
#include "coordinator/serving/testing/scheduler_bench.h"

namespace renga::serving {
namespace {

std::shared_ptr<const model::RowSet> FirstRows(int32_t count) {
  auto rows = std::make_shared<model::RowSet>();
  for (int32_t row = 0; row < count; ++row) rows->push_back(row);
  return rows;
}

TEST(HotRowsGuardTest, LooksAtTheShareOfColdTokensAtTheEnd) {
  const model::RowSet hot = {1, 2, 3};
  EXPECT_FALSE(NeedsAllRows({}, hot));
  EXPECT_FALSE(NeedsAllRows(std::vector<TokenId>{1, 2, 3, 9}, hot));  // a quarter
  EXPECT_TRUE(NeedsAllRows(std::vector<TokenId>{1, 2, 9, 9}, hot));
  std::vector<TokenId> long_ago(500, 9);
  long_ago.insert(long_ago.end(), static_cast<size_t>(kGuardTokens), 2);
  EXPECT_FALSE(NeedsAllRows(long_ago, hot));
}

TEST(ApproximationTest, PromptsOutsideTheHotRowsGetAllRows) {
  Bench bench({.approximation = {.hot_rows = FirstRows(32)}});
  Answer inside;
  inside.Start(*bench.scheduler, {.prompt = {1, 2, 3, 31}, .max_tokens = 5});
  ASSERT_OK_AND_ASSIGN(GenerateResult result, inside.Wait());
  EXPECT_EQ(result.approximated_tokens, 5);
  EXPECT_FALSE(result.guarded);
  for (const model::Step& step : bench.pipeline->Steps()) {
    for (const model::StepSlot& slot : step.slots) EXPECT_FALSE(slot.all_rows);
  }
  const size_t before = bench.pipeline->Steps().size();
  Answer outside;
  outside.Start(*bench.scheduler, {.prompt = {1, 62, 61, 60}, .max_tokens = 5});
  ASSERT_OK_AND_ASSIGN(result, outside.Wait());
  EXPECT_EQ(result.approximated_tokens, 0);
  EXPECT_TRUE(result.guarded);
  const std::vector<model::Step> steps = bench.pipeline->Steps();
  for (size_t i = before; i < steps.size(); ++i) {
    for (const model::StepSlot& slot : steps[i].slots) EXPECT_TRUE(slot.all_rows);
  }
}

TEST(ApproximationTest, CountsTheTokensUnderTheCap) {
  for (const auto& [percent, wanted] : {std::pair<int64_t, int64_t>{100, 40}, {20, 8}, {0, 0}}) {
    Bench bench({.approximation = {.late_percent = 10, .at_most_percent = percent}});
    Answer answer;
    answer.Start(*bench.scheduler, {.prompt = Prompt(10, 1), .max_tokens = 40});
    ASSERT_OK_AND_ASSIGN(const GenerateResult result, answer.Wait());
    EXPECT_EQ(result.approximated_tokens, wanted) << percent;
  }
}

TEST(ApproximationTest, CountsWhatCameTooLate) {
  Bench bench({.left_out = 3, .approximation = {.deadline_ms = 5}});
  Answer answer;
  answer.Start(*bench.scheduler, {.prompt = Prompt(10, 1), .max_tokens = 4});
  ASSERT_OK_AND_ASSIGN(GenerateResult result, answer.Wait());
  EXPECT_EQ(result.approximated_tokens, 4);
  // The prompt and the tokens but the last, which is never fed.
  EXPECT_EQ(result.left_out, 3 * (10 + 3));
  // Published after the answer.
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  while (bench.scheduler->Stats().requests_finished == 0 && absl::Now() < give_up) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(bench.scheduler->Stats().left_out, static_cast<uint64_t>(result.left_out));

  Bench in_time({.approximation = {.deadline_ms = 5}});
  Answer exact;
  exact.Start(*in_time.scheduler, {.prompt = Prompt(10, 1), .max_tokens = 4});
  ASSERT_OK_AND_ASSIGN(result, exact.Wait());
  EXPECT_EQ(result.approximated_tokens, 0);
  EXPECT_EQ(result.left_out, 0);
}

TEST(ApproximationTest, NothingIsCountedWhereNothingIsOn) {
  Bench bench;
  Answer answer;
  answer.Start(*bench.scheduler, {.prompt = Prompt(10, 1), .max_tokens = 3});
  ASSERT_OK_AND_ASSIGN(const GenerateResult result, answer.Wait());
  EXPECT_EQ(result.approximated_tokens, 0);
  EXPECT_FALSE(result.guarded);
}

}  // namespace
}  // namespace renga::serving
