# renga_library(NAME HDRS ... SRCS ... DEPS ... [PRIVATE_DEPS ...])
# One static library per folder, used by its alias renga::NAME.
add_library(renga_flags INTERFACE)
# -ffp-contract=off: a multiply-add must not appear or vanish with the
# compiler's mood, or two builds of one path would differ in their last bits.
target_compile_options(renga_flags INTERFACE
  -Wall -Wextra -Wpedantic -Werror=return-type -Wshadow -Wno-unused-parameter
  -ffp-contract=off)
target_include_directories(renga_flags INTERFACE "${PROJECT_SOURCE_DIR}")
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(renga_flags INTERFACE -Wthread-safety -Werror=thread-safety)
endif()
if(RENGA_SANITIZE)
  target_compile_options(renga_flags INTERFACE
    -fsanitize=${RENGA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(renga_flags INTERFACE -fsanitize=${RENGA_SANITIZE})
endif()

function(renga_library NAME)
  cmake_parse_arguments(ARG "" "" "HDRS;SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(renga_${NAME} STATIC ${ARG_SRCS})
  add_library(renga::${NAME} ALIAS renga_${NAME})
  target_sources(renga_${NAME} PUBLIC FILE_SET HEADERS
    BASE_DIRS "${PROJECT_SOURCE_DIR}" FILES ${ARG_HDRS})
  target_link_libraries(renga_${NAME} PUBLIC ${ARG_DEPS} renga_flags PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

# renga_test(NAME SRCS ... DEPS ... [TIMEOUT seconds])
# One test binary per folder; every TEST becomes a ctest of its own.
function(renga_test NAME)
  if(NOT RENGA_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${NAME} ${ARG_SRCS})
  target_link_libraries(${NAME} PRIVATE ${ARG_DEPS} renga_flags GTest::gmock_main)
  target_compile_definitions(${NAME} PRIVATE
    RENGA_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  gtest_discover_tests(${NAME} PROPERTIES TIMEOUT ${ARG_TIMEOUT} DISCOVERY_TIMEOUT 60)
endfunction()
