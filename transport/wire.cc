#include "transport/wire.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/block_rows.h"
#include "transport/dialer.h"

namespace renga::transport {
namespace {

static_assert(std::endian::native == std::endian::little,
              "activations and logits travel as little-endian memory");

// Far above what any plan asks for; they keep a peer's numbers from overflowing sums and from
// asking for absurd memory before the engine compares them with the plan.
constexpr int kMaxSlots = 1 << 16;
constexpr int kMaxCommands = 1 << 16;
constexpr int kMaxBlocks = 1 << 22;  // over all commands of a step
constexpr int64_t kMaxPosition = int64_t{1} << 31;
constexpr int64_t kMaxStepTokens = int64_t{1} << 20;
constexpr int64_t kMaxConfigNumber = int64_t{1} << 31;
constexpr int64_t kMaxLayers = 1 << 16;
constexpr int64_t kMaxExperts = 1 << 12;
constexpr int64_t kMaxWidth = 1 << 24;  // d_model, heads and the like: products stay in int64
constexpr size_t kMaxNameBytes = 4096;

absl::Status CheckRange(int64_t value, int64_t min, int64_t max, absl::string_view field) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ", not in ", min, " to ", max));
}

proto::KvCommand::Kind KindToProto(model::KvCommand::Kind kind) {
  switch (kind) {
    case model::KvCommand::Kind::kAppendBlocks:
      return proto::KvCommand::KIND_APPEND_BLOCKS;
    case model::KvCommand::Kind::kTruncate:
      return proto::KvCommand::KIND_TRUNCATE;
    case model::KvCommand::Kind::kShare:
      return proto::KvCommand::KIND_SHARE;
    case model::KvCommand::Kind::kFree:
      return proto::KvCommand::KIND_FREE;
  }
  return proto::KvCommand::KIND_UNSPECIFIED;
}

absl::StatusOr<model::KvCommand::Kind> KindFromProto(proto::KvCommand::Kind kind) {
  switch (kind) {
    case proto::KvCommand::KIND_APPEND_BLOCKS:
      return model::KvCommand::Kind::kAppendBlocks;
    case proto::KvCommand::KIND_TRUNCATE:
      return model::KvCommand::Kind::kTruncate;
    case proto::KvCommand::KIND_SHARE:
      return model::KvCommand::Kind::kShare;
    case proto::KvCommand::KIND_FREE:
      return model::KvCommand::Kind::kFree;
    default:
      break;  // proto3 enums are open
  }
  return absl::InvalidArgumentError(absl::StrCat("command.kind is unknown: ", kind));
}

absl::StatusOr<model::KvCommand> FromProto(const proto::KvCommand& message) {
  model::KvCommand command;
  RENGA_ASSIGN_OR_RETURN(command.kind, KindFromProto(message.kind()));
  RENGA_RETURN_IF_ERROR(CheckRange(message.tokens(), 0, kMaxPosition, "command.tokens"));
  for (const int32_t block : message.blocks()) {
    if (block < 0) {
      return absl::InvalidArgumentError(absl::StrCat("command.blocks has the number ", block));
    }
  }
  command.sequence = message.sequence();
  command.source = message.source();
  command.tokens = message.tokens();
  command.blocks.assign(message.blocks().begin(), message.blocks().end());
  return command;
}

// Whether they are of the vocabulary is for the engine to say.
absl::StatusOr<std::vector<std::shared_ptr<const model::TokenMask>>> AllowedFromProto(
    const proto::StepSlot& message) {
  std::vector<std::shared_ptr<const model::TokenMask>> allowed;
  if (message.allowed_size() == 0) return allowed;
  if (message.allowed_size() != message.output_count()) {
    return absl::InvalidArgumentError(absl::StrCat("slot.allowed has ", message.allowed_size(),
                                                   " sets of tokens for ", message.output_count(),
                                                   " outputs"));
  }
  for (const proto::TokenMask& mask : message.allowed()) {
    absl::StatusOr<model::TokenMask> checked = model::TokenMask::FromParts(
        {mask.ids().begin(), mask.ids().end()}, {mask.bits().begin(), mask.bits().end()});
    if (!checked.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("slot.allowed has ", checked.status().message()));
    }
    allowed.push_back(std::make_shared<const model::TokenMask>(*std::move(checked)));
  }
  return allowed;
}

