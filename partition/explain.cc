#include "partition/explain.h"

#include <algorithm>
#include <cstddef>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "model/step.h"

namespace renga::partition {
namespace {

using Row = std::vector<std::string>;

// What rounds to less is not told.
constexpr double kWorthSayingMs = 0.005;

// "0-10": first and last, both included, as people count.
std::string RangeText(const model::Range& range) {
  if (range.empty()) return "-";
  if (range.size() == 1) return absl::StrCat(range.begin);
  return absl::StrCat(range.begin, "-", range.end - 1);
}

bool HasGroups(const Plan& plan) {
  return std::any_of(plan.stages.begin(), plan.stages.end(),
                     [](const StagePlan& stage) { return stage.members.size() > 1; });
}

Row WorkerRow(const WorkerProfile& profile, const WorkerPlan& worker, bool with_slices) {
  Row row = {profile.id, RangeText(worker.spec.layers)};
  if (with_slices) {
    const std::optional<model::LayerSlice>& slice = worker.spec.slice;
    row.push_back(slice.has_value() ? RangeText(slice->heads) : "all");
    row.push_back(slice.has_value() ? RangeText(slice->ff) : "all");
  }
  row.insert(row.end(),
             {RangeText(worker.spec.head_rows), base::FormatByteSize(worker.bytes.weights),
              base::FormatByteSize(worker.bytes.kv), base::FormatByteSize(worker.bytes.scratch),
              absl::StrCat(base::FormatByteSize(worker.bytes.total()), " / ",
                           base::FormatByteSize(profile.memory_bytes)),
              absl::StrFormat("%.2f", worker.predicted_ms)});
  return row;
}

std::string FormatTable(const std::vector<Row>& rows) {
  std::vector<size_t> widths(rows[0].size());
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    // The first column is a name and aligned left; the others are numbers.
    absl::StrAppendFormat(&text, "%-*s", static_cast<int>(widths[0]), row[0]);
    for (size_t i = 1; i < row.size(); ++i) {
      absl::StrAppendFormat(&text, "  %*s", static_cast<int>(widths[i]), row[i]);
    }
    text += '\n';
  }
  return text;
}

// Indices of the workers that hold something: stages in order, then those with only a head block.
std::vector<int> BusyWorkers(const Plan& plan) {
  std::vector<int> busy;
  for (const StagePlan& stage : plan.stages) {
    for (const StageMember& member : stage.members) busy.push_back(member.worker);
  }
  for (const HeadPlan& head : plan.heads) {
    if (plan.workers[head.worker].spec.layers.empty()) busy.push_back(head.worker);
  }
  return busy;
}

// "13.9", and "0.071" where that would be 0.1.
std::string PerSecond(double per_second) {
  return absl::StrFormat(per_second < 1 ? "%.2g" : "%.1f", per_second);
}

// "  (2 Gbit/s and 60 us in place of 1 and 120)", of what links have.
std::string LinkText(const LinkChange& link) {
  const auto rate = [](double bytes_per_second) {
    return absl::StrFormat("%.3g", bytes_per_second * 8 / 1e9);
  };
  const auto time = [](double us) { return absl::StrFormat("%.3g", us); };
  const bool limited = link.now.bytes_per_second > 0;
  const bool late = link.now.latency_us > 0;
  const char* both = limited && late ? " and " : "";
  return absl::StrCat("  (", limited ? rate(link.then.bytes_per_second) + " Gbit/s" : "", both,
                      late ? time(link.then.latency_us) + " us" : "", " in place of ",
                      limited ? rate(link.now.bytes_per_second) : "", both,
                      late ? time(link.now.latency_us) : "", ")");
}

// Where one stream's time goes, and the largest part of it.
std::string TimesText(const Plan& plan) {
  double compute = 0;
  double sums = 0;
  double hops = 0;
  double disk = 0;
  for (const StageTimes& stage : plan.times.stages) {
    compute += stage.compute;
    sums += stage.sums;
    hops += stage.hop;
    disk += stage.disk;
  }
  struct Part {
    const char* name;
    double ms;
    const char* bound;
  };
  const Part parts[] = {
      {"layers", compute, "reading the layers' weights"},
      {"sums inside groups", sums, "the network inside tensor-parallel groups"},
      {"hops", hops, "the network between stages"},
      {"disk", disk, "reading weights from disk"},
      {"head", plan.times.head, "the output matrix"},
      {"coordinator", plan.times.coordinator, "the coordinator's own work"},
  };
  std::string text = absl::StrFormat("one stream: %.2f ms per token (%s tok/s) =", plan.stream_ms,
                                     PerSecond(1e3 / plan.stream_ms));
  const Part* largest = &parts[0];
  const char* sign = " ";
  for (const Part& part : parts) {
    if (part.ms > largest->ms) largest = &part;
    if (part.ms <= 0) continue;
    absl::StrAppendFormat(&text, "%s%.2f %s", sign, part.ms, part.name);
    sign = " + ";
  }
  absl::StrAppendFormat(&text, "; bound by %s (%.0f %%)\n", largest->bound,
                        100 * largest->ms / plan.stream_ms);
  absl::StrAppendFormat(&text,
                        "many streams: a step every %.2f ms (%s per second) while all stages are "
                        "busy, a token for each sequence in it\n",
                        plan.slowest_ms, PerSecond(1e3 / plan.slowest_ms));
  return text;
}

Row Titles(bool with_slices) {
  Row titles = {"worker", "layers"};
  if (with_slices) titles.insert(titles.end(), {"heads", "ff columns"});
  titles.insert(titles.end(),
                {"head rows", "weights", "KV cache", "scratch", "total / offered", "predicted ms"});
  return titles;
}

std::string IdleText(const Plan& plan, const std::vector<WorkerProfile>& workers) {
  std::string text;
  for (size_t i = 0; i < plan.workers.size(); ++i) {
    if (!plan.workers[i].idle() || plan.workers[i].idle_reason.empty()) continue;
    absl::StrAppend(&text, workers[i].id, "  idle: ", plan.workers[i].idle_reason, "\n");
  }
  return text;
}

// How long a worker's stage waits for its disk in a step.
double DiskMs(const Plan& plan, size_t worker) {
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    for (const StageMember& member : plan.stages[i].members) {
      if (member.worker == static_cast<int>(worker)) return plan.times.stages[i].disk;
    }
  }
  return 0;
}

