#include "transport/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "base/testing/status_matchers.h"
#include "transport/dialer.h"

namespace renga::transport {
namespace {

using ::renga::testing::IsOkAndHolds;
using ::renga::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

model::Step GoodStep() {
  model::Step step;
  step.epoch = 3;
  step.number = 9;
  step.commands.push_back({.kind = model::KvCommand::Kind::kShare,
                           .sequence = 5,
                           .source = 4,
                           .tokens = 64,
                           .blocks = {}});
  step.commands.push_back({.kind = model::KvCommand::Kind::kAppendBlocks,
                           .sequence = 5,
                           .source = 0,
                           .tokens = 0,
                           .blocks = {7, 0, 12}});
  step.slots.push_back(
      {.sequence = 5, .first_position = 64, .token_count = 3, .output_count = 1, .top_k = 40});
  step.slots.push_back(
      {.sequence = 6, .first_position = 0, .token_count = 1, .output_count = 0, .top_k = 0});
  step.slots[1].within = 0.5F;
  step.slots[1].draw_temperature = 0.7;
  step.slots[1].draw_seed = ~uint64_t{4};
  step.slots[0].output_count = 2;
  step.slots[0].allowed = {
      std::make_shared<const model::TokenMask>(model::TokenMask::Of({2, 70, 99}, 100)),
      std::make_shared<const model::TokenMask>(model::TokenMask::Of({7}, 100))};
  return step;
}

TEST(WireTest, StepGoesBothWays) {
  const model::Step step = GoodStep();
  ASSERT_OK_AND_ASSIGN(const model::Step back, FromProto(ToProto(step)));
  EXPECT_EQ(back.epoch, 3u);
  EXPECT_EQ(back.number, 9u);
  ASSERT_EQ(back.commands.size(), 2u);
  EXPECT_EQ(back.commands[0].kind, model::KvCommand::Kind::kShare);
  EXPECT_EQ(back.commands[0].source, 4u);
  EXPECT_EQ(back.commands[0].tokens, 64);
  EXPECT_THAT(back.commands[1].blocks, ElementsAre(7, 0, 12));
  ASSERT_EQ(back.slots.size(), 2u);
  EXPECT_EQ(back.slots[0].first_position, 64);
  EXPECT_EQ(back.slots[0].top_k, 40);
  EXPECT_EQ(back.slots[0].draw_temperature, 0);
  ASSERT_EQ(back.slots[0].allowed.size(), 2u);
  EXPECT_EQ(*back.slots[0].allowed_at(0), *step.slots[0].allowed_at(0));
  EXPECT_EQ(*back.slots[0].allowed_at(1), *step.slots[0].allowed_at(1));
  EXPECT_EQ(back.slots[1].allowed_at(0), nullptr);
  EXPECT_EQ(back.slots[1].within, 0.5F);
  EXPECT_EQ(back.slots[1].draw_temperature, 0.7);
  EXPECT_EQ(back.slots[1].draw_seed, ~uint64_t{4});
  EXPECT_EQ(back.token_count(), 4);
  EXPECT_EQ(back.output_count(), 2);
}

TEST(WireTest, BadStepsNameTheField) {
  const int64_t huge = std::numeric_limits<int64_t>::max();
  struct Case {
    const char* field;
    std::function<void(proto::Step&)> damage;
  };
  const Case cases[] = {
      {"epoch", [](proto::Step& s) { s.set_epoch(0); }},
      {"number", [](proto::Step& s) { s.set_number(0); }},
      {"command.kind", [](proto::Step& s) { s.mutable_commands(0)->clear_kind(); }},
      {"command.kind",
       [](proto::Step& s) {
         s.mutable_commands(0)->set_kind(static_cast<proto::KvCommand::Kind>(99));
       }},
      {"command.tokens", [](proto::Step& s) { s.mutable_commands(0)->set_tokens(-1); }},
      {"command.tokens", [=](proto::Step& s) { s.mutable_commands(0)->set_tokens(huge); }},
      {"command.blocks", [](proto::Step& s) { s.mutable_commands(1)->set_blocks(1, -4); }},
      {"slot.first_position", [](proto::Step& s) { s.mutable_slots(0)->set_first_position(-1); }},
      {"slot.first_position",
       [=](proto::Step& s) { s.mutable_slots(0)->set_first_position(huge); }},
      {"slot.token_count", [](proto::Step& s) { s.mutable_slots(1)->set_token_count(0); }},
      {"slot.token_count", [=](proto::Step& s) { s.mutable_slots(1)->set_token_count(huge); }},
      {"slot.output_count", [](proto::Step& s) { s.mutable_slots(0)->set_output_count(4); }},
      {"slot.output_count", [](proto::Step& s) { s.mutable_slots(0)->set_output_count(-1); }},
      {"slot.top_k", [](proto::Step& s) { s.mutable_slots(0)->set_top_k(-1); }},
      {"slot.draw_temperature",
       [](proto::Step& s) { s.mutable_slots(0)->set_draw_temperature(-1); }},
      {"slot.draw_temperature",
       [](proto::Step& s) {
         s.mutable_slots(0)->set_draw_temperature(std::numeric_limits<double>::quiet_NaN());
       }},
      {"slot.allowed", [](proto::Step& s) { s.mutable_slots(0)->mutable_allowed()->RemoveLast(); }},
      {"slot.allowed", [](proto::Step& s) { s.mutable_slots(0)->mutable_allowed(0)->Clear(); }},
      {"slot.allowed",
       [](proto::Step& s) { s.mutable_slots(0)->mutable_allowed(1)->set_bits("\x01"); }},
      {"slot.allowed",
       [](proto::Step& s) { s.mutable_slots(0)->mutable_allowed(1)->set_ids(0, -1); }},
      {"slot.allowed", [](proto::Step& s) { s.mutable_slots(1)->add_allowed()->add_ids(1); }},
      {"tokens",
       [](proto::Step& s) {
         s.mutable_slots(0)->set_token_count(1 << 20);
         s.mutable_slots(1)->set_token_count(1 << 20);
       }},
  };
  for (const Case& c : cases) {
    proto::Step message = ToProto(GoodStep());
    c.damage(message);
    EXPECT_THAT(FromProto(message), StatusIs(kInvalid, HasSubstr(c.field)));
  }
}

model::ModelConfig GoodConfig() {
  model::ModelConfig config;
  config.architecture = "llama";
  config.name = "tiny";
  config.n_layers = 2;
  config.d_model = 64;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 16;
  config.d_ff = 96;
  config.n_experts = 6;
  config.n_experts_used = 2;
  config.vocab_size = 300;
  config.context_length = 128;
  config.norm_epsilon = 1e-5;
  config.rope = {.style = model::RopeStyle::kHalves, .dims = 16, .base = 5e5, .position_scale = 2};
  config.rope_has_factors = true;
  config.tied_output = true;
  config.embedding_scale = 8;
  config.attention_scale = 0.5f;
  config.windowed_layers = {true, false};
  config.window = 16;
  config.window_rope = config.rope;
  config.window_rope.base = 1e4;
  config.window_rope.position_scale = 4;
  return config;
}

TEST(WireTest, AWithdrawalNamesNoMoreStepsThanMayBeOnTheirWay) {
  proto::StepWithdrawal message;
  EXPECT_THAT(StepNumbers(message), IsOkAndHolds(ElementsAre()));
  message.add_numbers(7);
  message.add_numbers(3);
  EXPECT_THAT(StepNumbers(message), IsOkAndHolds(ElementsAre(7, 3)));
  message.add_numbers(0);
  EXPECT_THAT(StepNumbers(message), StatusIs(kInvalid, HasSubstr("withdrawal.numbers begin")));
  message.mutable_numbers()->Resize(kEdgeWindowFrames, 9);
  message.set_numbers(2, 9);
  EXPECT_OK(StepNumbers(message));
  message.add_numbers(9);
  EXPECT_THAT(StepNumbers(message), StatusIs(kInvalid, HasSubstr("withdrawal.numbers is 17")));
}

TEST(WireTest, ConfigGoesBothWays) {
  ASSERT_OK_AND_ASSIGN(const model::ModelConfig back, FromProto(ToProto(GoodConfig())));
  EXPECT_EQ(ToProto(back).SerializeAsString(), ToProto(GoodConfig()).SerializeAsString());
  EXPECT_EQ(back.rope.style, model::RopeStyle::kHalves);
  EXPECT_EQ(back.n_experts, 6);
  EXPECT_EQ(back.n_experts_used, 2);
  EXPECT_EQ(back.embedding_scale, 8);
  EXPECT_EQ(back.attention_scale, 0.5f);
  EXPECT_EQ(back.windowed_layers, GoodConfig().windowed_layers);
  EXPECT_EQ(back.window, 16);
  EXPECT_EQ(back.window_rope.style, model::RopeStyle::kHalves);
  EXPECT_EQ(back.window_rope.dims, 16);
  EXPECT_EQ(back.window_rope.base, 1e4);
  EXPECT_EQ(back.window_rope.position_scale, 4);
}

TEST(WireTest, BadConfigsNameTheField) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  struct Case {
    const char* field;
    std::function<void(proto::ModelConfig&)> damage;
  };
  const Case cases[] = {
      {"n_layers", [](auto& m) { m.set_n_layers(0); }},
      {"n_layers", [](auto& m) { m.set_n_layers(int64_t{1} << 40); }},
      {"d_model", [](auto& m) { m.set_d_model(-5); }},
      {"d_model", [](auto& m) { m.set_d_model(int64_t{1} << 60); }},
      {"n_heads", [](auto& m) { m.set_n_heads(0); }},
      {"n_kv_heads", [](auto& m) { m.set_n_kv_heads(0); }},
      {"n_kv_heads", [](auto& m) { m.set_n_kv_heads(3); }},
      {"head_dim", [](auto& m) { m.set_head_dim(0); }},
      {"d_ff", [](auto& m) { m.set_d_ff(0); }},
      {"n_experts", [](auto& m) { m.set_n_experts(-1); }},
      {"n_experts", [](auto& m) { m.set_n_experts(1 << 20); }},
      {"n_experts_used", [](auto& m) { m.set_n_experts_used(0); }},
      {"n_experts_used", [](auto& m) { m.set_n_experts_used(7); }},
      {"n_experts_used", [](auto& m) { m.set_n_experts(0); }},
      {"vocab_size", [](auto& m) { m.set_vocab_size(0); }},
      {"context_length", [](auto& m) { m.set_context_length(0); }},
      {"rope_dims", [](auto& m) { m.set_rope_dims(18); }},
      {"rope_dims", [](auto& m) { m.set_rope_dims(7); }},
      {"norm_epsilon", [=](auto& m) { m.set_norm_epsilon(nan); }},
      {"rope_base", [=](auto& m) { m.set_rope_base(infinity); }},
      {"rope_position_scale", [](auto& m) { m.set_rope_position_scale(0); }},
      {"embedding_scale", [=](auto& m) { m.set_embedding_scale(nan); }},
      {"attention_scale", [](auto& m) { m.set_attention_scale(-1); }},
      {"windowed_layers", [](auto& m) { m.add_windowed_layers(true); }},
      {"window", [](auto& m) { m.set_window(0); }},
      {"window_rope_base", [=](auto& m) { m.set_window_rope_base(infinity); }},
      {"window_rope_position_scale", [](auto& m) { m.set_window_rope_position_scale(0); }},
      {"name", [](auto& m) { m.set_name(std::string(5000, 'x')); }},
  };
  for (const Case& c : cases) {
    proto::ModelConfig message = ToProto(GoodConfig());
    c.damage(message);
    EXPECT_THAT(FromProto(message), StatusIs(kInvalid, HasSubstr(c.field)));
  }
}

TEST(WireTest, HeadRowGoesBothWays) {
  model::HeadRow row;
  row.ids = {4, 2};
  row.logits = {1.5f, -2.25f};
  row.max_logit = 1.5f;
  row.sum_exp = 1.0234375;
  ASSERT_OK_AND_ASSIGN(const model::HeadRow back, FromProto(ToProto(row), 5));
  EXPECT_EQ(back.ids, row.ids);
  EXPECT_EQ(back.logits, row.logits);
  EXPECT_EQ(back.max_logit, row.max_logit);
  EXPECT_EQ(back.sum_exp, row.sum_exp);
}

TEST(WireTest, BadHeadRowsAreRefused) {
  model::HeadRow row;
  row.ids = {4, 2};
  row.logits = {1.5f, -2.25f};
  EXPECT_THAT(FromProto(ToProto(row), 4), StatusIs(kInvalid, HasSubstr("row.ids")));
  EXPECT_THAT(FromProto(ToProto(row), 1), StatusIs(kInvalid, HasSubstr("row.logits")));
  proto::HeadRow message = ToProto(row);
  message.set_logits("abc");
  EXPECT_THAT(FromProto(message, 5), StatusIs(kInvalid, HasSubstr("row.logits")));
  message = ToProto(row);
  message.add_ids(1);
  EXPECT_THAT(FromProto(message, 5), StatusIs(kInvalid, HasSubstr("row.ids")));
  message = ToProto(row);
  message.set_ids(0, -1);
  EXPECT_THAT(FromProto(message, 5), StatusIs(kInvalid, HasSubstr("row.ids")));
}

TEST(WireTest, ActivationsMustHaveExactlyTheExpectedSize) {
  const std::vector<float> rows = {1, 2, 3, 4, 5, 6};
  proto::StepFrame frame;
  PackActivations(rows, frame);
  ASSERT_OK_AND_ASSIGN(const std::vector<float> back, UnpackActivations(frame, 2, 3));
  EXPECT_EQ(back, rows);
  EXPECT_THAT(UnpackActivations(frame, 2, 2), StatusIs(kInvalid));
  EXPECT_THAT(UnpackActivations(frame, 3, 3), StatusIs(kInvalid));
  EXPECT_THAT(UnpackActivations(frame, -2, 3), StatusIs(kInvalid));
  EXPECT_THAT(UnpackActivations(frame, int64_t{1} << 62, 4), StatusIs(kInvalid));
  frame.set_activation_type(proto::ACTIVATION_TYPE_UNSPECIFIED);
  EXPECT_THAT(UnpackActivations(frame, 2, 3), StatusIs(kInvalid, HasSubstr("activation_type")));
}

// Two rows of 64 numbers of ordinary size.
std::vector<float> OrdinaryRows() {
  std::vector<float> rows;
  for (int i = 0; i < 128; ++i) rows.push_back(static_cast<float>(i % 41 - 20) * 0.37f);
  return rows;
}

TEST(WireTest, NarrowActivationsArriveRoundedAndInFewerBytes) {
  const std::vector<float> rows = OrdinaryRows();
  const struct {
    base::DataType type;
    size_t bytes;
    float tolerance;  // half a unit of the format at 7.4, the largest magnitude
  } cases[] = {{base::DataType::kF32, 512, 0},
               {base::DataType::kF16, 256, 7.4f / 2048},
               {base::DataType::kQ8_0, 136, 7.4f / 254 * 1.01f}};
  for (const auto& c : cases) {
    proto::StepFrame frame;
    PackActivations(rows, frame, c.type);
    EXPECT_EQ(frame.activations().size(), c.bytes);
    ASSERT_OK_AND_ASSIGN(const std::vector<float> back, UnpackActivations(frame, 2, 64, c.type));
    ASSERT_EQ(back.size(), rows.size());
    for (size_t i = 0; i < rows.size(); ++i) EXPECT_NEAR(back[i], rows[i], c.tolerance);
    EXPECT_EQ(back, AsReceived(rows, c.type));
  }
}

TEST(WireTest, ActivationsOfAnotherTypeOrSizeThanThePlansAreRefused) {
  using base::DataType;
  for (const DataType sent : {DataType::kF32, DataType::kF16, DataType::kQ8_0}) {
    proto::StepFrame frame;
    PackActivations(OrdinaryRows(), frame, sent);
    for (const DataType planned : {DataType::kF32, DataType::kF16, DataType::kQ8_0}) {
      const auto back = UnpackActivations(frame, 2, 64, planned);
      if (sent == planned) {
        EXPECT_OK(back.status());
      } else {
        EXPECT_THAT(back, StatusIs(kInvalid, HasSubstr("activation_type")));
      }
    }
    EXPECT_THAT(UnpackActivations(frame, 3, 64, sent), StatusIs(kInvalid));
    EXPECT_THAT(UnpackActivations(frame, 1, 64, sent), StatusIs(kInvalid));
    frame.mutable_activations()->pop_back();
    EXPECT_THAT(UnpackActivations(frame, 2, 64, sent), StatusIs(kInvalid, HasSubstr("bytes")));
  }
  proto::StepFrame frame;
  PackActivations(OrdinaryRows(), frame, DataType::kQ8_0);
  EXPECT_THAT(UnpackActivations(frame, 2, 63, DataType::kQ8_0), StatusIs(kInvalid));
}

TEST(WireTest, WireTypesHaveNumbersAndOthersHaveNone) {
  using base::DataType;
  for (const DataType type : {DataType::kF32, DataType::kF16, DataType::kQ8_0}) {
    EXPECT_THAT(FromProto(ToProto(type)), IsOkAndHolds(type));
  }
  EXPECT_EQ(ToProto(DataType::kQ4_K), proto::ACTIVATION_TYPE_UNSPECIFIED);
  EXPECT_THAT(FromProto(proto::ACTIVATION_TYPE_UNSPECIFIED), StatusIs(kInvalid));
  EXPECT_THAT(FromProto(static_cast<proto::ActivationType>(99)), StatusIs(kInvalid));
}

TEST(WireTest, ApproximationsComeBackAndWrongOnesAreRefused) {
  model::ModelConfig config;
  config.vocab_size = 13;
  model::Approximation approximation{.late_percent = 25, .at_most_percent = 0};
  EXPECT_THAT(FromProto(ToProto(approximation, config), config), IsOkAndHolds(approximation));
  approximation = {.deadline_ms = 20, .missing_percent = 7};
  EXPECT_THAT(FromProto(ToProto(approximation, config), config), IsOkAndHolds(approximation));
  approximation = {.late_percent = 25, .at_most_percent = 0};
  approximation.hot_rows = std::make_shared<const model::RowSet>(model::RowSet{0, 7, 8, 12});
  const proto::Approximation good = ToProto(approximation, config);
  EXPECT_THAT(FromProto(good, config), IsOkAndHolds(approximation));

  proto::Approximation wrong = good;
  wrong.set_late_percent(101);
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid));
  wrong = good;
  wrong.set_at_most_percent(0xffffffff);
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid));
  wrong = good;
  wrong.set_deadline_ms(5);
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid, HasSubstr("late slice")));
  wrong.set_late_percent(0);
  EXPECT_OK(FromProto(wrong, config));
  wrong.set_deadline_ms(0xffffffff);
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid, HasSubstr("60000 ms")));
  wrong = good;
  wrong.set_late_percent(0);
  wrong.set_missing_percent(101);
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid, HasSubstr("101")));
  wrong = good;
  wrong.mutable_hot_rows()->push_back('\0');
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid, HasSubstr("hot_rows")));
  wrong = good;
  wrong.set_hot_rows(std::string(2, '\xff'));  // rows 13 to 15
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid));
  wrong.set_hot_rows(std::string(2, '\0'));
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid));
}

