#include "worker/engine/head_block.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "model/gumbel.h"

namespace renga::engine {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

// Best first.
void SortByLogit(model::HeadRow& row) {
  std::vector<std::pair<float, int32_t>> rows;
  for (size_t i = 0; i < row.ids.size(); ++i) rows.emplace_back(row.logits[i], row.ids[i]);
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  for (size_t i = 0; i < rows.size(); ++i) {
    row.logits[i] = rows[i].first;
    row.ids[i] = rows[i].second;
  }
}

}  // namespace

bool HeadBlock::CanUse(const ScreenFile& screen, const model::ModelConfig& config,
                       base::DataType type) {
  return screen.type() == type && CanScreen(type) && screen.basis().width == config.d_model &&
         screen.rows() == config.vocab_size;
}

absl::StatusOr<std::unique_ptr<HeadBlock>> HeadBlock::Load(
    const model::Model& model, const model::BlockRows& rows, const model::RuntimeLimits& limits,
    kernels::Backend* backend, WeightLoader& loader, std::shared_ptr<const ScreenFile> screen) {
  std::unique_ptr<HeadBlock> block(new HeadBlock(model, rows, limits.approximation, backend));
  const model::TensorSpec norm = model::OutputNormTensor(model.config);
  RENGA_ASSIGN_OR_RETURN(block->norm_, loader.LoadVector(norm, model::WholeTensor(norm)));
  RENGA_RETURN_IF_ERROR(block->LoadRows(limits, loader, std::move(screen)));
  RENGA_ASSIGN_OR_RETURN(block->input_, backend->Allocate(limits.max_step_outputs *
                                                          model.config.d_model * kFloatBytes));
  if (block->hot_ != nullptr) return block;
  RENGA_ASSIGN_OR_RETURN(block->logits_,
                         backend->Allocate(limits.max_step_outputs * rows.size() * kFloatBytes));
  return block;
}

absl::Status HeadBlock::LoadRows(const model::RuntimeLimits& limits, WeightLoader& loader,
                                 std::shared_ptr<const ScreenFile> screen) {
  if (screen != nullptr) {
    RENGA_ASSIGN_OR_RETURN(screened_, ScreenedHead::Create(std::move(screen), rows_.range(),
                                                           backend_, base::UsableCpuCount()));
    return absl::OkStatus();
  }
  const model::TensorSpec output = model::OutputTensor(config_);
  const auto& hot = approximation_.hot_rows;
  if (hot != nullptr && HotHead::Divides(*hot, rows_.range())) {
    RENGA_ASSIGN_OR_RETURN(hot_, HotHead::Load(output, *hot, rows_.range(), limits.max_step_outputs,
                                               backend_, loader));
    return absl::OkStatus();
  }
  if (!rows_.contiguous()) {
    RENGA_ASSIGN_OR_RETURN(matrix_, loader.LoadRowSet(output, rows_.range(), rows_.ids()));
    return absl::OkStatus();
  }
  model::TensorPart part = model::WholeTensor(output);
  part.rows = rows_.range();
  RENGA_ASSIGN_OR_RETURN(matrix_, loader.LoadMatrix(output, part));
  return absl::OkStatus();
}

HeadBlock::~HeadBlock() {
  if (screened_ == nullptr) return;
  const ScreenCounts& counts = screened_->counts();
  const double outputs = std::max<double>(1, static_cast<double>(counts.outputs));
  RENGA_LOG(INFO) << absl::StrFormat(
      "head: %d outputs by screen and %d by all rows; %d bytes resident; by screen %.0f second "
      "levels, %.0f rows, %.0f bytes and %.3f ms for an output",
      counts.outputs, counts.full_outputs, screened_->resident_bytes(),
      static_cast<double>(counts.fine_rows) / outputs,
      static_cast<double>(counts.exact_rows) / outputs,
      static_cast<double>(counts.bytes_read) / outputs,
      absl::ToDoubleMilliseconds(screened_time_) / outputs);
}

