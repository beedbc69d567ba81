#include "partition/explain.h"

#include <algorithm>
#include <array>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "model/step.h"

namespace renga::partition {
namespace {

constexpr size_t kColumns = 8;
using Row = std::array<std::string, kColumns>;

// "0-10": first and last, both included, as people count.
std::string RangeText(const model::Range& range) {
  if (range.empty()) return "-";
  if (range.size() == 1) return absl::StrCat(range.begin);
  return absl::StrCat(range.begin, "-", range.end - 1);
}

Row WorkerRow(const WorkerProfile& profile, const WorkerPlan& worker) {
  return {profile.id,
          RangeText(worker.spec.layers),
          RangeText(worker.spec.head_rows),
          base::FormatByteSize(worker.bytes.weights),
          base::FormatByteSize(worker.bytes.kv),
          base::FormatByteSize(worker.bytes.scratch),
          absl::StrCat(base::FormatByteSize(worker.bytes.total()), " / ",
                       base::FormatByteSize(profile.memory_bytes)),
          absl::StrFormat("%.2f", worker.predicted_ms)};
}

std::string FormatTable(const std::vector<Row>& rows) {
  std::array<size_t, kColumns> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < kColumns; ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    // The first column is a name and aligned left; the others are numbers.
    absl::StrAppendFormat(&text, "%-*s", static_cast<int>(widths[0]), row[0]);
    for (size_t i = 1; i < kColumns; ++i) {
      absl::StrAppendFormat(&text, "  %*s", static_cast<int>(widths[i]), row[i]);
    }
    text += '\n';
  }
  return text;
}

// Indices of the workers that hold something: stages in order, then those with only a head block.
std::vector<int> BusyWorkers(const Plan& plan) {
  std::vector<int> busy;
  for (const StagePlan& stage : plan.stages) busy.push_back(stage.worker);
  for (const HeadPlan& head : plan.heads) {
    if (plan.workers[head.worker].spec.layers.empty()) busy.push_back(head.worker);
  }
  return busy;
}

}  // namespace

std::string ExplainPlan(const Plan& plan, const std::vector<WorkerProfile>& workers) {
  std::vector<Row> rows = {{"worker", "layers", "head rows", "weights", "KV cache", "scratch",
                            "total / offered", "predicted ms"}};
  for (const int i : BusyWorkers(plan)) rows.push_back(WorkerRow(workers[i], plan.workers[i]));
  std::string text = FormatTable(rows);
  for (size_t i = 0; i < plan.workers.size(); ++i) {
    if (!plan.workers[i].idle()) continue;
    absl::StrAppend(&text, workers[i].id, "  idle: ", plan.workers[i].idle_reason, "\n");
  }
  const model::RuntimeLimits& limits = plan.limits;
  absl::StrAppendFormat(
      &text, "KV cache: %d positions in all, %s; a step: at most %d tokens, %d outputs\n",
      limits.kv_blocks * model::kKvBlockTokens, base::GetDataTypeInfo(limits.kv_type).name,
      limits.max_step_tokens, limits.max_step_outputs);
  absl::StrAppendFormat(&text,
                        "predicted compute: %.2f ms per token for one stream, %.2f ms for the "
                        "slowest worker (reading its weights; hops not counted)\n",
                        plan.stream_ms, plan.slowest_ms);
  for (const std::string& note : plan.notes) absl::StrAppend(&text, "note: ", note, "\n");
  return text;
}

}  // namespace renga::partition