absl::StatusOr<model::StepSlot> FromProto(const proto::StepSlot& message) {
  RENGA_RETURN_IF_ERROR(
      CheckRange(message.first_position(), 0, kMaxPosition, "slot.first_position"));
  RENGA_RETURN_IF_ERROR(CheckRange(message.token_count(), 1, kMaxStepTokens, "slot.token_count"));
  RENGA_RETURN_IF_ERROR(
      CheckRange(message.output_count(), 0, message.token_count(), "slot.output_count"));
  RENGA_RETURN_IF_ERROR(CheckRange(message.top_k(), 0, kMaxConfigNumber, "slot.top_k"));
  if (!std::isfinite(message.within()) || message.within() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("slot.within is ", message.within(), ", not 0 or more"));
  }
  if (!std::isfinite(message.draw_temperature()) || message.draw_temperature() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("slot.draw_temperature is ", message.draw_temperature(), ", not 0 or more"));
  }
  RENGA_ASSIGN_OR_RETURN(auto allowed, AllowedFromProto(message));
  return model::StepSlot{.sequence = message.sequence(),
                         .first_position = message.first_position(),
                         .token_count = message.token_count(),
                         .output_count = message.output_count(),
                         .top_k = message.top_k(),
                         .sum_wanted = !message.sum_not_wanted(),
                         .within = message.within(),
                         .draw_temperature = message.draw_temperature(),
                         .draw_seed = message.draw_seed(),
                         .all_rows = message.all_rows(),
                         .allowed = std::move(allowed)};
}

absl::Status CheckPositive(double value, absl::string_view field) {
  if (std::isfinite(value) && value > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, ", not above 0"));
}

// Ranges first, then how the numbers fit each other.
absl::Status CheckWindow(const proto::ModelConfig& message) {
  if (message.windowed_layers().empty()) return absl::OkStatus();
  if (message.windowed_layers_size() != message.n_layers()) {
    return absl::InvalidArgumentError("config.windowed_layers is not one for each layer");
  }
  RENGA_RETURN_IF_ERROR(CheckRange(message.window(), 1, kMaxConfigNumber, "config.window"));
  RENGA_RETURN_IF_ERROR(CheckPositive(message.window_rope_base(), "config.window_rope_base"));
  return CheckPositive(message.window_rope_position_scale(), "config.window_rope_position_scale");
}

absl::Status CheckConfig(const proto::ModelConfig& message) {
  if (message.architecture().size() > kMaxNameBytes || message.name().size() > kMaxNameBytes) {
    return absl::InvalidArgumentError("config has a name that is too long");
  }
  RENGA_RETURN_IF_ERROR(CheckRange(message.n_layers(), 1, kMaxLayers, "config.n_layers"));
  RENGA_RETURN_IF_ERROR(CheckRange(message.d_model(), 1, kMaxWidth, "config.d_model"));
  RENGA_RETURN_IF_ERROR(CheckRange(message.n_heads(), 1, 1 << 16, "config.n_heads"));
  RENGA_RETURN_IF_ERROR(
      CheckRange(message.n_kv_heads(), 1, message.n_heads(), "config.n_kv_heads"));
  RENGA_RETURN_IF_ERROR(CheckRange(message.head_dim(), 1, 1 << 16, "config.head_dim"));
  RENGA_RETURN_IF_ERROR(CheckRange(message.d_ff(), 1, kMaxWidth, "config.d_ff"));
  RENGA_RETURN_IF_ERROR(CheckRange(message.n_experts(), 0, kMaxExperts, "config.n_experts"));
  RENGA_RETURN_IF_ERROR(CheckRange(message.n_experts_used(), message.n_experts() > 0 ? 1 : 0,
                                   message.n_experts(), "config.n_experts_used"));
  RENGA_RETURN_IF_ERROR(CheckRange(message.vocab_size(), 1, kMaxWidth, "config.vocab_size"));
  RENGA_RETURN_IF_ERROR(
      CheckRange(message.context_length(), 1, kMaxConfigNumber, "config.context_length"));
  RENGA_RETURN_IF_ERROR(CheckRange(message.rope_dims(), 0, message.head_dim(), "config.rope_dims"));
  if (message.n_heads() % message.n_kv_heads() != 0) {
    return absl::InvalidArgumentError("config.n_heads is not a multiple of n_kv_heads");
  }
  if (message.rope_dims() % 2 != 0) {
    return absl::InvalidArgumentError("config.rope_dims is odd");
  }
  RENGA_RETURN_IF_ERROR(CheckPositive(message.norm_epsilon(), "config.norm_epsilon"));
  RENGA_RETURN_IF_ERROR(CheckPositive(message.rope_base(), "config.rope_base"));
  RENGA_RETURN_IF_ERROR(CheckPositive(message.rope_position_scale(), "config.rope_position_scale"));
  if (message.embedding_scale() != 0) {
    RENGA_RETURN_IF_ERROR(CheckPositive(message.embedding_scale(), "config.embedding_scale"));
  }
  if (message.attention_scale() != 0) {
    RENGA_RETURN_IF_ERROR(CheckPositive(message.attention_scale(), "config.attention_scale"));
  }
  return CheckWindow(message);
}

