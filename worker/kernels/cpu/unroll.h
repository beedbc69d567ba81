// Inlining and unrolling that the vector kernels rely on.
#ifndef RENGA_WORKER_KERNELS_CPU_UNROLL_H_
#define RENGA_WORKER_KERNELS_CPU_UNROLL_H_

#include <utility>

// A vector word: always inlined, so that vectors stay in registers, whatever the optimisation.
#define RENGA_WORD [[gnu::always_inline]] static inline
// After the parameters of a lambda that must be inlined.
#define RENGA_INLINE_LAMBDA __attribute__((always_inline))

namespace renga::kernels::cpu {

// body(integral_constant<int, 0>), ... body(integral_constant<int, n - 1>).
template <int n, class Body>
[[gnu::always_inline]] inline void Unroll(const Body& body) {
  [&]<int... i>(std::integer_sequence<int, i...>) RENGA_INLINE_LAMBDA {
    (body(std::integral_constant<int, i>{}), ...);
  }
  (std::make_integer_sequence<int, n>{});
}

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_UNROLL_H_
