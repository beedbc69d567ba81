#include "coordinator/cluster/placement.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/testing/status_matchers.h"
#include "coordinator/cluster/load_request.h"
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

TEST_F(PlacementTest, WhoHeldTensorsIsAskedForTheirPieces) {
  const auto member = [](const std::string& id, bool alive) {
    Member made = MakeMember(id, 50);
    made.address = id == "local" ? "inproc:local" : id + ":7";
    made.alive = alive;
    return made;
  };
  const std::vector<Member> members = {member("a", true), member("b", true), member("gone", false),
                                       member("local", true), member("new", true)};
  const int64_t n_layers = store_->model().config.n_layers;
  const auto held = [](const std::string& id, const model::Range& layers) {
    return LastShard{
        .worker_id = id, .worker_name = id, .spec = {.layers = layers, .head_rows = {}}};
  };
  Placement placement = Place({member("a", true)}, {});
  placement.holders =
      HoldersAmong(members, {held("a", {0, n_layers}), held("b", {0, 1}),
                             held("gone", {0, n_layers}), held("local", {0, n_layers})});
  ASSERT_EQ(placement.holders.size(), 2u);
  // Worker a needs all layers, and is not asked itself.
  const proto::LoadRequest request = MakeLoadRequest(*store_, placement, 0, 1);
  ASSERT_EQ(request.piece_holders_size(), 1);
  EXPECT_EQ(request.piece_holders(0).address(), "b:7");
  EXPECT_EQ(request.piece_holders(0).worker_id(), "b");
  const std::vector<uint32_t> tensors = store_->TensorsOf({.layers = {0, 1}, .head_rows = {}});
  EXPECT_EQ(std::vector<uint32_t>(request.piece_holders(0).tensors().begin(),
                                  request.piece_holders(0).tensors().end()),
            tensors);
}

}  // namespace
}  // namespace renga::cluster
