#include "worker/engine/memory_budget.h"

#include <limits>
#include <utility>

#include "base/testing/status_matchers.h"

namespace renga::engine {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(MemoryBudgetTest, GivesBackWhenTheReservationEnds) {
  MemoryBudget budget(1000);
  {
    ASSERT_OK_AND_ASSIGN(MemoryBudget::Reservation first, budget.Reserve(600, "weights"));
    EXPECT_EQ(first.bytes(), 600);
    EXPECT_EQ(budget.used_bytes(), 600);
    ASSERT_OK_AND_ASSIGN(MemoryBudget::Reservation second, budget.Reserve(400, "KV cache"));
    EXPECT_EQ(budget.used_bytes(), 1000);
  }
  EXPECT_EQ(budget.used_bytes(), 0);
}

TEST(MemoryBudgetTest, RefusalNamesWhatIsAskedLeftAndOffered) {
  MemoryBudget budget(int64_t{3} << 20);
  ASSERT_OK_AND_ASSIGN(MemoryBudget::Reservation held, budget.Reserve(1 << 20, "weights"));
  EXPECT_THAT(budget.Reserve(int64_t{5} << 20, "KV cache"),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("KV cache"), HasSubstr("5.0 MiB"), HasSubstr("2.0 MiB"),
                             HasSubstr("3.0 MiB"))));
  EXPECT_EQ(budget.used_bytes(), 1 << 20);
}

TEST(MemoryBudgetTest, AbsurdSizesDoNotOverflow) {
  MemoryBudget budget(std::numeric_limits<int64_t>::max());
  ASSERT_OK_AND_ASSIGN(MemoryBudget::Reservation held,
                       budget.Reserve(std::numeric_limits<int64_t>::max(), "all"));
  EXPECT_THAT(budget.Reserve(1, "one more"), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(budget.Reserve(-1, "less"), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(MemoryBudgetTest, MovingKeepsOneOwner) {
  MemoryBudget budget(100);
  ASSERT_OK_AND_ASSIGN(MemoryBudget::Reservation a, budget.Reserve(30, "a"));
  ASSERT_OK_AND_ASSIGN(MemoryBudget::Reservation b, budget.Reserve(50, "b"));
  a = std::move(b);
  EXPECT_EQ(budget.used_bytes(), 50);
  MemoryBudget::Reservation c = std::move(a);
  EXPECT_EQ(budget.used_bytes(), 50);
  c = MemoryBudget::Reservation();
  EXPECT_EQ(budget.used_bytes(), 0);
}

}  // namespace
}  // namespace renga::engine
