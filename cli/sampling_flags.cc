#include "cli/sampling_flags.h"

namespace renga::cli {

// Ranges are checked by the sampler, which says what is wrong in one sentence.
void AddSamplingFlags(CLI::App& command, serving::SamplingParams& params) {
  command.add_option("--temperature", params.temperature, "0 always takes the best token")
      ->capture_default_str();
  command.add_option("--top-k", params.top_k, "Draw from this many best tokens; 0: no limit")
      ->capture_default_str();
  command.add_option("--top-p", params.top_p, "Draw from the best tokens with this probability")
      ->capture_default_str();
  command.add_option("--min-p", params.min_p, "Drop tokens less probable than this share of the best")
      ->capture_default_str();
  command.add_option("--repetition-penalty", params.repetition_penalty, "1: none")
      ->capture_default_str();
  command.add_option("--presence-penalty", params.presence_penalty, "0: none")
      ->capture_default_str();
  command.add_option("--frequency-penalty", params.frequency_penalty, "0: none")
      ->capture_default_str();
  command.add_option("--seed", params.seed, "The same seed draws the same tokens")
      ->capture_default_str();
}

}  // namespace renga::cli
