// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): numbers
// that look random and are a function of what they are drawn for.
#ifndef RENGA_BASE_SPLIT_MIX_H_
#define RENGA_BASE_SPLIT_MIX_H_

#include <cstdint>

namespace renga::base {

// Between the states of a sequence.
inline constexpr uint64_t kSplitMixStep = 0x9e3779b97f4a7c15u;

// What a state gives: a bijection of 64 bits that mixes them well.
inline uint64_t SplitMix(uint64_t state) {
  state ^= state >> 30;
  state *= 0xbf58476d1ce4e5b9u;
  state ^= state >> 27;
  state *= 0x94d049bb133111ebu;
  return state ^ (state >> 31);
}

}  // namespace renga::base

#endif  // RENGA_BASE_SPLIT_MIX_H_
