#include "cli/experts_report.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "cli/report_plots.h"
#include "model/expert_uses.h"

namespace renga::cli {
namespace {

using partition::ExpertCachePoint;
using partition::ExpertHeatPoint;
using partition::ExpertLayer;
using partition::ExpertPair;
using partition::ExpertReport;
using partition::ExpertSetPoint;
using partition::ExpertsTogether;
using partition::ExpertTopic;
using partition::HalfLifePoint;

// Of so many experts in the mean.
int64_t BytesOf(const ExpertReport& report, const MixtureBytes& bytes, double experts) {
  return static_cast<int64_t>(static_cast<double>(bytes.experts) * experts /
                              static_cast<double>(report.layers * report.experts));
}

// What a token reads from disk, with such a share of its choices in memory.
int64_t MissedBytes(const ExpertReport& report, const MixtureBytes& bytes, double hits) {
  return BytesOf(report, bytes, (1 - hits) * static_cast<double>(report.layers * report.used));
}

const ExpertCachePoint& CutOf(const ExpertReport& report) {
  return *std::find_if(report.caches.begin(), report.caches.end(),
                       [&](const auto& p) { return p.experts == report.recommended_experts; });
}

std::string ExpertsCut(const ExpertReport& report, const MixtureBytes& bytes) {
  const ExpertCachePoint& cut = CutOf(report);
  const int64_t all = report.layers * report.experts;
  std::string sentence = absl::StrFormat(
      "<p><b>Recommended cut:</b> %d of the %d experts in memory (%s of %s, beside the %s of the "
      "layers that every token reads) have %.1f%% of what tokens choose; a token then reads %s "
      "from "
      "disk in the mean. ",
      cut.experts, all,
      base::FormatByteSize(BytesOf(report, bytes, static_cast<double>(cut.experts))),
      base::FormatByteSize(bytes.experts), base::FormatByteSize(bytes.others), cut.cached * 100,
      base::FormatByteSize(MissedBytes(report, bytes, cut.cached)));
  if (cut.cached < report.wanted_share) {
    absl::StrAppendFormat(&sentence, "So few texts never come to the %.0f%% that were asked for. ",
                          report.wanted_share * 100);
  }
  if (cut.experts == all) {
    return sentence + "Expect to hold all of this mixture, or to wait for its disk.</p>\n";
  }
  return sentence +
         "Try <code>renga run MODEL --lazy --memory SIZE</code>; <code>renga plan MODEL --lazy "
         "--worker SIZE --regions REPORT.json</code> says what to expect.</p>\n";
}

std::string HeatPlot(const ExpertReport& report) {
  std::vector<Line> lines = {{.name = "most of a layer's", .x = {0}, .y = {0}},
                             {.name = "mean of all layers", .x = {0}, .y = {0}},
                             {.name = "least of a layer's", .x = {0}, .y = {0}},
                             {.name = "all alike", .x = {0, 1}, .y = {0, 1}}};
  for (const ExpertHeatPoint& point : report.heat) {
    for (size_t i = 0; i < 3; ++i) lines[i].x.push_back(point.share);
    lines[0].y.push_back(point.most);
    lines[1].y.push_back(point.mean);
    lines[2].y.push_back(point.least);
  }
  return Plot(lines, {.x_name = "experts of a layer, the most used ones first",
                      .y_name = "of all choices",
                      .percent = true,
                      .percent_x = true});
}

std::string ExpertSetPlot(const ExpertReport& report) {
  Line line{.name = "used so far", .x = {}, .y = {}};
  for (const ExpertSetPoint& point : report.working_set) {
    line.x.push_back(static_cast<double>(point.positions));
    line.y.push_back(point.share);
  }
  return Plot({line}, {.x_name = "tokens of text", .y_name = "experts", .percent = true});
}

Line CacheLine(const ExpertReport& report, const std::string& name,
               double ExpertCachePoint::*hits) {
  Line line{.name = name, .x = {0}, .y = {0}};
  for (const ExpertCachePoint& point : report.caches) {
    line.x.push_back(point.share);
    line.y.push_back(point.*hits);
  }
  return line;
}

std::string ExpertCachePlot(const ExpertReport& report) {
  return Plot({CacheLine(report, "as a worker keeps them", &ExpertCachePoint::cached),
               CacheLine(report, "favourites of all texts", &ExpertCachePoint::favourites),
               CacheLine(report, "favourites of the text", &ExpertCachePoint::of_text),
               {.name = "all alike", .x = {0, 1}, .y = {0, 1}}},
              {.x_name = "experts in memory",
               .y_name = "of all choices",
               .percent = true,
               .percent_x = true});
}

std::string ExpertCacheTable(const ExpertReport& report, const MixtureBytes& bytes) {
  std::string table =
      "<table><tr><th>experts in memory</th><th>bytes</th><th>kept by a worker</th>"
      "<th>read for a token</th><th>favourites pinned</th><th>after a start, nothing there</th>"
      "<th>after a start, favourites there</th></tr>";
  for (const ExpertCachePoint& point : report.caches) {
    absl::StrAppendFormat(
        &table,
        "<tr><td>%d (%.0f%%)</td><td>%s</td><td>%.1f%%</td><td>%s</td><td>%.1f%%</td>"
        "<td>%.1f%%</td><td>%.1f%%</td></tr>",
        point.experts, point.share * 100,
        base::FormatByteSize(BytesOf(report, bytes, static_cast<double>(point.experts))),
        point.cached * 100, base::FormatByteSize(MissedBytes(report, bytes, point.cached)),
        point.favourites * 100, point.cold_start * 100, point.told_start * 100);
  }
  return table + "</table>\n";
}

std::string HalfLifeTable(const ExpertReport& report) {
  std::string table = "<table><tr><th>a use counts half after</th>";
  for (const double share : report.half_life_shares) {
    absl::StrAppendFormat(&table, "<th>%.0f%% of the experts</th>", share * 100);
  }
  table += "</tr>";
  for (const HalfLifePoint& point : report.half_lives) {
    absl::StrAppendFormat(&table, "<tr><td>%.0f tokens</td>", point.half_life_steps);
    for (const double cached : point.cached) {
      absl::StrAppendFormat(&table, "<td>%.1f%%</td>", cached * 100);
    }
    table += "</tr>";
  }
  return table + "</table>\n";
}

std::string LayersTable(const ExpertReport& report) {
  std::string table =
      "<table><tr><th>layer</th><th>experts for 50%</th><th>90%</th><th>99%</th>"
      "<th>never used</th><th>the favourite</th><th>chosen again</th></tr>";
  for (size_t i = 0; i < report.by_layer.size(); ++i) {
    const ExpertLayer& layer = report.by_layer[i];
    const auto favourite = std::max_element(layer.uses.begin(), layer.uses.end());
    absl::StrAppendFormat(
        &table,
        "<tr><td>%d</td><td>%d</td><td>%d</td><td>%d</td><td>%d</td><td>%d, by %.0f%% of "
        "tokens</td><td>%.0f%%</td></tr>",
        i, layer.half, layer.nine_tenths, layer.nearly_all,
        std::count(layer.uses.begin(), layer.uses.end(), 0), favourite - layer.uses.begin(),
        100.0 * static_cast<double>(*favourite) / static_cast<double>(report.positions),
        layer.again * 100);
  }
  return table + "</table>\n";
}

std::string TopicsTable(const ExpertReport& report) {
  std::string table =
      "<table><tr><th>text</th><th>tokens</th><th>experts of a layer for 90%</th></tr>";
  for (const ExpertTopic& topic : report.topics) {
    absl::StrAppendFormat(&table, "<tr><td>%s</td><td>%d</td><td>%.1f</td></tr>",
                          Escape(topic.name), topic.positions, topic.nine_tenths);
  }
  return table + "</table>\n";
}

// experts x experts in squares: blue where two are together more often than by chance, orange where
// less often. Squares of one shade are one path.
std::string LiftPicture(const ExpertsTogether& together, int64_t experts) {
  constexpr int kShades = 4;
  std::string paths[2 * kShades + 1];
  const auto n = static_cast<size_t>(experts);
  for (size_t a = 0; a < n; ++a) {
    for (size_t b = 0; b < n; ++b) {
      const double lift = together.lift[a * n + b];
      if (a == b) continue;
      const double strength = lift <= 0 ? -1 : std::clamp(std::log2(lift) / 2, -1.0, 1.0);
      const auto shade = static_cast<size_t>(std::lround(strength * kShades) + kShades);
      if (shade == kShades) continue;
      absl::StrAppendFormat(&paths[shade], "M%d %dh1v1h-1z", b, a);
    }
  }
  std::string svg = absl::StrFormat("<svg viewBox='0 0 %d %d' role='img' style='max-width:30rem'>",
                                    experts, experts);
  for (int shade = 0; shade <= 2 * kShades; ++shade) {
    if (paths[shade].empty()) continue;
    absl::StrAppendFormat(&svg, "<path fill='%s' fill-opacity='%.2f' d='%s'/>",
                          shade > kShades ? "#1f6fb4" : "#d1601d",
                          std::abs(shade - kShades) / static_cast<double>(kShades), paths[shade]);
  }
  return svg + "</svg>\n";
}

std::string TogetherText(const ExpertReport& report) {
  if (report.used < 2) return "<p>A token uses one expert of each layer.</p>\n";
  std::string text;
  for (const ExpertsTogether& together : report.layers_together) {
    absl::StrAppendFormat(&text, "<h3>Layer %d</h3>\n%s", together.layer,
                          LiftPicture(together, report.experts));
    text += "<table><tr><th>experts</th><th>tokens</th><th>compared with chance</th></tr>";
    for (const ExpertPair& pair : together.pairs) {
      absl::StrAppendFormat(&text, "<tr><td>%d and %d</td><td>%d</td><td>%.2f</td></tr>",
                            pair.first, pair.second, pair.together, pair.lift);
    }
    text += "</table>\n";
  }
  return text;
}

std::vector<std::string> TopicNames(const ExpertReport& report) {
  std::vector<std::string> names;
  for (const ExpertTopic& topic : report.topics) names.push_back(topic.name);
  return names;
}

nlohmann::json CacheJson(const ExpertReport& report, const MixtureBytes& bytes) {
  nlohmann::json found = nlohmann::json::array();
  for (const ExpertCachePoint& point : report.caches) {
    found.push_back({{"share", point.share},
                     {"experts", point.experts},
                     {"bytes", BytesOf(report, bytes, static_cast<double>(point.experts))},
                     {"cached", point.cached},
                     {"read_bytes_per_token", MissedBytes(report, bytes, point.cached)},
                     {"favourites", point.favourites},
                     {"favourites_of_text", point.of_text},
                     {"cold_start", point.cold_start},
                     {"told_start", point.told_start}});
  }
  return found;
}

nlohmann::json TogetherJson(const ExpertsTogether& together) {
  nlohmann::json found = {
      {"layer", together.layer}, {"tokens", together.tokens}, {"pairs", nlohmann::json::array()}};
  for (const ExpertPair& pair : together.pairs) {
    found["pairs"].push_back(
        {{"experts", {pair.first, pair.second}}, {"tokens", pair.together}, {"lift", pair.lift}});
  }
  return found;
}

void AddLists(const ExpertReport& report, nlohmann::json& found) {
  for (const ExpertLayer& layer : report.by_layer) {
    found["layers"].push_back({{"uses", layer.uses},
                               {"for_half", layer.half},
                               {"for_nine_tenths", layer.nine_tenths},
                               {"for_nearly_all", layer.nearly_all},
                               {"chosen_again", layer.again}});
  }
  for (const ExpertSetPoint& point : report.working_set) {
    found["working_set"].push_back({{"positions", point.positions}, {"share", point.share}});
  }
  for (const ExpertHeatPoint& point : report.heat) {
    found["heat"].push_back({{"share", point.share},
                             {"mean", point.mean},
                             {"most", point.most},
                             {"least", point.least}});
  }
  for (const HalfLifePoint& point : report.half_lives) {
    found["half_lives"].push_back({{"steps", point.half_life_steps}, {"cached", point.cached}});
  }
  for (const ExpertTopic& topic : report.topics) {
    found["topics"].push_back({{"name", topic.name},
                               {"positions", topic.positions},
                               {"for_nine_tenths", topic.nine_tenths},
                               {"uses", topic.uses}});
  }
  for (const ExpertsTogether& together : report.layers_together) {
    found["layers_together"].push_back(TogetherJson(together));
  }
}

}  // namespace

nlohmann::json ExpertsJson(const ExpertReport& report, const MixtureBytes& bytes) {
  nlohmann::json found = {{"experts_per_layer", report.experts},
                          {"used_per_layer", report.used},
                          {"positions", report.positions},
                          {"expert_bytes", bytes.experts},
                          {"other_layer_bytes", bytes.others},
                          {"recommended_experts", report.recommended_experts},
                          {"recommended_share", report.recommended_share},
                          {"wanted_share", report.wanted_share},
                          {"caches", CacheJson(report, bytes)},
                          {"half_life_shares", report.half_life_shares},
                          {"together", report.together}};
  for (const char* const list :
       {"layers", "working_set", "heat", "half_lives", "topics", "layers_together"}) {
    found[list] = nlohmann::json::array();
  }
  AddLists(report, found);
  return found;
}

std::string ExpertsSection(const ExpertReport& report, const MixtureBytes& bytes) {
  return absl::StrCat(
      "<h1>Experts</h1>\n<p>", report.layers, " layers of ", report.experts,
      " experts, of which a token uses ", report.used,
      ". Feed-forward neurons are not looked at in a mixture: most tokens use none of an expert's, "
      "so it is experts that stay or go.</p>\n",
      ExpertsCut(report, bytes),
      "<h2>How many take how much</h2>\n<p>Of all choices, those of a layer's most used experts: "
      "in "
      "the layer where they take most, in the mean, and where they take least.</p>\n",
      HeatPlot(report),
      "<h2>Working set</h2>\n<p>Experts that have been used after so many tokens, text after "
      "text.</p>\n",
      ExpertSetPlot(report),
      "<h2>Hit rate against cache size</h2>\n<p>Of the experts that tokens choose, those that are "
      "in memory. A worker with <code>--lazy</code> lets the expert go that was used least of "
      "late; "
      "here it does so over the recorded choices, a token a step. Favourites are "
      "chosen by the first half of every text, pinned, and counted, as the worker's, on the "
      "second. "
      "After a start: the first 50 tokens of each text, with nothing in memory, and with what the "
      "other texts use there already, which no worker is told today.</p>\n",
      ExpertCachePlot(report), ExpertCacheTable(report, bytes),
      absl::StrFormat("<p>How fast a worker forgets uses (a use counts half after %.0f tokens), "
                      "and what it would have otherwise:</p>\n",
                      model::kExpertHalfLifeSteps),
      HalfLifeTable(report),
      "<h2>Layers</h2>\n<p>The fewest experts that take so much of the choices. Chosen again: "
      "choices that the token before made too.</p>\n",
      LayersTable(report),
      "<h2>Texts that share experts</h2>\n<p>The share of its choices that a text has in common "
      "with another, as often as both make them, in percent.</p>\n",
      LikenessTable(TopicNames(report), report.together), TopicsTable(report),
      "<h2>Experts that are used together</h2>\n<p>How often a token chooses two experts of a "
      "layer "
      "both, compared with chance, by how often each is used: blue is more often, orange less; the "
      "strongest colours are four times and a quarter.</p>\n",
      TogetherText(report));
}

}  // namespace renga::cli
