// Flags that turn approximate modes on, and what is known of their cost.
#ifndef RENGA_CLI_APPROXIMATION_FLAGS_H_
#define RENGA_CLI_APPROXIMATION_FLAGS_H_

#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/cluster/model_store.h"
#include "coordinator/serving/divergence.h"
#include "model/approximation.h"
#include "model/model_config.h"

namespace renga::cli {

struct ApproximationFlags {
  std::vector<std::string> modes;  // "late-slice=25%"
  std::string at_most;             // "20%"; empty: no cap
  std::string regions;             // JSON of `renga regions`; empty: none

  bool exact() const { return modes.empty(); }
};

// Adds --regions.
void AddRegionsFlag(CLI::App& command, ApproximationFlags& flags);

// Adds --approximate, --approximate-at-most and --regions.
void AddApproximationFlags(CLI::App& command, ApproximationFlags& flags);

// kInvalidArgument for a mode or a share that there is none of, and for a report of another model;
// errors of reading it.
absl::StatusOr<model::Approximation> ToApproximation(const ApproximationFlags& flags,
                                                     const model::ModelConfig& config);

// As many rows of the vocabulary as `share` ("25%") says: first those of the report of `renga
// regions` at `regions` (empty: none), most used first, then in the file's order. Ascending.
// kInvalidArgument for what is no share, and for a report of another model; errors of reading it.
absl::StatusOr<model::RowSet> ParseHotRows(absl::string_view share, const std::string& regions,
                                           int64_t vocab_size);

// What a measured cost is kept under: the flags in one order.
std::string ApproximationName(const ApproximationFlags& flags);

// Keeps what `renga perplexity` has measured on this machine, for each model and mode the newest.
absl::Status SaveApproximationCost(const cluster::ModelStore& store,
                                   const ApproximationFlags& flags, const serving::Divergence& cost,
                                   const std::string& text);

// For people, on standard error: what memory layers that are left out and cold neurons save.
// Nothing without either.
void SayWhatIsSaved(const cluster::ModelStore& store, const ApproximationFlags& flags);

// For people, on standard error, unless nothing is approximated: what memory is saved where that is
// the aim, and the cost that was kept, or the command that measures it.
void SayApproximationCost(const cluster::ModelStore& store, const ApproximationFlags& flags,
                          const std::string& model_path);

}  // namespace renga::cli

#endif  // RENGA_CLI_APPROXIMATION_FLAGS_H_
