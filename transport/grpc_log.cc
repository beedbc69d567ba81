#include "transport/grpc_log.h"

#include <grpc/support/log.h>

#include "base/log.h"

namespace renga::transport {

void RouteGrpcLog() {
  gpr_set_log_function([](gpr_log_func_args* args) {
    RENGA_LOG(DEBUG) << "grpc " << args->file << ":" << args->line << ": " << args->message;
  });
}

}  // namespace renga::transport
