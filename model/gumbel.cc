#include "model/gumbel.h"

#include <bit>
#include <cmath>

namespace renga::model {
namespace {

constexpr uint64_t kGoldenGamma = 0x9e3779b97f4a7c15u;
constexpr uint64_t kNumbers = uint64_t{1} << 52;
// ln 2, rounded up.
constexpr double kLn2 = 0.6931471805599454;

// SplitMix64's output function: a bijection of 64 bits that mixes them well.
uint64_t Mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

// A counter-based generator: the seed, mixed so that neighbouring seeds are strangers, starts a
// SplitMix64 sequence, and the position is the index into it. What is there starts the sequence
// that tokens are indices into.
GumbelNoise::GumbelNoise(uint64_t seed, uint64_t position) {
  const uint64_t start = Mix(seed + kGoldenGamma);
  start_ = Mix(Mix(start + kGoldenGamma * (position + 1)) ^ start);
}

uint64_t GumbelNoise::Bits(int32_t token) const {
  const auto index = static_cast<uint64_t>(static_cast<uint32_t>(token));
  return Mix(start_ + kGoldenGamma * (index + 1)) >> 12;
}

double GumbelNoise::Of(int32_t token) const {
  // The middle of one of 2^52 parts of (0, 1), which a double holds exactly.
  const double u = (static_cast<double>(Bits(token)) + 0.5) * 0x1p-52;
  return -std::log(-std::log(u));
}

// With y = 1 - u: -ln(1 - y) >= y, so the noise is at most -ln y. And y is at least half of
// 2^-52 times the power of two below the number of parts that are left.
double GumbelNoise::AtMost(int32_t token) const {
  const int left = std::bit_width(kNumbers - Bits(token)) - 1;
  return static_cast<double>(53 - left) * kLn2;
}

}  // namespace renga::model
