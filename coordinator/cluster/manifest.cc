#include "coordinator/cluster/manifest.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <span>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "transport/dialer.h"
#include "transport/wire.h"

namespace renga::cluster {
namespace {

using transport::kPieceBytes;

// A cache file: this magic (its last digits are the version), the key's hash, the number of piece
// hashes, the hashes (high, low), and a hash of all that. Numbers are little endian. Names, types
// and sizes are not stored: they are part of the key and come from the model file itself.
constexpr absl::string_view kMagic = "RENGAM01";
constexpr size_t kHashBytes = 16;
constexpr size_t kHeaderBytes = 8 + kHashBytes + 8;

void AppendNumber(std::string& out, uint64_t value) {
  for (int shift = 0; shift < 64; shift += 8) out.push_back(static_cast<char>(value >> shift));
}

uint64_t NumberAt(absl::string_view bytes, size_t offset) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) {
    value |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[offset + i])) << (8 * i);
  }
  return value;
}

void AppendText(std::string& out, absl::string_view text) {
  AppendNumber(out, text.size());
  out.append(text.data(), text.size());
}

void AppendHash(std::string& out, const base::ContentHash& hash) {
  AppendNumber(out, hash.high);
  AppendNumber(out, hash.low);
}

base::ContentHash HashText(absl::string_view text) {
  return base::HashBytes(std::as_bytes(std::span(text.data(), text.size())));
}

int64_t PieceCount(int64_t byte_size) { return (byte_size + kPieceBytes - 1) / kPieceBytes; }

// The manifest with every hash still zero.
absl::StatusOr<Manifest> DescribeModel(const model::GgufFile& file, const model::Model& model) {
  Manifest manifest;
  for (const model::TensorSpec& spec : ShippedTensors(model)) {
    const model::GgufTensor* tensor = file.FindTensor(spec.name);
    if (tensor == nullptr) {
      return absl::NotFoundError(absl::StrCat("the model file has no tensor ", spec.name));
    }
    manifest.tensors.push_back({tensor->name, tensor->type, tensor->dims, tensor->byte_size,
                                std::vector<base::ContentHash>(PieceCount(tensor->byte_size))});
  }
  return manifest;
}

// Everything of the manifest but the hashes, as bytes: part of the cache key and of the model id.
std::string Signature(const Manifest& manifest, const model::Model& model) {
  std::string out;
  AppendText(out, transport::ToProto(model.config).SerializeAsString());
  AppendNumber(out, kPieceBytes);
  AppendNumber(out, manifest.tensors.size());
  for (const ManifestTensor& tensor : manifest.tensors) {
    AppendText(out, tensor.name);
    AppendNumber(out, base::GetDataTypeInfo(tensor.type).gguf_id);
    AppendNumber(out, tensor.dims.size());
    for (int64_t dim : tensor.dims) AppendNumber(out, static_cast<uint64_t>(dim));
    AppendNumber(out, static_cast<uint64_t>(tensor.byte_size));
  }
  return out;
}

void SetModelId(Manifest& manifest, const model::Model& model) {
  std::string content = Signature(manifest, model);
  for (const ManifestTensor& tensor : manifest.tensors) {
    for (const base::ContentHash& hash : tensor.pieces) AppendHash(content, hash);
  }
  manifest.model_id = HashText(content);
}

struct PieceSlot {
  std::span<const std::byte> bytes;
  base::ContentHash* hash;
};

std::vector<PieceSlot> ListPieces(const model::GgufFile& file, Manifest& manifest) {
  std::vector<PieceSlot> slots;
  for (ManifestTensor& tensor : manifest.tensors) {
    const std::span<const std::byte> bytes = file.TensorBytes(*file.FindTensor(tensor.name));
    for (size_t i = 0; i < tensor.pieces.size(); ++i) {
      const size_t begin = i * static_cast<size_t>(kPieceBytes);
      const size_t size = std::min<size_t>(bytes.size() - begin, kPieceBytes);
      slots.push_back({bytes.subspan(begin, size), &tensor.pieces[i]});
    }
  }
  return slots;
}

// Which files the hashes are of. Nullopt when there are none (a parsed image) or one is gone.
std::optional<std::string> CachePath(const model::GgufFile& file, const std::string& signature,
                                     const std::string& directory) {
  if (file.part_paths().empty()) return std::nullopt;
  std::string key = signature;
  for (const std::string& path : file.part_paths()) {
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) return std::nullopt;
    char* absolute = ::realpath(path.c_str(), nullptr);
    AppendText(key, absolute != nullptr ? absolute : path);
    std::free(absolute);
    AppendNumber(key, static_cast<uint64_t>(info.st_size));
    AppendNumber(key, static_cast<uint64_t>(info.st_mtim.tv_sec));
    AppendNumber(key, static_cast<uint64_t>(info.st_mtim.tv_nsec));
  }
  return absl::StrCat(directory, "/", HashText(key).ToHex(), ".manifest");
}

