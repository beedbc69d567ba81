// What `renga regions` found of a mixture's experts, as JSON and as a part of its page.
#ifndef RENGA_CLI_EXPERTS_REPORT_H_
#define RENGA_CLI_EXPERTS_REPORT_H_

#include <cstdint>
#include <string>

#include "nlohmann/json.hpp"
#include "partition/expert_usage.h"

namespace renga::cli {

// Of the layers' matrices, in the file.
struct MixtureBytes {
  int64_t experts = 0;  // of all layers
  int64_t others = 0;   // what every token reads
};

nlohmann::json ExpertsJson(const partition::ExpertReport& report, const MixtureBytes& bytes);
std::string ExpertsSection(const partition::ExpertReport& report, const MixtureBytes& bytes);

}  // namespace renga::cli

#endif  // RENGA_CLI_EXPERTS_REPORT_H_
