// renga status: who is in the cluster, what they hold, where the time goes.
#include <cstdio>
#include <memory>
#include <string>

// httplib.h defines what it needs of OpenSSL itself; plain HTTP is all that is used here.
#include "httplib.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "cli/command.h"
#include "nlohmann/json.hpp"
#include "transport/dialer.h"

namespace renga::cli {
namespace {

struct StatusFlags {
  std::string http = "127.0.0.1:8080";
  std::string api_key;
  bool json = false;
};

absl::StatusOr<nlohmann::json> FetchStatus(const StatusFlags& flags) {
  RENGA_ASSIGN_OR_RETURN(const transport::HostPort address, transport::ParseHostPort(flags.http));
  httplib::Client client(address.host, address.port);
  client.set_connection_timeout(5);
  client.set_read_timeout(5);
  httplib::Headers headers;
  if (!flags.api_key.empty()) headers.emplace("Authorization", "Bearer " + flags.api_key);
  const httplib::Result result = client.Get("/renga/status", headers);
  if (!result) {
    return absl::UnavailableError(absl::StrCat(
        "nobody answers at ", flags.http, ": is `renga up` or `renga serve` running there (--http)?"));
  }
  if (result->status != 200) {
    return absl::UnavailableError(
        absl::StrCat(flags.http, " answered with HTTP status ", result->status));
  }
  nlohmann::json status = nlohmann::json::parse(result->body, nullptr, /*allow_exceptions=*/false);
  if (!status.is_object()) {
    return absl::UnavailableError(absl::StrCat(flags.http, " is not a renga coordinator"));
  }
  return status;
}

std::string RangeText(const nlohmann::json& range) {
  if (!range.is_array() || range.size() != 2) return "-";
  return absl::StrCat(range[0].get<int64_t>(), "-", range[1].get<int64_t>() - 1);
}

void PrintWorker(const nlohmann::json& worker) {
  std::printf("%-16s %-8s %-22s %-9s %-15s %10s / %-10s %8.1f  %s\n",
              worker.value("name", "").c_str(), worker.value("state", "").c_str(),
              worker.value("address", "").c_str(),
              RangeText(worker.value("layers", nlohmann::json())).c_str(),
              RangeText(worker.value("head_rows", nlohmann::json())).c_str(),
              base::FormatByteSize(worker.value("used_bytes", int64_t{0})).c_str(),
              base::FormatByteSize(worker.value("offered_bytes", int64_t{0})).c_str(),
              worker.value("compute_ms_per_step", 0.0), worker.value("path", "").c_str());
}

absl::Status PrintStatus(const StatusFlags& flags) {
  RENGA_ASSIGN_OR_RETURN(const nlohmann::json status, FetchStatus(flags));
  if (flags.json) {
    std::printf("%s\n", status.dump().c_str());
    return absl::OkStatus();
  }
  // A peer's JSON may lack or mistype anything: nlohmann throws then.
  try {
    std::printf("%s: %s (epoch %llu)\n%s\n", status.value("model", "?").c_str(),
                status.value("state", "?").c_str(),
                static_cast<unsigned long long>(status.value("epoch", uint64_t{0})),
                status.value("message", "").c_str());
    std::printf("%-16s %-8s %-22s %-9s %-15s %10s / %-10s %8s  %s\n", "worker", "state", "address",
                "layers", "head rows", "used", "offered", "ms/step", "path");
    for (const nlohmann::json& worker : status.value("workers", nlohmann::json::array())) {
      PrintWorker(worker);
    }
    std::printf("network and waiting: %.2f ms per step\n",
                status.value("network_ms_per_step", 0.0));
  } catch (const nlohmann::json::exception& error) {
    return absl::UnavailableError(
        absl::StrCat(flags.http, " sent a status that can't be read: ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace

void AddStatusCommand(CLI::App& app, Invocation& invocation) {
  auto flags = std::make_shared<StatusFlags>();
  CLI::App* command =
      app.add_subcommand("status", "Show the cluster that `renga up` or `renga serve` runs");
  command->footer("Example:\n  renga status --http 127.0.0.1:8080");
  command->add_option("--http", flags->http, "HOST:PORT of the coordinator's HTTP side")
      ->capture_default_str();
  command->add_option("--api-key", flags->api_key, "Key, if the server wants one")
      ->envname("RENGA_API_KEY");
  command->add_flag("--json", flags->json, "Print the status as JSON");
  command->callback(
      [flags, &invocation] { invocation.action = [flags] { return PrintStatus(*flags); }; });
}

}  // namespace renga::cli
