#include "cli/regions_report.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/byte_size.h"

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
td:first-child, th:first-child { text-align: left } .typical td { text-align: left; vertical-align: top }
.together td, .together th { padding: 2px 3px; font-size: 11px; white-space: nowrap }
.note { color: #666 }
</style></head><body>
)";

constexpr const char* kColours[] = {"#1f6fb4", "#d1601d", "#3a8a3a", "#8d4aa8"};

std::string Escape(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

struct Line {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;
};

struct Axes {
  std::string x_name;
  std::string y_name;
  bool log_x = false;
  bool percent = false;
};

// The largest of 1, 2, 2.5 and 5 times a power of ten that divides `most` into four parts or more.
double TickDistance(double most) {
  const double power = std::pow(10, std::floor(std::log10(most / 4)));
  double distance = power;
  for (const double step : {2.0, 2.5, 5.0}) {
    if (step * power <= most / 4) distance = step * power;
  }
  return distance;
}

// Where an axis from `begin` to `end` has its numbers: evenly, or on a logarithmic one at powers of
// four.
std::vector<double> Ticks(double begin, double end, bool logarithmic) {
  std::vector<double> ticks;
  if (logarithmic) {
    for (double at = begin; at <= end; at *= 4) ticks.push_back(at);
    return ticks;
  }
  const double distance = TickDistance(end - begin);
  for (int i = 0; begin + i * distance <= end * (1 + 1e-9); ++i) {
    ticks.push_back(begin + i * distance);
  }
  return ticks;
}

// Lines over shared axes that begin at 0 (at the least x where they are logarithmic).
std::string Plot(const std::vector<Line>& lines, const Axes& axes) {
  constexpr double kWidth = 720, kHeight = 300, kLeft = 70, kRight = 190, kTop = 15, kBottom = 45;
  double most_x = 1, most_y = 1e-9, least_x = INFINITY;
  for (const Line& line : lines) {
    for (const double x : line.x) most_x = std::max(most_x, x), least_x = std::min(least_x, x);
    for (const double y : line.y) most_y = std::max(most_y, y);
  }
  if (axes.percent) most_y = 1;
  const auto along = [&](double x) { return axes.log_x ? std::log2(x) : x; };
  const double begin = axes.log_x ? along(least_x) : 0;
  const double range = std::max(along(most_x) - begin, 1e-9);
  const auto px = [&](double x) {
    return kLeft + (along(x) - begin) / range * (kWidth - kLeft - kRight);
  };
  const auto py = [&](double y) {
    return kHeight - kBottom - y / most_y * (kHeight - kTop - kBottom);
  };
  std::string svg = absl::StrFormat("<svg viewBox='0 0 %g %g' role='img'>", kWidth, kHeight);
  for (const double y : Ticks(0, most_y, false)) {
    absl::StrAppendFormat(
        &svg,
        "<line x1='%g' x2='%g' y1='%.1f' y2='%.1f' stroke='#ddd'/>"
        "<text x='%g' y='%.1f' text-anchor='end'>%s</text>",
        kLeft, kWidth - kRight, py(y), py(y), kLeft - 6, py(y) + 4,
        axes.percent ? absl::StrFormat("%.0f%%", y * 100) : absl::StrFormat("%.0f", y));
  }
  for (const double x : Ticks(axes.log_x ? least_x : 0, most_x, axes.log_x)) {
    absl::StrAppendFormat(&svg, "<text x='%.1f' y='%g' text-anchor='middle'>%.0f</text>", px(x),
                          kHeight - kBottom + 16, x);
  }
  absl::StrAppendFormat(&svg, "<text x='%g' y='%g' text-anchor='middle'>%s</text>",
                        (kLeft + kWidth - kRight) / 2, kHeight - 8, axes.x_name);
  absl::StrAppendFormat(
      &svg, "<text transform='translate(14 %g) rotate(-90)' text-anchor='middle'>%s</text>",
      (kHeight - kBottom + kTop) / 2, axes.y_name);
  for (size_t i = 0; i < lines.size(); ++i) {
    const char* const colour = kColours[i % std::size(kColours)];
    std::string points;
    for (size_t k = 0; k < lines[i].x.size(); ++k) {
      absl::StrAppendFormat(&points, "%.1f,%.1f ", px(lines[i].x[k]), py(lines[i].y[k]));
    }
    absl::StrAppendFormat(&svg,
                          "<polyline fill='none' stroke='%s' stroke-width='2' points='%s'/>"
                          "<text x='%g' y='%g' style='fill:%s'>%s</text>",
                          colour, points, kWidth - kRight + 12,
                          kTop + 14 + 18 * static_cast<double>(i), colour, lines[i].name);
  }
  return svg + "</svg>\n";
}

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

std::string TogetherTable(const RegionReport& report) {
  const size_t n = report.topics.size();
  std::string table = "<table class='together'><tr><th></th>";
  for (size_t i = 0; i < n; ++i) absl::StrAppendFormat(&table, "<th>%d</th>", i + 1);
  table += "</tr>";
  for (size_t i = 0; i < n; ++i) {
    absl::StrAppendFormat(&table, "<tr><th>%d %s</th>", i + 1, Escape(report.topics[i].name));
    for (size_t j = 0; j < n; ++j) {
      const double share = report.together[i * n + j];
      absl::StrAppendFormat(&table, "<td style='background:rgba(31,111,180,%.2f)'>%.0f</td>",
                            i == j ? 0 : std::min(1.0, share * 2), share * 100);
    }
    table += "</tr>";
  }
  return table + "</table>\n";
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

std::string RegionsPage(const RegionReport& report, const ReportedModel& model,
                        const RowText& text) {
  return absl::StrCat(
      kHead, "<h1>Regions of ", Escape(model.name), "</h1>\n<p>", report.topics.size(), " texts, ",
      report.positions, " tokens, a vocabulary of ", report.vocabulary, " rows.</p>\n",
      CutSentence(report, model),
      "<h2>Working set</h2>\n<p>Distinct rows after so many tokens, text after text: rows of the "
      "embedding that were read, rows that were the best, rows among the best 40.</p>\n",
      WorkingSetPlot(report),
      "<h2>Hit rate against cache size</h2>\n<p>How often the best row is among so many rows in "
      "memory. The hottest rows are chosen by the first half of every text, "
      "counted on the second.</p>\n",
      CachePlot(report),
      "<h2>Texts that share rows</h2>\n<p>Rows among the best 40 in both texts, in percent of "
      "those in either.</p>\n",
      TogetherTable(report),
      "<h2>What is typical</h2>\n<p class='note'>Rows that a text takes often and few other texts "
      "take (the largest TF-IDF). Bytes in angle brackets are parts of characters.</p>\n",
      TypicalTable(report, text), "</body></html>\n");
}

}  // namespace renga::cli
