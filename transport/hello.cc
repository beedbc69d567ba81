#include "transport/hello.h"

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "transport/dialer.h"

namespace renga::transport {

proto::Build ThisBuild() {
  proto::Build build;
  build.set_protocol_version(kProtocolVersion);
  build.set_build_version(std::string(BuildVersion()));
  return build;
}

absl::Status CheckBuild(const proto::Build& build, absl::string_view peer) {
  if (build.protocol_version() == kProtocolVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this is renga ", BuildVersion(), " (protocol ", kProtocolVersion, "), ", peer,
                   " is renga ", absl::CHexEscape(build.build_version().substr(0, 40)),
                   " (protocol ", build.protocol_version(), "): install the same version on both"));
}

}  // namespace renga::transport