// One bit for each of `count` numbers, the lowest first.
std::string BitsOf(const std::vector<int32_t>& numbers, int64_t count) {
  std::string bits(static_cast<size_t>((count + 7) / 8), '\0');
  for (const int32_t number : numbers) {
    bits[static_cast<size_t>(number / 8)] |= static_cast<char>(1 << number % 8);
  }
  return bits;
}

// Ascending.
absl::StatusOr<std::shared_ptr<const std::vector<int32_t>>> NumbersOf(absl::string_view bits,
                                                                      int64_t count,
                                                                      absl::string_view field) {
  if (static_cast<int64_t>(bits.size()) != (count + 7) / 8) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " has ", bits.size(), " bytes for ", count, " of them"));
  }
  auto numbers = std::make_shared<std::vector<int32_t>>();
  for (size_t i = 0; i < bits.size() * 8; ++i) {
    if ((bits[i / 8] >> i % 8 & 1) != 0) numbers->push_back(static_cast<int32_t>(i));
  }
  return numbers;
}

}  // namespace

proto::Step ToProto(const model::Step& step) {
  proto::Step message;
  message.set_epoch(step.epoch);
  message.set_number(step.number);
  for (const model::KvCommand& command : step.commands) {
    proto::KvCommand& to = *message.add_commands();
    to.set_kind(KindToProto(command.kind));
    to.set_sequence(command.sequence);
    to.set_source(command.source);
    to.set_tokens(command.tokens);
    to.mutable_blocks()->Add(command.blocks.begin(), command.blocks.end());
  }
  for (const model::StepSlot& slot : step.slots) {
    proto::StepSlot& to = *message.add_slots();
    to.set_sequence(slot.sequence);
    to.set_first_position(slot.first_position);
    to.set_token_count(slot.token_count);
    to.set_output_count(slot.output_count);
    to.set_top_k(slot.top_k);
    to.set_sum_not_wanted(!slot.sum_wanted);
    to.set_all_rows(slot.all_rows);
    to.set_within(slot.within);
    to.set_draw_temperature(slot.draw_temperature);
    to.set_draw_seed(slot.draw_seed);
    // Where every logit is answered nobody looks at it.
    if (slot.top_k == 0 && slot.within == 0) continue;
    for (const auto& mask : slot.allowed) {
      proto::TokenMask& tokens = *to.add_allowed();
      tokens.mutable_ids()->Add(mask->ids().begin(), mask->ids().end());
      tokens.set_bits(mask->bits().data(), mask->bits().size());
    }
  }
  return message;
}

absl::StatusOr<model::Step> FromProto(const proto::Step& message) {
  if (message.epoch() == 0 || message.number() == 0) {
    return absl::InvalidArgumentError("step.epoch and step.number begin at 1");
  }
  RENGA_RETURN_IF_ERROR(CheckRange(message.slots_size(), 0, kMaxSlots, "step.slots"));
  RENGA_RETURN_IF_ERROR(CheckRange(message.commands_size(), 0, kMaxCommands, "step.commands"));
  model::Step step;
  step.epoch = message.epoch();
  step.number = message.number();
  int64_t blocks = 0;
  for (const proto::KvCommand& command : message.commands()) {
    blocks += command.blocks_size();
    RENGA_RETURN_IF_ERROR(CheckRange(blocks, 0, kMaxBlocks, "step.commands' blocks"));
    RENGA_ASSIGN_OR_RETURN(model::KvCommand checked, FromProto(command));
    step.commands.push_back(std::move(checked));
  }
  int64_t tokens = 0;
  for (const proto::StepSlot& slot : message.slots()) {
    RENGA_ASSIGN_OR_RETURN(model::StepSlot checked, FromProto(slot));
    tokens += checked.token_count;
    RENGA_RETURN_IF_ERROR(CheckRange(tokens, 0, kMaxStepTokens, "step.slots' tokens"));
    step.slots.push_back(std::move(checked));
  }
  return step;
}

