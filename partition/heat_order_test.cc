#include "partition/heat_order.h"

#include <string>

#include "base/testing/status_matchers.h"
#include "nlohmann/json.hpp"

namespace renga::partition {
namespace {

using nlohmann::json;
using ::renga::testing::IsOkAndHolds;
using ::renga::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kVocabulary = 100;

model::ModelConfig TwoLayersOfFour() {
  model::ModelConfig config;
  config.n_layers = 2;
  config.d_ff = 4;
  return config;
}

json SomeReport() {
  return {{"vocabulary", kVocabulary},
          {"hot_rows", {7, 99, 0}},
          {"neurons", {{"by_heat", {{3, 1, 0, 2}, {0, 1, 2, 3}}}}}};
}

absl::Status RowsError(const json& report) {
  return ParseHotRows(report.dump(), kVocabulary).status();
}
absl::Status NeuronsError(const json& report) {
  return ParseColdNeurons(report.dump(), TwoLayersOfFour(), 50).status();
}

TEST(HeatOrderTest, RowsComeInTheReportsOrder) {
  EXPECT_THAT(ParseHotRows(SomeReport().dump(), kVocabulary), IsOkAndHolds(ElementsAre(7, 99, 0)));
}

TEST(HeatOrderTest, ColdNeuronsAreTheLastOfEachLayer) {
  const std::string report = SomeReport().dump();
  EXPECT_THAT(ParseColdNeurons(report, TwoLayersOfFour(), 50),
              IsOkAndHolds(ElementsAre(0, 2, 6, 7)));
  EXPECT_THAT(ParseColdNeurons(report, TwoLayersOfFour(), 0), IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(ParseColdNeurons(report, TwoLayersOfFour(), 100),
              IsOkAndHolds(ElementsAre(0, 1, 2, 3, 4, 5, 6, 7)));
}

TEST(HeatOrderTest, RowsOfAnotherModelAreRefused) {
  json report = SomeReport();
  report["vocabulary"] = kVocabulary + 1;
  EXPECT_THAT(RowsError(report),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("on this model")));
  for (const json& row : {json(-1), json(kVocabulary), json(uint64_t{1} << 63), json(1.5)}) {
    report = SomeReport();
    report["hot_rows"].push_back(row);
    EXPECT_THAT(RowsError(report), StatusIs(absl::StatusCode::kInvalidArgument)) << row;
  }
}

TEST(HeatOrderTest, NeuronsOfAnotherModelAreRefused) {
  for (const json& layers :
       {json(1), json::array(), json({{0, 1, 2, 3}}), json({{0, 1, 2, 3}, {0, 1, 2}}),
        json({{0, 1, 2, 3}, {0, 1, 2, 4}}), json({{0, 1, 2, 3}, {0, 1, 3, 3}}),
        json({{0, 1, 2, 3}, {0, 1, 2, -1}}), json({{0, 1, 2, 3}, {0, 1, 2, "3"}})}) {
    json report = SomeReport();
    report["neurons"]["by_heat"] = layers;
    EXPECT_THAT(NeuronsError(report),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("neurons")))
        << layers;
  }
}

TEST(HeatOrderTest, WhatIsNoReportIsRefused) {
  for (const char* text : {"", "{", "[]", "3", "{}", R"({"hot_rows": 1, "vocabulary": 100})",
                           R"({"neurons": []})", R"({"neurons": {"by_heat": {}}})"}) {
    EXPECT_THAT(ParseHotRows(text, kVocabulary),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no report")))
        << text;
    EXPECT_THAT(ParseColdNeurons(text, TwoLayersOfFour(), 50),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no report")))
        << text;
  }
}

}  // namespace
}  // namespace renga::partition
