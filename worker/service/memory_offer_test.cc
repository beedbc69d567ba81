#include "worker/service/memory_offer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"

namespace renga::worker {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

TEST(MemoryOfferTest, FollowsItsFileWhileItSaysASize) {
  const std::string path = renga::testing::NewTempFolder() + "/offer";
  EXPECT_THAT(ReadOffer(path), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK(base::WriteFileAtomically(path, "2MiB\nas agreed\n"));
  ASSERT_OK_AND_ASSIGN(const int64_t first, ReadOffer(path));
  EXPECT_EQ(first, 2 << 20);
  MemoryOffer offer({.bytes = first, .file = path, .limit = nullptr});
  EXPECT_EQ(offer.Now(), 2 << 20);
  ASSERT_OK(base::WriteFileAtomically(path, " 3MiB"));
  EXPECT_EQ(offer.Now(), 3 << 20);
  for (const std::string nonsense : {"", "much", "-1GiB", "0", "1 GiB or so"}) {
    ASSERT_OK(base::WriteFileAtomically(path, nonsense));
    EXPECT_THAT(ReadOffer(path), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(path)));
    EXPECT_EQ(offer.Now(), 3 << 20);
  }
  std::filesystem::remove(path);
  EXPECT_EQ(offer.Now(), 3 << 20);
}

TEST(MemoryOfferTest, AShrinkingLimitTakesTheOfferAlong) {
  std::optional<int64_t> limit;
  MemoryOffer unlimited({.bytes = 900, .file = "", .limit = [&] { return limit; }});
  EXPECT_EQ(unlimited.Now(), 900);
  limit = 500;
  EXPECT_EQ(unlimited.Now(), 450);
  limit = 2000;
  EXPECT_EQ(unlimited.Now(), 900);

  // What was offered under a limit was decided in its sight.
  limit = 1000;
  MemoryOffer offer({.bytes = 950, .file = "", .limit = [&] { return limit; }});
  EXPECT_EQ(offer.Now(), 950);
  limit = 800;
  EXPECT_EQ(offer.Now(), 720);
  limit = 1000;
  EXPECT_EQ(offer.Now(), 950);
}

}  // namespace
}  // namespace renga::worker
