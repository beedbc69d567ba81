#include "coordinator/http/openai_server.h"

#include <atomic>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "coordinator/http/answer_channel.h"
#include "coordinator/http/api_error.h"
#include "coordinator/http/completion_request.h"
#include "coordinator/http/completion_response.h"
#include "coordinator/http/listener.h"
#include "coordinator/http/metrics.h"
#include "nlohmann/json.hpp"

namespace renga::http {
namespace {

// How often a thread that waits for tokens looks whether its client is still there.
constexpr absl::Duration kClientCheckInterval = absl::Milliseconds(100);
// A stream begins this long after its request, if nothing has gone wrong by then: what goes wrong
// earlier can still be told by a status code.
constexpr absl::Duration kStreamPatience = absl::Seconds(1);
// Connections that are idle, or ask for anything but a completion.
constexpr size_t kSpareConnections = 32;
// Of a request, beside its body.
constexpr int64_t kHeaderBytes = int64_t{64} << 10;
constexpr const char* kCompletionsPath = "/v1/completions";
constexpr const char* kChatPath = "/v1/chat/completions";
// Of a model's name that a client made up.
constexpr size_t kMaxShownName = 200;

// Equal in a time that does not tell how much of them is.
bool SameSecret(absl::string_view a, absl::string_view b) {
  unsigned char difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i] ^ (i < b.size() ? b[i] : '\0'));
  }
  return difference == 0;
}

void Reply(httplib::Response& response, int http_status, const nlohmann::json& body) {
  response.status = http_status;
  response.set_content(Dump(body), "application/json");
}

// A request that ends with an error may have a body that nobody read.
void ReplyAndClose(httplib::Response& response, int http_status, const nlohmann::json& error) {
  Reply(response, http_status, error);
  response.set_header("Connection", "close");
  if (Connection::Current() != nullptr) Connection::Current()->CloseAfterResponse();
}

void ReplyError(httplib::Response& response, int http_status, absl::string_view message) {
  ReplyAndClose(response, http_status, ErrorJson(http_status, message));
}

void ReplyError(httplib::Response& response, const absl::Status& status) {
  ReplyAndClose(response, HttpStatus(status), ErrorJson(status));
}

// Of a request whose headers were read: 0 when its body may be, too, else why not. The library
// would inflate compressed bodies without bound, and wait for one that was never announced.
int RefuseBody(const httplib::Request& request, int64_t max_bytes) {
  if (request.method == "GET" || request.method == "HEAD" || request.method == "OPTIONS") return 0;
  const bool known = request.path == kCompletionsPath || request.path == kChatPath;
  if (!known || request.method != "POST") return 404;
  const std::string encoding = request.get_header_value("Content-Encoding");
  if (!encoding.empty() && !absl::EqualsIgnoreCase(encoding, "identity")) return 415;
  if (request.has_header("Transfer-Encoding")) return 0;  // the connection counts its bytes
  if (!request.has_header("Content-Length")) return 411;
  uint64_t bytes = 0;
  if (!absl::SimpleAtoi(request.get_header_value("Content-Length"), &bytes)) return 400;
  return bytes > static_cast<uint64_t>(max_bytes) ? 413 : 0;
}

// Of errors that have nothing to do with what was asked for.
const char* HttpErrorMessage(int http_status) {
  switch (http_status) {
    case 404:
      return "there is nothing at this path";
    case 411:
      return "the request has no Content-Length";
    case 413:
      return "the request is too large";
    case 415:
      return "the request's body is compressed, which this server does not read";
    default:
      return "the request can't be read";
  }
}

// One server-sent event.
std::string Event(const nlohmann::json& data) { return absl::StrCat("data: ", Dump(data), "\n\n"); }

class Server : public OpenAiServer {
 public:
  Server(const OpenAiServerOptions& options, serving::TextEngine* engine)
      : options_(options),
        engine_(engine),
        started_(absl::ToUnixSeconds(absl::Now())),
        listener_({.max_request_bytes = options.max_body_bytes + kHeaderBytes},
                  static_cast<size_t>(options.max_concurrent) + kSpareConnections) {
    AddHooks();
    AddRoutes();
  }
  ~Server() override { Stop(); }

