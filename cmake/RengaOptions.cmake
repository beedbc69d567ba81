# Build options. ON and missing is an error, never a silent fallback.
option(RENGA_NET "Build what needs gRPC: transport, worker service, coordinator, cli" ON)
option(RENGA_TESTS "Build the tests" ON)
option(RENGA_FUZZ "Build the libFuzzer targets (needs clang)" OFF)
set(RENGA_SANITIZE "" CACHE STRING "Sanitizers for every target, e.g. address,undefined or thread")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set_property(GLOBAL PROPERTY GLOBAL_DEPENDS_NO_CYCLES ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(RENGA_CCACHE ccache)
if(RENGA_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${RENGA_CCACHE}")
endif()
