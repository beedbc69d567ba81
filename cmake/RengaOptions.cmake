# Build options. ON and missing is an error, never a silent fallback.
option(RENGA_NET "Build what needs gRPC: transport, worker service, coordinator, cli" ON)
option(RENGA_TESTS "Build the tests" ON)
option(RENGA_STATIC "Link all but the C library statically, for machines that lack them; needs RENGA_NET=OFF" OFF)
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

# -O3 gains nothing outside the kernels, which ask for it themselves, and costs a third more time.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
if(RENGA_SANITIZE)
  # Fast enough to run, and half the time of -O2 -g to build. Assertions stay on.
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")
endif()

find_program(RENGA_CCACHE ccache)
if(RENGA_CCACHE)
  # The sloppiness is what ccache asks for with precompiled headers. With the rest, one clone takes
  # over what another one has compiled: what is compiled does not name its folder.
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-fmacro-prefix-map=${CMAKE_SOURCE_DIR}/=>")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
    "${RENGA_CCACHE}")
endif()
