#include "transport/grpc_process.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/log.h"

namespace renga::transport {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(1);
constexpr absl::Duration kLongestWait = absl::Seconds(1);

}  // namespace

GrpcProcess::GrpcProcess() {
  gpr_set_log_function([](gpr_log_func_args* args) {
    RENGA_LOG(DEBUG) << "grpc " << args->file << ":" << args->line << ": " << args->message;
  });
  grpc_init();
}

GrpcProcess::~GrpcProcess() {
  grpc_shutdown_blocking();
  // A connection that has just failed holds gRPC up for about a tenth of a second more, and nothing
  // tells when it lets go.
  for (absl::Duration waited; grpc_is_initialized() != 0 && waited < kLongestWait; waited += kPoll)
    absl::SleepFor(kPoll);
}

}  // namespace renga::transport
