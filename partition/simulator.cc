#include "partition/simulator.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <queue>
#include <vector>

#include "partition/cost_model.h"
#include "partition/planner.h"

namespace renga::partition {
namespace {

// Something that does one thing at a time.
struct Server {
  double free_at = 0;
  double busy = 0;

  // When what arrives at `now` and takes `ms` is done.
  double Serve(double now, double ms) {
    free_at = std::max(now, free_at) + ms;
    busy += ms;
    return free_at;
  }
};

struct Event {
  double at = 0;
  int64_t number = 0;  // events of one time happen in the order in which they were made
  int stream = 0;
  size_t stage = 0;  // that the step arrives at; one beyond the last: the coordinator
  int64_t rows = 1;
  bool gives_token = false;  // the prompt's last chunk, and every decode
};
struct Later {
  bool operator()(const Event& a, const Event& b) const {
    return a.at != b.at ? a.at > b.at : a.number > b.number;
  }
};

struct Stream {
  double tokens = 0;  // given so far
  double first_at = 0;
  double last_at = 0;
};

class Simulation {
 public:
  Simulation(const StepTimes& times, const SimulationRequest& request)
      : step_times_(times), request_(request), streams_(request.streams) {
    stages_.resize(TimesOf(1).stages.size());
    links_.resize(stages_.size());
    const double a = request.acceptance;
    const auto rows = static_cast<double>(request.draft_tokens + 1);
    tokens_per_step_ = a >= 1 ? rows : (1 - std::pow(a, rows)) / (1 - a);
  }

  SimulationResult Run() {
    for (int stream = 0; stream < static_cast<int>(streams_.size()); ++stream) {
      for (int64_t begin = 0; begin < request_.prompt_tokens; begin += request_.chunk_tokens) {
        const int64_t rows = std::min(request_.chunk_tokens, request_.prompt_tokens - begin);
        Send(0, stream, rows, begin + rows == request_.prompt_tokens);
      }
    }
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      if (event.stage < stages_.size()) {
        Compute(event);
      } else if (event.gives_token) {
        GiveTokens(event);
      }
    }
    return Summarise();
  }

 private:
  const PlanTimes& TimesOf(int64_t rows) {
    auto known = known_.find(rows);
    if (known == known_.end()) known = known_.emplace(rows, step_times_(rows)).first;
    return known->second;
  }

  void Arrive(double at, int stream, size_t stage, int64_t rows, bool gives_token) {
    events_.push({at, next_number_++, stream, stage, rows, gives_token});
  }

  // The step leaves for a stage: its bytes hold the link, its latency does not.
  void Send(double now, int stream, int64_t rows, bool gives_token, size_t stage = 0) {
    const StageTimes& times = TimesOf(rows).stages[stage];
    const double sent = links_[stage].Serve(now, times.transfer);
    Arrive(sent + times.hop - times.transfer, stream, stage, rows, gives_token);
  }

  void Compute(const Event& event) {
    const PlanTimes& times = TimesOf(event.rows);
    const bool is_last = event.stage + 1 == stages_.size();
    double ms = times.stages[event.stage].compute + times.stages[event.stage].sums;
    const bool with_head = is_last && event.gives_token;
    if (with_head) ms += times.head_on_last_stage;
    const double done = stages_[event.stage].Serve(event.at, ms);
    if (!is_last) {
      Send(done, event.stream, event.rows, event.gives_token, event.stage + 1);
    } else {
      const double elsewhere = with_head ? times.head - times.head_on_last_stage : 0;
      Arrive(done + elsewhere + times.coordinator, event.stream, stages_.size(), event.rows,
             event.gives_token);
    }
  }

  void GiveTokens(const Event& event) {
    Stream& stream = streams_[event.stream];
    // A prompt's end gives one token, whatever was guessed.
    if (stream.tokens == 0) {
      stream.first_at = event.at;
      stream.tokens = 1;
    } else {
      stream.tokens += tokens_per_step_;
    }
    stream.last_at = event.at;
    if (stream.tokens >= static_cast<double>(request_.answer_tokens)) return;
    Send(event.at + request_.draft_ms, event.stream, request_.draft_tokens + 1, true);
  }

  SimulationResult Summarise() const {
    SimulationResult result;
    double first = kNever;
    double end = 0;
    double decoded = 0;
    for (const Stream& stream : streams_) {
      result.first_token_ms = std::max(result.first_token_ms, stream.first_at);
      first = std::min(first, stream.first_at);
      end = std::max(end, stream.last_at);
      if (stream.tokens <= 1) continue;
      result.ms_per_token += (stream.last_at - stream.first_at) / (stream.tokens - 1) /
                             static_cast<double>(streams_.size());
      decoded += stream.tokens - 1;
    }
    if (end > first) result.tokens_per_second = decoded / (end - first) * 1e3;
    for (const Server& stage : stages_) {
      if (end > 0) result.busiest_stage = std::max(result.busiest_stage, stage.busy / end);
    }
    return result;
  }

  const StepTimes& step_times_;
  const SimulationRequest& request_;
  double tokens_per_step_ = 1;
  std::vector<Stream> streams_;
  std::vector<Server> stages_;
  std::vector<Server> links_;  // to each stage
  std::map<int64_t, PlanTimes> known_;
  std::priority_queue<Event, std::vector<Event>, Later> events_;
  int64_t next_number_ = 0;
};

absl::Status Check(const SimulationRequest& request) {
  const auto in_range = [](int64_t value, int64_t low) {
    return value >= low && value <= kMaxSimulatedSteps;
  };
  if (!in_range(request.streams, 1) || !in_range(request.prompt_tokens, 1) ||
      !in_range(request.answer_tokens, 1) || !in_range(request.chunk_tokens, 1) ||
      !in_range(request.draft_tokens, 0)) {
    return absl::InvalidArgumentError(
        "a simulation needs at least one stream, one prompt token and one answer token, and at "
        "most a million of each");
  }
  if (!(request.acceptance >= 0 && request.acceptance <= 1) ||
      !(request.draft_ms >= 0 && request.draft_ms <= 1e9)) {
    return absl::InvalidArgumentError(
        "the share of guesses that are right is from 0 to 1, and guessing takes no negative time");
  }
  const int64_t steps = request.answer_tokens + request.prompt_tokens / request.chunk_tokens + 1;
  if (steps > kMaxSimulatedSteps / request.streams) {
    return absl::InvalidArgumentError(
        "the simulation would take more than a million steps: fewer streams or tokens");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SimulationResult> Simulate(const StepTimes& times,
                                          const SimulationRequest& request) {
  const absl::Status status = Check(request);
  if (!status.ok()) return status;
  return Simulation(times, request).Run();
}

StepTimes StepTimesOf(const model::Model& model, const model::ModelFootprint& footprint,
                      const std::vector<WorkerProfile>& workers, const PlanRequest& request,
                      const Plan& plan) {
  // The parts refer to each other: they live together, as long as the function does.
  struct Parts {
    Parts(const model::Model& m, const model::ModelFootprint& f,
          const std::vector<WorkerProfile>& w, const PlanRequest& r)
        : bytes(m, f, LimitsOf(r)), kinds(w, r.links), costs(bytes, kinds, r) {}
    ShardCosts bytes;
    MachineKinds kinds;
    CostModel costs;
  };
  auto parts = std::make_shared<Parts>(model, footprint, workers, request);
  return [parts, &plan](int64_t rows) {
    return parts->costs.Price(plan.stages, plan.heads, rows, plan.embedding_worker);
  };
}

}  // namespace renga::partition
