#include "cli/neurons_report.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "cli/report_plots.h"

namespace renga::cli {
namespace {

using partition::NeuronCachePoint;
using partition::NeuronGroups;
using partition::NeuronReport;
using partition::NeuronSetPoint;

std::string CutSentence(const NeuronReport& report, int64_t bytes) {
  const double near = report.recommended_share;
  const auto cold = static_cast<int64_t>(static_cast<double>(bytes) * (1 - near));
  std::string sentence = absl::StrFormat(
      "<p><b>Recommended cut:</b> the hottest %.0f%% of each layer's %d neurons add %.0f%% of what "
      "all of them add. ",
      near * 100, report.neurons, report.wanted_share * 100);
  if (near >= 1) {
    return sentence + "No neuron of this model can stay away: plan with whole layers.</p>\n";
  }
  absl::StrAppendFormat(
      &sentence,
      "The others are cold: %s of the feed-forward's %s. Leaving them out is no approximation that "
      "is worth trying; fewer bits for them may be: <code>renga perplexity MODEL --approximate "
      "cold-neurons=%.0f%% --regions REPORT.json</code> says what that costs.</p>\n",
      base::FormatByteSize(cold), base::FormatByteSize(bytes), (1 - near) * 100);
  return sentence;
}

std::string WorkingSetPlot(const NeuronReport& report) {
  Line line{.name = "active so far", .x = {}, .y = {}};
  for (const NeuronSetPoint& point : report.working_set) {
    line.x.push_back(static_cast<double>(point.positions));
    line.y.push_back(point.share);
  }
  return Plot({line}, {.x_name = "tokens of text", .y_name = "neurons", .percent = true});
}

std::string CachePlot(const NeuronReport& report) {
  std::vector<Line> lines = {{.name = "strongest of each token", .x = {0}, .y = {0}},
                             {.name = "hottest of the text", .x = {0}, .y = {0}},
                             {.name = "hottest of all texts", .x = {0}, .y = {0}},
                             {.name = "any", .x = {0, 1}, .y = {0, 1}}};
  for (const NeuronCachePoint& point : report.caches) {
    for (size_t i = 0; i < 3; ++i) lines[i].x.push_back(point.share);
    lines[0].y.push_back(point.strongest);
    lines[1].y.push_back(point.of_text);
    lines[2].y.push_back(point.hottest);
  }
  return Plot(lines, {.x_name = "neurons of each layer in memory",
                      .y_name = "of what all add",
                      .percent = true,
                      .percent_x = true});
}

// groups x groups: how often they are active together, compared with chance.
std::string GroupTable(const NeuronGroups& groups) {
  const size_t n = groups.sizes.size();
  std::string table = "<table class='together'><tr><th>group: neurons, hottest in</th>";
  for (size_t i = 0; i < n; ++i) absl::StrAppendFormat(&table, "<th>%d</th>", i + 1);
  table += "</tr>";
  for (size_t i = 0; i < n; ++i) {
    absl::StrAppendFormat(&table, "<tr><th>%d: %d, %s</th>", i + 1, groups.sizes[i],
                          Escape(groups.texts[i]));
    for (size_t j = 0; j < n; ++j) {
      const double lift = groups.lift[i * n + j];
      // Twice as often as by chance is blue, half as often orange.
      const double strength = lift <= 0 ? -1 : std::clamp(std::log2(lift) / 4, -1.0, 1.0);
      absl::StrAppendFormat(&table, "<td style='background:rgba(%s,%.2f)'>%.1f</td>",
                            strength > 0 ? "31,111,180" : "209,96,29", std::abs(strength), lift);
    }
    table += "</tr>";
  }
  return table + "</table>\n";
}

std::string GroupsText(const NeuronReport& report) {
  std::string text;
  for (const NeuronGroups& groups : report.groups) {
    absl::StrAppendFormat(
        &text,
        "<h3>Layer %d</h3>\n<p>Of the pairs that are active together %.0f%% lie in one group; by "
        "chance it would be %.0f%%.</p>\n%s",
        groups.layer, groups.inside * 100, groups.inside_by_chance * 100, GroupTable(groups));
  }
  return text;
}

}  // namespace

nlohmann::json NeuronsJson(const NeuronReport& report) {
  nlohmann::json json = {{"layers", report.layers},
                         {"neurons_per_layer", report.neurons},
                         {"active_per_layer", report.active},
                         {"recommended_share", report.recommended_share},
                         {"wanted_share", report.wanted_share},
                         {"working_set", nlohmann::json::array()},
                         {"caches", nlohmann::json::array()},
                         {"together", report.together},
                         {"groups", nlohmann::json::array()},
                         {"by_heat", report.by_heat}};
  for (const NeuronSetPoint& point : report.working_set) {
    json["working_set"].push_back({{"positions", point.positions}, {"share", point.share}});
  }
  for (const NeuronCachePoint& point : report.caches) {
    json["caches"].push_back({{"share", point.share},
                              {"hottest", point.hottest},
                              {"hottest_of_text", point.of_text},
                              {"strongest_of_token", point.strongest}});
  }
  for (const NeuronGroups& groups : report.groups) {
    json["groups"].push_back({{"layer", groups.layer},
                              {"sizes", groups.sizes},
                              {"lift", groups.lift},
                              {"inside", groups.inside},
                              {"inside_by_chance", groups.inside_by_chance},
                              {"texts", groups.texts},
                              {"group_of", groups.group_of}});
  }
  return json;
}

std::string NeuronsSection(const NeuronReport& report, int64_t bytes) {
  return absl::StrCat(
      "<h1>Feed-forward neurons</h1>\n<p>", report.layers, " layers of ", report.neurons,
      " neurons. What a neuron adds at a token is the square of the length of what it adds to the "
      "residual stream, as a share of its layer's. Active are the ",
      report.active, " neurons of each layer that add the most.</p>\n", CutSentence(report, bytes),
      "<h2>Working set</h2>\n<p>Neurons that have been active after so many tokens, text after "
      "text.</p>\n",
      WorkingSetPlot(report),
      "<h2>What is there against cache size</h2>\n<p>With so many neurons of each layer in memory, "
      "what they add of all. The hottest are chosen by the first half of every text and counted on "
      "the second. The strongest of each token are what a perfect guess would bring.</p>\n",
      CachePlot(report),
      "<h2>Texts that share neurons</h2>\n<p>The hottest tenth of each layer, in both texts, in "
      "percent of those in either.</p>\n",
      LikenessTable(report.texts, report.together),
      "<h2>Neurons that are active together</h2>\n<p>Groups by k-means over pairs, from the first "
      "half of the texts; the numbers are counted on the others: how often neurons of two groups "
      "are active at the same token, compared with chance (1.0).</p>\n",
      GroupsText(report));
}

}  // namespace renga::cli
