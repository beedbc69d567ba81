// Worker processes started by this process, for clusters on one machine.
#ifndef RENGA_CLI_CHILD_PROCESS_H_
#define RENGA_CLI_CHILD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace renga::cli {

// A running child that dies with its parent. Its standard output goes to our standard error, so
// that it can't mix with the command's answer.
class ChildProcess {
 public:
  // Runs `path` with `arguments` (argv[0] not among them); `environment` holds "NAME=value" pairs
  // set on top of ours.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(
      const std::string& path, const std::vector<std::string>& arguments,
      const std::vector<std::string>& environment);
  // Asks the child to end, waits up to 5 s, then kills it.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  // Asks the child to end; the destructor waits. Ends several children side by side.
  void Terminate();
  // True until the child has ended by itself.
  bool Running();

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_;
  bool reaped_ = false;
};

// The path of the running executable.
absl::StatusOr<std::string> OwnExecutablePath();

}  // namespace renga::cli

#endif  // RENGA_CLI_CHILD_PROCESS_H_
