#include "transport/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "base/testing/status_matchers.h"

namespace renga::transport {
namespace {

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
  EXPECT_EQ(back.token_count(), 4);
  EXPECT_EQ(back.output_count(), 1);
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
  config.vocab_size = 300;
  config.context_length = 128;
  config.norm_epsilon = 1e-5;
  config.rope = {.style = model::RopeStyle::kHalves, .dims = 16, .base = 5e5, .position_scale = 2};
  config.rope_has_factors = true;
  config.tied_output = true;
  return config;
}

TEST(WireTest, ConfigGoesBothWays) {
  ASSERT_OK_AND_ASSIGN(const model::ModelConfig back, FromProto(ToProto(GoodConfig())));
  EXPECT_EQ(ToProto(back).SerializeAsString(), ToProto(GoodConfig()).SerializeAsString());
  EXPECT_EQ(back.rope.style, model::RopeStyle::kHalves);
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
      {"vocab_size", [](auto& m) { m.set_vocab_size(0); }},
      {"context_length", [](auto& m) { m.set_context_length(0); }},
      {"rope_dims", [](auto& m) { m.set_rope_dims(18); }},
      {"rope_dims", [](auto& m) { m.set_rope_dims(7); }},
      {"norm_epsilon", [=](auto& m) { m.set_norm_epsilon(nan); }},
      {"rope_base", [=](auto& m) { m.set_rope_base(infinity); }},
      {"rope_position_scale", [](auto& m) { m.set_rope_position_scale(0); }},
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

TEST(WireTest, NoRowsAreAFrameWithoutBytes) {
  proto::StepFrame frame;
  PackActivations({}, frame);
  ASSERT_OK_AND_ASSIGN(const std::vector<float> back, UnpackActivations(frame, 0, 3));
  EXPECT_TRUE(back.empty());
}

}  // namespace
}  // namespace renga::transport
