#include "worker/service/load_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "base/testing/status_matchers.h"
#include "transport/wire.h"
#include "worker/service/testing/test_setup.h"

namespace renga::worker {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

proto::LoadRequest GoodRequest() {
  const testing::TestModel& model = testing::SmallModel();
  proto::LoadRequest request =
      model.MakeRequest(7, {.layers = {1, 3}, .head_rows = {1000, 2500}}, testing::SmallLimits());
  proto::Peer& head = *request.add_heads();
  head.set_address("inproc:self");
  head.set_worker_id("self");
  return request;
}

proto::TensorEntry& Tensor(proto::LoadRequest& request, const std::string& name) {
  for (proto::TensorEntry& entry : *request.mutable_manifest()->mutable_tensors()) {
    if (entry.name() == name) return entry;
  }
  ADD_FAILURE() << name;
  return *request.mutable_manifest()->add_tensors();
}

// The first half of each layer, as one of two members.
void SetSlice(proto::LoadRequest& request) {
  const proto::ModelConfig& config = request.manifest().config();
  request.mutable_slice()->mutable_heads()->set_end(config.n_heads() / 2);
  request.mutable_slice()->mutable_ff()->set_end(config.d_ff() / 2);
}

void SetGroup(proto::LoadRequest& request, uint32_t rank) {
  request.mutable_group()->set_rank(rank);
  for (int i = 0; i < 2; ++i) request.mutable_group()->add_members()->set_address("10.0.0.1:1");
}

TEST(LoadOrderTest, NeededPiecesAreThoseOfTheRange) {
  ASSERT_OK_AND_ASSIGN(const LoadOrder order, FromProto(GoodRequest()));
  EXPECT_EQ(order.epoch, 7u);
  EXPECT_EQ(order.spec.layers, (model::Range{1, 3}));
  for (const NeededPieces& needed : order.needed) {
    EXPECT_THAT(needed.tensor,
                ::testing::AnyOf(HasSubstr("blk.1."), HasSubstr("blk.2."), HasSubstr("output")));
  }
  // Rows of 512 bytes: 1000 to 2500 are bytes 512000 to 1280000, pieces 0 and 1 of 3.
  EXPECT_EQ(order.needed.back().tensor, "output.weight");
  EXPECT_EQ(order.needed.back().first, 0u);
  EXPECT_EQ(order.needed.back().count, 2u);
}

TEST(LoadOrderTest, ScatteredRowsNeedAllBetweenThem) {
  proto::LoadRequest request = GoodRequest();
  const model::ModelConfig config = testing::SmallModel().model().config;
  // The first of two places is row 1 or beyond, the last is one of the last rows.
  const model::RowSet near = {1, static_cast<int32_t>(config.vocab_size) - 1};
  request.set_near_rows(transport::RowSetToWire(near, config.vocab_size));
  request.mutable_head_rows()->set_begin(0);
  request.mutable_head_rows()->set_end(2);
  ASSERT_OK_AND_ASSIGN(const LoadOrder order, FromProto(request));
  ASSERT_NE(order.limits.near_rows, nullptr);
  EXPECT_EQ(*order.limits.near_rows, near);
  EXPECT_EQ(order.needed.back().tensor, "output.weight");
  EXPECT_EQ(order.needed.back().count, order.tensors.at("output.weight").pieces.size());
  // Row 0 and row 2 on: the first places that are not near.
  request.mutable_head_rows()->set_begin(2);
  request.mutable_head_rows()->set_end(4);
  ASSERT_OK_AND_ASSIGN(const LoadOrder others, FromProto(request));
  EXPECT_EQ(others.needed.back().count, 1u);

  for (const std::string& wrong : {std::string("x"), std::string((config.vocab_size + 7) / 8, 0)}) {
    request.set_near_rows(wrong);
    EXPECT_THAT(FromProto(request), StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(LoadOrderTest, TheEmbeddingIsNeededWhole) {
  proto::LoadRequest request = GoodRequest();
  request.set_embedding(true);
  request.add_first_stage()->set_address("10.0.0.1:1");
  ASSERT_OK_AND_ASSIGN(const LoadOrder order, FromProto(request));
  EXPECT_TRUE(order.spec.embedding);
  EXPECT_EQ(order.routes.first_stage.size(), 1u);
  EXPECT_EQ(order.needed.back().tensor, "token_embd.weight");
  EXPECT_EQ(order.needed.back().first, 0u);
  EXPECT_EQ(order.needed.back().count, order.tensors.at("token_embd.weight").pieces.size());
}

TEST(LoadOrderTest, WhatContradictsItselfIsRefused) {
  struct Case {
    const char* says;
    std::function<void(proto::LoadRequest&)> damage;
  };
  const std::string wide = "blk.1.ffn_up.weight";
  const Case cases[] = {
      {"epoch", [](auto& r) { r.set_epoch(0); }},
      {"model_id", [](auto& r) { r.mutable_manifest()->set_model_id("short"); }},
      {"d_model", [](auto& r) { r.mutable_manifest()->mutable_config()->set_d_model(0); }},
      {"layers", [](auto& r) { r.mutable_layers()->set_end(5); }},
      {"layers", [](auto& r) { r.mutable_layers()->set_begin(-1); }},
      {"layers", [](auto& r) { r.mutable_layers()->set_begin(4); }},
      {"head_rows", [](auto& r) { r.mutable_head_rows()->set_end(5001); }},
      {"empty shard",
       [](auto& r) {
         r.clear_layers();
         r.clear_head_rows();
       }},
      {"max_step_tokens", [](auto& r) { r.set_max_step_tokens(0); }},
      {"kv_blocks", [](auto& r) { r.set_kv_blocks(-1); }},
      {"KV cache", [](auto& r) { r.set_kv_gguf_type(2); }},
      {"activation_type", [](auto& r) { r.clear_activation_type(); }},
      {"approximation", [](auto& r) { r.mutable_approximation()->set_late_percent(200); }},
      {"activation_type",
       [](auto& r) { r.set_activation_type(static_cast<proto::ActivationType>(17)); }},
      {"missing", [&](auto& r) { Tensor(r, wide).set_name("other"); }},
      {"twice", [&](auto& r) { Tensor(r, wide).set_name("output.weight"); }},
      {"same index", [&](auto& r) { Tensor(r, wide).set_index(0); }},
      {"shape", [&](auto& r) { Tensor(r, wide).set_dims(0, 127); }},
      {"shape", [&](auto& r) { Tensor(r, wide).add_dims(2); }},
      {"shape", [&](auto& r) { Tensor(r, wide).clear_dims(); }},
      {"bytes",
       [&](auto& r) {
         proto::TensorEntry& entry = Tensor(r, wide);
         entry.set_byte_size(entry.byte_size() - 4);
       }},
      {"bytes", [&](auto& r) { Tensor(r, wide).set_byte_size(-1); }},
      {"bytes", [&](auto& r) { Tensor(r, wide).set_byte_size(int64_t{1} << 62); }},
      {"hashes", [&](auto& r) { Tensor(r, wide).mutable_piece_hashes()->pop_back(); }},
      {"must be F32",
       [&](auto& r) {
         proto::TensorEntry& entry = Tensor(r, "blk.2.attn_norm.weight");
         entry.set_gguf_type(1);
         entry.set_byte_size(entry.byte_size() / 2);
       }},
      {"first stage", [](auto& r) { r.set_embedding(true); }},
      {"first stage", [](auto& r) { r.add_first_stage()->set_address("10.0.0.1:1"); }},
      {"no layers",
       [](auto& r) {
         r.clear_layers();
         r.set_embedding(true);
         r.add_first_stage()->set_address("10.0.0.1:1");
       }},
      {"head blocks", [](auto& r) { r.clear_heads(); }},
      {"twice", [](auto& r) { *r.add_heads() = r.heads(0); }},
      {"next stage",
       [](auto& r) {
         r.add_next_stage()->set_worker_index(1);
         r.mutable_next_stage(0)->set_address("10.0.0.1:1");
       }},
      {"its own next stage",
       [](auto& r) {
         r.clear_heads();
         r.add_next_stage()->set_address("10.0.0.1:1");
       }},
      {"without a group", [](auto& r) { SetSlice(r); }},
      {"without a group", [](auto& r) { SetGroup(r, 0); }},
      {"size or rank",
       [](auto& r) {
         SetSlice(r);
         SetGroup(r, 2);
       }},
      {"size or rank",
       [](auto& r) {
         SetSlice(r);
         SetGroup(r, 0);
         r.mutable_group()->mutable_members()->RemoveLast();
       }},
      {"whole groups",
       [](auto& r) {
         SetSlice(r);
         SetGroup(r, 0);
         r.mutable_slice()->mutable_heads()->set_end(3);
       }},
      {"multiples",
       [](auto& r) {
         SetSlice(r);
         SetGroup(r, 0);
         r.mutable_slice()->mutable_ff()->set_end(int64_t{1} << 40);
       }},
      {"HOST:PORT", [](auto& r) { r.mutable_heads(0)->set_address("nonsense"); }},
      {"HOST:PORT", [](auto& r) { r.add_piece_holders()->set_address("nonsense"); }},
      {"holder",
       [](auto& r) {
         auto& holder = *r.add_piece_holders();
         holder.set_address("10.0.0.1:1");
         for (int i = 0; i <= r.manifest().tensors_size(); ++i) holder.add_tensors(0);
       }},
      {"hold pieces",
       [](auto& r) {
         for (int i = 0; i < 1000; ++i) r.add_piece_holders()->set_address("10.0.0.1:1");
       }},
      {"does not hold", [](auto& r) { r.clear_head_rows(); }},
  };
  for (const Case& c : cases) {
    proto::LoadRequest request = GoodRequest();
    c.damage(request);
    EXPECT_THAT(FromProto(request),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.says)));
  }
}

TEST(LoadOrderTest, AMemberOfAGroupTakesItsRowsAndWholeColumns) {
  const auto whole = FromProto(GoodRequest());
  ASSERT_OK(whole);
  proto::LoadRequest request = GoodRequest();
  SetSlice(request);
  SetGroup(request, 1);
  // Another member may send on.
  request.clear_heads();
  ASSERT_OK_AND_ASSIGN(const LoadOrder order, FromProto(request));
  EXPECT_EQ(order.group->rank, 1);
  EXPECT_EQ(order.group->members.size(), 2u);
  EXPECT_FALSE(order.group->sums_on_cards);
  request.mutable_group()->set_sums_on_cards(true);
  EXPECT_TRUE(FromProto(request)->group->sums_on_cards);
  EXPECT_EQ(order.spec.slice->heads.size(), order.model.config.n_heads / 2);
  for (size_t i = 0; i < order.needed.size(); ++i) {
    const NeededPieces& part = order.needed[i];
    EXPECT_EQ(part.tensor, whole->needed[i].tensor);
    EXPECT_LE(part.count, whole->needed[i].count);
    EXPECT_GE(part.count, 1u);
  }
}

TEST(LoadOrderTest, WhatThisBuildDoesNotKnowIsNamed) {
  proto::LoadRequest request = GoodRequest();
  request.mutable_manifest()->mutable_config()->set_architecture("marble");
  EXPECT_THAT(FromProto(request), StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("marble")));
  request = GoodRequest();
  Tensor(request, "blk.1.ffn_up.weight").set_gguf_type(77);
  EXPECT_THAT(FromProto(request), StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("77")));
}

TEST(LoadOrderTest, DamagedBytesNeverCrash) {
  const std::string good = GoodRequest().SerializeAsString();
  std::mt19937 random(4711);
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = good;
    for (int k = 0; k < 1 + i % 6; ++k) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    proto::LoadRequest request;
    if (request.ParseFromString(bytes)) (void)FromProto(request);
  }
}

}  // namespace
}  // namespace renga::worker
