// Flags of every command that runs a model on this machine: `run`, `serve`, `bench`, `logits`,
// `perplexity`.
#ifndef RENGA_CLI_CLUSTER_FLAGS_H_
#define RENGA_CLI_CLUSTER_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "CLI/App.hpp"
#include "cli/device_flags.h"
#include "cli/plan_flags.h"

namespace renga::cli {

struct ClusterFlags {
  std::string model;
  int workers = 0;  // 0: in this process; else that many worker processes
  // Not empty: no worker is started here; `workers` are waited for at this HOST:PORT. Only commands
  // that have the flag set it.
  std::string listen;
  int threads = 0;      // of each worker; 0: all CPUs, shared out over the workers
  DeviceFlags devices;  // memory: of each worker; "": what is available, shared out
  PlanFlags plan;
  bool keep_packed = true;  // matrices as the device wants them, on disk
  // Rows of the output matrix stay on disk, behind a screen. nullopt: where the model fits only so.
  std::optional<bool> lazy_head = std::nullopt;
  bool quiet = false;
  bool verbose = false;
};

// Adds the model argument and the flags.
void AddClusterFlags(CLI::App& command, ClusterFlags& flags);
// --listen.
void AddListenFlag(CLI::App& command, ClusterFlags& flags);
// --packed-cache: whether packed matrices are kept on disk.
void AddPackedCacheFlag(CLI::App& command, bool& keep_packed);
// --lazy-head: whether rows of the output matrix stay on disk. `otherwise` says what happens
// without either flag.
void AddLazyHeadFlag(CLI::App& command, std::optional<bool>& lazy_head,
                     const std::string& otherwise);
// --quiet and --verbose: what the log and progress show.
void AddVerbosityFlags(CLI::App& command, bool& quiet, bool& verbose);
void ApplyVerbosity(bool quiet, bool verbose);

}  // namespace renga::cli

#endif  // RENGA_CLI_CLUSTER_FLAGS_H_
