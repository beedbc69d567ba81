# renga_test(NAME SRCS ... DEPS ... [TIMEOUT seconds])
# One test binary per folder. Every TEST becomes a ctest of its own; under a sanitizer, where a
# process takes long to start, the binary is run as a few shards instead.
set(RENGA_TEST_SHARDS 2)

# GoogleTest's headers take longer to read than most tests to compile: they are compiled once, with
# the flags of every test binary.
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/test_headers.cc" CONTENT "")
add_executable(renga_test_headers "${PROJECT_BINARY_DIR}/test_headers.cc")
target_link_libraries(renga_test_headers PRIVATE
  renga_flags GTest::gmock_main absl::status absl::statusor absl::strings)
target_precompile_headers(renga_test_headers PRIVATE
  <algorithm> <cstdint> <functional> <memory> <optional> <span> <string> <thread> <utility> <vector>
  <absl/status/statusor.h> <absl/strings/str_cat.h> <gmock/gmock.h> <gtest/gtest.h>
  "base/testing/status_matchers.h")
# The compiler takes precompiled headers only where these flags are the same.
function(renga_test_flags NAME)
  # What is tested is optimised; the tests themselves need not be.
  target_compile_options(${NAME} PRIVATE -O1)
  target_compile_definitions(${NAME} PRIVATE RENGA_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
endfunction()
renga_test_flags(renga_test_headers)

function(renga_test NAME)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${NAME} ${ARG_SRCS})
  target_link_libraries(${NAME} PRIVATE ${ARG_DEPS} renga_flags GTest::gmock_main)
  renga_test_flags(${NAME})
  target_precompile_headers(${NAME} REUSE_FROM renga_test_headers)
  # Tests name their small functions alike from file to file.
  set_target_properties(${NAME} PROPERTIES UNITY_BUILD OFF)
  if(RENGA_SANITIZE)
    renga_add_shards(${NAME} ${ARG_TIMEOUT})
  else()
    gtest_discover_tests(${NAME} PROPERTIES TIMEOUT ${ARG_TIMEOUT} DISCOVERY_TIMEOUT 60)
  endif()
endfunction()

function(renga_add_shards NAME TIMEOUT)
  math(EXPR last "${RENGA_TEST_SHARDS} - 1")
  math(EXPR timeout "${TIMEOUT} * 4")
  foreach(shard RANGE ${last})
    add_test(NAME ${NAME}_${shard} COMMAND ${NAME})
    set_tests_properties(${NAME}_${shard} PROPERTIES
      TIMEOUT ${timeout}
      ENVIRONMENT "GTEST_TOTAL_SHARDS=${RENGA_TEST_SHARDS};GTEST_SHARD_INDEX=${shard}")
  endforeach()
endfunction()
