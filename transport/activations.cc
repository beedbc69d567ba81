// Rows of activations in frames: the part of wire.h that knows number formats.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/status_macros.h"
#include "base/wire_type.h"
#include "transport/wire.h"

namespace renga::transport {
namespace {

// Far above what any plan asks for, so that products cannot overflow.
constexpr int64_t kMaxRows = int64_t{1} << 20;
constexpr int64_t kMaxWidth = int64_t{1} << 24;

std::string Encode(std::span<const float> rows, base::DataType type) {
  const base::DataTypeInfo& info = base::GetDataTypeInfo(type);
  const auto blocks = static_cast<int64_t>(rows.size()) / info.block_elements;
  std::string bytes(static_cast<size_t>(blocks * info.block_bytes), '\0');
  base::EncodeForWire(type, rows, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

std::vector<float> Decode(const std::string& bytes, int64_t numbers, base::DataType type) {
  std::vector<float> rows(static_cast<size_t>(numbers));
  if (numbers > 0) {
    base::GetDataTypeInfo(type).to_float(reinterpret_cast<const std::byte*>(bytes.data()),
                                         rows.data(), numbers);
  }
  return rows;
}

}  // namespace

proto::ActivationType ToProto(base::DataType type) {
  switch (type) {
    case base::DataType::kF32:
      return proto::ACTIVATION_TYPE_F32;
    case base::DataType::kF16:
      return proto::ACTIVATION_TYPE_F16;
    case base::DataType::kQ8_0:
      return proto::ACTIVATION_TYPE_Q8_0;
    default:
      return proto::ACTIVATION_TYPE_UNSPECIFIED;
  }
}

absl::StatusOr<base::DataType> FromProto(proto::ActivationType type) {
  switch (type) {
    case proto::ACTIVATION_TYPE_F32:
      return base::DataType::kF32;
    case proto::ACTIVATION_TYPE_F16:
      return base::DataType::kF16;
    case proto::ACTIVATION_TYPE_Q8_0:
      return base::DataType::kQ8_0;
    default:
      break;  // proto3 enums are open
  }
  return absl::InvalidArgumentError(absl::StrCat("activation_type is unknown: ", type));
}

absl::StatusOr<std::vector<float>> UnpackActivations(const proto::StepFrame& frame, int64_t rows,
                                                     int64_t d_model, base::DataType type) {
  if (frame.activation_type() != ToProto(type)) {
    return absl::InvalidArgumentError(absl::StrCat("frame.activation_type is ",
                                                   frame.activation_type(), ", but the plan's is ",
                                                   base::GetDataTypeInfo(type).name));
  }
  if (rows < 0 || rows > kMaxRows || d_model < 1 || d_model > kMaxWidth) {
    return absl::InvalidArgumentError(
        absl::StrCat("frame has an impossible shape: ", rows, " x ", d_model));
  }
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, d_model));
  const int64_t expected = rows * row_bytes;
  if (static_cast<int64_t>(frame.activations().size()) != expected) {
    return absl::InvalidArgumentError(absl::StrCat(
        "frame.activations has ", frame.activations().size(), " bytes, not ", expected));
  }
  return Decode(frame.activations(), rows * d_model, type);
}

absl::StatusOr<std::vector<model::TokenId>> UnpackTokens(const proto::StepFrame& frame,
                                                         int64_t count, int64_t vocab_size) {
  if (frame.tokens_size() != count) {
    return absl::InvalidArgumentError(
        absl::StrCat("frame.tokens has ", frame.tokens_size(), " tokens, not ", count));
  }
  for (const int32_t token : frame.tokens()) {
    if (token < 0 || token >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "frame.tokens has token ", token, ", but the vocabulary ends at ", vocab_size - 1));
    }
  }
  return std::vector<model::TokenId>(frame.tokens().begin(), frame.tokens().end());
}

void PackActivations(std::span<const float> rows, proto::StepFrame& frame, base::DataType type) {
  frame.set_activation_type(ToProto(type));
  frame.set_activations(Encode(rows, type));
}

std::vector<float> AsReceived(std::span<const float> rows, base::DataType type) {
  return Decode(Encode(rows, type), static_cast<int64_t>(rows.size()), type);
}

}  // namespace renga::transport
