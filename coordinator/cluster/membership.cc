#include "coordinator/cluster/membership.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/log.h"

namespace renga::cluster {

namespace {

absl::string_view HostOf(absl::string_view address) {
  return address.substr(0, address.rfind(':'));
}

// A lost worker that enrolled anew (its identity was not kept) shows up under another id.
bool IsFormerSelf(const Member& lost, const Member& joined) {
  return !lost.alive && lost.name == joined.name && HostOf(lost.address) == HostOf(joined.address);
}

void TakeSpeed(const MeasuredSpeed& speed, WorkerOffer& offer) {
  offer.kernels = speed.kernels;
  offer.weight_bytes_per_second = speed.kernels[0].decode_bytes_per_second;
  offer.copy_bytes_per_second = speed.copy_bytes_per_second;
  offer.disk_bytes_per_second = speed.disk_bytes_per_second;
  offer.layer_us = speed.layer_us;
}

void LogLoss(const Member& member, absl::string_view reason) {
  RENGA_LOG(WARNING) << "worker " << member.name << " (" << member.id << ") is lost: " << reason;
}

}  // namespace

Membership::Clock Membership::SteadyClock() {
  return [] { return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch()); };
}

Membership::Membership(Clock clock) : clock_(std::move(clock)) {}

int Membership::AddListener(std::function<void()> listener) {
  absl::MutexLock lock(&listeners_mutex_);
  listeners_.push_back({++listener_ids_, std::move(listener)});
  return listener_ids_;
}

void Membership::RemoveListener(int id) {
  absl::MutexLock lock(&listeners_mutex_);
  std::erase_if(listeners_, [id](const Listener& listener) { return listener.id == id; });
}

void Membership::Notify() {
  absl::MutexLock lock(&listeners_mutex_);
  for (const Listener& listener : listeners_) listener.run();
}

Member* Membership::FindById(absl::string_view id) {
  for (Member& member : members_) {
    if (member.id == id) return &member;
  }
  return nullptr;
}

Member* Membership::FindAlive(absl::string_view id, uint64_t incarnation) {
  Member* member = FindById(id);
  if (member == nullptr || member->incarnation != incarnation || !member->alive) return nullptr;
  return member;
}

std::string Membership::GiveId(const JoinRequest& request) {
  if (!request.id.empty()) return request.id;
  // Without certificates a worker is known again by its name and address.
  for (const Member& member : members_) {
    if (member.name == request.name && member.address == request.address) return member.id;
  }
  return NewWorkerId();
}

absl::StatusOr<Member> Membership::Join(const JoinRequest& request) {
  Member joined;
  {
    absl::MutexLock lock(&mutex_);
    const auto alive = std::count_if(members_.begin(), members_.end(),
                                     [](const Member& member) { return member.alive; });
    if (static_cast<size_t>(alive) >= kMaxAlive) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the cluster has ", alive, " workers and takes no more"));
    }
    joined.id = GiveId(request);
    if (const Member* standing = FindById(joined.id);
        standing != nullptr && standing->alive && standing->address != request.address) {
      return absl::UnavailableError(absl::StrCat(
          "another worker with the same certificate is a member (", standing->name, " at ",
          standing->address, "): a second one on a machine needs a state folder of its own"));
    }
    joined.name = request.name;
    joined.address = request.address;
    joined.data_address = request.data_address;
    joined.offer = request.offer;
    joined.resident_epoch = request.resident_epoch;
    joined.incarnation = ++incarnations_;
    joined.alive = true;
    joined.since = joined.last_heard = clock_();
    std::erase_if(members_, [&](const Member& member) {
      return member.id == joined.id || IsFormerSelf(member, joined);
    });
    members_.push_back(joined);
  }
  RENGA_LOG(INFO) << "worker " << joined.name << " (" << joined.id << ") joined from "
                  << joined.address;
  Notify();
  return joined;
}

bool Membership::Heard(absl::string_view id, uint64_t incarnation, const Heartbeat& heartbeat) {
  bool other_offer = false;
  {
    absl::MutexLock lock(&mutex_);
    Member* member = FindAlive(id, incarnation);
    if (member == nullptr) return false;
    member->last_heard = clock_();
    member->last_heartbeat = heartbeat;
    other_offer = heartbeat.memory_offered_bytes > 0 &&
                  heartbeat.memory_offered_bytes != member->offer.memory_bytes;
    if (other_offer) member->offer.memory_bytes = heartbeat.memory_offered_bytes;
    if (heartbeat.speed.has_value()) TakeSpeed(*heartbeat.speed, member->offer);
  }
  if (other_offer) Notify();
  return true;
}

void Membership::MarkLost(Member& member, absl::string_view reason) {
  member.alive = false;
  member.lost_reason = std::string(reason);
  member.since = clock_();
}

void Membership::ForgetLongLost() {
  auto lost = static_cast<size_t>(std::count_if(
      members_.begin(), members_.end(), [](const Member& member) { return !member.alive; }));
  while (lost > kMaxLost) {
    auto oldest = members_.end();
    for (auto it = members_.begin(); it != members_.end(); ++it) {
      if (!it->alive && (oldest == members_.end() || it->since < oldest->since)) oldest = it;
    }
    members_.erase(oldest);
    --lost;
  }
}

bool Membership::IsAlive(absl::string_view id, uint64_t incarnation) const {
  absl::MutexLock lock(&mutex_);
  for (const Member& member : members_) {
    if (member.id == id) return member.incarnation == incarnation && member.alive;
  }
  return false;
}

void Membership::Lose(absl::string_view id, uint64_t incarnation, absl::string_view reason) {
  {
    absl::MutexLock lock(&mutex_);
    Member* member = FindAlive(id, incarnation);
    if (member == nullptr) return;
    LogLoss(*member, reason);
    MarkLost(*member, reason);
    ForgetLongLost();
  }
  Notify();
}

void Membership::Leave(absl::string_view id, uint64_t incarnation) {
  {
    absl::MutexLock lock(&mutex_);
    Member* member = FindAlive(id, incarnation);
    if (member == nullptr) return;
    RENGA_LOG(INFO) << "worker " << member->name << " (" << member->id << ") left";
    member->left = true;
    MarkLost(*member, "it left");
    ForgetLongLost();
  }
  Notify();
}

void Membership::LoseSilent() {
  bool lost_any = false;
  {
    absl::MutexLock lock(&mutex_);
    const absl::Duration now = clock_();
    for (Member& member : members_) {
      if (!member.alive || now - member.last_heard <= kSilenceLimit) continue;
      const std::string reason = absl::StrFormat("no heartbeat for %.1f s",
                                                 absl::ToDoubleSeconds(now - member.last_heard));
      LogLoss(member, reason);
      MarkLost(member, reason);
      lost_any = true;
    }
    if (lost_any) ForgetLongLost();
  }
  if (lost_any) Notify();
}

std::vector<Member> Membership::Members() const {
  std::vector<Member> members;
  {
    absl::MutexLock lock(&mutex_);
    members = members_;
  }
  std::stable_sort(members.begin(), members.end(), [](const Member& a, const Member& b) {
    if (a.alive != b.alive) return a.alive;
    return a.incarnation < b.incarnation;
  });
  return members;
}

std::string NewWorkerId() {
  std::random_device random;
  const uint64_t bits = (uint64_t{random()} << 32) | random();
  return absl::StrFormat("w-%012x", bits & 0xffffffffffffu);
}

}  // namespace renga::cluster