  absl::Status Listen() { return listener_.Listen(options_.host, options_.port); }
  int port() const override { return listener_.port(); }
  void Stop() override;

 private:
  // One of the max_concurrent requests under way.
  class Slot {
   public:
    explicit Slot(std::atomic<int64_t>* under_way) : under_way_(under_way) {}
    ~Slot() { under_way_->fetch_sub(1); }
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;

   private:
    std::atomic<int64_t>* const under_way_;
  };

  // A request that the scheduler works on, from its start to the last byte of its answer.
  struct Exchange {
    std::unique_ptr<Slot> slot;
    CompletionRequest request;
    std::optional<ResponseWriter> writer;
    AnswerChannel channel;
    bool begun = false;  // streaming: something was written
    bool ended = false;  // streaming: everything was written
  };

  void AddHooks();  // what happens around every request
  void AddRoutes();
  httplib::Server::HandlerResponse CheckAccess(const httplib::Request& request,
                                               httplib::Response& response);
  void AddCorsHeaders(httplib::Response& response) const;
  nlohmann::json ModelJson() const;
  absl::Status NoSuchModel(absl::string_view name) const;

  void Complete(const httplib::Request& request, httplib::Response& response, Endpoint endpoint);
  std::unique_ptr<Slot> TakeSlot();
  absl::StatusOr<std::shared_ptr<Exchange>> Begin(const httplib::Request& request,
                                                  Endpoint endpoint);
  absl::StatusOr<std::vector<serving::TokenId>> Encode(const CompletionRequest& request) const;
  // Waits until the answer is done, or for `patience` if something has come by then. kCancelled:
  // the client left or the server stops.
  absl::Status AwaitAnswer(Exchange& exchange, absl::Duration patience) const;
  void ReplyWhole(Exchange& exchange, httplib::Response& response) const;
  void ReplyStream(std::shared_ptr<Exchange> exchange, httplib::Response& response) const;
  bool WriteStream(Exchange& exchange, httplib::DataSink& sink) const;
  std::string StreamEnd(Exchange& exchange,
                        const absl::StatusOr<serving::GenerateResult>& result) const;

  const OpenAiServerOptions options_;
  serving::TextEngine* const engine_;
  const int64_t started_;
  std::atomic<bool> stopping_ = false;
  std::atomic<int64_t> under_way_ = 0;
  RequestCounter counter_;
  Listener listener_;
};

void Server::Stop() {
  stopping_.store(true);
  listener_.Close();
}

void Server::AddHooks() {
  using httplib::Request;
  using httplib::Response;
  listener_.set_payload_max_length(static_cast<size_t>(options_.max_body_bytes));
  listener_.set_pre_routing_handler([this](const Request& request, Response& response) {
    const auto handled = CheckAccess(request, response);
    if (handled == httplib::Server::HandlerResponse::Handled) return handled;
    const int refusal = RefuseBody(request, options_.max_body_bytes);
    if (refusal == 0) return handled;
    ReplyError(response, refusal, HttpErrorMessage(refusal));
    return httplib::Server::HandlerResponse::Handled;
  });
  // Errors of the library itself: no such route, a body too large, a request it can't read.
  listener_.set_error_handler(
      httplib::Server::HandlerWithResponse([this](const Request& request, Response& response) {
        if (response.body.empty()) {
          ReplyError(response, response.status, HttpErrorMessage(response.status));
        }
        counter_.Count("error", response.status);
        return httplib::Server::HandlerResponse::Handled;
      }));
  listener_.set_exception_handler(
      [](const Request&, Response& response, const std::exception_ptr&) {
        ReplyError(response, 500, "the server failed to handle the request");
      });
}

