// The Pieces service: pieces of models for workers that lack them, from whoever holds them.
#ifndef RENGA_TRANSPORT_PIECES_SERVICE_H_
#define RENGA_TRANSPORT_PIECES_SERVICE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "proto/cluster.pb.h"
#include "transport/peer_identity.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace renga::transport {

// What a service serves. Errors are told to the caller.
class PieceSource {
 public:
  virtual ~PieceSource() = default;
  // Refuses what cannot be served, before anything is. On any thread. kNotFound, kOutOfRange.
  virtual absl::Status Check(const proto::PieceRequest& request) const = 0;
  // The bytes of a piece of the model, which Check has let pass; the caller verifies them. On the
  // service's thread alone. kNotFound when it is not held, errors of the disk.
  virtual absl::Status Read(const std::string& model_id, uint32_t tensor, uint32_t piece,
                            std::string& bytes) = 0;
};

// Owns the thread that reads, so that a slow disk holds up no other call. A stream has one piece in
// memory at a time: the next is read when gRPC has taken the one before. Any member may ask.
class PiecesService {
 public:
  // `source` outlives the service.
  PiecesService(PieceSource* source, PeerPolicy policy);
  // The server it was registered with has been shut down.
  ~PiecesService();

  grpc::Service* service();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_PIECES_SERVICE_H_
