#include "cli/regions_report.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "cli/report_plots.h"

namespace renga::cli {
namespace {

using partition::CachePoint;
using partition::RegionReport;
using partition::WorkingSetPoint;

constexpr char kHead[] = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Regions</title><style>
body { font: 15px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
svg { width: 100%; height: auto; background: #fafafa } svg text { font: 12px sans-serif; fill: #444 }
table { border-collapse: collapse } td, th { padding: 2px 8px; text-align: right }
td { white-space: nowrap } td:first-child, th:first-child { text-align: left }
.typical td { text-align: left; vertical-align: top; white-space: normal }
.together td, .together th { padding: 2px 3px; font-size: 11px; white-space: nowrap }
.note { color: #666 }
</style></head><body>
)";

template <typename Point>
Line LineOf(const std::vector<Point>& points, const std::string& name, double (*x)(const Point&),
            double (*y)(const Point&)) {
  Line line{.name = name, .x = {}, .y = {}};
  for (const Point& point : points) {
    line.x.push_back(x(point));
    line.y.push_back(y(point));
  }
  return line;
}

std::string WorkingSetPlot(const RegionReport& report) {
  const auto line = [&](const std::string& name, double (*y)(const WorkingSetPoint&)) {
    return LineOf<WorkingSetPoint>(
        report.working_set, name,
        [](const WorkingSetPoint& p) { return static_cast<double>(p.positions); }, y);
  };
  return Plot(
      {line("among the best 40",
            [](const WorkingSetPoint& p) { return static_cast<double>(p.best_rows); }),
       line("best", [](const WorkingSetPoint& p) { return static_cast<double>(p.first_rows); }),
       line("input", [](const WorkingSetPoint& p) { return static_cast<double>(p.input_rows); })},
      {.x_name = "tokens of text", .y_name = "distinct rows"});
}

std::string CachePlot(const RegionReport& report) {
  const auto line = [&](const std::string& name, double (*y)(const CachePoint&)) {
    return LineOf<CachePoint>(
        report.caches, name, [](const CachePoint& p) { return static_cast<double>(p.rows); }, y);
  };
  return Plot(
      {line("hottest, or in the text", [](const CachePoint& p) { return p.first_in_hot_or_seen; }),
       line("hottest", [](const CachePoint& p) { return p.first_in_hot; }),
       line("hottest, by probability", [](const CachePoint& p) { return p.mass_in_hot; }),
       line("used most recently", [](const CachePoint& p) { return p.first_in_recent; })},
      {.x_name = "rows in memory", .y_name = "best row is there", .log_x = true, .percent = true});
}

std::vector<std::string> NamesOf(const RegionReport& report) {
  std::vector<std::string> names;
  for (const partition::Topic& topic : report.topics) names.push_back(topic.name);
  return names;
}

std::string TypicalTable(const RegionReport& report, const RowText& text) {
  std::string table =
      "<table class='typical'><tr><th>text</th><th>tokens</th><th>rows among the best</th>"
      "<th>typical rows</th></tr>";
  for (const partition::Topic& topic : report.topics) {
    std::string typical;
    for (const int32_t row : topic.typical)
      absl::StrAppend(&typical, Escape(text(row)), " &middot; ");
    absl::StrAppendFormat(&table, "<tr><td>%s</td><td>%d</td><td>%d</td><td>%s</td></tr>",
                          Escape(topic.name), topic.positions, topic.best_rows, typical);
  }
  return table + "</table>\n";
}

std::string CutSentence(const RegionReport& report, const ReportedModel& model) {
  const int64_t hot = report.recommended_rows * model.row_bytes;
  const int64_t all = report.vocabulary * model.row_bytes;
  std::string sentence = absl::StrFormat(
      "<p><b>Recommended cut:</b> the %d hottest of %d rows near (%s of %s); with the rows of the "
      "text itself they hold the best row in %.1f%% of positions or more.</p>\n",
      report.recommended_rows, report.vocabulary, base::FormatByteSize(hot),
      base::FormatByteSize(all), report.wanted_share * 100);
  if (model.screen_bytes > 0) {
    absl::StrAppendFormat(
        &sentence,
        "<p><b>Exact lazy head:</b> its screen takes %s of memory in place of %s, "
        "and lies in <code>%s</code>. Start with <code>--lazy-head</code>.</p>\n",
        base::FormatByteSize(model.screen_bytes), base::FormatByteSize(all),
        Escape(model.screen_file));
  }
  return sentence;
}

}  // namespace

nlohmann::json RegionsJson(const RegionReport& report, const ReportedModel& model,
                           const RowText& text) {
  nlohmann::json json = {{"model", model.name},
                         {"vocabulary", report.vocabulary},
                         {"positions", report.positions},
                         {"head_row_bytes", model.row_bytes},
                         {"recommended_rows", report.recommended_rows},
                         {"wanted_share", report.wanted_share},
                         {"hot_rows", report.hot_rows},
                         {"working_set", nlohmann::json::array()},
                         {"caches", nlohmann::json::array()},
                         {"topics", nlohmann::json::array()},
                         {"together", report.together}};
  if (model.screen_bytes > 0) {
    json["screen"] = {{"file", model.screen_file}, {"resident_bytes", model.screen_bytes}};
  }
  for (const WorkingSetPoint& p : report.working_set) {
    json["working_set"].push_back({{"positions", p.positions},
                                   {"input_rows", p.input_rows},
                                   {"first_rows", p.first_rows},
                                   {"best_rows", p.best_rows}});
  }
  for (const CachePoint& p : report.caches) {
    json["caches"].push_back({{"rows", p.rows},
                              {"first_in_hot", p.first_in_hot},
                              {"first_in_hot_or_seen", p.first_in_hot_or_seen},
                              {"mass_in_hot", p.mass_in_hot},
                              {"first_in_recent", p.first_in_recent}});
  }
  for (const partition::Topic& topic : report.topics) {
    std::vector<std::string> typical;
    for (const int32_t row : topic.typical) typical.push_back(text(row));
    json["topics"].push_back({{"name", topic.name},
                              {"positions", topic.positions},
                              {"best_rows", topic.best_rows},
                              {"typical", typical}});
  }
  return json;
}

std::string RegionsPage(const RegionReport& report, const ReportedModel& model, const RowText& text,
                        const std::string& more) {
  return absl::StrCat(
      kHead, "<h1>Regions of ", Escape(model.name), "</h1>\n<p>", report.topics.size(), " texts, ",
      report.positions, " tokens, a vocabulary of ", report.vocabulary, " rows.</p>\n",
      CutSentence(report, model),
      "<h1>The vocabulary</h1>\n<h2>Working set</h2>\n<p>Distinct rows after so many tokens, text "
      "after text: rows of the "
      "embedding that were read, rows that were the best, rows among the best 40.</p>\n",
      WorkingSetPlot(report),
      "<h2>Hit rate against cache size</h2>\n<p>How often the best row is among so many rows in "
      "memory. The hottest rows are chosen by the first half of every text, "
      "counted on the second.</p>\n",
      CachePlot(report),
      "<h2>Texts that share rows</h2>\n<p>Rows among the best 40 in both texts, in percent of "
      "those in either.</p>\n",
      LikenessTable(NamesOf(report), report.together),
      "<h2>What is typical</h2>\n<p class='note'>Rows that a text takes often and few other texts "
      "take (the largest TF-IDF). Bytes in angle brackets are parts of characters.</p>\n",
      TypicalTable(report, text), more, "</body></html>\n");
}

}  // namespace renga::cli
