// What every Communicator promises (base/communicator.h), as tests that each implementation runs
// over groups of its own.
#ifndef RENGA_BASE_TESTING_COMMUNICATOR_CONTRACT_H_
#define RENGA_BASE_TESTING_COMMUNICATOR_CONTRACT_H_

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/communicator.h"
#include "base/status_macros.h"
#include "base/testing/status_matchers.h"

namespace renga::testing {

using GroupWork = std::function<absl::Status(base::Communicator&)>;
// Makes a group of so many members, each on a thread of its own, runs the work in each of them, and
// returns how each ended, by rank.
using RunGroup = std::function<std::vector<absl::Status>(int size, const GroupWork& work)>;

inline float GroupValue(int rank, size_t i) {
  return 1.0f / static_cast<float>(3 + rank * 7 + static_cast<int>(i % 1000));
}

// Sums have the bits of adding up in rank order, on every member.
inline void ExpectSumsInRankOrder(const RunGroup& run, int size) {
  const GroupWork work = [size](base::Communicator& group) -> absl::Status {
    EXPECT_EQ(group.size(), size);
    // From one number to more than any implementation sends at once.
    for (const size_t count : {size_t{1}, size_t{2048}, size_t{5000}, size_t{700'001}}) {
      std::vector<float> values(count);
      for (size_t i = 0; i < count; ++i) values[i] = GroupValue(group.rank(), i);
      RENGA_RETURN_IF_ERROR(group.AllReduce(values));
      for (size_t i = 0; i < count; ++i) {
        float sum = GroupValue(0, i);
        for (int rank = 1; rank < size; ++rank) sum += GroupValue(rank, i);
        if (std::memcmp(&sum, &values[i], sizeof(sum)) != 0) {
          return absl::InternalError(absl::StrCat("value ", i, " of ", count));
        }
      }
    }
    EXPECT_GT(group.TakeExchangeTime(), absl::ZeroDuration());
    return absl::OkStatus();
  };
  for (const absl::Status& end : run(size, work)) EXPECT_OK(end);
}

// Two sums that are under way at a time are the same as one after the other, whatever their sizes.
inline void ExpectSumsUnderWay(const RunGroup& run, int size) {
  const GroupWork work = [](base::Communicator& group) -> absl::Status {
    std::vector<std::vector<float>> alone;
    for (const size_t count : {size_t{3000}, size_t{150'000}, size_t{1}, size_t{9000}}) {
      std::vector<float>& values = alone.emplace_back(count);
      for (size_t i = 0; i < count; ++i) values[i] = GroupValue(group.rank(), i + count);
    }
    std::vector<std::vector<float>> together = alone;
    for (std::vector<float>& values : alone) RENGA_RETURN_IF_ERROR(group.AllReduce(values));
    RENGA_RETURN_IF_ERROR(group.BeginSum(together[0]));
    for (size_t i = 1; i < together.size(); ++i) {
      RENGA_RETURN_IF_ERROR(group.BeginSum(together[i]));
      RENGA_RETURN_IF_ERROR(group.Advance());
      RENGA_RETURN_IF_ERROR(group.FinishSum());
    }
    RENGA_RETURN_IF_ERROR(group.FinishSum());
    EXPECT_EQ(together, alone);
    return absl::OkStatus();
  };
  for (const absl::Status& end : run(size, work)) EXPECT_OK(end);
}

// Parts come in rank order, short ones and ones that are sent in pieces; roots give theirs to all;
// sizes and roots that make no sense are refused.
inline void ExpectGathersAndBroadcasts(const RunGroup& run, int size) {
  const GroupWork work = [size](base::Communicator& group) -> absl::Status {
    for (const size_t count : {size_t{5}, size_t{1'300'007}}) {
      const std::string mine(count, static_cast<char>('a' + group.rank()));
      std::string all(count * static_cast<size_t>(size), ' ');
      RENGA_RETURN_IF_ERROR(
          group.AllGather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all))));
      std::string expected;
      for (int rank = 0; rank < size; ++rank) expected.append(count, static_cast<char>('a' + rank));
      EXPECT_TRUE(all == expected) << count;
      for (int root = size - 1; root >= 0; --root) {
        std::string text = mine;
        RENGA_RETURN_IF_ERROR(group.Broadcast(root, std::as_writable_bytes(std::span(text))));
        EXPECT_TRUE(text == std::string(count, static_cast<char>('a' + root))) << count;
      }
    }
    std::string all(15, ' ');
    EXPECT_EQ(group.AllGather({}, std::as_writable_bytes(std::span(all))).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(group.Broadcast(size, {}).code(), absl::StatusCode::kInvalidArgument);
    return absl::OkStatus();
  };
  for (const absl::Status& end : run(size, work)) EXPECT_OK(end);
}

// A member that waits for the others can be ended, and stays so.
inline void ExpectCancelEndsAWait(const RunGroup& run) {
  const GroupWork work = [](base::Communicator& group) -> absl::Status {
    if (group.rank() > 0) {
      absl::SleepFor(absl::Milliseconds(300));  // its part never comes
      return absl::OkStatus();
    }
    std::thread canceller([&group] {
      absl::SleepFor(absl::Milliseconds(50));
      group.Cancel();
    });
    std::vector<float> values(10);
    const absl::Status status = group.AllReduce(values);
    canceller.join();
    EXPECT_EQ(group.AllReduce(values), status);
    return status;
  };
  const std::vector<absl::Status> ends = run(2, work);
  EXPECT_EQ(ends[0].code(), absl::StatusCode::kCancelled);
  EXPECT_OK(ends[1]);
}

}  // namespace renga::testing

#endif  // RENGA_BASE_TESTING_COMMUNICATOR_CONTRACT_H_