std::string EncodeCache(const Manifest& manifest, const std::string& signature) {
  std::string out(kMagic);
  AppendHash(out, HashText(signature));
  uint64_t count = 0;
  for (const ManifestTensor& tensor : manifest.tensors) count += tensor.pieces.size();
  AppendNumber(out, count);
  for (const ManifestTensor& tensor : manifest.tensors) {
    for (const base::ContentHash& hash : tensor.pieces) AppendHash(out, hash);
  }
  AppendHash(out, HashText(out));
  return out;
}

// Fills the hashes in; false when `bytes` is not exactly what EncodeCache wrote for this model.
bool DecodeCache(absl::string_view bytes, const std::string& signature, Manifest& manifest) {
  size_t count = 0;
  for (const ManifestTensor& tensor : manifest.tensors) count += tensor.pieces.size();
  if (bytes.size() != kHeaderBytes + (count + 1) * kHashBytes) return false;
  std::string expected_header(kMagic);
  AppendHash(expected_header, HashText(signature));
  AppendNumber(expected_header, count);
  if (bytes.substr(0, kHeaderBytes) != expected_header) return false;
  std::string checksum;
  AppendHash(checksum, HashText(bytes.substr(0, bytes.size() - kHashBytes)));
  if (bytes.substr(bytes.size() - kHashBytes) != checksum) return false;
  size_t offset = kHeaderBytes;
  for (ManifestTensor& tensor : manifest.tensors) {
    for (base::ContentHash& hash : tensor.pieces) {
      hash = {.high = NumberAt(bytes, offset), .low = NumberAt(bytes, offset + 8)};
      offset += kHashBytes;
    }
  }
  return true;
}

}  // namespace

std::string WireBytes(const base::ContentHash& hash) {
  std::string bytes;
  AppendHash(bytes, hash);
  return bytes;
}

std::vector<model::TensorSpec> ShippedTensors(const model::Model& model) {
  std::vector<model::TensorSpec> specs;
  for (int64_t layer = 0; layer < model.config.n_layers; ++layer) {
    for (model::TensorSpec& spec : model.architecture->LayerTensors(model.config, layer)) {
      specs.push_back(std::move(spec));
    }
  }
  if (model.config.rope_has_factors) specs.push_back(model::RopeFactorsTensor(model.config));
  specs.push_back(model::OutputNormTensor(model.config));
  specs.push_back(model::OutputTensor(model.config));
  if (!model.config.tied_output) specs.push_back(model::EmbeddingTensor(model.config));
  return specs;
}

absl::StatusOr<Manifest> HashModel(const model::GgufFile& file, const model::Model& model,
                                   int threads, const HashProgress& progress) {
  RENGA_ASSIGN_OR_RETURN(Manifest manifest, DescribeModel(file, model));
  const std::vector<PieceSlot> slots = ListPieces(file, manifest);
  int64_t total_bytes = 0;
  for (const PieceSlot& slot : slots) total_bytes += static_cast<int64_t>(slot.bytes.size());

  absl::Mutex mutex;
  int64_t done_bytes = 0;  // guarded by mutex
  base::ThreadPool pool(threads);
  pool.ParallelFor(static_cast<int64_t>(slots.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      *slots[i].hash = base::HashBytes(slots[i].bytes);
      absl::MutexLock lock(&mutex);
      done_bytes += static_cast<int64_t>(slots[i].bytes.size());
      if (progress) progress(done_bytes, total_bytes);
    }
  });
  SetModelId(manifest, model);
  return manifest;
}

absl::StatusOr<Manifest> LoadOrHashModel(const model::GgufFile& file, const model::Model& model,
                                         const std::string& directory, int threads,
                                         const HashProgress& progress) {
  RENGA_ASSIGN_OR_RETURN(Manifest manifest, DescribeModel(file, model));
  const std::string signature = Signature(manifest, model);
  const std::optional<std::string> path = CachePath(file, signature, directory);
  if (path.has_value()) {
    const absl::StatusOr<std::string> cached = base::ReadFile(*path);
    if (cached.ok() && DecodeCache(*cached, signature, manifest)) {
      SetModelId(manifest, model);
      return manifest;
    }
  }
  RENGA_ASSIGN_OR_RETURN(manifest, HashModel(file, model, threads, progress));
  if (path.has_value()) {
    absl::Status stored = base::CreateDirectories(directory);
    if (stored.ok()) stored = base::WriteFileAtomically(*path, EncodeCache(manifest, signature));
    if (!stored.ok()) {
      RENGA_LOG(WARNING) << "hashes of the model are not kept: " << stored;
    }
  }
  return manifest;
}

}  // namespace renga::cluster
