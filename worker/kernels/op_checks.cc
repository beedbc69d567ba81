#include "worker/kernels/op_checks.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/kv_type.h"
#include "base/status_macros.h"

namespace renga::kernels {
namespace {

std::string Shape(ConstRowsView view) { return absl::StrCat(view.rows, " x ", view.columns); }

absl::Status CheckView(ConstRowsView view, absl::string_view name) {
  if (view.rows < 0 || view.columns < 0 || view.stride < view.columns) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " has an impossible shape: ", Shape(view), ", stride ", view.stride));
  }
  if (view.data == nullptr && view.rows > 0 && view.columns > 0) {
    return absl::InvalidArgumentError(absl::StrCat(name, " has no memory for ", Shape(view)));
  }
  return absl::OkStatus();
}

absl::Status CheckSameShape(ConstRowsView a, ConstRowsView b, absl::string_view names) {
  if (a.rows != b.rows || a.columns != b.columns) {
    return absl::InvalidArgumentError(
        absl::StrCat(names, " have different shapes: ", Shape(a), " and ", Shape(b)));
  }
  return absl::OkStatus();
}

absl::Status CheckHeads(ConstRowsView rows, int64_t head_dim) {
  if (head_dim <= 0 || rows.columns % head_dim != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows of ", rows.columns, " numbers are not whole heads of ", head_dim));
  }
  return absl::OkStatus();
}

absl::Status CheckCache(const KvCacheView& cache) {
  if (!base::IsKvType(cache.type)) {
    return absl::InvalidArgumentError("the KV cache must be of F16, F32 or Q8_0");
  }
  if (cache.n_blocks < 0 || cache.block_tokens <= 0 || cache.n_kv_heads <= 0 ||
      cache.head_dim <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the KV cache has an impossible shape: ", cache.n_blocks, " blocks of ", cache.block_tokens,
        " tokens, ", cache.n_kv_heads, " heads of ", cache.head_dim));
  }
  if ((cache.keys == nullptr || cache.values == nullptr) && cache.n_blocks > 0) {
    return absl::InvalidArgumentError("the KV cache has no memory");
  }
  return absl::OkStatus();
}