void Server::AddRoutes() {
  using httplib::Request;
  using httplib::Response;
  listener_.Get("/health", [this](const Request&, Response& response) {
    const absl::Status status = options_.health ? options_.health() : absl::OkStatus();
    if (status.ok()) return Reply(response, 200, {{"status", "ok"}});
    Reply(response, 503, {{"status", "unavailable"}, {"message", std::string(status.message())}});
  });
  listener_.Get("/v1/models", [this](const Request&, Response& response) {
    Reply(response, 200, {{"object", "list"}, {"data", nlohmann::json::array({ModelJson()})}});
  });
  listener_.Get(R"(/v1/models/(.+))", [this](const Request& request, Response& response) {
    if (request.matches[1].str() == options_.model_name) return Reply(response, 200, ModelJson());
    ReplyError(response, NoSuchModel(request.matches[1].str()));
  });
  listener_.Get("/metrics", [this](const Request&, Response& response) {
    response.set_content(MetricsText(counter_, engine_->scheduler().Stats()),
                         "text/plain; version=0.0.4");
  });
  if (options_.status) {
    listener_.Get("/renga/status", [this](const Request&, Response& response) {
      Reply(response, 200, options_.status());
    });
  }
  listener_.Post(kCompletionsPath, [this](const Request& request, Response& response) {
    Complete(request, response, Endpoint::kCompletions);
  });
  listener_.Post(kChatPath, [this](const Request& request, Response& response) {
    Complete(request, response, Endpoint::kChat);
  });
}

void Server::AddCorsHeaders(httplib::Response& response) const {
  if (options_.cors_origin.empty()) return;
  response.set_header("Access-Control-Allow-Origin", options_.cors_origin);
  response.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type");
  response.set_header("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
}

httplib::Server::HandlerResponse Server::CheckAccess(const httplib::Request& request,
                                                     httplib::Response& response) {
  using httplib::Server;
  AddCorsHeaders(response);
  if (request.method == "OPTIONS" && !options_.cors_origin.empty()) {
    response.status = 204;
    return Server::HandlerResponse::Handled;
  }
  if (options_.api_key.empty() || request.path == "/health") {
    return Server::HandlerResponse::Unhandled;
  }
  const std::string given = request.get_header_value("Authorization");
  if (SameSecret(absl::StrCat("Bearer ", options_.api_key), given)) {
    return Server::HandlerResponse::Unhandled;
  }
  ReplyError(response, 401,
             given.empty() ? "this server wants an API key: Authorization: Bearer KEY"
                           : "the API key is not the right one");
  return Server::HandlerResponse::Handled;
}

nlohmann::json Server::ModelJson() const {
  return {{"id", options_.model_name},
          {"object", "model"},
          {"created", started_},
          {"owned_by", "renga"}};
}

absl::Status Server::NoSuchModel(absl::string_view name) const {
  return absl::NotFoundError(absl::StrCat("there is no model ", name.substr(0, kMaxShownName),
                                          " here; the one served is ", options_.model_name));
}

std::unique_ptr<Server::Slot> Server::TakeSlot() {
  if (under_way_.fetch_add(1) >= options_.max_concurrent) {
    under_way_.fetch_sub(1);
    return nullptr;
  }
  return std::make_unique<Slot>(&under_way_);
}

absl::StatusOr<std::vector<serving::TokenId>> Server::Encode(
    const CompletionRequest& request) const {
  if (const auto* text = std::get_if<std::string>(&request.prompt)) {
    return engine_->EncodePrompt(*text);
  }
  if (const auto* messages = std::get_if<std::vector<model::ChatMessage>>(&request.prompt)) {
    return engine_->EncodeChat(*messages);
  }
  return std::get<std::vector<serving::TokenId>>(request.prompt);
}

absl::StatusOr<std::shared_ptr<Server::Exchange>> Server::Begin(const httplib::Request& request,
                                                                Endpoint endpoint) {
  auto exchange = std::make_shared<Exchange>();
  exchange->slot = TakeSlot();
  if (exchange->slot == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("too many requests: ", options_.max_concurrent,
                                                     " are under way; try again later"));
  }
  std::random_device random;
  const auto random64 = [&random] { return uint64_t{random()} << 32 | random(); };
  RENGA_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(request.body));
  RENGA_ASSIGN_OR_RETURN(exchange->request,
                         ParseCompletionRequest(body, request.body, endpoint, random64()));
  if (!exchange->request.model.empty() && exchange->request.model != options_.model_name) {
    return NoSuchModel(exchange->request.model);
  }
  RENGA_ASSIGN_OR_RETURN(std::vector<serving::TokenId> prompt, Encode(exchange->request));
  exchange->writer.emplace(
      ResponseHead{.endpoint = endpoint,
                   .id = absl::StrFormat(
                       "%s-%016x", endpoint == Endpoint::kChat ? "chatcmpl" : "cmpl", random64()),
                   .model = options_.model_name,
                   .created = absl::ToUnixSeconds(absl::Now()),
                   .include_usage = exchange->request.include_usage},
      exchange->request.logprobs, &engine_->tokenizer());
  exchange->request.options.deadline = absl::Now() + options_.request_timeout;
  exchange->channel.Start(*engine_, std::move(prompt), exchange->request.options,
                          exchange->request.logprobs);
  return exchange;
}

