// Flags that choose how the next token is drawn.
#ifndef RENGA_CLI_SAMPLING_FLAGS_H_
#define RENGA_CLI_SAMPLING_FLAGS_H_

#include "CLI/App.hpp"
#include "coordinator/serving/sampler.h"

namespace renga::cli {

// Adds --temperature, --top-k, --top-p, --min-p, the penalties and --seed.
void AddSamplingFlags(CLI::App& command, serving::SamplingParams& params);

}  // namespace renga::cli

#endif  // RENGA_CLI_SAMPLING_FLAGS_H_