absl::StatusOr<std::vector<model::HeadRow>> HeadBlock::Run(const model::Step& step,
                                                           std::span<const float> outputs) {
  const int64_t total = step.output_count();
  std::vector<model::HeadRow> answers;
  answers.reserve(total);
  if (total == 0) return answers;
  for (const model::StepSlot& slot : step.slots) {
    for (const auto& allowed : slot.allowed) {
      RENGA_RETURN_IF_ERROR(allowed->CheckFits(config_.vocab_size));
    }
  }
  RENGA_RETURN_IF_ERROR(NormOutputs(outputs, total));
  if (matrix_ != nullptr) RENGA_RETURN_IF_ERROR(ComputeLogits(0, total));
  // Neighbours that ask the same are answered by one call.
  Asked asked;
  int64_t first = 0;
  int64_t count = 0;
  for (const model::StepSlot& slot : step.slots) {
    for (int64_t i = 0; i < slot.output_count; ++i) {
      const Asked now = HowToAnswer(slot, i);
      if (count > 0 && now != asked) {
        RENGA_RETURN_IF_ERROR(AnswerRun(asked, first, count, answers));
        first += count;
        count = 0;
      }
      asked = now;
      ++count;
    }
  }
  RENGA_RETURN_IF_ERROR(AnswerRun(asked, first, count, answers));
  return answers;
}

HeadBlock::Asked HeadBlock::HowToAnswer(const model::StepSlot& slot, int64_t index) const {
  const int64_t position = slot.first_position + slot.token_count - slot.output_count + index;
  const bool few = slot.top_k > 0 || slot.within > 0;
  const bool draws = slot.top_k == 0 && slot.within > 0 && slot.draw_temperature > 0;
  return {.top_k = slot.top_k,
          .within = slot.top_k > 0 ? 0 : slot.within,
          .draw_temperature = draws ? slot.draw_temperature : 0,
          .draw_seed = draws ? slot.draw_seed : 0,
          .draw_position = draws ? static_cast<uint64_t>(position) + 1 : 0,
          .allowed = few ? slot.allowed_at(index) : nullptr,
          .by_screen = screened_ != nullptr && few && !slot.sum_wanted,
          .hot_only = hot_ != nullptr && !slot.all_rows && approximation_.Applies(position)};
}

absl::Status HeadBlock::AnswerRun(const Asked& asked, int64_t first, int64_t count,
                                  std::vector<model::HeadRow>& answers) {
  if (hot_ != nullptr) {
    const size_t before = answers.size();
    const int64_t best = asked.allowed != nullptr ? 0 : asked.top_k;
    RENGA_RETURN_IF_ERROR(hot_->Answer(Input(first, count), best, asked.hot_only, answers));
    for (size_t i = before; best == 0 && i < answers.size(); ++i) KeepAsked(asked, answers[i]);
    return absl::OkStatus();
  }
  if (asked.by_screen) return AnswerByScreen(first, count, asked, answers);
  if (screened_ != nullptr) RENGA_RETURN_IF_ERROR(ComputeLogits(first, count));
  return Answer(first, count, asked, answers);
}

absl::Status HeadBlock::NormOutputs(std::span<const float> outputs, int64_t count) {
  RENGA_RETURN_IF_ERROR(backend_->Upload(std::as_bytes(outputs), *input_, 0));
  return backend_->RmsNorm(Input(0, count), reinterpret_cast<const float*>(norm_->data()),
                           static_cast<float>(config_.norm_epsilon), Input(0, count));
}

absl::Status HeadBlock::ComputeLogits(int64_t first, int64_t count) {
  if (matrix_ == nullptr) return screened_->AllLogits(Input(first, count), Logits(first, count));
  const kernels::LinearOutput output{
      .matrix = matrix_.get(), .bias = nullptr, .out = Logits(first, count)};
  return backend_->Linear(Input(first, count), std::span(&output, 1));
}

absl::Status HeadBlock::AnswerByScreen(int64_t first, int64_t count, const Asked& asked,
                                       std::vector<model::HeadRow>& answers) {
  ScreenedHead::Wanted wanted{.top_k = std::min(asked.top_k, rows_.size()),
                              .allowed = asked.allowed};
  if (asked.within > 0) wanted.within = asked.within;
  if (asked.draw_temperature > 0) {
    wanted.noise = {.gumbel = model::GumbelNoise(asked.draw_seed, asked.draw_position),
                    .temperature = asked.draw_temperature};
  }
  for (int64_t i = first; i < first + count; ++i) {
    const absl::Time begin = absl::Now();
    RENGA_ASSIGN_OR_RETURN(std::optional<model::HeadRow> found,
                           screened_->Find(Input(i, 1), wanted));
    screened_time_ += absl::Now() - begin;
    if (found.has_value()) {
      if (wanted.noise.has_value()) SortByLogit(*found);
      answers.push_back(*std::move(found));
      continue;
    }
    RENGA_RETURN_IF_ERROR(ComputeLogits(i, 1));
    RENGA_RETURN_IF_ERROR(Answer(i, 1, asked, answers));
  }
  return absl::OkStatus();
}

