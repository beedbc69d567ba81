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
  if(RENGA_SANITIZE MATCHES "undefined")
    # What these find, a crash or the address sanitizer finds as well, and they cost minutes.
    target_compile_options(renga_flags INTERFACE -fno-sanitize=null,object-size)
  endif()
endif()

if(RENGA_STATIC)
  target_link_options(renga_flags INTERFACE -static-libstdc++ -static-libgcc)
endif()

if(RENGA_SANITIZE MATCHES "thread")
  # In every binary: what tells the sanitizer of Abseil's locks. A plain object, since the linker
  # would not take it out of a library.
  add_library(renga_tsan_locks OBJECT "${PROJECT_SOURCE_DIR}/tests/tsan/absl_synchronization.cc")
  target_compile_options(renga_tsan_locks PRIVATE -fsanitize=thread)
  target_link_libraries(renga_tsan_locks PRIVATE absl::synchronization)
  target_link_options(renga_flags INTERFACE "$<TARGET_OBJECTS:renga_tsan_locks>")
  set_property(TARGET renga_flags APPEND PROPERTY
    INTERFACE_LINK_DEPENDS "$<TARGET_OBJECTS:renga_tsan_locks>")
endif()

# For code that inlines hundreds of small functions into one (the vector kernels): without these,
# the address and undefined-behaviour sanitizers make it ten times larger and slower to build.
# Accesses out of bounds, overflows and bad shifts are still found.
set(RENGA_INLINING_FLAGS)
if(RENGA_SANITIZE MATCHES "address")
  list(APPEND RENGA_INLINING_FLAGS -fno-sanitize-address-use-after-scope)
endif()
if(RENGA_SANITIZE MATCHES "undefined")
  list(APPEND RENGA_INLINING_FLAGS -fno-sanitize=alignment)
endif()

function(renga_library NAME)
  cmake_parse_arguments(ARG "" "" "HDRS;SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(renga_${NAME} STATIC ${ARG_SRCS})
  add_library(renga::${NAME} ALIAS renga_${NAME})
  target_sources(renga_${NAME} PUBLIC FILE_SET HEADERS
    BASE_DIRS "${PROJECT_SOURCE_DIR}" FILES ${ARG_HDRS})
  target_link_libraries(renga_${NAME} PUBLIC ${ARG_DEPS} renga_flags PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

if(RENGA_TESTS)
  include(RengaTests)
else()
  function(renga_test)
  endfunction()
endif()
