// Folders for tests that go away with the process, so that a thousand test runs fill no disk.
#ifndef RENGA_BASE_TESTING_TEMP_FOLDER_H_
#define RENGA_BASE_TESTING_TEMP_FOLDER_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <string>
#include <system_error>
#include <vector>

namespace renga::testing {

class TempFolders {
 public:
  TempFolders() = default;
  ~TempFolders() {
    std::error_code ignored;
    for (const std::string& folder : folders_) std::filesystem::remove_all(folder, ignored);
  }
  TempFolders(const TempFolders&) = delete;
  TempFolders& operator=(const TempFolders&) = delete;

  std::string New() {
    std::string path = ::testing::TempDir() + "renga-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) std::abort();
    const std::lock_guard lock(mutex_);
    folders_.push_back(path);
    return path;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> folders_;
};

// A new, empty folder, without a slash at its end. Removed with everything in it when the process
// ends; thread-safe.
inline std::string NewTempFolder() {
  static TempFolders folders;
  return folders.New();
}

}  // namespace renga::testing

#endif  // RENGA_BASE_TESTING_TEMP_FOLDER_H_