// What is to be said of a pipeline below the table.
void AppendParts(const Plan& plan, const std::vector<WorkerProfile>& workers, std::string& text) {
  for (size_t i = 0; i < plan.workers.size(); ++i) {
    if (plan.workers[i].streamed_bytes <= 0) continue;
    absl::StrAppend(&text, workers[i].id, " reads ",
                    base::FormatByteSize(plan.workers[i].streamed_bytes),
                    " of weights from disk for every step, and waits ",
                    absl::StrFormat("%.2f", DiskMs(plan, i)), " ms for them\n");
  }
  if (plan.embedding_worker != kCoordinator) {
    absl::StrAppend(&text, workers[plan.embedding_worker].id,
                    " turns tokens into rows: its weights include the embedding\n");
  }
  const model::RuntimeLimits& limits = plan.limits;
  absl::StrAppendFormat(
      &text, "KV cache: %d positions in all, %s; a step: at most %d tokens, %d outputs\n",
      limits.kv_blocks * model::kKvBlockTokens, base::GetDataTypeInfo(limits.kv_type).name,
      limits.max_step_tokens, limits.max_step_outputs);
  text += TimesText(plan);
  if (plan.given_up_ms > kWorthSayingMs) {
    absl::StrAppendFormat(&text,
                          "%.2f ms of a token's time (%.1f %%) are given up so that prompts take "
                          "%.0f %% less\n",
                          plan.given_up_ms, 100 * plan.given_up_ms / plan.stream_ms,
                          100 * plan.prompts_gain);
  }
  if (plan.kept) {
    absl::StrAppendFormat(&text,
                          "kept as it was placed last, so that no weights move: no plan can take "
                          "less than %.2f ms\n",
                          plan.bound_ms);
  } else if (!plan.exact) {
    absl::StrAppendFormat(&text, "not every plan was looked at: none can take less than %.2f ms\n",
                          plan.bound_ms);
  }
  for (const std::string& note : plan.notes) absl::StrAppend(&text, "note: ", note, "\n");
}

// The same of replicas: neighbours of which the same is to be said are named together.
void AppendPartsOfAll(const Replicas& replicas, const std::vector<WorkerProfile>& workers,
                      std::string& text) {
  std::vector<std::string> parts(replicas.plans.size());
  for (size_t i = 0; i < parts.size(); ++i) AppendParts(replicas.plans[i], workers, parts[i]);
  for (size_t first = 0, next = 0; first < parts.size(); first = next) {
    while (next < parts.size() && parts[next] == parts[first]) ++next;
    if (next - first == 1) {
      absl::StrAppend(&text, "replica ", next, ":\n", parts[first]);
    } else {
      absl::StrAppend(&text, "replicas ", first + 1, " to ", next, ", each:\n", parts[first]);
    }
  }
}

}  // namespace

