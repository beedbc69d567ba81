#include "partition/slice_split.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace renga::partition {
namespace {

constexpr double kAnyTime = std::numeric_limits<double>::infinity();
constexpr double kNone = -1;

// Times that differ by rounding are equal.
constexpr double kSame = 1 + 1e-9;

class Splitter {
 public:
  Splitter(const model::ModelConfig& config, const model::SliceUnits& units,
           const SliceCosts& costs, const std::vector<SliceMember>& members)
      : costs_(costs),
        members_(members),
        n_heads_(config.n_heads),
        heads_per_group_(config.n_heads / config.n_kv_heads),
        head_unit_(units.heads),
        ff_unit_(units.ff),
        ff_units_(config.d_ff / units.ff) {}

  std::optional<std::vector<model::LayerSlice>> Run();

 private:
  double AttentionBytes(int64_t heads, double per_head, double per_kv_head) const {
    const int64_t kv_heads = (heads + heads_per_group_ - 1) / heads_per_group_;
    return static_cast<double>(heads) * per_head + static_cast<double>(kv_heads) * per_kv_head;
  }
  double AttentionMs(size_t member, int64_t heads) const {
    return members_[member].ms_per_byte *
           AttentionBytes(heads, costs_.query_head_bytes, costs_.kv_head_bytes);
  }
  double AttentionRoom(int64_t heads) const {
    return AttentionBytes(heads, costs_.query_head_room, costs_.kv_head_room);
  }
  double FeedForwardMs(size_t member, int64_t ff) const {
    return members_[member].ms_per_byte * static_cast<double>(ff * ff_unit_) *
           costs_.ff_column_bytes;
  }

  // Whether a member may own heads [begin, end): whole groups (or none, between two), or inside
  // one.
  bool IsSlice(int64_t begin, int64_t end) const {
    if (begin % heads_per_group_ == 0 && end % heads_per_group_ == 0) return true;
    return begin < end && begin / heads_per_group_ == (end - 1) / heads_per_group_;
  }
  int64_t FeedForwardCapacity(size_t member, int64_t heads, double slowest_ff) const;
  bool Feasible(double slowest_attention, double slowest_ff);
  std::vector<double> AttentionTimes() const;
  std::vector<double> FeedForwardTimes() const;
  // The first of the ascending `times` for which `fits` holds, from `first` on; its index.
  template <typename Fits>
  static size_t FirstFit(const std::vector<double>& times, Fits fits);
  std::vector<model::LayerSlice> Slices(double slowest_attention, double slowest_ff);

