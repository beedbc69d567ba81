#include "worker/engine/eigenvectors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

namespace renga::engine {
namespace {

// A square matrix seen by rows.
class Rows {
 public:
  Rows(std::vector<double>& numbers, int64_t n) : numbers_(numbers), n_(n) {}
  double* operator[](int64_t row) const { return numbers_.data() + row * n_; }

 private:
  std::vector<double>& numbers_;
  const int64_t n_;
};

// The reflection 1 - factor * v v' that turns column `k` below the diagonal into (left, 0, 0 ...).
struct Reflection {
  std::vector<double> v;  // from row k + 1 on
  double factor = 0;      // 0: nothing to do
  double left = 0;
};

Reflection ReflectionOf(const Rows& a, int64_t k, int64_t n) {
  Reflection reflection;
  double squares = 0;
  for (int64_t i = k + 1; i < n; ++i) {
    reflection.v.push_back(a[i][k]);
    squares += a[i][k] * a[i][k];
  }
  const double first = reflection.v[0];
  if (squares == first * first) {  // zero already
    reflection.left = first;
    return reflection;
  }
  reflection.left = first > 0 ? -std::sqrt(squares) : std::sqrt(squares);
  reflection.v[0] -= reflection.left;
  reflection.factor = 2 / (squares - first * first + reflection.v[0] * reflection.v[0]);
  return reflection;
}

// a = H a H in the rows and columns from k + 1 on.
void ReflectBothSides(const Reflection& h, const Rows& a, int64_t k, int64_t n) {
  const int64_t m = n - k - 1;
  std::vector<double> w(static_cast<size_t>(m), 0.0);
  for (int64_t i = 0; i < m; ++i) {
    const double* row = a[k + 1 + i] + k + 1;
    double sum = 0;
    for (int64_t j = 0; j < m; ++j) sum += row[j] * h.v[j];
    w[i] = sum * h.factor;
  }
  const double half = h.factor / 2 * std::inner_product(w.begin(), w.end(), h.v.begin(), 0.0);
  for (int64_t i = 0; i < m; ++i) w[i] -= half * h.v[i];
  for (int64_t i = 0; i < m; ++i) {
    double* row = a[k + 1 + i] + k + 1;
    for (int64_t j = 0; j < m; ++j) row[j] -= h.v[i] * w[j] + w[i] * h.v[j];
  }
}

// q = q H for the columns from k + 1 on, with q's transpose at hand: its rows.
void ReflectRows(const Reflection& h, const Rows& transposed, int64_t k, int64_t n) {
  if (h.factor == 0) return;
  const int64_t m = n - k - 1;
  std::vector<double> sums(static_cast<size_t>(n), 0.0);
  for (int64_t i = 0; i < m; ++i) {
    const double* row = transposed[k + 1 + i];
    for (int64_t j = 0; j < n; ++j) sums[j] += h.v[i] * row[j];
  }
  for (int64_t i = 0; i < m; ++i) {
    double* row = transposed[k + 1 + i];
    for (int64_t j = 0; j < n; ++j) row[j] -= h.factor * h.v[i] * sums[j];
  }
}

// Three diagonals (`diagonal`, and `beside` from its index 0 on) and the rows that they refer to.
struct Tridiagonal {
  std::vector<double> diagonal;
  std::vector<double> beside;
  std::vector<double> rows;
};

Tridiagonal Reduce(std::vector<double> matrix, int64_t n) {
  Tridiagonal result;
  result.rows.assign(static_cast<size_t>(n * n), 0.0);
  const Rows a(matrix, n);
  const Rows q(result.rows, n);
  for (int64_t i = 0; i < n; ++i) q[i][i] = 1;
  result.beside.assign(static_cast<size_t>(n), 0.0);
  for (int64_t k = 0; k + 2 < n; ++k) {
    const Reflection h = ReflectionOf(a, k, n);
    result.beside[k] = h.left;
    if (h.factor != 0) ReflectBothSides(h, a, k, n);
    ReflectRows(h, q, k, n);
  }
  if (n > 1) result.beside[n - 2] = a[n - 1][n - 2];
  for (int64_t i = 0; i < n; ++i) result.diagonal.push_back(a[i][i]);
  return result;
}

void RotateRows(double* upper, double* lower, double cosine, double sine, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    const double old = lower[j];
    lower[j] = sine * upper[j] + cosine * old;
    upper[j] = cosine * upper[j] - sine * old;
  }
}

// One QL step with an implicit shift on the unreduced part [first, last].
void Chase(Tridiagonal& t, int64_t first, int64_t last, int64_t n) {
  std::vector<double>& d = t.diagonal;
  std::vector<double>& e = t.beside;
  const Rows rows(t.rows, n);
  const double ratio = (d[first + 1] - d[first]) / (2 * e[first]);
  const double root = std::hypot(ratio, 1.0);
  double g = d[last] - d[first] + e[first] / (ratio + std::copysign(root, ratio));
  double sine = 1;
  double cosine = 1;
  double shift = 0;
  for (int64_t i = last - 1; i >= first; --i) {
    const double f = sine * e[i];
    const double b = cosine * e[i];
    const double length = std::hypot(f, g);
    e[i + 1] = length;
    if (length == 0) {
      d[i + 1] -= shift;
      e[last] = 0;
      return;
    }
    sine = f / length;
    cosine = g / length;
    g = d[i + 1] - shift;
    const double r = (d[i] - g) * sine + 2 * cosine * b;
    shift = sine * r;
    d[i + 1] = g + shift;
    g = cosine * r - b;
    RotateRows(rows[i], rows[i + 1], cosine, sine, n);
  }
  d[first] -= shift;
  e[first] = g;
  e[last] = 0;
}

void Diagonalise(Tridiagonal& t, int64_t n) {
  // Each value takes two or three steps; the bound only ends a loop over damaged numbers.
  constexpr int kMostSteps = 100;
  for (int64_t first = 0; first < n; ++first) {
    for (int step = 0; step < kMostSteps; ++step) {
      int64_t last = first;
      while (last + 1 < n) {
        const double size = std::abs(t.diagonal[last]) + std::abs(t.diagonal[last + 1]);
        if (std::abs(t.beside[last]) <= std::numeric_limits<double>::epsilon() * size) break;
        ++last;
      }
      if (last == first) break;
      Chase(t, first, last, n);
    }
  }
}

}  // namespace

Eigenvectors SymmetricEigenvectors(std::vector<double> matrix, int64_t n) {
  Tridiagonal t = Reduce(std::move(matrix), n);
  Diagonalise(t, n);
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return t.diagonal[a] > t.diagonal[b]; });
  Eigenvectors result;
  for (const int64_t i : order) {
    result.values.push_back(t.diagonal[i]);
    result.vectors.insert(result.vectors.end(), t.rows.begin() + i * n,
                          t.rows.begin() + (i + 1) * n);
  }
  return result;
}

}  // namespace renga::engine
