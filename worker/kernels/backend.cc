#include "worker/kernels/backend.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/kernels/group_agreement.h"

namespace renga::kernels {

absl::Status Backend::RmsNormLinear(ConstRowsView in, const float* weight, float epsilon,
                                    RowsView normed, std::span<const LinearOutput> outputs) {
  RENGA_RETURN_IF_ERROR(RmsNorm(in, weight, epsilon, normed));
  return Linear(normed, outputs);
}

absl::Status Backend::SiluGateLinear(ConstRowsView gate, ConstRowsView up, RowsView gated,
                                     std::span<const LinearOutput> outputs) {
  RENGA_RETURN_IF_ERROR(SiluGate(gate, up, gated));
  return Linear(gated, outputs);
}

absl::Status Backend::GeluGate(ConstRowsView /*gate*/, ConstRowsView /*up*/, RowsView /*out*/) {
  return absl::UnimplementedError(absl::StrCat("the device path ", path_name(),
                                               " does not compute gates of GELU, which this "
                                               "model needs; run it on a CPU worker"));
}

absl::StatusOr<std::unique_ptr<base::Communicator>> Backend::JoinDeviceGroup(
    base::Communicator& others) {
  RENGA_RETURN_IF_ERROR(
      AgreeInGroup(others, absl::UnimplementedError(absl::StrCat("devices of the path ",
                                                                 path_name(), " have no groups"))));
  return absl::InternalError("a group agreed on what this member cannot do");
}

}  // namespace renga::kernels