absl::StatusOr<std::vector<uint64_t>> StepNumbers(const proto::StepWithdrawal& message) {
  RENGA_RETURN_IF_ERROR(
      CheckRange(message.numbers_size(), 0, kEdgeWindowFrames, "withdrawal.numbers"));
  std::vector<uint64_t> numbers(message.numbers().begin(), message.numbers().end());
  if (std::find(numbers.begin(), numbers.end(), 0) != numbers.end()) {
    return absl::InvalidArgumentError("withdrawal.numbers begin at 1");
  }
  return numbers;
}

proto::ModelConfig ToProto(const model::ModelConfig& config) {
  proto::ModelConfig message;
  message.set_architecture(config.architecture);
  message.set_name(config.name);
  message.set_n_layers(config.n_layers);
  message.set_d_model(config.d_model);
  message.set_n_heads(config.n_heads);
  message.set_n_kv_heads(config.n_kv_heads);
  message.set_head_dim(config.head_dim);
  message.set_d_ff(config.d_ff);
  message.set_n_experts(config.n_experts);
  message.set_n_experts_used(config.n_experts_used);
  message.set_vocab_size(config.vocab_size);
  message.set_context_length(config.context_length);
  message.set_norm_epsilon(config.norm_epsilon);
  message.set_rope_halves(config.rope.style == model::RopeStyle::kHalves);
  message.set_rope_dims(config.rope.dims);
  message.set_rope_base(config.rope.base);
  message.set_rope_position_scale(config.rope.position_scale);
  message.set_rope_has_factors(config.rope_has_factors);
  message.set_tied_output(config.tied_output);
  if (config.embedding_scale != 1) message.set_embedding_scale(config.embedding_scale);
  message.set_attention_scale(config.attention_scale);
  if (config.windowed_layers.empty()) return message;
  for (const bool windowed : config.windowed_layers) message.add_windowed_layers(windowed);
  message.set_window(config.window);
  message.set_window_rope_base(config.window_rope.base);
  message.set_window_rope_position_scale(config.window_rope.position_scale);
  return message;
}

absl::StatusOr<model::ModelConfig> FromProto(const proto::ModelConfig& message) {
  RENGA_RETURN_IF_ERROR(CheckConfig(message));
  model::ModelConfig config;
  config.architecture = message.architecture();
  config.name = message.name();
  config.n_layers = message.n_layers();
  config.d_model = message.d_model();
  config.n_heads = message.n_heads();
  config.n_kv_heads = message.n_kv_heads();
  config.head_dim = message.head_dim();
  config.d_ff = message.d_ff();
  config.n_experts = message.n_experts();
  config.n_experts_used = message.n_experts_used();
  config.vocab_size = message.vocab_size();
  config.context_length = message.context_length();
  config.norm_epsilon = message.norm_epsilon();
  config.rope.style =
      message.rope_halves() ? model::RopeStyle::kHalves : model::RopeStyle::kNeighbours;
  config.rope.dims = message.rope_dims();
  config.rope.base = message.rope_base();
  config.rope.position_scale = message.rope_position_scale();
  config.rope_has_factors = message.rope_has_factors();
  config.tied_output = message.tied_output();
  if (message.embedding_scale() != 0) config.embedding_scale = message.embedding_scale();
  config.attention_scale = message.attention_scale();
  if (message.windowed_layers().empty()) return config;
  config.windowed_layers.assign(message.windowed_layers().begin(), message.windowed_layers().end());
  config.window = message.window();
  config.window_rope = config.rope;
  config.window_rope.base = message.window_rope_base();
  config.window_rope.position_scale = message.window_rope_position_scale();
  return config;
}

std::string RowSetToWire(const model::RowSet& rows, int64_t vocab_size) {
  return BitsOf(rows, vocab_size);
}

