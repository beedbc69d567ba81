#include "coordinator/cluster/link_survey.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "proto/worker.grpc.pb.h"
#include "transport/grpc_status.h"
#include "transport/identity.h"
#include "transport/link_probe.h"

namespace renga::cluster {
namespace {

constexpr absl::Duration kSurveyTick = absl::Seconds(1);
// A worker that answers later than this beyond the time it was given does not count.
constexpr absl::Duration kAnswerGrace = absl::Seconds(4);
// Machines between which links are measured: with more there would be more links than the book
// holds, and the first of them say what the network is like.
constexpr size_t kMaxSurveyed = 64;
static_assert(kMaxSurveyed * (kMaxSurveyed + 1) / 2 <= LinkBook::kMaxLinks);
// Links measured at the same time.
constexpr size_t kMaxAtOnce = 32;

// An end of a link: a worker, or with no address the coordinator.
struct LinkEnd {
  std::string id;
  std::string address;       // where it is asked to measure
  std::string data_address;  // to which others measure
  uint64_t incarnation = 0;
};

struct LinkEnds {
  LinkEnd from;
  LinkEnd to;  // a worker
};

// Every pair once, the coordinator's own first; ends in a fixed order.
std::vector<LinkEnds> PairsOf(const std::vector<Member>& members) {
  std::vector<LinkEnd> ends = {{std::string(transport::kCoordinatorName), "", "", 0}};
  for (const Member& member : members) {
    if (ends.size() > kMaxSurveyed) break;
    if (member.alive)
      ends.push_back({member.id, member.address, member.data_address, member.incarnation});
  }
  std::sort(ends.begin() + 1, ends.end(),
            [](const LinkEnd& a, const LinkEnd& b) { return a.id < b.id; });
  std::vector<LinkEnds> pairs;
  for (size_t from = 0; from < ends.size(); ++from) {
    for (size_t to = from + 1; to < ends.size(); ++to) pairs.push_back({ends[from], ends[to]});
  }
  return pairs;
}

std::vector<LinkTime> TimesOf(const std::vector<transport::RoundTrips>& results) {
  std::vector<LinkTime> times;
  for (const transport::RoundTrips& result : results) {
    times.push_back({result.payload_bytes, result.p50_us, result.p99_us});
  }
  return times;
}

std::vector<LinkTime> TimesOf(const proto::MeasureLinkReply& reply) {
  std::vector<LinkTime> times;
  for (const proto::RoundTripTime& time : reply.times()) {
    times.push_back({static_cast<int64_t>(time.payload_bytes()), time.p50_us(), time.p99_us()});
  }
  return times;
}

}  // namespace

class LinkSurvey::Impl {
 public:
  explicit Impl(Options options) : options_(std::move(options)) {
    Recall();
    listener_ = options_.membership->AddListener([this] { Wake(); });
    thread_ = std::thread([this] { Run(); });
  }

  ~Impl() {
    options_.membership->RemoveListener(listener_);
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
      for (Asking* asking : running_) asking->Cancel();
    }
    thread_.join();
  }

  bool Complete() const {
    const std::vector<LinkEnds> pairs = PairsOf(options_.membership->Members());
    absl::MutexLock lock(&mutex_);
    return std::all_of(pairs.begin(), pairs.end(), [this](const LinkEnds& pair) {
      mutex_.AssertHeld();
      return !IsNew(pair);
    });
  }

  std::vector<LinkProfile> Links() const {
    const std::vector<LinkEnds> pairs = PairsOf(options_.membership->Members());
    absl::MutexLock lock(&mutex_);
    std::vector<LinkProfile> links;
    for (const LinkEnds& pair : pairs) {
      if (const LinkProfile* link = book_.Find(pair.from.id, pair.to.id)) links.push_back(*link);
    }
    return links;
  }

 private:
  // A measurement that runs: one of the two is used.
  struct Asking {
    grpc::ClientContext context;
    std::atomic<bool> cancelled = false;
    void Cancel() {
      context.TryCancel();
      cancelled = true;
    }
  };

  // A try to measure, whatever came of it. Whoever joins again is tried again.
  using Try = std::tuple<std::string, uint64_t, std::string, uint64_t>;
  static Try TryOf(const LinkEnds& pair) {
    return {pair.from.id, pair.from.incarnation, pair.to.id, pair.to.incarnation};
  }

