#include "coordinator/cluster/placement.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/testing/status_matchers.h"
#include "coordinator/cluster/testing/test_model.h"
#include "gtest/gtest.h"
#include "model/shard_spec.h"

namespace renga::cluster {
namespace {

Member MakeMember(const std::string& id, double layer_us) {
  Member member;
  member.id = member.name = id;
  member.offer.memory_bytes = 64 << 20;
  member.offer.weight_bytes_per_second = 10e9;
  member.offer.layer_us = layer_us;
  return member;
}

class PlacementTest : public ::testing::Test {
 protected:
  PlacementTest() : store_(model_.Open()) {}

  Placement Place(const std::vector<Member>& members, const LastPlacement& last) {
    partition::PlanRequest request;
    request.context_tokens = 128;
    request.max_step_tokens = 16;
    request.use_every_worker = true;
    auto placements = PlaceModel(*store_, members, request, last, {});
    EXPECT_OK(placements);
    EXPECT_EQ(placements->size(), 1u);
    return std::move(placements->front());
  }
  static std::map<std::string, model::Range> LayersOf(const Placement& placement) {
    std::map<std::string, model::Range> layers;
    for (const PlacedWorker& worker : placement.workers) {
      layers[worker.member.id] = worker.spec.layers;
    }
    return layers;
  }

  TestModel model_;
  std::unique_ptr<ModelStore> store_;
};

TEST_F(PlacementTest, ANoisyTimeOfALayerMovesNoWeightsAtARestart) {
  const Placement first = Place({MakeMember("a", 50), MakeMember("b", 500)}, {});
  const std::vector<Member> noisy = {MakeMember("a", 500), MakeMember("b", 50)};
  EXPECT_NE(LayersOf(Place(noisy, {})), LayersOf(first)) << "the test would show nothing";
  EXPECT_EQ(LayersOf(Place(noisy, Remember(first, 0))), LayersOf(first));
}

}  // namespace
}  // namespace renga::cluster
