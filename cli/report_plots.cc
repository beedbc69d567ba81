#include "cli/report_plots.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace renga::cli {
namespace {

constexpr const char* kColours[] = {"#1f6fb4", "#d1601d", "#3a8a3a", "#8d4aa8"};

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

}  // namespace

std::string Escape(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

std::string Plot(const std::vector<Line>& lines, const Axes& axes) {
  constexpr double kWidth = 720, kHeight = 300, kLeft = 70, kRight = 190, kTop = 15, kBottom = 45;
  double most_x = axes.percent_x ? 1e-9 : 1, most_y = 1e-9, least_x = INFINITY;
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
    absl::StrAppendFormat(&svg, "<text x='%.1f' y='%g' text-anchor='middle'>%.0f%s</text>", px(x),
                          kHeight - kBottom + 16, axes.percent_x ? x * 100 : x,
                          axes.percent_x ? "%" : "");
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

std::string LikenessTable(const std::vector<std::string>& names,
                          const std::vector<double>& likeness) {
  const size_t n = names.size();
  std::string table = "<table class='together'><tr><th></th>";
  for (size_t i = 0; i < n; ++i) absl::StrAppendFormat(&table, "<th>%d</th>", i + 1);
  table += "</tr>";
  for (size_t i = 0; i < n; ++i) {
    absl::StrAppendFormat(&table, "<tr><th>%d %s</th>", i + 1, Escape(names[i]));
    for (size_t j = 0; j < n; ++j) {
      const double share = likeness[i * n + j];
      absl::StrAppendFormat(&table, "<td style='background:rgba(31,111,180,%.2f)'>%.0f</td>",
                            i == j ? 0 : std::min(1.0, share * 2), share * 100);
    }
    table += "</tr>";
  }
  return table + "</table>\n";
}

}  // namespace renga::cli