  void Recall();
  void Remember() const;
  void Wake() {
    absl::MutexLock lock(&mutex_);
    woken_ = true;
  }
  bool IsNew(const LinkEnds& pair) const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return book_.Find(pair.from.id, pair.to.id) == nullptr && !tried_.contains(TryOf(pair));
  }
  void Run();
  // Waits until something may be due; false when the survey ends.
  bool WaitForWork();
  // What those tried that are gone, so that the tries stay bounded.
  void ForgetTriesBut(const std::vector<LinkEnds>& pairs);
  // Links that can be measured at the same time, as no machine is on two of them.
  std::vector<LinkEnds> NextNew(const std::vector<LinkEnds>& pairs) const;
  std::optional<LinkEnds> NextOld(const std::vector<Member>& members,
                                  const std::vector<LinkEnds>& pairs);
  void MeasureAll(const std::vector<LinkEnds>& pairs);
  void Measure(const LinkEnds& pair);
  absl::StatusOr<std::vector<LinkTime>> Ask(const LinkEnds& pair, Asking& asking) const;

  const Options options_;
  int listener_ = 0;

  // The thread's own: whether the cluster rests.
  uint64_t steps_ = 0;
  absl::Duration busy_at_;
  absl::Duration rested_at_;

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool woken_ ABSL_GUARDED_BY(mutex_) = true;
  LinkBook book_ ABSL_GUARDED_BY(mutex_);
  std::set<Try> tried_ ABSL_GUARDED_BY(mutex_);
  std::set<Asking*> running_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses the rest
};

// Neither recalling nor remembering may fail: at worst, links are measured again.
void LinkSurvey::Impl::Recall() {
  if (options_.file.empty()) return;
  absl::StatusOr<LinkBook> book = ReadLinkBook(options_.file);
  absl::MutexLock lock(&mutex_);
  if (book.ok()) {
    book_ = *std::move(book);
  } else if (!absl::IsNotFound(book.status())) {
    RENGA_LOG(WARNING) << book.status().message();
  }
}

void LinkSurvey::Impl::Remember() const {
  if (options_.file.empty()) return;
  LinkBook book;
  {
    absl::MutexLock lock(&mutex_);
    book = book_;
  }
  if (const absl::Status written = WriteLinkBook(options_.file, book); !written.ok()) {
    RENGA_LOG(WARNING) << written.message();
  }
}

bool LinkSurvey::Impl::WaitForWork() {
  absl::MutexLock lock(&mutex_);
  const auto due = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || woken_; };
  mutex_.AwaitWithTimeout(absl::Condition(&due), kSurveyTick);
  woken_ = false;
  return !stopping_;
}

void LinkSurvey::Impl::Run() {
  while (WaitForWork()) {
    const std::vector<Member> members = options_.membership->Members();
    const std::vector<LinkEnds> pairs = PairsOf(members);
    ForgetTriesBut(pairs);
    std::vector<LinkEnds> due = NextNew(pairs);
    if (due.empty()) {
      const std::optional<LinkEnds> old = NextOld(members, pairs);
      if (!old.has_value()) continue;
      due = {*old};
    }
    MeasureAll(due);
    Remember();
    rested_at_ = options_.membership->Now();
    Wake();  // there may be more
  }
}

void LinkSurvey::Impl::ForgetTriesBut(const std::vector<LinkEnds>& pairs) {
  absl::MutexLock lock(&mutex_);
  std::set<Try> kept;
  for (const LinkEnds& pair : pairs) {
    if (tried_.contains(TryOf(pair))) kept.insert(TryOf(pair));
  }
  tried_ = std::move(kept);
}

std::vector<LinkEnds> LinkSurvey::Impl::NextNew(const std::vector<LinkEnds>& pairs) const {
  absl::MutexLock lock(&mutex_);
  std::vector<LinkEnds> due;
  std::set<std::string> busy;
  for (const LinkEnds& pair : pairs) {
    if (due.size() == kMaxAtOnce) break;
    if (!IsNew(pair) || busy.contains(pair.from.id) || busy.contains(pair.to.id)) continue;
    busy.insert({pair.from.id, pair.to.id});
    due.push_back(pair);
  }
  return due;
}

