// The face: an HTTP server that speaks OpenAI's API.
//
//   GET  /v1/models, /v1/models/NAME
//   POST /v1/completions, /v1/chat/completions   streaming (server-sent events) or not
//   GET  /health                                 200 when requests can be served, else 503
//   GET  /renga/status                           JSON of the caller's making
//   GET  /metrics                                Prometheus text
//
// Plain HTTP, on loopback unless asked otherwise. With a key, everything but /health wants it.
// Bounded: connections, requests under way (more get 429), bytes of a request, depth of its JSON,
// the time a request may take to arrive and a client to read. A client that goes away ends its
// request. Errors are OpenAI's JSON with the fitting status code.
#ifndef RENGA_COORDINATOR_HTTP_OPENAI_SERVER_H_
#define RENGA_COORDINATOR_HTTP_OPENAI_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/serving/text_engine.h"
#include "nlohmann/json_fwd.hpp"

namespace renga::http {

struct OpenAiServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;               // 0: any free one
  std::string model_name = {};   // as /v1/models says; requests for another get 404
  std::string api_key = {};      // empty: none is wanted
  std::string cors_origin = {};  // pages from there may use the server; "*": all; empty: none
  int64_t max_concurrent = 64;
  int64_t max_body_bytes = int64_t{8} << 20;
  absl::Duration request_timeout = absl::InfiniteDuration();
  // The next two run on connection threads, several at a time.
  std::function<nlohmann::json()> status = nullptr;  // nullptr: /renga/status is 404
  std::function<absl::Status()> health = nullptr;    // nullptr: always healthy
};

// Thread-safe.
class OpenAiServer {
 public:
  // Listens when it returns. `engine` outlives the server. kInvalidArgument when the host is no
  // address of this machine, kFailedPrecondition when the port is taken or not allowed.
  static absl::StatusOr<std::unique_ptr<OpenAiServer>> Start(const OpenAiServerOptions& options,
                                                             serving::TextEngine* engine);
  virtual ~OpenAiServer() = default;  // Stop()

  virtual int port() const = 0;
  // Ends requests under way and closes every connection.
  virtual void Stop() = 0;
};

}  // namespace renga::http

#endif  // RENGA_COORDINATOR_HTTP_OPENAI_SERVER_H_
