// What memory for some of a mixture's experts would have: the part of expert_usage.h that is about
// hits.
#ifndef RENGA_PARTITION_EXPERT_CACHES_H_
#define RENGA_PARTITION_EXPERT_CACHES_H_

#include <cstdint>
#include <span>
#include <vector>

#include "partition/expert_usage.h"

namespace renga::partition {

enum class TextPart { kFirstHalf, kAll };

// How often each expert of all layers was chosen in that part of the text; added to `uses`, which
// are layers x experts.
void CountUses(const ExpertRecord& record, const ExpertText& text, TextPart part,
               std::vector<int64_t>& uses);
// What one token chose, layer after layer.
std::span<const uint16_t> ChosenAt(const ExpertRecord& record, const ExpertText& text,
                                   int64_t position);

// ExpertReport::caches, and ::half_lives for such shares of all experts.
std::vector<ExpertCachePoint> MeasureExpertCaches(const ExpertRecord& record);
std::vector<HalfLifePoint> MeasureHalfLives(const ExpertRecord& record,
                                            const std::vector<double>& shares);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_EXPERT_CACHES_H_