std::string ExplainExperts(const model::Model& model, const model::ModelFootprint& footprint) {
  const model::ModelConfig& config = model.config;
  if (!config.has_experts()) return "";
  int64_t all = 0;
  int64_t others = 0;
  for (const model::LayerWeightBytes& layer : footprint.layers) {
    all += layer.total();
    others += layer.total() - layer.experts;
  }
  const auto experts = static_cast<double>(all - others);
  const int64_t read = others + static_cast<int64_t>(experts * config.ExpertShare());
  return absl::StrFormat(
      "experts: %d in each layer, a token uses %d: it reads %s of the layers' %s; a step of 32 "
      "tokens about %.0f %% of the experts, if all are used alike\n",
      config.n_experts, config.n_experts_used, base::FormatByteSize(read),
      base::FormatByteSize(all), 100 * model::ShareOfExpertsRead(config, 32));
}

std::string ExplainPlan(const Plan& plan, const std::vector<WorkerProfile>& workers) {
  const bool with_slices = HasGroups(plan);
  std::vector<Row> rows = {Titles(with_slices)};
  for (const int i : BusyWorkers(plan)) {
    rows.push_back(WorkerRow(workers[i], plan.workers[i], with_slices));
  }
  std::string text = FormatTable(rows) + IdleText(plan, workers);
  AppendParts(plan, workers, text);
  return text;
}

std::string ExplainReplicas(const Replicas& replicas, const std::vector<WorkerProfile>& workers) {
  if (replicas.plans.size() == 1) return ExplainPlan(replicas.plans.front(), workers);
  const bool with_slices = std::any_of(replicas.plans.begin(), replicas.plans.end(), HasGroups);
  std::vector<Row> rows = {Titles(with_slices)};
  rows.front().insert(rows.front().begin() + 1, "replica");
  std::vector<bool> busy(workers.size());
  for (size_t replica = 0; replica < replicas.plans.size(); ++replica) {
    const Plan& plan = replicas.plans[replica];
    for (const int i : BusyWorkers(plan)) {
      busy[i] = true;
      rows.push_back(WorkerRow(workers[i], plan.workers[i], with_slices));
      rows.back().insert(rows.back().begin() + 1, absl::StrCat(replica + 1));
    }
  }
  std::string text = FormatTable(rows);
  for (size_t i = 0; i < workers.size(); ++i) {
    if (busy[i]) continue;
    const std::string& reason = replicas.plans.front().workers[i].idle_reason;
    absl::StrAppend(&text, workers[i].id, "  idle: ", reason, "\n");
  }
  AppendPartsOfAll(replicas, workers, text);
  absl::StrAppendFormat(&text, "all %d replicas: %.1f steps per second while all stages are busy\n",
                        replicas.plans.size(), replicas.steps_per_second);
  if (!replicas.exact) {
    absl::StrAppendFormat(&text,
                          "not every division of the workers was looked at: none can give more "
                          "than %.1f steps per second\n",
                          replicas.bound_steps_per_second);
  }
  return text;
}

std::string ExplainChanges(const Replicas& replicas, Objective objective,
                           const std::vector<Change>& changes) {
  const bool one_stream = objective == Objective::kOneStream;
  const double now = TimeToCompare(replicas, objective);
  const bool several =
      replicas.plans.size() > 1 ||
      std::any_of(changes.begin(), changes.end(), [](const Change& c) { return c.replicas > 1; });
  const auto count_of = [&](size_t plans) {
    return several ? absl::StrFormat(", %d replica(s)", plans) : std::string();
  };
  const auto rate_of = [&](double ms) {
    return one_stream ? absl::StrCat("  ", PerSecond(1e3 / ms), " tok/s") : std::string();
  };
  std::string text = absl::StrFormat("what if (%s, now %.2f ms%s%s):\n",
                                     one_stream ? "ms per token"
                                     : several  ? "ms from step to step of all replicas"
                                                : "ms of the slowest",
                                     now, rate_of(now), count_of(replicas.plans.size()));
  size_t width = 0;
  for (const Change& change : changes) width = std::max(width, change.name.size());
  for (const Change& change : changes) {
    absl::StrAppendFormat(&text, "  %-*s  ", static_cast<int>(width), change.name);
    if (change.fits) {
      absl::StrAppendFormat(&text, "%8.2f ms%s  %+.0f %%%s%s\n", change.ms, rate_of(change.ms),
                            100 * (change.ms - now) / now, count_of(change.replicas),
                            change.link.has_value() ? LinkText(*change.link) : "");
    } else {
      text += "the model does not fit\n";
    }
  }
  return text;
}

}  // namespace renga::partition
