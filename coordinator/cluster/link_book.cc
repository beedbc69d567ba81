#include "coordinator/cluster/link_book.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace renga::cluster {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxBookBytes = int64_t{4} << 20;
constexpr size_t kMaxTimes = 8;
constexpr int64_t kMaxMessageBytes = int64_t{1} << 30;
constexpr double kMaxTimeUs = 1e9;

bool IsTime(double us) { return std::isfinite(us) && us > 0 && us <= kMaxTimeUs; }

bool AreTimes(const std::vector<LinkTime>& times) {
  if (times.empty() || times.size() > kMaxTimes) return false;
  int64_t last_bytes = 0;
  for (const LinkTime& time : times) {
    if (time.payload_bytes <= last_bytes || time.payload_bytes > kMaxMessageBytes) return false;
    if (!IsTime(time.rtt_p50_us) || !IsTime(time.rtt_p99_us)) return false;
    last_bytes = time.payload_bytes;
  }
  return true;
}

// Each way the larger message takes longer by half of what the round trip does.
double BandwidthOf(const std::vector<LinkTime>& times) {
  const double bytes = static_cast<double>(times.back().payload_bytes - times[0].payload_bytes);
  const double us = (times.back().rtt_p50_us - times[0].rtt_p50_us) / 2;
  return bytes > 0 && us > 0 ? bytes / us * 1e6 : 0;
}

Json ToJson(const LinkProfile& link) {
  Json times = Json::array();
  for (const LinkTime& time : link.times) {
    times.push_back({time.payload_bytes, time.rtt_p50_us, time.rtt_p99_us});
  }
  return {{"from", link.from},
          {"to", link.to},
          {"times", std::move(times)},
          {"measured_at_s", link.measured_at_s}};
}

std::optional<LinkProfile> ReadLink(const Json& json) {
  if (!json.is_object() || !json.contains("from") || !json["from"].is_string() ||
      !json.contains("to") || !json["to"].is_string() || !json.contains("measured_at_s") ||
      !json["measured_at_s"].is_number_integer() || !json.contains("times") ||
      !json["times"].is_array()) {
    return std::nullopt;
  }
  std::vector<LinkTime> times;
  for (const Json& time : json["times"]) {
    if (!time.is_array() || time.size() != 3 || !time[0].is_number_integer() ||
        !time[1].is_number() || !time[2].is_number()) {
      return std::nullopt;
    }
    times.push_back({time[0].get<int64_t>(), time[1].get<double>(), time[2].get<double>()});
  }
  auto link = MakeLinkProfile(json["from"].get<std::string>(), json["to"].get<std::string>(),
                              std::move(times), json["measured_at_s"].get<int64_t>());
  if (!link.ok()) return std::nullopt;
  return *std::move(link);
}

LinkBook::Ends EndsOf(const std::string& one, const std::string& other) {
  return one < other ? LinkBook::Ends(one, other) : LinkBook::Ends(other, one);
}

}  // namespace

absl::StatusOr<LinkProfile> MakeLinkProfile(std::string from, std::string to,
                                            std::vector<LinkTime> times, int64_t measured_at_s) {
  if (!AreTimes(times)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the times of the link from ", from, " to ", to, " are no times"));
  }
  LinkProfile link;
  link.from = std::move(from);
  link.to = std::move(to);
  link.bytes_per_second = BandwidthOf(times);
  link.times = std::move(times);
  link.measured_at_s = measured_at_s;
  return link;
}

void LinkBook::Put(LinkProfile profile) {
  LinkBook::Ends ends = EndsOf(profile.from, profile.to);
  if (links_.size() >= kMaxLinks && !links_.contains(ends)) {
    links_.erase(std::min_element(links_.begin(), links_.end(), [](const auto& a, const auto& b) {
      return a.second.measured_at_s < b.second.measured_at_s;
    }));
  }
  links_.insert_or_assign(std::move(ends), std::move(profile));
}

const LinkProfile* LinkBook::Find(const std::string& one, const std::string& other) const {
  const auto found = links_.find(EndsOf(one, other));
  return found == links_.end() ? nullptr : &found->second;
}

absl::StatusOr<LinkBook> ReadLinkBook(const std::string& path) {
  RENGA_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kMaxBookBytes));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto damaged =
      absl::DataLossError(absl::StrCat(path, " holds no links: they are measured again"));
  if (!json.is_array() || json.size() > LinkBook::kMaxLinks) return damaged;
  LinkBook book;
  for (const Json& entry : json) {
    std::optional<LinkProfile> link = ReadLink(entry);
    if (!link.has_value()) return damaged;
    book.Put(*std::move(link));
  }
  return book;
}

absl::Status WriteLinkBook(const std::string& path, const LinkBook& book) {
  Json json = Json::array();
  for (const auto& [ends, link] : book.links()) json.push_back(ToJson(link));
  return base::WriteFileAtomically(path,
                                   json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace renga::cluster
