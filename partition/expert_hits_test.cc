#include "partition/expert_hits.h"

#include <string>
#include <vector>

#include "base/testing/status_matchers.h"
#include "nlohmann/json.hpp"

namespace renga::partition {
namespace {

using nlohmann::json;
using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

model::ModelConfig Mixture() {
  model::ModelConfig config;
  config.n_layers = 2;
  config.n_experts = 8;
  config.n_experts_used = 2;
  return config;
}

json Report() {
  return {{"vocabulary", 100},
          {"experts",
           {{"experts_per_layer", 8},
            {"used_per_layer", 2},
            {"layers", {json::object(), json::object()}},
            {"caches",
             {{{"share", 0.125}, {"cached", 0.4}},
              {{"share", 0.5}, {"cached", 0.9}},
              {{"share", 1.0}, {"cached", 0.96}}}}}}};
}

TEST(ExpertHitsTest, LinesAreDrawnBetweenPoints) {
  ASSERT_OK_AND_ASSIGN(const ExpertHits hits, ParseExpertHits(Report().dump(), Mixture()));
  ASSERT_EQ(hits.points.size(), 3u);
  EXPECT_DOUBLE_EQ(MissedChoices(&hits, 0), 1);
  EXPECT_DOUBLE_EQ(MissedChoices(&hits, 0.0625), 0.8);
  EXPECT_DOUBLE_EQ(MissedChoices(&hits, 0.125), 0.6);
  EXPECT_NEAR(MissedChoices(&hits, 0.3125), 0.35, 1e-12);
  EXPECT_NEAR(MissedChoices(&hits, 0.75), 0.07, 1e-12);
  EXPECT_DOUBLE_EQ(MissedChoices(&hits, 1), 0);
  EXPECT_DOUBLE_EQ(MissedChoices(&hits, 7), 0);
  // Behind the last point, up to where all are there.
  const ExpertHits one = {.points = {{.share = 0.5, .hits = 0.8}}};
  EXPECT_NEAR(MissedChoices(&one, 0.75), 0.1, 1e-12);
  EXPECT_DOUBLE_EQ(MissedChoices(nullptr, 0.3), 0.7);
}

TEST(ExpertHitsTest, MoreExpertsNeverMissMore) {
  json report = Report();
  report["experts"]["caches"][1]["cached"] = 0.3;
  ASSERT_OK_AND_ASSIGN(const ExpertHits hits, ParseExpertHits(report.dump(), Mixture()));
  double before = 1;
  for (double held = 0; held <= 1; held += 0.01) {
    EXPECT_LE(MissedChoices(&hits, held), before);
    before = MissedChoices(&hits, held);
  }
}

TEST(ExpertHitsTest, OtherModelsAreRefused) {
  const std::string report = Report().dump();
  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("renga regions"));
  model::ModelConfig config = Mixture();
  config.n_layers = 3;
  EXPECT_THAT(ParseExpertHits(report, config), refused);
  config = Mixture();
  config.n_experts = 16;
  EXPECT_THAT(ParseExpertHits(report, config), refused);
  config = Mixture();
  config.n_experts_used = 1;
  EXPECT_THAT(ParseExpertHits(report, config), refused);
}

TEST(ExpertHitsTest, DamagedReportsAreRefused) {
  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument);
  const std::string report = Report().dump();
  for (size_t size = 0; size < report.size(); ++size) {
    EXPECT_THAT(ParseExpertHits(report.substr(0, size), Mixture()), refused) << size;
  }
  // Any byte may be another: a report or none, but no end of the process.
  for (size_t i = 0; i < report.size(); ++i) {
    for (const char byte : {'"', '9', '-', '[', '{', 'e', '\0', '\xff'}) {
      std::string damaged = report;
      damaged[i] = byte;
      const auto hits = ParseExpertHits(damaged, Mixture());
      if (!hits.ok()) continue;
      for (const ExpertHits::Point& point : hits->points) {
        EXPECT_TRUE(point.share > 0 && point.share <= 1 && point.hits >= 0 && point.hits <= 1);
      }
    }
  }
  const auto with = [](const char* key, const json& value) {
    json changed = Report();
    changed["experts"][key] = value;
    return changed.dump();
  };
  for (const json& value : std::vector<json>{
           nullptr, 3, "8", json::object(), json::array(), json::array({json::object()}),
           json::array({1, 2}), json::array({{{"share", 0}, {"cached", 0.5}}}),
           json::array({{{"share", 0.5}, {"cached", 1.5}}}),
           json::array({{{"share", -0.5}, {"cached", 0.5}}}),
           json::array({{{"share", "0.5"}, {"cached", 0.5}}}),
           json::array({{{"share", 0.5}, {"cached", 0.5}}, {{"share", 0.5}, {"cached", 0.6}}})}) {
    EXPECT_THAT(ParseExpertHits(with("caches", value), Mixture()), refused) << value;
  }
  EXPECT_THAT(ParseExpertHits(with("layers", 2), Mixture()), refused);
  EXPECT_THAT(ParseExpertHits(with("experts_per_layer", 8.5), Mixture()), refused);
  std::vector<json> many;
  for (int i = 1; i <= 2000; ++i) many.push_back({{"share", i / 2000.0}, {"cached", 0.5}});
  EXPECT_THAT(ParseExpertHits(with("caches", many), Mixture()), refused);
  EXPECT_THAT(ParseExpertHits("[]", Mixture()), refused);
}

}  // namespace
}  // namespace renga::partition
