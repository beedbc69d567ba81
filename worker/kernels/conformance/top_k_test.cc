// TopK: the order is exact on every backend; the normaliser is a sum of approximate exponentials.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

#include "base/testing/status_matchers.h"
#include "worker/kernels/conformance/device_under_test.h"
#include "worker/kernels/conformance/emulated_paths.h"

namespace renga::kernels::conformance {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class TopKTest : public ConformanceTest {};

std::vector<TopRow> RunTopK(Backend& backend, const std::vector<float>& logits, int64_t columns,
                            int64_t k, Layout layout = Layout::kTight) {
  const int64_t rows = static_cast<int64_t>(logits.size()) / columns;
  DeviceRows on_device(backend, rows, columns, logits, layout);
  std::vector<TopRow> result(static_cast<size_t>(rows));
  EXPECT_OK(backend.TopK(on_device.view(), k, result));
  return result;
}

void ExpectSame(const TopRow& got, const TopRow& want, double sum_tolerance) {
  EXPECT_EQ(got.indices, want.indices);
  EXPECT_EQ(got.logits, want.logits);
  EXPECT_EQ(got.max_logit, want.max_logit);
  EXPECT_NEAR(got.sum_exp, want.sum_exp, sum_tolerance * want.sum_exp);
}

TEST_P(TopKTest, AgreesWithTheReferenceWhateverElseIsInTheCall) {
  for (const int64_t columns : {1, 2, 7, 33, 1000, 5003}) {
    SCOPED_TRACE(columns);
    std::vector<float> logits = Normal(5 * columns, 1);
    for (float& x : logits) x *= 5;
    for (const int64_t k : {1, 2, 8, 40}) {
      SCOPED_TRACE(k);
      const auto got = RunTopK(three(), logits, columns, k, Layout::kLoose);
      const auto one_thread = RunTopK(one(), logits, columns, k);
      const auto want = RunTopK(reference(), logits, columns, k);
      for (size_t r = 0; r < 5; ++r) {
        // Terms of relative error 1e-6 have a sum of no more.
        ExpectSame(got[r], want[r], 1e-6);
        ExpectSame(got[r], one_thread[r], 0);
        const auto alone = Slice(logits, columns, static_cast<int64_t>(r), 1);
        ExpectSame(RunTopK(three(), alone, columns, k)[0], got[r], 0);
      }
    }
  }
}

TEST_P(TopKTest, TiesGoToTheLowerColumn) {
  const std::vector<float> row = {1, 3, 2, 3, 1, 3, -4, 2};
  EXPECT_THAT(RunTopK(three(), row, 8, 4)[0].indices, ElementsAre(1, 3, 5, 2));
  const std::vector<float> equal(3001, 0.25F);
  const TopRow top = RunTopK(three(), equal, 3001, 3)[0];
  EXPECT_THAT(top.indices, ElementsAre(0, 1, 2));
  EXPECT_DOUBLE_EQ(top.sum_exp, 3001);
  // Zeros of both signs are equal.
  EXPECT_THAT(RunTopK(three(), {-1.0F, -0.0F, 0.0F, -0.0F}, 4, 3)[0].indices, ElementsAre(1, 2, 3));
}

TEST_P(TopKTest, MoreThanThereAreGivesAllInOrder) {
  const std::vector<float> logits = Normal(33, 2);
  for (const int64_t k : {int64_t{33}, int64_t{34}, int64_t{1} << 40}) {
    const TopRow top = RunTopK(three(), logits, 33, k)[0];
    EXPECT_EQ(top.indices.size(), 33u);
    EXPECT_TRUE(std::is_sorted(top.logits.rbegin(), top.logits.rend()));
    EXPECT_EQ(std::set<int32_t>(top.indices.begin(), top.indices.end()).size(), 33u);
  }
}

TEST_P(TopKTest, NoneAskedGivesTheNormaliserAlone) {
  const std::vector<float> logits = Normal(100, 3);
  const TopRow want = RunTopK(three(), logits, 100, 1)[0];
  for (const int64_t k : {0, -7}) {
    std::vector<TopRow> result(1);
    result[0].indices = {5};  // left from an earlier call
    result[0].logits = {5};
    DeviceRows on_device(three(), 1, 100, logits, Layout::kTight);
    ASSERT_OK(three().TopK(on_device.view(), k, result));
    EXPECT_THAT(result[0].indices, IsEmpty());
    EXPECT_THAT(result[0].logits, IsEmpty());
    EXPECT_EQ(result[0].max_logit, want.max_logit);
    EXPECT_EQ(result[0].sum_exp, want.sum_exp);
  }
}

TEST_P(TopKTest, FarApartAndMaskedLogits) {
  const TopRow top = RunTopK(three(), {-kInfinity, 1e30F, -1e30F, 3e4F, 1e30F}, 5, 5)[0];
  EXPECT_THAT(top.indices, ElementsAre(1, 4, 3, 2, 0));
  EXPECT_DOUBLE_EQ(top.sum_exp, 2);
  const TopRow low = RunTopK(three(), {-1000.0F, -1001.0F, -kInfinity}, 3, 1)[0];
  EXPECT_THAT(low.indices, ElementsAre(0));
  EXPECT_NEAR(low.sum_exp, 1 + std::exp(-1.0), 1e-6);
}

TEST_P(TopKTest, NanGivesDistinctColumnsAndNoCrash) {
  std::vector<float> logits = Normal(1000, 4);
  for (size_t i = 0; i < logits.size(); i += 3) logits[i] = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<float>& row :
       {logits, std::vector<float>(1000, std::numeric_limits<float>::quiet_NaN())}) {
    const TopRow top = RunTopK(three(), row, 1000, 500)[0];
    EXPECT_EQ(top.indices.size(), 500u);
    EXPECT_EQ(top.logits.size(), 500u);
    const std::set<int32_t> distinct(top.indices.begin(), top.indices.end());
    EXPECT_EQ(distinct.size(), 500u);
    EXPECT_GE(*distinct.begin(), 0);
    EXPECT_LT(*distinct.rbegin(), 1000);
  }
}

INSTANTIATE_TEST_SUITE_P(Conformance, TopKTest, ::testing::ValuesIn(TestedDevices()),
                         DeviceTestName);

}  // namespace
}  // namespace renga::kernels::conformance
