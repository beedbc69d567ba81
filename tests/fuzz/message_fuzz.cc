// Bytes that come at a data port: cut into messages or refused, in whatever pieces they arrive, and
// never with more memory than they may have.
#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/input_reader.h"
#include "transport/message_reader.h"

namespace renga::fuzz {
namespace {

constexpr size_t kMaxBytes = 1000;

struct Cut {
  std::vector<std::string> messages;
  bool refused = false;
  friend bool operator==(const Cut&, const Cut&) = default;
};

// All messages of `bytes`, of which at most `piece` arrive at once.
Cut CutUp(absl::string_view bytes, size_t piece) {
  transport::MessageReader reader(kMaxBytes);
  Cut cut;
  while (!bytes.empty()) {
    const std::span<std::byte> wanted = reader.Wanted();
    Require(!wanted.empty() && wanted.size() <= kMaxBytes);
    const size_t count = std::min({wanted.size(), bytes.size(), piece});
    std::memcpy(wanted.data(), bytes.data(), count);
    bytes.remove_prefix(count);
    const absl::StatusOr<bool> complete = reader.Got(count);
    cut.refused = !complete.ok();
    if (cut.refused) return cut;
    if (!*complete) continue;
    Require(reader.body().size() <= kMaxBytes);
    cut.messages.push_back(reader.body());
    reader.Next();
  }
  return cut;
}

std::string Message(uint32_t bytes, uint32_t kind, size_t sent) {
  std::string text(8, '\0');
  std::memcpy(text.data(), &bytes, sizeof(bytes));
  std::memcpy(text.data() + 4, &kind, sizeof(kind));
  return text + std::string(sent, 'x');
}

void Examine(absl::string_view input) {
  InputReader reader(input);
  const size_t piece = size_t{1} + reader.Byte();
  const absl::string_view bytes = reader.Rest();
  Require(CutUp(bytes, piece) == CutUp(bytes, bytes.size() + 1));
}

}  // namespace

std::vector<std::string> Seeds() {
  return {"\x03" + Message(5, 1, 5) + Message(0, 1, 0) + Message(300, 1, 300) + Message(2, 2, 2),
          "\x09" + Message(kMaxBytes, 1, kMaxBytes) + Message(kMaxBytes + 1, 1, 20),
          "\x01" + Message(7, 3, 7)};
}

}  // namespace renga::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  renga::fuzz::Examine(absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
