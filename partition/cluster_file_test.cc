#include "partition/cluster_file.h"

#include <string>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "partition/device_library.h"
#include "partition/known_models.h"
#include "partition/machine_kinds.h"

namespace renga::partition {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(ParseClusterTest, MachinesAndLinks) {
  ASSERT_OK_AND_ASSIGN(const Cluster cluster, ParseCluster(R"({
      "machines": [{"name": "attic", "device": "gtx-1050-ti", "count": 2},
                   {"name": "desk", "memory": "12GiB", "gb_per_s": 30, "layer_us": 5},
                   {"device": "rtx-3050-8gb", "memory": "3GiB"}],
      "network": "1gbe",
      "links": [{"between": ["desk", "attic 1"], "link": {"latency_us": 2500, "mb_per_s": 40}},
                {"between": ["coordinator", "desk"], "link": "10gbe"}]})"));
  ASSERT_EQ(cluster.workers.size(), 4u);
  EXPECT_EQ(cluster.workers[0].id, "attic 1");
  EXPECT_EQ(cluster.workers[1].id, "attic 2");
  EXPECT_NEAR(cluster.workers[0].bytes_per_second, 0.6 * 112e9, 1e6);
  EXPECT_EQ(cluster.workers[2].memory_bytes, int64_t{12} << 30);
  EXPECT_EQ(cluster.workers[2].bytes_per_second, 30e9);
  EXPECT_EQ(cluster.workers[2].layer_us, 5);
  EXPECT_EQ(cluster.workers[3].id, "rtx-3050-8gb");
  EXPECT_EQ(cluster.workers[3].memory_bytes, int64_t{3} << 30);
  EXPECT_EQ(cluster.links.default_link.latency_us, 120);
  // A link of its own makes a machine another kind.
  const MachineKinds kinds(cluster.workers, cluster.links);
  EXPECT_EQ(kinds.count(), 4);
  EXPECT_EQ(kinds.Link(0, 2).latency_us, 2500);
  EXPECT_EQ(kinds.Link(2, 0).latency_us, 2500);
  EXPECT_EQ(kinds.Link(kCoordinator, 2).latency_us, 80);
  EXPECT_EQ(kinds.Link(0, 1).latency_us, 120);
}

TEST(ParseClusterTest, MemoryBesideCards) {
  ASSERT_OK_AND_ASSIGN(const Cluster cluster, ParseCluster(R"({
      "machines": [{"name": "attic", "device": "gtx-1050-ti", "count": 2,
                    "host": {"device": "ddr4-2400-dual", "memory": "8GiB"}}],
      "network": "1gbe"})"));
  ASSERT_EQ(cluster.workers.size(), 4u);
  EXPECT_EQ(cluster.workers[0].id, "attic 1");
  EXPECT_FALSE(cluster.workers[0].spare);
  EXPECT_EQ(cluster.workers[3].id, "attic 2 host");
  EXPECT_TRUE(cluster.workers[3].spare);
  EXPECT_EQ(cluster.workers[3].memory_bytes, int64_t{8} << 30);
  EXPECT_EQ(cluster.workers[0].machine, cluster.workers[1].machine);
  EXPECT_NE(cluster.workers[0].machine, cluster.workers[2].machine);
  const MachineKinds kinds(cluster.workers, cluster.links);
  const double near = kinds.Link(kinds.KindOf(0), kinds.KindOf(1)).latency_us;
  EXPECT_LT(near, 100);
  EXPECT_EQ(kinds.Link(kinds.KindOf(3), kinds.KindOf(2)).latency_us, near);
  EXPECT_EQ(kinds.Link(kinds.KindOf(0), kinds.KindOf(3)).latency_us, 120);
}

TEST(ParseClusterTest, SaysWhatIsWrong) {
  const auto refuses = [](const std::string& json, const std::string& why) {
    const auto parsed = ParseCluster(json);
    EXPECT_FALSE(parsed.ok()) << json;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(why)) << json;
  };
  refuses("", "machines");
  refuses("[]", "machines");
  refuses(std::string(100'000, '['), "machines");
  refuses(R"({"machines": []})", "machines");
  refuses(R"({"machines": [1]})", "machine 1 is no object");
  refuses(R"({"machines": [{}]})", "machine 1 needs a \"device\"");
  refuses(R"({"machines": [{"device": "abacus"}]})", "gtx-1050-ti");
  refuses(R"({"machines": [{"memory": "-3", "gb_per_s": 1}]})", "");
  refuses(R"({"machines": [{"memory": "3GiB", "gb_per_s": -1}]})", "positive");
  refuses(R"({"machines": [{"memory": "3GiB", "gb_per_s": 1e300}]})", "positive");
  refuses(R"({"machines": [{"device": "gtx-1650", "host": "ddr4"}]})", "host of machine 1 is no");
  refuses(R"({"machines": [{"device": "gtx-1650", "host": {}}]})", "host of machine 1 needs");
  refuses(R"({"machines": [{"device": "gtx-1650", "host": {"device": "gtx-1650"}, "count": 200}]})",
          "more than 256");
  refuses(R"({"machines": [{"device": "gtx-1650", "count": 1e9}]})", "count");
  refuses(R"({"machines": [{"device": "gtx-1650", "count": 1.5}]})", "count");
  refuses(R"({"machines": [{"device": "gtx-1650"}, {"device": "gtx-1650"}]})", "two machines");
  const std::string one = R"({"machines": [{"device": "gtx-1650"}], )";
  refuses(one + R"("network": 3})", "network");
  refuses(one + R"("network": "string"})", "1gbe");
  refuses(one + R"("links": {}})", "links");
  refuses(one + R"("links": [{"between": ["gtx-1650"], "link": "wifi"}]})", "between");
  refuses(one + R"("links": [{"between": ["gtx-1650", "x"], "link": "wifi"}]})", "does not name");
}

TEST(ParseClusterTest, KeysThatMeanNothingAreNamed) {
  const auto names = [](const std::string& json, const std::string& where, const std::string& key,
                        const std::string& known) {
    EXPECT_THAT(ParseCluster(json),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(where), HasSubstr(key), HasSubstr(known))))
        << json;
  };
  names(R"({"machines": [{"device": "gtx-1650"}], "netwrk": "wifi"})", "it has", "\"netwrk\"",
        "network");
  names(R"({"machines": [{"device": "gtx-1650"}, {"device": "gtx-1050-ti", "cnt": 4}]})",
        "machine 2", "\"cnt\"", "count");
  names(
      R"({"machines": [{"device": "gtx-1650", "host": {"memory": "1GiB", "gb_per_s": 9, "n": 1}}]})",
      "host of machine 1", "\"n\"", "disk_gb_per_s");
  names(R"({"machines": [{"device": "gtx-1650"}], "network": {"latency_ms": 3}})", "network",
        "\"latency_ms\"", "latency_us");
  names(R"({"machines": [{"device": "gtx-1650"}],
            "links": [{"between": ["coordinator", "gtx-1650"], "speed": "wifi"}]})",
        "link 1", "\"speed\"", "between");
}

