// What `renga regions` found of feed-forward neurons, as JSON and as a part of its page.
#ifndef RENGA_CLI_NEURONS_REPORT_H_
#define RENGA_CLI_NEURONS_REPORT_H_

#include <cstdint>
#include <string>

#include "nlohmann/json.hpp"
#include "partition/neurons.h"

namespace renga::cli {

nlohmann::json NeuronsJson(const partition::NeuronReport& report);
// `bytes`: of the matrices of all feed-forwards, in the file.
std::string NeuronsSection(const partition::NeuronReport& report, int64_t bytes);

}  // namespace renga::cli

#endif  // RENGA_CLI_NEURONS_REPORT_H_
