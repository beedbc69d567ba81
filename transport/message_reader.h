// Messages cut out of a stream of bytes: what comes from a peer's socket, before anything is
// believed of it.
#ifndef RENGA_TRANSPORT_MESSAGE_READER_H_
#define RENGA_TRANSPORT_MESSAGE_READER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace renga::transport {

// Before each message; little-endian.
struct MessageHeader {
  enum class Kind : uint32_t {
    kMessage = 1,
    kEnd = 2,  // a proto::StreamEnd: no more comes, and why
  };
  uint32_t bytes = 0;  // of the message after it
  Kind kind = Kind::kMessage;
};

// One thread at a time. For each message: read into Wanted(), tell Got(), until it says that one is
// complete; then look at it, then Next().
class MessageReader {
 public:
  // Messages longer than this are refused before memory is taken for them.
  explicit MessageReader(size_t max_bytes) : max_bytes_(max_bytes) {}

  // Where the next bytes belong; never empty before a message is complete.
  std::span<std::byte> Wanted();
  // That many of them are there. True when the message is complete; kInvalidArgument for a header
  // that cannot be meant.
  absl::StatusOr<bool> Got(size_t bytes);

  // Of the complete message.
  MessageHeader::Kind kind() const { return header_.kind; }
  std::string& body() { return body_; }
  // Begins with the next one.
  void Next();

 private:
  const size_t max_bytes_;
  MessageHeader header_;
  size_t got_ = 0;  // of the header, then of the body
  bool in_body_ = false;
  std::string body_;
};

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_MESSAGE_READER_H_
