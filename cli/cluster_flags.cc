#include "cli/cluster_flags.h"

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace renga::cli {

void AddVerbosityFlags(CLI::App& command, bool& quiet, bool& verbose) {
  command.add_flag("-q,--quiet", quiet, "Print nothing but the answer and errors");
  command.add_flag("-v,--verbose", verbose, "Print what happens inside");
}

void ApplyVerbosity(bool quiet, bool verbose) {
  if (quiet) base::SetLogThreshold(base::LogSeverity::kError);
  if (verbose) base::SetLogThreshold(base::LogSeverity::kInfo);
}

void AddClusterFlags(CLI::App& command, ClusterFlags& flags) {
  command.add_option("model", flags.model, "GGUF file")->required();
  command
      .add_option("--workers", flags.workers,
                  "Start this many local worker processes (default: compute in this process)")
      ->check(CLI::Range(0, 256));
  command
      .add_option("-t,--threads", flags.threads,
                  "Threads of each worker (default: all CPUs, shared out)")
      ->check(CLI::Range(1, 1024));
  command.add_option("--memory", flags.devices.memory,
                     "Memory each worker offers, e.g. 500MiB (default: what is available)");
  AddDeviceFlags(command, flags.devices);
  AddPlanFlags(command, flags.plan, /*with_sequences=*/false);
  AddApproximationFlags(command, flags.plan.approximation);
  AddDraftModelFlag(command, flags.plan);
  AddPackedCacheFlag(command, flags.keep_packed);
  AddLazyHeadFlag(command, flags.lazy_head,
                  "where the model would not fit otherwise, of local workers");
  AddVerbosityFlags(command, flags.quiet, flags.verbose);
}

void AddListenFlag(CLI::App& command, ClusterFlags& flags) {
  command.add_option("--listen", flags.listen,
                     "HOST:PORT: wait there for --workers that join from elsewhere, with the line "
                     "that is printed, instead of starting them");
}

void AddLazyHeadFlag(CLI::App& command, std::optional<bool>& lazy_head,
                     const std::string& otherwise) {
  command.add_flag_function(
      "--lazy-head,!--no-lazy-head", [&lazy_head](int64_t count) { lazy_head = count > 0; },
      absl::StrCat("Leave the output matrix on disk and read only rows that can matter, with the "
                   "screen that `renga regions` has built; the answer is the same (default: ",
                   otherwise, ")"));
}

void AddPackedCacheFlag(CLI::App& command, bool& keep_packed) {
  command.add_flag("--packed-cache,!--no-packed-cache", keep_packed,
                   "Keep the weights on disk as the device wants them: the next start takes them "
                   "as they are (default: yes)");
}

}  // namespace renga::cli
