// Plots and tables of a report, as HTML that needs nothing else.
#ifndef RENGA_CLI_REPORT_PLOTS_H_
#define RENGA_CLI_REPORT_PLOTS_H_

#include <string>
#include <vector>

namespace renga::cli {

// Text as HTML.
std::string Escape(const std::string& text);

struct Line {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;
};

struct Axes {
  std::string x_name;
  std::string y_name;
  bool log_x = false;
  bool percent = false;    // of y, up to 100%
  bool percent_x = false;  // of x too
};

// Lines over shared axes that begin at 0 (at the least x where they are logarithmic).
std::string Plot(const std::vector<Line>& lines, const Axes& axes);

// names x names: how alike they are, 0 to 1, printed in percent.
std::string LikenessTable(const std::vector<std::string>& names,
                          const std::vector<double>& likeness);

}  // namespace renga::cli

#endif  // RENGA_CLI_REPORT_PLOTS_H_
