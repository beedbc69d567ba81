# renga_test(NAME SRCS ... [IN_SOURCE_TREE ...] DEPS ... [TIMEOUT seconds])
# One test binary per folder. Every TEST becomes a ctest of its own; under a sanitizer, where a
# process takes long to start, the binary is run as a few shards instead. Of SRCS, IN_SOURCE_TREE
# names those that look for files from RENGA_SOURCE_DIR on: only these know it, since no clone can
# take over what another one has compiled with its own folder's name.
set(RENGA_TEST_SHARDS 2)

# What is tested is optimised; the tests themselves need not be, nor searched for undefined
# behaviour. GoogleTest's macros take the compiler three times as long with either.
add_library(renga_test_flags INTERFACE)
target_compile_options(renga_test_flags INTERFACE -O0)
if(RENGA_SANITIZE MATCHES "undefined")
  target_compile_options(renga_test_flags INTERFACE -fno-sanitize=undefined)
endif()
# The test's options come after all others.
target_link_libraries(renga_test_flags INTERFACE renga_flags GTest::gmock_main)

# GoogleTest's headers take longer to read than many a test: they are compiled once, with the flags
# that all tests have.
file(CONFIGURE OUTPUT "${PROJECT_BINARY_DIR}/test_headers.cc" CONTENT "")
add_executable(renga_test_headers "${PROJECT_BINARY_DIR}/test_headers.cc")
target_link_libraries(renga_test_headers PRIVATE
  absl::status absl::statusor absl::strings renga_flags renga_test_flags)
target_precompile_headers(renga_test_headers PRIVATE
  <algorithm> <cstdint> <functional> <memory> <optional> <span> <string> <thread> <utility> <vector>
  <absl/status/statusor.h> <absl/strings/str_cat.h> <gmock/gmock.h> <gtest/gtest.h>
  "base/testing/status_matchers.h")

function(renga_test NAME)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;IN_SOURCE_TREE;DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${NAME} ${ARG_SRCS})
  set_source_files_properties(${ARG_IN_SOURCE_TREE} PROPERTIES
    COMPILE_DEFINITIONS RENGA_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_link_libraries(${NAME} PRIVATE ${ARG_DEPS} renga_flags renga_test_flags)
  target_precompile_headers(${NAME} REUSE_FROM renga_test_headers)
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