std::optional<LinkEnds> LinkSurvey::Impl::NextOld(const std::vector<Member>& members,
                                                  const std::vector<LinkEnds>& pairs) {
  const absl::Duration now = options_.membership->Now();
  uint64_t steps = 0;
  for (const Member& member : members) steps += member.last_heartbeat.steps_done;
  if (std::exchange(steps_, steps) != steps) busy_at_ = now;
  if (now - busy_at_ < options_.idle_after || now - rested_at_ < options_.rest) return std::nullopt;
  const int64_t oldest_good = absl::ToUnixSeconds(absl::Now() - options_.good_for);
  absl::MutexLock lock(&mutex_);
  for (const LinkEnds& pair : pairs) {
    const LinkProfile* link = book_.Find(pair.from.id, pair.to.id);
    if (link != nullptr && link->measured_at_s < oldest_good) return pair;
  }
  return std::nullopt;
}

void LinkSurvey::Impl::MeasureAll(const std::vector<LinkEnds>& pairs) {
  std::vector<std::thread> threads;
  for (size_t i = 1; i < pairs.size(); ++i) {
    threads.emplace_back([this, &pair = pairs[i]] { Measure(pair); });
  }
  Measure(pairs[0]);
  for (std::thread& thread : threads) thread.join();
}

void LinkSurvey::Impl::Measure(const LinkEnds& pair) {
  Asking asking;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    running_.insert(&asking);
  }
  absl::StatusOr<LinkProfile> link = absl::UnknownError("");
  if (absl::StatusOr<std::vector<LinkTime>> times = Ask(pair, asking); times.ok()) {
    link = MakeLinkProfile(pair.from.id, pair.to.id, *std::move(times),
                           absl::ToUnixSeconds(absl::Now()));
  } else {
    link = times.status();
  }
  absl::MutexLock lock(&mutex_);
  running_.erase(&asking);
  tried_.insert(TryOf(pair));
  if (link.ok()) {
    book_.Put(*std::move(link));
  } else if (!stopping_) {
    RENGA_LOG(INFO) << "the link from " << pair.from.id << " to " << pair.to.id
                    << " was not measured: " << link.status().message();
  }
}

absl::StatusOr<std::vector<LinkTime>> LinkSurvey::Impl::Ask(const LinkEnds& pair,
                                                            Asking& asking) const {
  if (pair.from.address.empty()) {
    RENGA_ASSIGN_OR_RETURN(
        const std::vector<transport::RoundTrips> results,
        transport::ProbeLink(*options_.dialer, {pair.to.data_address, pair.to.id},
                             {.payload_bytes = options_.payload_bytes,
                              .rounds = options_.rounds,
                              .time_limit = options_.time_per_link},
                             asking.cancelled));
    return TimesOf(results);
  }
  proto::MeasureLinkRequest request;
  request.mutable_peer()->set_address(pair.to.data_address);
  request.mutable_peer()->set_worker_id(pair.to.id);
  for (const int64_t bytes : options_.payload_bytes) {
    request.add_payload_bytes(static_cast<uint32_t>(bytes));
  }
  request.set_rounds(static_cast<uint32_t>(options_.rounds));
  request.set_time_limit_ms(
      static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.time_per_link)));
  asking.context.set_deadline(
      absl::ToChronoTime(absl::Now() + options_.time_per_link + kAnswerGrace));
  const auto stub = proto::Worker::NewStub(options_.dialer->Dial(
      {pair.from.address, pair.from.id}, transport::ChannelPurpose::kControl));
  proto::MeasureLinkReply reply;
  const grpc::Status status = stub->MeasureLink(&asking.context, request, &reply);
  if (!status.ok()) return transport::FromGrpcStatus(status, "measuring a link");
  return TimesOf(reply);
}

LinkSurvey::LinkSurvey(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
LinkSurvey::~LinkSurvey() = default;
bool LinkSurvey::Complete() const { return impl_->Complete(); }
std::vector<LinkProfile> LinkSurvey::Links() const { return impl_->Links(); }

}  // namespace renga::cluster
