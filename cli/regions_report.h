// What `renga regions` found, as JSON and as one web page that needs nothing else.
#ifndef RENGA_CLI_REGIONS_REPORT_H_
#define RENGA_CLI_REGIONS_REPORT_H_

#include <functional>
#include <string>

#include "nlohmann/json.hpp"
#include "partition/regions.h"

namespace renga::cli {

// A row's text, for people.
using RowText = std::function<std::string(int32_t row)>;

struct ReportedModel {
  std::string name;
  int64_t row_bytes = 0;     // of the output matrix
  int64_t screen_bytes = 0;  // in memory, of its screen; 0: none was built
  std::string screen_file;
};

nlohmann::json RegionsJson(const partition::RegionReport& report, const ReportedModel& model,
                           const RowText& text);
// `more` is HTML that comes at the end.
std::string RegionsPage(const partition::RegionReport& report, const ReportedModel& model,
                        const RowText& text, const std::string& more);

}  // namespace renga::cli

#endif  // RENGA_CLI_REGIONS_REPORT_H_