TEST(ParseClusterTest, TheExampleIsRight) {
  ASSERT_OK_AND_ASSIGN(const std::string text,
                       base::ReadFile(RENGA_SOURCE_DIR "/deploy/examples/two-kinds-of-cards.json",
                                      kMaxClusterFileBytes));
  ASSERT_OK_AND_ASSIGN(const Cluster cluster, ParseCluster(text));
  EXPECT_EQ(cluster.workers.size(), 4u);
}

// Sizes of the published files, in GB: weights of all layers, head and embedding.
TEST(KnownModelsTest, HaveTheSizesOfTheirFiles) {
  const auto expect_gb = [](const char* name, double gb) {
    ASSERT_OK_AND_ASSIGN(const KnownModel known, FindKnownModel(name));
    double bytes =
        static_cast<double>(known.footprint.embedding_bytes + known.footprint.shared_bytes +
                            known.footprint.head_row_bytes * known.model.config.vocab_size);
    for (const auto& layer : known.footprint.layers) bytes += static_cast<double>(layer.total());
    EXPECT_NEAR(bytes / 1e9, gb, 0.01 * gb) << name;
  };
  expect_gb("llama-2-7b", 4.08);
  expect_gb("llama-2-13b", 7.87);
  expect_gb("llama-3-8b", 4.92);
  expect_gb("llama-3-70b", 42.5);
  expect_gb("qwen3-30b-a3b", 18.6);
  expect_gb("tinyllama-1.1b:Q8_0", 1.17);
  EXPECT_THAT(FindKnownModel("gpt-9"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("llama")));
  EXPECT_THAT(FindKnownModel("llama-2-7b:Q99"), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace renga::partition
