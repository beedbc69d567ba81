#include "transport/message_reader.h"

#include <type_traits>

#include "absl/strings/str_cat.h"

namespace renga::transport {

static_assert(sizeof(MessageHeader) == 8 && std::is_trivially_copyable_v<MessageHeader>);

std::span<std::byte> MessageReader::Wanted() {
  const std::span<std::byte> whole = in_body_ ? std::as_writable_bytes(std::span(body_))
                                              : std::as_writable_bytes(std::span(&header_, 1));
  return whole.subspan(got_);
}

absl::StatusOr<bool> MessageReader::Got(size_t bytes) {
  got_ += bytes;
  if (in_body_) return got_ == body_.size();
  if (got_ < sizeof(header_)) return false;
  if (header_.kind != MessageHeader::Kind::kMessage && header_.kind != MessageHeader::Kind::kEnd) {
    return absl::InvalidArgumentError("the peer sends what is no message");
  }
  if (header_.bytes > max_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat("the peer sends a message of ", header_.bytes,
                                                   " bytes, and at most ", max_bytes_,
                                                   " are taken"));
  }
  in_body_ = true;
  got_ = 0;
  body_.resize(header_.bytes);
  return body_.empty();
}

void MessageReader::Next() {
  in_body_ = false;
  got_ = 0;
  body_.clear();
}

}  // namespace renga::transport
