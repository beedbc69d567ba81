#include "coordinator/cluster/group_sums.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace renga::cluster {
namespace {

using partition::GroupSums;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Member On(const std::string& machine, const std::string& card) {
  Member member;
  member.name = machine + " " + card;
  member.offer.machine = machine;
  member.offer.card = card;
  return member;
}

GroupSumsChoice Choose(GroupSums wanted, const std::vector<Member>& members) {
  std::vector<const Member*> group;
  for (const Member& member : members) group.push_back(&member);
  return ChooseGroupSums(wanted, group);
}

TEST(GroupSumsTest, CardsOfOneMachineAddUpByThemselves) {
  const std::vector<Member> group = {On("desk", "01:00.0"), On("desk", "02:00.0")};
  EXPECT_TRUE(Choose(GroupSums::kAuto, group).on_cards);
  EXPECT_TRUE(Choose(GroupSums::kNccl, group).on_cards);
  EXPECT_FALSE(Choose(GroupSums::kSockets, group).on_cards);
  EXPECT_FALSE(Choose(GroupSums::kNccl, {group.front()}).on_cards) << "nothing to add up";
}

TEST(GroupSumsTest, CardsOfSeveralMachinesOnlyWhenAsked) {
  for (const std::string& other : {std::string("attic"), std::string()}) {
    const std::vector<Member> group = {On("desk", "01:00.0"), On(other, "01:00.0")};
    EXPECT_FALSE(Choose(GroupSums::kAuto, group).on_cards);
    EXPECT_THAT(Choose(GroupSums::kAuto, group).refusal, IsEmpty());
    EXPECT_TRUE(Choose(GroupSums::kNccl, group).on_cards);
  }
  // Machines that are not known may be one.
  const std::vector<Member> unknown = {On("", "01:00.0"), On("", "02:00.0")};
  EXPECT_FALSE(Choose(GroupSums::kAuto, unknown).on_cards);
}

TEST(GroupSumsTest, ASharedCardOrAProcessorIsNamedWhereNcclWasAsked) {
  const std::vector<Member> shared = {On("desk", "01:00.0"), On("desk", "01:00.0")};
  const std::vector<Member> mixed = {On("desk", "01:00.0"), On("desk", "")};
  for (const std::vector<Member>& group : {shared, mixed}) {
    EXPECT_FALSE(Choose(GroupSums::kAuto, group).on_cards);
    EXPECT_THAT(Choose(GroupSums::kAuto, group).refusal, IsEmpty());
    EXPECT_FALSE(Choose(GroupSums::kNccl, group).on_cards);
  }
  EXPECT_THAT(Choose(GroupSums::kNccl, shared).refusal, HasSubstr("desk 01:00.0 shares its card"));
  EXPECT_THAT(Choose(GroupSums::kNccl, mixed).refusal, HasSubstr("desk  is no NVIDIA card"));
}

}  // namespace
}  // namespace renga::cluster
