// Reads hyper-parameters under an architecture's prefix ("llama.block_count"), each within bounds.
// Internal to model/architectures/.
//
// Every error is kInvalidArgument naming the full key, or kUnimplemented for a value that is legal
// but that renga does not compute.
#ifndef RENGA_MODEL_ARCHITECTURES_CONFIG_READER_H_
#define RENGA_MODEL_ARCHITECTURES_CONFIG_READER_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/gguf_file.h"
#include "model/model_config.h"

namespace renga::model {

// Bounds of every model renga reads. They are generous (the largest open models stay below a
// quarter of each), and their products still fit int64 with room to spare.
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxModelWidth = 1 << 16;
inline constexpr int64_t kMaxHeads = 1024;
inline constexpr int64_t kMaxHeadDim = 1024;
inline constexpr int64_t kMaxFeedForwardWidth = 1 << 20;
inline constexpr int64_t kMaxExperts = 4096;
inline constexpr int64_t kMaxVocabulary = 1 << 22;
inline constexpr int64_t kMaxContext = 1 << 27;

// Whether the models of a family have experts.
enum class Experts { kNever, kPerhaps, kAlways };

class ConfigReader {
 public:
  // `file` must outlive this. `architecture` is the prefix of the keys.
  ConfigReader(const GgufFile& file, absl::string_view architecture);

  // A key that must be there.
  absl::StatusOr<int64_t> RequiredInt(absl::string_view key, int64_t min, int64_t max) const;
  absl::StatusOr<int64_t> OptionalInt(absl::string_view key, int64_t min, int64_t max,
                                      int64_t when_absent) const;
  // One number, or an array with the same number for each of `layers` layers.
  absl::StatusOr<std::optional<int64_t>> PerLayerInt(absl::string_view key, int64_t layers,
                                                     int64_t min, int64_t max) const;
  // Finite and above 0, and at most `max`.
  absl::StatusOr<std::optional<double>> PositiveFloat(absl::string_view key, double max) const;

  // The error for a key that must be there.
  absl::Status Missing(absl::string_view key) const;

  // Layers, widths, heads, feed-forward width and context: the keys that all transformers share.
  absl::Status ReadShape(ModelConfig& config) const;
  // Rotated dimensions, base and linear scaling. Needs config.head_dim.
  absl::Status ReadRope(ModelConfig& config) const;
  // From {arch}.vocab_size, else the token list, else the embedding's rows.
  absl::StatusOr<int64_t> ReadVocabularySize() const;
  // How many experts there are and how many a token uses, and then the width of one as d_ff, where
  // the file says so. Needs the shape. kUnimplemented for experts that are chosen in other ways
  // than these families do, and where `allowed` has none.
  absl::Status ReadExperts(Experts allowed, ModelConfig& config) const;
  // kUnimplemented when the file asks for what this reader's families never do: attention that
  // looks ahead.
  absl::Status RefuseForeignFeatures() const;

 private:
  std::string Key(absl::string_view key) const;
  absl::Status ReadHeads(ModelConfig& config) const;
  absl::Status ReadHeadDim(ModelConfig& config) const;
  absl::Status RefuseOtherExperts() const;
  absl::Status ReadRopeScaling(RopeConfig& rope) const;

  const GgufFile& file_;
  const GgufMetadata& metadata_;
  const std::string prefix_;
};

}  // namespace renga::model

#endif  // RENGA_MODEL_ARCHITECTURES_CONFIG_READER_H_