absl::Status CheckSlot(const SequenceSlot& slot, int64_t rows, const KvCacheView& cache) {
  if (slot.first_row < 0 || slot.row_count < 0 || slot.first_row > rows ||
      slot.row_count > rows - slot.first_row) {
    return absl::InvalidArgumentError(absl::StrCat("slot rows ", slot.first_row, " + ",
                                                   slot.row_count, " lie outside ", rows, " rows"));
  }
  const int64_t covered = static_cast<int64_t>(slot.blocks.size()) * cache.block_tokens;
  if (slot.first_position < 0 || slot.first_position > covered ||
      slot.row_count > covered - slot.first_position) {
    return absl::InvalidArgumentError(absl::StrCat("slot positions ", slot.first_position, " + ",
                                                   slot.row_count, " lie outside its blocks' ",
                                                   covered));
  }
  for (const int32_t block : slot.blocks) {
    if (block < 0 || block >= cache.n_blocks) {
      return absl::InvalidArgumentError(
          absl::StrCat("KV block ", block, " is not one of ", cache.n_blocks));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSlots(std::span<const SequenceSlot> slots, int64_t rows,
                        const KvCacheView& cache) {
  for (const SequenceSlot& slot : slots) RENGA_RETURN_IF_ERROR(CheckSlot(slot, rows, cache));
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckMatrixShape(base::DataType type, int64_t rows, int64_t columns) {
  if (type == base::DataType::kInvalid || rows < 1 || columns < 1) {
    return absl::InvalidArgumentError(absl::StrCat("no matrix has a shape of ", rows, " x ",
                                                   columns, " and type number ",
                                                   static_cast<int>(type)));
  }
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(type, columns));
  int64_t bytes;
  if (__builtin_mul_overflow(row_bytes, rows, &bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a matrix of ", rows, " x ", columns, " is too large"));
  }
  return absl::OkStatus();
}

absl::Status CheckLoadRows(const WeightMatrix& matrix, int64_t first_row, size_t bytes) {
  RENGA_ASSIGN_OR_RETURN(const int64_t row_bytes, base::RowBytes(matrix.type(), matrix.columns()));
  const uint64_t count = bytes / static_cast<uint64_t>(row_bytes);
  if (bytes % static_cast<uint64_t>(row_bytes) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(bytes, " bytes are not whole rows of ", row_bytes));
  }
  if (first_row < 0 || first_row > matrix.rows() ||
      count > static_cast<uint64_t>(matrix.rows() - first_row)) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows ", first_row, " + ", count, " lie outside a matrix of ", matrix.rows()));
  }
  return absl::OkStatus();
}

absl::Status CheckRmsNorm(ConstRowsView in, const float* weight, RowsView out) {
  RENGA_RETURN_IF_ERROR(CheckView(in, "the input"));
  RENGA_RETURN_IF_ERROR(CheckView(out, "the output"));
  if (weight == nullptr) return absl::InvalidArgumentError("the norm has no weight");
  return CheckSameShape(in, out, "input and output");
}

absl::Status CheckHeadRmsNorm(RowsView rows, int64_t head_dim, const float* weight) {
  RENGA_RETURN_IF_ERROR(CheckView(rows, "the input"));
  if (weight == nullptr) return absl::InvalidArgumentError("the norm has no weight");
  return CheckHeads(rows, head_dim);
}

absl::Status CheckLinear(ConstRowsView in, std::span<const LinearOutput> outputs) {
  RENGA_RETURN_IF_ERROR(CheckView(in, "the input"));
  for (const LinearOutput& output : outputs) {
    RENGA_RETURN_IF_ERROR(CheckView(output.out, "the output"));
    if (output.matrix == nullptr) return absl::InvalidArgumentError("an output has no matrix");
    if (output.matrix->columns() != in.columns || output.matrix->rows() != output.out.columns ||
        output.out.rows != in.rows) {
      return absl::InvalidArgumentError(absl::StrCat("a matrix of ", output.matrix->rows(), " x ",
                                                     output.matrix->columns(), " does not turn ",
                                                     Shape(in), " into ", Shape(output.out)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRope(RowsView rows, std::span<const int64_t> positions, const RopeArgs& args) {
  RENGA_RETURN_IF_ERROR(CheckView(rows, "the input"));
  RENGA_RETURN_IF_ERROR(CheckHeads(rows, args.head_dim));
  if (args.dims < 0 || args.dims > args.head_dim || args.dims % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("cannot rotate ", args.dims,
                                                   " numbers of heads of ", args.head_dim,
                                                   ": it must be an even part of them"));
  }
  if (!(args.base > 0) || !(args.position_scale > 0)) {
    return absl::InvalidArgumentError(absl::StrCat("rope base ", args.base, " and position scale ",
                                                   args.position_scale, " must be positive"));
  }
  if (static_cast<int64_t>(positions.size()) != rows.rows) {
    return absl::InvalidArgumentError(
        absl::StrCat(positions.size(), " positions for ", rows.rows, " rows"));
  }
  for (const int64_t position : positions) {
    if (position < 0) return absl::InvalidArgumentError(absl::StrCat("position ", position));
  }
  return absl::OkStatus();
}

absl::Status CheckStoreKv(ConstRowsView keys, ConstRowsView values, const KvCacheView& cache,
                          std::span<const SequenceSlot> slots) {
  RENGA_RETURN_IF_ERROR(CheckView(keys, "the keys"));
  RENGA_RETURN_IF_ERROR(CheckView(values, "the values"));
  RENGA_RETURN_IF_ERROR(CheckSameShape(keys, values, "keys and values"));
  RENGA_RETURN_IF_ERROR(CheckCache(cache));
  if (keys.columns != cache.n_kv_heads * cache.head_dim) {
    return absl::InvalidArgumentError(absl::StrCat("keys of ", keys.columns, " numbers for ",
                                                   cache.n_kv_heads, " heads of ", cache.head_dim));
  }
  return CheckSlots(slots, keys.rows, cache);
}

absl::Status CheckAttention(const AttentionArgs& args) {
  RENGA_RETURN_IF_ERROR(CheckView(args.queries, "the queries"));
  RENGA_RETURN_IF_ERROR(CheckView(args.out, "the output"));
  RENGA_RETURN_IF_ERROR(CheckSameShape(args.queries, args.out, "queries and output"));
  RENGA_RETURN_IF_ERROR(CheckCache(args.cache));
  if (args.n_heads <= 0 || args.n_heads % args.cache.n_kv_heads != 0 ||
      args.queries.columns != args.n_heads * args.cache.head_dim) {
    return absl::InvalidArgumentError(absl::StrCat(
        "queries of ", args.queries.columns, " numbers for ", args.n_heads, " heads of ",
        args.cache.head_dim, " over ", args.cache.n_kv_heads, " key and value heads"));
  }
  if (!std::isfinite(args.scale)) return absl::InvalidArgumentError("the scale is not finite");
  if (args.window < 0) {
    return absl::InvalidArgumentError(absl::StrCat("a window of ", args.window, " positions"));
  }
  return CheckSlots(args.slots, args.queries.rows, args.cache);
}

absl::Status CheckSiluGate(ConstRowsView gate, ConstRowsView up, RowsView out) {
  RENGA_RETURN_IF_ERROR(CheckView(gate, "the gate"));
  RENGA_RETURN_IF_ERROR(CheckView(up, "the factor"));
  RENGA_RETURN_IF_ERROR(CheckView(out, "the output"));
  RENGA_RETURN_IF_ERROR(CheckSameShape(gate, up, "gate and factor"));
  return CheckSameShape(gate, out, "gate and output");
}

absl::Status CheckGeluGate(ConstRowsView gate, ConstRowsView up, RowsView out) {
  return CheckSiluGate(gate, up, out);
}

absl::Status CheckAdd(ConstRowsView in, RowsView out) {
  RENGA_RETURN_IF_ERROR(CheckView(in, "the input"));
  RENGA_RETURN_IF_ERROR(CheckView(out, "the output"));
  return CheckSameShape(in, out, "input and output");
}

absl::Status CheckTopK(ConstRowsView logits, std::span<const TopRow> result) {
  RENGA_RETURN_IF_ERROR(CheckView(logits, "the logits"));
  if (static_cast<int64_t>(result.size()) != logits.rows || logits.columns < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(result.size(), " results for logits of ", Shape(logits)));
  }
  return absl::OkStatus();
}

}  // namespace renga::kernels
