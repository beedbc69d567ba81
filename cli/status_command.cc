// renga status: who is in the cluster, what they hold, where the time goes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "cli/command.h"
#include "cli/fetch_status.h"
#include "nlohmann/json.hpp"

namespace renga::cli {
namespace {

struct StatusFlags {
  std::string http = "127.0.0.1:8080";
  std::string api_key;
  bool json = false;
};

std::string RangeText(const nlohmann::json& range) {
  if (!range.is_array() || range.size() != 2) return "-";
  return absl::StrCat(range[0].get<int64_t>(), "-", range[1].get<int64_t>() - 1);
}

// The number of its replica, "-" when it is in none.
std::string ReplicaText(const nlohmann::json& worker) {
  const auto replica = worker.value("replica", int64_t{0});
  return replica > 0 ? absl::StrCat(replica) : "-";
}

void PrintWorker(const nlohmann::json& worker) {
  std::printf("%-16s %-8s %-7s %-22s %-9s %-15s %10s / %-10s %8.1f  %s, %s\n",
              worker.value("name", "").c_str(), worker.value("state", "").c_str(),
              ReplicaText(worker).c_str(), worker.value("address", "").c_str(),
              RangeText(worker.value("layers", nlohmann::json())).c_str(),
              RangeText(worker.value("head_rows", nlohmann::json())).c_str(),
              base::FormatByteSize(worker.value("used_bytes", int64_t{0})).c_str(),
              base::FormatByteSize(worker.value("offered_bytes", int64_t{0})).c_str(),
              worker.value("compute_ms_per_step", 0.0), worker.value("path", "").c_str(),
              worker.value("device", "").c_str());
}

void PrintComparison(const std::string& what, const nlohmann::json& comparison) {
  std::printf("%-40s %10.2f %10.2f\n", what.c_str(), comparison.value("measured_ms", 0.0),
              comparison.value("predicted_ms", 0.0));
}

// A sentence where much more time goes than was planned with. Small times vary by themselves.
void PrintSlower(const std::string& what, const nlohmann::json& comparison,
                 const std::string& why) {
  constexpr double kMuchSlower = 1.5;
  constexpr double kWorthSayingMs = 1;
  const double measured = comparison.value("measured_ms", 0.0);
  const double predicted = comparison.value("predicted_ms", 0.0);
  if (predicted <= 0 || measured < kMuchSlower * predicted) return;
  if (measured - predicted < kWorthSayingMs) return;
  std::printf("%s takes %.1f times what was predicted: %s\n", what.c_str(), measured / predicted,
              why.c_str());
}

std::string NamesText(const nlohmann::json& stage) {
  std::string names;
  for (const nlohmann::json& name : stage.value("workers", nlohmann::json::array())) {
    absl::StrAppend(&names, names.empty() ? "" : " + ", name.get<std::string>());
  }
  return names;
}

// Of hops only the sum is measured.
void PrintWhatIsSlower(const nlohmann::json& status, const nlohmann::json& stages) {
  const nlohmann::json none = nlohmann::json::object();
  nlohmann::json hops = {{"measured_ms", 0.0}, {"predicted_ms", 0.0}};
  const auto add = [&](const nlohmann::json& hop) {
    for (const char* key : {"measured_ms", "predicted_ms"}) {
      hops[key] = hops[key].get<double>() + hop.value(key, 0.0);
    }
  };
  for (const nlohmann::json& stage : stages) {
    add(stage.value("hop", none));
    PrintSlower(
        absl::StrCat("computing layers ", RangeText(stage.value("layers", nlohmann::json())),
                     " on ", NamesText(stage)),
        stage.value("compute", none),
        "several answers at once, a long context or another program take time there");
  }
  add(status.value("answer_hop", none));
  PrintSlower("the network", hops, "a link is busy, or slower than when it was measured");
}

// Where a token's time goes on one replica: measured beside predicted, which is worth a sentence
// where it was `planned_by_measure`.
void PrintTimes(const nlohmann::json& status, const std::string& title, bool planned_by_measure) {
  const nlohmann::json stages = status.value("stage_times", nlohmann::json::array());
  if (stages.empty()) return;
  const nlohmann::json none = nlohmann::json::object();
  std::printf("\n%-40s %10s %10s\n", title.c_str(), "measured", "predicted");
  for (const nlohmann::json& stage : stages) {
    const std::string names = NamesText(stage);
    PrintComparison(absl::StrCat("hop to ", names), stage.value("hop", none));
    const std::string layers = RangeText(stage.value("layers", nlohmann::json()));
    PrintComparison(absl::StrCat("layers ", layers, " on ", names), stage.value("compute", none));
  }
  PrintComparison("output matrix", status.value("head", none));
  PrintComparison("hop back", status.value("answer_hop", none));
  PrintComparison("in all", {{"measured_ms", status.value("round_trip_ms_per_step", 0.0)},
                             {"predicted_ms", status.value("predicted_ms_per_token", 0.0)}});
  if (planned_by_measure) PrintWhatIsSlower(status, stages);
  std::printf("\n");
}

void PrintReplicas(const nlohmann::json& status) {
  const nlohmann::json replicas = status.value("replicas", nlohmann::json::array());
  // The speed of a worker alone on its machine is assumed.
  const nlohmann::json workers = status.value("workers", nlohmann::json::array());
  const bool measured =
      std::all_of(workers.begin(), workers.end(),
                  [](const nlohmann::json& worker) { return worker.contains("kernels"); });
  for (size_t i = 0; i < replicas.size(); ++i) {
    PrintTimes(replicas[i],
               replicas.size() == 1
                   ? "ms per token"
                   : absl::StrCat("replica ", i + 1, " (", replicas[i].value("state", ""),
                                  "): ms per token"),
               measured);
  }
}

// Whether experts come and go: those that are here, and those that are not.
bool HasMovingExperts(const std::string& places) {
  return places.find_first_of("can") != std::string::npos;
}

// Letters of one layer: experts that come and go are counted, long runs are written short.
std::string PlacesText(const std::string& places) {
  constexpr size_t kLongRun = 8;
  std::string text;
  for (size_t i = 0; i < places.size();) {
    const size_t end = std::min(places.find_first_not_of(places[i], i), places.size());
    if (HasMovingExperts(places.substr(i, 1))) break;
    absl::StrAppend(&text, end - i > kLongRun ? absl::StrCat(places.substr(i, 1), "*", end - i)
                                              : places.substr(i, end - i));
    i = end;
  }
  if (!HasMovingExperts(places)) return text;
  const auto here = std::count(places.begin(), places.end(), 'c');
  const auto away = std::count_if(places.begin(), places.end(),
                                  [](char place) { return place == 'a' || place == 'n'; });
  return absl::StrCat(text, "+", here, "/", here + away);
}

// What is read from disk for a step, and how that is known.
std::string StreamedText(const nlohmann::json& worker, int64_t streamed) {
  const std::string bytes = base::FormatByteSize(streamed);
  if (!HasMovingExperts(worker.value("weight_places", ""))) {
    return bytes + " read from disk for every step";
  }
  if (!worker.contains("expected_missed_bytes")) {
    return bytes + " of experts a token misses if all are used alike, read from disk";
  }
  const auto expected = worker.value("expected_missed_bytes", int64_t{0});
  return absl::StrCat(base::FormatByteSize(expected),
                      " of experts a token misses by the measured usage (", bytes,
                      " if all are used alike), read from disk");
}

// Where the weights of a worker's layers are, when it loads them lazily.
void PrintResidency(const nlohmann::json& worker) {
  const auto pinned = worker.value("pinned_weight_bytes", int64_t{0});
  const auto streamed = worker.value("streamed_weight_bytes", int64_t{0});
  if (pinned == 0 && streamed == 0) return;
  std::printf("%s: %s of layers in memory", worker.value("name", "").c_str(),
              base::FormatByteSize(worker.value("pinned_now_bytes", int64_t{0})).c_str());
  std::printf(" of %s that stay there, %s", base::FormatByteSize(pinned).c_str(),
              StreamedText(worker, streamed).c_str());
  const double now = worker.value("streamed_bytes_per_second", 0.0);
  const double measured = worker.value("disk_bytes_per_second", 0.0);
  if (now > 0) {
    std::printf(" at %s per second", base::FormatByteSize(static_cast<int64_t>(now)).c_str());
  }
  if (now > 0 && measured > 0) {
    std::printf(" (planned with %s)", base::FormatByteSize(static_cast<int64_t>(measured)).c_str());
  }
  const auto left_out = worker.value("left_out", int64_t{0});
  if (left_out > 0) {
    std::printf("; %lld feed-forwards came too late and were left out",
                static_cast<long long>(left_out));
  }
  const auto to_come = worker.value("weight_bytes_to_come", int64_t{0});
  if (to_come > 0) {
    std::printf("; %s are not on its disk yet", base::FormatByteSize(to_come).c_str());
  }
  std::printf("\n");
}

// Which of them are where, in the order of use: neighbours that are alike in one.
void PrintPlaces(const nlohmann::json& worker) {
  const std::string places = worker.value("weight_places", "");
  const nlohmann::json layers = worker.value("layers", nlohmann::json());
  if (places.empty() || !layers.is_array() || layers.size() != 2) return;
  const auto begin = layers[0].get<int64_t>();
  const auto end = layers[1].get<int64_t>();
  const auto count = static_cast<int64_t>(places.size());
  if (begin < 0 || end <= begin || end - begin > count || count % (end - begin) != 0) return;
  const auto each = static_cast<size_t>(count / (end - begin));
  const auto of = [&](int64_t layer) {
    return places.substr(static_cast<size_t>(layer - begin) * each, each);
  };
  std::string text;
  for (int64_t first = begin, next = begin; first < end; first = next) {
    while (next < end && of(next) == of(first)) ++next;
    absl::StrAppend(&text, text.empty() ? " " : ", ", first);
    if (next - first > 1) absl::StrAppend(&text, "-", next - 1);
    absl::StrAppend(&text, " ", PlacesText(of(first)));
  }
  std::printf(
      "%s: layers%s (m in memory, d on disk and p to be packed, both coming, s read for "
      "every step%s)\n",
      worker.value("name", "").c_str(), text.c_str(),
      HasMovingExperts(places) ? ", +3/8: three of eight experts are in memory now" : "");
}

// How fast its device is, how old that figure is, and whether the plan was made with another one.
void PrintSpeed(const nlohmann::json& worker) {
  constexpr double kWorthSaying = 1.15;
  if (!worker.contains("speed_age_s")) return;
  const double now = worker.value("weight_bytes_per_second", 0.0);
  const double planned = worker.value("planned_weight_bytes_per_second", 0.0);
  const double age_s = worker.value("speed_age_s", 0.0);
  std::printf("%s: reads %.1f GB of weights per second, measured %s ago",
              worker.value("name", "").c_str(), now / 1e9,
              age_s < 120 ? absl::StrFormat("%.0f s", age_s).c_str()
                          : absl::StrFormat("%.0f min", age_s / 60).c_str());
  if (now > 0 && planned > 0 && std::max(now / planned, planned / now) > kWorthSaying) {
    std::printf(
        "; %.0f %% %s than the plan counts on: `renga plan MODEL --running` says what "
        "another one would give",
        100 * std::abs(now / planned - 1), now < planned ? "slower" : "faster");
  }
  std::printf("\n");
}

// What is wrong with a worker's device.
void PrintTrouble(const nlohmann::json& worker) {
  const std::string trouble = worker.value("trouble", "");
  if (trouble.empty()) return;
  std::printf("%s: %s\n", worker.value("name", "").c_str(), trouble.c_str());
}

void PrintSpeculation(const nlohmann::json& speculation) {
  const auto drafted = speculation.value("drafted_tokens", uint64_t{0});
  if (drafted == 0) return;
  std::printf("guessed ahead: %llu tokens, %llu were right, %lld steps saved\n",
              static_cast<unsigned long long>(drafted),
              static_cast<unsigned long long>(speculation.value("accepted_tokens", uint64_t{0})),
              static_cast<long long>(speculation.value("saved_steps", int64_t{0})));
}

// Names of ends are ids: people know the workers by their names.
void PrintLink(const nlohmann::json& link, const std::map<std::string, std::string>& names) {
  const auto name = [&](const char* end) {
    const std::string id = link.value(end, "");
    const auto found = names.find(id);
    return found == names.end() ? id : found->second;
  };
  const double megabytes_per_second = link.value("bytes_per_second", 0.0) / 1e6;
  for (const nlohmann::json& time : link.value("times", nlohmann::json::array())) {
    std::printf("link %s - %s: %lld bytes there and back in %.2f ms (p99 %.2f)\n",
                name("from").c_str(), name("to").c_str(),
                static_cast<long long>(time.value("bytes", int64_t{0})),
                time.value("rtt_p50_us", 0.0) / 1000, time.value("rtt_p99_us", 0.0) / 1000);
  }
  if (megabytes_per_second > 0) {
    std::printf("link %s - %s: %.0f MB/s\n", name("from").c_str(), name("to").c_str(),
                megabytes_per_second);
  }
}

void PrintLinks(const nlohmann::json& status) {
  std::map<std::string, std::string> names;
  for (const nlohmann::json& worker : status.value("workers", nlohmann::json::array())) {
    names[worker.value("id", "")] = worker.value("name", "");
  }
  for (const nlohmann::json& link : status.value("links", nlohmann::json::array())) {
    PrintLink(link, names);
  }
}

absl::Status PrintStatus(const StatusFlags& flags) {
  RENGA_ASSIGN_OR_RETURN(const nlohmann::json status, FetchStatus(flags.http, flags.api_key));
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
    std::printf("%-16s %-8s %-7s %-22s %-9s %-15s %10s / %-10s %8s  %s\n", "worker", "state",
                "replica", "address", "layers", "head rows", "used", "offered", "ms/step",
                "path, device");
    for (const nlohmann::json& worker : status.value("workers", nlohmann::json::array())) {
      PrintWorker(worker);
    }
    for (const nlohmann::json& worker : status.value("workers", nlohmann::json::array())) {
      PrintResidency(worker);
      PrintPlaces(worker);
      PrintSpeed(worker);
      PrintTrouble(worker);
    }
    PrintReplicas(status);
    PrintSpeculation(status.value("speculation", nlohmann::json::object()));
    PrintLinks(status);
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