void Server::Complete(const httplib::Request& request, httplib::Response& response,
                      Endpoint endpoint) {
  const std::string route = endpoint == Endpoint::kChat ? "chat" : "completions";
  absl::StatusOr<std::shared_ptr<Exchange>> begun = Begin(request, endpoint);
  absl::Status status = begun.status();
  if (status.ok()) {
    Exchange& exchange = **begun;
    status =
        AwaitAnswer(exchange, exchange.request.stream ? kStreamPatience : absl::InfiniteDuration());
    if (status.ok()) {
      counter_.Count(route, 200);
      if (!exchange.request.stream) return ReplyWhole(exchange, response);
      return ReplyStream(*std::move(begun), response);
    }
  }
  ReplyError(response, status);
}

absl::Status Server::AwaitAnswer(Exchange& exchange, absl::Duration patience) const {
  const absl::Time end = absl::Now() + patience;
  while (true) {
    const AnswerChannel::State state = exchange.channel.Wait(
        kClientCheckInterval, /*for_text=*/patience < absl::InfiniteDuration());
    if (state == AnswerChannel::State::kDone) return exchange.channel.Result().status();
    if (state == AnswerChannel::State::kText || absl::Now() >= end) return absl::OkStatus();
    const Connection* client = Connection::Current();
    if (client != nullptr && client->PeerGone()) return absl::CancelledError("the client left");
    if (stopping_.load()) return absl::CancelledError("renga is stopping");
  }
}

void Server::ReplyWhole(Exchange& exchange, httplib::Response& response) const {
  const AnswerPart answer = exchange.channel.Take();
  Reply(response, 200, exchange.writer->Whole(answer, *exchange.channel.Result()));
}

void Server::ReplyStream(std::shared_ptr<Exchange> exchange, httplib::Response& response) const {
  response.status = 200;
  response.set_header("Cache-Control", "no-cache");
  response.set_header("X-Accel-Buffering", "no");
  // The exchange goes, and with it the request if it is not done, when the response goes.
  response.set_chunked_content_provider(
      "text/event-stream",
      [this, exchange](size_t, httplib::DataSink& sink) { return WriteStream(*exchange, sink); });
}

bool Server::WriteStream(Exchange& exchange, httplib::DataSink& sink) const {
  std::string events;
  if (!exchange.begun) {
    exchange.begun = true;
    if (const auto first = exchange.writer->FirstChunk()) events = Event(*first);
  } else {
    const AnswerChannel::State state = exchange.channel.Wait(kClientCheckInterval,
                                                             /*for_text=*/true);
    const AnswerPart part = exchange.channel.Take();
    if (!part.text.empty() || !part.tokens.empty()) events = Event(exchange.writer->Chunk(part));
    if (state == AnswerChannel::State::kDone) {
      absl::StrAppend(&events, StreamEnd(exchange, exchange.channel.Result()));
      exchange.ended = true;
    }
  }
  if (stopping_.load() || !sink.is_writable()) return false;
  if (!events.empty() && !sink.write(events.data(), events.size())) return false;
  if (exchange.ended) sink.done();
  return true;
}

std::string Server::StreamEnd(Exchange& exchange,
                              const absl::StatusOr<serving::GenerateResult>& result) const {
  if (!result.ok()) return Event(ErrorJson(result.status()));
  std::string events = Event(exchange.writer->LastChunk(*result));
  if (exchange.request.include_usage) {
    absl::StrAppend(&events, Event(exchange.writer->UsageChunk(*result)));
  }
  return events + "data: [DONE]\n\n";
}

}  // namespace

absl::StatusOr<std::unique_ptr<OpenAiServer>> OpenAiServer::Start(
    const OpenAiServerOptions& options, serving::TextEngine* engine) {
  auto server = std::make_unique<Server>(options, engine);
  RENGA_RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace renga::http