  const SliceCosts& costs_;
  const std::vector<SliceMember>& members_;
  const int64_t n_heads_;
  const int64_t heads_per_group_;
  const int64_t head_unit_;
  const int64_t ff_unit_;
  const int64_t ff_units_;
  // Of the last Feasible: most feed-forward units that members [0, i) take beside heads [0, h),
  // kNone where they cannot take these; and where the i-th member's heads begin then.
  std::vector<std::vector<double>> most_ff_;
  std::vector<std::vector<int64_t>> begins_;
};

// Units that fit in the time and beside that many heads; -1 when not even the heads fit.
int64_t Splitter::FeedForwardCapacity(size_t member, int64_t heads, double slowest_ff) const {
  const double room = static_cast<double>(members_[member].room) - AttentionRoom(heads);
  if (room < 0) return -1;
  const double unit_room = static_cast<double>(ff_unit_) * costs_.ff_column_room;
  const double unit_ms = FeedForwardMs(member, 1);
  double units = static_cast<double>(ff_units_);
  if (unit_room > 0) units = std::min(units, std::floor(room / unit_room));
  if (unit_ms > 0) units = std::min(units, std::floor(slowest_ff * kSame / unit_ms));
  return static_cast<int64_t>(units);
}

// Dynamic programme over (members, heads given away): the most columns they have room for.
bool Splitter::Feasible(double slowest_attention, double slowest_ff) {
  const int64_t places = n_heads_ / head_unit_;
  most_ff_.assign(members_.size() + 1, std::vector<double>(places + 1, kNone));
  begins_.assign(members_.size() + 1, std::vector<int64_t>(places + 1, -1));
  most_ff_[0][0] = 0;
  for (size_t i = 0; i < members_.size(); ++i) {
    for (int64_t count = 0; count <= places; ++count) {
      const int64_t heads = count * head_unit_;
      if (AttentionMs(i, heads) > slowest_attention * kSame) break;
      const int64_t ff = FeedForwardCapacity(i, heads, slowest_ff);
      // Who would compute nothing is no member.
      if (ff < 0 || (heads == 0 && ff == 0)) continue;
      for (int64_t begin = 0; begin + count <= places; ++begin) {
        if (most_ff_[i][begin] < 0) continue;
        const int64_t end = begin + count;
        if (!IsSlice(begin * head_unit_, end * head_unit_)) continue;
        const double most = most_ff_[i][begin] + static_cast<double>(ff);
        if (most <= most_ff_[i + 1][end]) continue;
        most_ff_[i + 1][end] = most;
        begins_[i + 1][end] = begin;
      }
    }
  }
  return most_ff_[members_.size()][places] >= static_cast<double>(ff_units_);
}

std::vector<double> Splitter::AttentionTimes() const {
  std::vector<double> times;
  for (size_t i = 0; i < members_.size(); ++i) {
    for (int64_t heads = 0; heads <= n_heads_; heads += head_unit_) {
      times.push_back(AttentionMs(i, heads));
    }
  }
  std::sort(times.begin(), times.end());
  times.erase(std::unique(times.begin(), times.end()), times.end());
  return times;
}

std::vector<double> Splitter::FeedForwardTimes() const {
  std::vector<double> times;
  for (size_t i = 0; i < members_.size(); ++i) {
    for (int64_t ff = 0; ff <= ff_units_; ++ff) times.push_back(FeedForwardMs(i, ff));
  }
  std::sort(times.begin(), times.end());
  times.erase(std::unique(times.begin(), times.end()), times.end());
  return times;
}

template <typename Fits>
size_t Splitter::FirstFit(const std::vector<double>& times, Fits fits) {
  size_t low = 0;
  size_t high = times.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (fits(times[middle])) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// The slices behind a Feasible of these times. Heads as the programme gave them; columns to
// whoever is then done first, one unit after the other.
std::vector<model::LayerSlice> Splitter::Slices(double slowest_attention, double slowest_ff) {
  Feasible(slowest_attention, slowest_ff);
  std::vector<model::LayerSlice> slices(members_.size());
  std::vector<int64_t> most(members_.size());
  std::vector<int64_t> units(members_.size(), 0);
  int64_t end = n_heads_ / head_unit_;
  for (size_t i = members_.size(); i > 0; --i) {
    const int64_t begin = begins_[i][end];
    slices[i - 1].heads = {begin * head_unit_, end * head_unit_};
    most[i - 1] = FeedForwardCapacity(i - 1, (end - begin) * head_unit_, slowest_ff);
    end = begin;
  }
  int64_t left = ff_units_;
  // A member without heads must have columns.
  for (size_t i = 0; i < members_.size(); ++i) {
    if (slices[i].heads.empty() && left > 0) {
      units[i] = 1;
      --left;
    }
  }
  for (; left > 0; --left) {
    size_t next = members_.size();
    for (size_t i = 0; i < members_.size(); ++i) {
      if (units[i] >= most[i]) continue;
      if (next == members_.size() ||
          FeedForwardMs(i, units[i] + 1) * kSame < FeedForwardMs(next, units[next] + 1)) {
        next = i;
      }
    }
    ++units[next];
  }
  int64_t begin = 0;
  for (size_t i = 0; i < members_.size(); ++i) {
    slices[i].ff = {begin * ff_unit_, (begin + units[i]) * ff_unit_};
    begin += units[i];
  }
  return slices;
}

std::optional<std::vector<model::LayerSlice>> Splitter::Run() {
  // Every member can be given something when each can be given columns.
  if (members_.empty() || n_heads_ % head_unit_ != 0 ||
      ff_units_ < static_cast<int64_t>(members_.size())) {
    return std::nullopt;
  }
  if (!Feasible(kAnyTime, kAnyTime)) return std::nullopt;
  const std::vector<double> attention = AttentionTimes();
  const std::vector<double> feed_forward = FeedForwardTimes();
  const double least_ff =
      feed_forward[FirstFit(feed_forward, [this](double ff) { return Feasible(kAnyTime, ff); })];
  double best = kAnyTime;
  double best_attention = 0;
  double best_ff = 0;
  const size_t first = FirstFit(attention, [this](double ms) { return Feasible(ms, kAnyTime); });
  for (size_t i = first; i < attention.size() && attention[i] + least_ff < best; ++i) {
    // Slower attention is worth it only for a faster feed-forward.
    if (best < kAnyTime && !Feasible(attention[i], (best - attention[i]) / kSame / kSame)) {
      continue;
    }
    const double ff =
        feed_forward[FirstFit(feed_forward, [&](double ms) { return Feasible(attention[i], ms); })];
    if (attention[i] + ff >= best) continue;
    best = attention[i] + ff;
    best_attention = attention[i];
    best_ff = ff;
  }
  return Slices(best_attention, best_ff);
}

}  // namespace

std::optional<std::vector<model::LayerSlice>> SplitSlices(const model::ModelConfig& config,
                                                          const model::SliceUnits& units,
                                                          const SliceCosts& costs,
                                                          const std::vector<SliceMember>& members) {
  return Splitter(config, units, costs, members).Run();
}

}  // namespace renga::partition