absl::StatusOr<std::shared_ptr<const model::RowSet>> RowSetFromWire(
    absl::string_view bits, const model::ModelConfig& config, absl::string_view field) {
  RENGA_ASSIGN_OR_RETURN(auto rows, NumbersOf(bits, config.vocab_size, field));
  RENGA_RETURN_IF_ERROR(model::CheckRowSet(*rows, config, field));
  return rows;
}

proto::Approximation ToProto(const model::Approximation& approximation,
                             const model::ModelConfig& config) {
  proto::Approximation message;
  message.set_late_percent(static_cast<uint32_t>(approximation.late_percent));
  message.set_at_most_percent(static_cast<uint32_t>(approximation.at_most_percent));
  message.set_deadline_ms(static_cast<uint32_t>(approximation.deadline_ms));
  message.set_missing_percent(static_cast<uint32_t>(approximation.missing_percent));
  message.mutable_without_attention()->Add(approximation.without_attention.begin(),
                                           approximation.without_attention.end());
  message.mutable_without_feed_forward()->Add(approximation.without_feed_forward.begin(),
                                              approximation.without_feed_forward.end());
  if (approximation.hot_rows != nullptr) {
    message.set_hot_rows(RowSetToWire(*approximation.hot_rows, config.vocab_size));
  }
  if (approximation.cold_neurons != nullptr) {
    message.set_cold_neurons(BitsOf(*approximation.cold_neurons, config.n_layers * config.d_ff));
  }
  return message;
}

absl::StatusOr<model::Approximation> FromProto(const proto::Approximation& message,
                                               const model::ModelConfig& config) {
  model::Approximation approximation{.late_percent = message.late_percent(),
                                     .deadline_ms = message.deadline_ms(),
                                     .missing_percent = message.missing_percent(),
                                     .at_most_percent = message.at_most_percent()};
  approximation.without_attention.assign(message.without_attention().begin(),
                                         message.without_attention().end());
  approximation.without_feed_forward.assign(message.without_feed_forward().begin(),
                                            message.without_feed_forward().end());
  if (!message.hot_rows().empty()) {
    RENGA_ASSIGN_OR_RETURN(approximation.hot_rows,
                           RowSetFromWire(message.hot_rows(), config, "approximation.hot_rows"));
  }
  if (!message.cold_neurons().empty()) {
    RENGA_ASSIGN_OR_RETURN(approximation.cold_neurons,
                           NumbersOf(message.cold_neurons(), config.n_layers * config.d_ff,
                                     "approximation.cold_neurons"));
  }
  RENGA_RETURN_IF_ERROR(model::CheckApproximation(approximation, config));
  return approximation;
}

proto::HeadRow ToProto(const model::HeadRow& row) {
  proto::HeadRow message;
  message.mutable_ids()->Add(row.ids.begin(), row.ids.end());
  message.set_logits(std::string(reinterpret_cast<const char*>(row.logits.data()),
                                 row.logits.size() * sizeof(float)));
  message.set_max_logit(row.max_logit);
  message.set_sum_exp(row.sum_exp);
  return message;
}

absl::StatusOr<model::HeadRow> FromProto(const proto::HeadRow& message, int64_t max_rows) {
  const int64_t bytes = static_cast<int64_t>(message.logits().size());
  const int64_t count = bytes / static_cast<int64_t>(sizeof(float));
  if (bytes % static_cast<int64_t>(sizeof(float)) != 0 || count > max_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("row.logits has ", bytes, " bytes for at most ", max_rows, " rows"));
  }
  if (message.ids_size() != 0 && message.ids_size() != count) {
    return absl::InvalidArgumentError(
        absl::StrCat("row.ids has ", message.ids_size(), " entries for ", count, " logits"));
  }
  for (const int32_t id : message.ids()) {
    RENGA_RETURN_IF_ERROR(CheckRange(id, 0, max_rows - 1, "row.ids"));
  }
  model::HeadRow row;
  row.ids.assign(message.ids().begin(), message.ids().end());
  row.logits.resize(static_cast<size_t>(count));
  if (count > 0) std::memcpy(row.logits.data(), message.logits().data(), message.logits().size());
  row.max_logit = message.max_logit();
  row.sum_exp = message.sum_exp();
  return row;
}

}  // namespace renga::transport
