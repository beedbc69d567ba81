#include "worker/service/link_meter.h"

#include <grpcpp/client_context.h>

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
    if (refusal.ok() && running_ != nullptr) {
      refusal = absl::ResourceExhaustedError("this worker is measuring another link");
    }
    if (refusal.ok()) {
      if (thread_.joinable()) thread_.join();  // it has only to return
      auto context = std::make_unique<grpc::ClientContext>();
      running_ = context.get();
      thread_ = std::thread([this, request, context = std::move(context), done = std::move(done)] {
        Run(request, *context, done);
      });
      return;
    }
  }
  done(refusal);
}

void LinkMeter::Run(const proto::MeasureLinkRequest& request, grpc::ClientContext& context,
                    const Done& done) {
  const auto results = transport::ProbeLink(
      dialer_->Dial({.address = request.peer().address(), .name = request.peer().worker_id()},
                    transport::ChannelPurpose::kActivations),
      ProbeOf(request), context);
  {
    // First: whoever gets the answer may ask for the next measurement at once.
    absl::MutexLock lock(&mutex_);
    running_ = nullptr;
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
    if (running_ != nullptr) running_->TryCancel();
    last = std::move(thread_);
  }
  if (last.joinable()) last.join();
}

}  // namespace renga::worker
