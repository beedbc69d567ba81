// What a worker tells the coordinator about its machine and process.
#ifndef RENGA_WORKER_SERVICE_PROCESS_REPORT_H_
#define RENGA_WORKER_SERVICE_PROCESS_REPORT_H_

#include <cstdint>
#include <string>

namespace renga::worker {

// Bytes of this process in memory now, mapped files included; 0 when the system doesn't say.
int64_t ResidentBytes();

// The processor's name for people, "unknown CPU" when the system doesn't say.
std::string CpuName();

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_PROCESS_REPORT_H_
