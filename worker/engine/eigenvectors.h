// Eigenvectors of a symmetric matrix, for the directions in which hidden states vary most.
#ifndef RENGA_WORKER_ENGINE_EIGENVECTORS_H_
#define RENGA_WORKER_ENGINE_EIGENVECTORS_H_

#include <cstdint>
#include <vector>

namespace renga::engine {

struct Eigenvectors {
  std::vector<double> values;   // largest first
  std::vector<double> vectors;  // n x n: row j belongs to values[j], of length 1
};

// Of a symmetric n x n matrix of finite numbers, row after row. Householder reflections to three
// diagonals, then QL with implicit shifts (Golub and Van Loan, Matrix Computations, 8.3): about
// 4 n^3 multiplications.
Eigenvectors SymmetricEigenvectors(std::vector<double> matrix, int64_t n);

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_EIGENVECTORS_H_
