// A test binary that has this among its sources keeps gRPC up until its last test has ended, and
// then waits for gRPC's threads.
#include <gtest/gtest.h>

#include <memory>

#include "transport/grpc_process.h"

namespace renga::transport {
namespace {

class GrpcEnvironment : public ::testing::Environment {
 public:
  void SetUp() override { process_ = std::make_unique<GrpcProcess>(); }
  void TearDown() override { process_.reset(); }

 private:
  std::unique_ptr<GrpcProcess> process_;
};

[[maybe_unused]] const auto* const kEnvironment =
    ::testing::AddGlobalTestEnvironment(new GrpcEnvironment);

}  // namespace
}  // namespace renga::transport
