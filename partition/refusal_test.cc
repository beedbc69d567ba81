// What a refusal says would fit, fits.
#include <cstdio>

#include "base/testing/status_matchers.h"
#include "partition/planner_fixture.h"

namespace renga::partition {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// The number that follows `label` in a message.
int64_t NumberAfter(const std::string& text, const std::string& label) {
  const size_t at = text.find(label);
  if (at == std::string::npos) return -1;
  return std::stoll(text.substr(at + label.size()));
}

TEST(RefusalTest, RefusalsNameWhatWouldFitAndItDoes) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(22, 25 * kMiB), 32000);
  std::vector<WorkerProfile> workers = {Worker("a", 200, 5), Worker("b", 200, 5)};
  PlanRequest request = Request();
  request.context_tokens = 4096;
  const absl::Status status = PlanFor(model, workers, request).status();
  ASSERT_THAT(status,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("weights"), HasSubstr("KV cache"), HasSubstr("scratch"),
                             HasSubstr("2 workers offer 400.0 MiB"), HasSubstr("worker 'a'"),
                             HasSubstr("more than the 200.0 MiB"), Not(HasSubstr("--context")))));
  const std::string text(status.message());
  std::printf("%s\n", text.c_str());

  const int64_t mib = NumberAfter(text, "--memory ");
  ASSERT_GT(mib, 200);
  for (WorkerProfile& worker : workers) worker.memory_bytes = mib * kMiB;
  EXPECT_OK(PlanFor(model, workers, request));
  for (WorkerProfile& worker : workers) worker.memory_bytes = (mib - 1) * kMiB;
  EXPECT_THAT(PlanFor(model, workers, request), StatusIs(absl::StatusCode::kResourceExhausted));

  const int64_t more = NumberAfter(text, "on each, or ");
  ASSERT_GT(more, 0);
  workers.assign(2 + more, Worker("x", 200, 5));
  EXPECT_OK(PlanFor(model, workers, request));
  workers.pop_back();
  EXPECT_THAT(PlanFor(model, workers, request), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(RefusalTest, RefusalsNameTheContextThatWouldFit) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(10, 10 * kMiB), 1000);
  const std::vector<WorkerProfile> workers = {Worker("a", 90, 5), Worker("b", 90, 5)};
  PlanRequest request = Request();
  request.context_tokens = 100000;
  const absl::Status status = PlanFor(model, workers, request).status();
  ASSERT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("--context ")));
  request.context_tokens = NumberAfter(std::string(status.message()), "--context ");
  EXPECT_GE(request.context_tokens, 128);
  EXPECT_OK(PlanFor(model, workers, request));
  request.context_tokens += 32;
  EXPECT_THAT(PlanFor(model, workers, request), StatusIs(absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace renga::partition
