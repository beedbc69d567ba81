// The OpenAI-compatible server as `up` and `serve` start it.
#ifndef RENGA_CLI_HTTP_FLAGS_H_
#define RENGA_CLI_HTTP_FLAGS_H_

#include <memory>
#include <string>

#include "CLI/App.hpp"
#include "absl/status/statusor.h"
#include "cli/coordinator.h"
#include "coordinator/http/openai_server.h"

namespace renga::cli {

struct HttpFlags {
  std::string address = "127.0.0.1:8080";
  std::string api_key;
};

void AddHttpFlags(CLI::App& command, HttpFlags& flags);

// Serves `coordinator`, which must outlive the server.
absl::StatusOr<std::unique_ptr<http::OpenAiServer>> StartHttp(const HttpFlags& flags,
                                                              const std::string& model_path,
                                                              Coordinator& coordinator);

// What clients of `server` are given: http://HOST:PORT/v1, reachable from where it listens.
absl::StatusOr<std::string> ChatUrl(const HttpFlags& flags, const http::OpenAiServer& server);

}  // namespace renga::cli

#endif  // RENGA_CLI_HTTP_FLAGS_H_