TEST(WireTest, LayersWithoutPartsComeBackAndWrongOnesAreRefused) {
  model::ModelConfig config;
  config.n_layers = 4;
  const model::Approximation approximation{.without_attention = {0, 3},
                                           .without_feed_forward = {1}};
  const proto::Approximation good = ToProto(approximation, config);
  EXPECT_THAT(FromProto(good, config), IsOkAndHolds(approximation));
  model::Approximation other = approximation;
  other.without_feed_forward.clear();
  EXPECT_FALSE(approximation == other);
  EXPECT_FALSE(approximation.exact());
  for (const int32_t layer : {-1, 0, 1, 4}) {
    proto::Approximation wrong = good;
    wrong.add_without_feed_forward(layer);  // below 0, not in order, twice, beyond the last
    EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid, HasSubstr("to leave out")));
  }
  proto::Approximation wrong = good;
  wrong.add_without_attention(1);
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid));
  wrong = good;
  wrong.set_late_percent(10);
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid, HasSubstr("late slice")));
  wrong = good;
  wrong.set_at_most_percent(20);
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid, HasSubstr("cap")));
}

TEST(WireTest, ColdNeuronsComeBackAndWrongOnesAreRefused) {
  model::ModelConfig config;
  config.vocab_size = 13;
  config.n_layers = 3;
  config.d_ff = 7;
  model::Approximation approximation;
  approximation.cold_neurons =
      std::make_shared<const model::NeuronSet>(model::NeuronSet{0, 6, 7, 20});
  const proto::Approximation good = ToProto(approximation, config);
  EXPECT_THAT(FromProto(good, config), IsOkAndHolds(approximation));
  EXPECT_FALSE(approximation == model::Approximation());

  proto::Approximation wrong = good;
  wrong.mutable_cold_neurons()->pop_back();
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid, HasSubstr("cold_neurons")));
  wrong = good;
  wrong.mutable_cold_neurons()->back() = '\xff';  // neurons 21 to 23
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid));
  wrong = good;
  wrong.set_late_percent(10);
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid, HasSubstr("late slice")));
  wrong = good;
  wrong.set_at_most_percent(20);
  EXPECT_THAT(FromProto(wrong, config), StatusIs(kInvalid));
}

TEST(WireTest, NoRowsAreAFrameWithoutBytes) {
  proto::StepFrame frame;
  PackActivations({}, frame);
  ASSERT_OK_AND_ASSIGN(const std::vector<float> back, UnpackActivations(frame, 0, 3));
  EXPECT_TRUE(back.empty());
}

}  // namespace
}  // namespace renga::transport