absl::Status HeadBlock::Answer(int64_t first, int64_t count, const Asked& asked,
                               std::vector<model::HeadRow>& answers) {
  std::vector<kernels::TopRow> best(count);
  // Devices choose among all rows; among some it is done here.
  const int64_t best_of_all = asked.allowed != nullptr ? 0 : std::min(asked.top_k, rows_.size());
  RENGA_RETURN_IF_ERROR(backend_->TopK(Logits(first, count), best_of_all, best));
  for (int64_t i = 0; i < count; ++i) {
    model::HeadRow answer;
    answer.max_logit = best[i].max_logit;
    answer.sum_exp = best[i].sum_exp;
    if (best_of_all > 0) {
      answer.ids = std::move(best[i].indices);
      for (int32_t& id : answer.ids) id = rows_.id(id);
      answer.logits = std::move(best[i].logits);
    } else {
      answer.logits.resize(rows_.size());
      RENGA_RETURN_IF_ERROR(backend_->Download(*logits_, (first + i) * rows_.size() * kFloatBytes,
                                               std::as_writable_bytes(std::span(answer.logits))));
      KeepAsked(asked, answer);
    }
    answers.push_back(std::move(answer));
  }
  return absl::OkStatus();
}

void HeadBlock::KeepAsked(const Asked& asked, model::HeadRow& answer) const {
  if (asked.top_k > 0) return KeepBest(asked, answer);
  if (asked.within > 0) KeepWithin(asked, answer);
}

std::vector<int64_t> HeadBlock::Places(const Asked& asked) const {
  if (asked.allowed == nullptr) {
    std::vector<int64_t> all(static_cast<size_t>(rows_.size()));
    std::iota(all.begin(), all.end(), int64_t{0});
    return all;
  }
  std::vector<int64_t> places;
  int64_t place = 0;
  for (const int32_t id : asked.allowed->IdsIn(rows_)) {
    if (rows_.contiguous()) place = id - rows_.range().begin;
    while (rows_.id(place) != id) ++place;
    places.push_back(place);
  }
  return places;
}

void HeadBlock::KeepBest(const Asked& asked, model::HeadRow& answer) const {
  std::vector<int64_t> places = Places(asked);
  // What is not a number comes last, so that the order is one; whoever gets it notices.
  const auto key = [&](int64_t place) {
    const float logit = answer.logits[static_cast<size_t>(place)];
    return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit;
  };
  const auto kept = static_cast<int64_t>(std::min(places.size(), static_cast<size_t>(asked.top_k)));
  std::partial_sort(places.begin(), places.begin() + kept, places.end(), [&](int64_t a, int64_t b) {
    return key(a) != key(b) ? key(a) > key(b) : a < b;
  });
  places.resize(static_cast<size_t>(kept));
  const std::vector<float> all = std::exchange(answer.logits, {});
  for (const int64_t place : places) {
    answer.logits.push_back(all[static_cast<size_t>(place)]);
    answer.ids.push_back(rows_.id(place));
  }
}

void HeadBlock::KeepWithin(const Asked& asked, model::HeadRow& answer) const {
  if (!std::isfinite(answer.max_logit)) return;
  const model::GumbelNoise noise(asked.draw_seed, asked.draw_position);
  const double temperature = asked.draw_temperature;
  const auto within = static_cast<double>(asked.within);
  const bool known = temperature == 0 && asked.allowed == nullptr;
  double best = known ? answer.max_logit : -std::numeric_limits<double>::infinity();
  struct Kept {
    double value;
    float logit;
    int32_t id;
  };
  std::vector<Kept> kept;
  for (const int64_t place : Places(asked)) {
    const float logit = answer.logits[static_cast<size_t>(place)];
    const int32_t id = rows_.id(place);
    double value = logit;
    // Also what is not a number.
    if (!(value + temperature * noise.AtMost(id) >= best - within)) continue;
    if (temperature > 0) value += temperature * noise.Of(id);
    best = std::max(best, value);
    kept.push_back({value, logit, id});
  }
  answer.logits.clear();
  for (const Kept& row : kept) {
    if (row.value < best - within) continue;
    answer.logits.push_back(row.logit);
    answer.ids.push_back(row.id);
  }
  SortByLogit(answer);
}

kernels::RowsView HeadBlock::Input(int64_t first, int64_t count) const {
  return {.data = reinterpret_cast<float*>(input_->data()) + first * config_.d_model,
          .rows = count,
          .columns = config_.d_model,
          .stride = config_.d_model};
}

kernels::RowsView HeadBlock::Logits(int64_t first, int64_t count) const {
  return {.data = reinterpret_cast<float*>(logits_->data()) + first * rows_.size(),
          .rows = count,
          .columns = rows_.size(),
          .stride = rows_.size()};
}

}  // namespace renga::engine
