#include "worker/service/link_meter.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "transport/link_probe.h"

namespace renga::worker {
namespace {

transport::LinkProbe ProbeOf(const proto::MeasureLinkRequest& request) {
  transport::LinkProbe probe;
  probe.payload_bytes.assign(request.payload_bytes().begin(), request.payload_bytes().end());
  // What is cut here is out of bounds for CheckProbe as well.
  probe.rounds = static_cast<int>(std::min(request.rounds(), 1u << 30));
  probe.time_limit = absl::Milliseconds(request.time_limit_ms());
  return probe;
}

proto::MeasureLinkReply ToReply(const std::vector<transport::RoundTrips>& results) {
  proto::MeasureLinkReply reply;
  for (const transport::RoundTrips& result : results) {
    proto::RoundTripTime& time = *reply.add_times();
    time.set_payload_bytes(static_cast<uint32_t>(result.payload_bytes));
    time.set_rounds(static_cast<uint32_t>(result.rounds));
    time.set_p50_us(result.p50_us);
    time.set_p99_us(result.p99_us);
    time.set_minimum_us(result.minimum_us);
  }
  return reply;
}

}  // namespace

void LinkMeter::Measure(const proto::MeasureLinkRequest& request, Done done) {
  absl::Status refusal = transport::CheckProbe(ProbeOf(request));
  {
    absl::MutexLock lock(&mutex_);
    if (refusal.ok() && stopped_) refusal = absl::CancelledError("the worker is leaving");
    if (refusal.ok() && running_) {
      refusal = absl::ResourceExhaustedError("this worker is measuring another link");
    }
    if (refusal.ok()) {
      if (thread_.joinable()) thread_.join();  // it has only to return
      running_ = true;
      thread_ = std::thread([this, request, done = std::move(done)] { Run(request, done); });
      return;
    }
  }
  done(refusal);
}

void LinkMeter::Run(const proto::MeasureLinkRequest& request, const Done& done) {
  const auto results = transport::ProbeLink(
      *dialer_, {.address = request.peer().address(), .name = request.peer().worker_id()},
      ProbeOf(request), cancelled_);
  {
    // First: whoever gets the answer may ask for the next measurement at once.
    absl::MutexLock lock(&mutex_);
    running_ = false;
  }
  if (results.ok()) {
    done(ToReply(*results));
  } else {
    done(results.status());
  }
}

void LinkMeter::Stop() {
  std::thread last;
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    cancelled_ = true;
    last = std::move(thread_);
  }
  if (last.joinable()) last.join();
}

}  // namespace renga::worker
