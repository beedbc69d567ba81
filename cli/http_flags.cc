#include "cli/http_flags.h"

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "cli/lan_address.h"
#include "cli/status_json.h"

namespace renga::cli {

void AddHttpFlags(CLI::App& command, HttpFlags& flags) {
  command.add_option("--http", flags.address, "HOST:PORT of the OpenAI-compatible server")
      ->capture_default_str();
  command.add_option("--api-key", flags.api_key, "Clients must send this key")
      ->envname("RENGA_API_KEY");
}

absl::StatusOr<std::unique_ptr<http::OpenAiServer>> StartHttp(const HttpFlags& flags,
                                                              const std::string& model_path,
                                                              Coordinator& coordinator) {
  RENGA_ASSIGN_OR_RETURN(const transport::HostPort address,
                         transport::ParseHostPort(flags.address));
  http::OpenAiServerOptions options;
  options.host = address.host;
  options.port = address.port;
  options.api_key = flags.api_key;
  options.model_name = std::filesystem::path(model_path).stem().string();
  options.status = [&coordinator] {
    nlohmann::json status = ToJson(coordinator.manager().Status());
    status["speculation"] = SpeculationJson(coordinator.scheduler().Stats());
    return status;
  };
  options.health = [&coordinator] { return coordinator.manager().CurrentPipeline().status(); };
  return http::OpenAiServer::Start(options, &coordinator.text());
}

absl::StatusOr<std::string> ChatUrl(const HttpFlags& flags, const http::OpenAiServer& server) {
  RENGA_ASSIGN_OR_RETURN(const transport::HostPort address,
                         transport::ParseHostPort(flags.address));
  std::string host = ReachableHost(address.host);
  if (absl::StrContains(host, ':')) host = absl::StrCat("[", host, "]");
  // Port 0 asks for any free one.
  return absl::StrCat("http://", host, ":", server.port(), "/v1");
}

}  // namespace renga::cli
