# The CPU backend's sources, included by worker/kernels/CMakeLists.txt after renga_kernels is made.
# Each instruction set has a translation unit of its own, the only one compiled with its flags.
target_sources(renga_kernels PRIVATE
  "${CMAKE_CURRENT_LIST_DIR}/block_packing.cc"
  "${CMAKE_CURRENT_LIST_DIR}/cpu_attention.cc"
  "${CMAKE_CURRENT_LIST_DIR}/cpu_backend.cc"
  "${CMAKE_CURRENT_LIST_DIR}/cpu_path.cc"
  "${CMAKE_CURRENT_LIST_DIR}/packed_matrix.cc"
  "${CMAKE_CURRENT_LIST_DIR}/path_portable.cc"
  "${CMAKE_CURRENT_LIST_DIR}/rope_table.cc"
  "${CMAKE_CURRENT_LIST_DIR}/top_rows.cc")

function(renga_cpu_path FILE)
  if(RENGA_FUZZ)
    # With every branch reported to the fuzzer, clang takes many minutes for each of these. Inputs
    # are checked elsewhere, and the conformance suite runs under the sanitizers.
    list(APPEND ARGN -fno-sanitize=all)
  endif()
  set_source_files_properties("${CMAKE_CURRENT_FUNCTION_LIST_DIR}/${FILE}"
    TARGET_DIRECTORY renga_kernels PROPERTIES COMPILE_OPTIONS "${ARGN};${RENGA_INLINING_FLAGS}")
endfunction()

set(optimised "$<$<CONFIG:Release>:-O3>")
# Sanitizers take the compiler a minute a path. They look at these templates in other paths: in that
# of AVX, of AVX2 and in the imitation of AMX.
set(looked_at_elsewhere)
if(RENGA_SANITIZE)
  set(looked_at_elsewhere -fno-sanitize=all)
endif()
# Left alone, gcc gathers single chunks of several rows in a register before it stores them.
renga_cpu_path(block_packing.cc ${optimised} -fno-tree-slp-vectorize)
# Vectors wider than the processor's are passed by inlined functions only.
renga_cpu_path(path_portable.cc -Wno-psabi)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  target_sources(renga_kernels PRIVATE
    "${CMAKE_CURRENT_LIST_DIR}/path_amx.cc"
    "${CMAKE_CURRENT_LIST_DIR}/path_avx.cc"
    "${CMAKE_CURRENT_LIST_DIR}/path_avx2.cc"
    "${CMAKE_CURRENT_LIST_DIR}/path_avx512.cc"
    "${CMAKE_CURRENT_LIST_DIR}/path_avxvnni.cc"
    "${CMAKE_CURRENT_LIST_DIR}/path_ssse3.cc")
  renga_cpu_path(path_ssse3.cc ${optimised} -mssse3 ${looked_at_elsewhere})
  renga_cpu_path(path_avx.cc ${optimised} -mavx)
  renga_cpu_path(path_avx2.cc ${optimised} -mavx2 -mfma -mf16c)
  renga_cpu_path(path_avxvnni.cc ${optimised} -mavxvnni -mavx2 -mfma -mf16c ${looked_at_elsewhere})
  # gcc 12 warns of its own header: the undefined vectors there are meant to be.
  set(avx512 ${optimised} -Wno-maybe-uninitialized -Wno-uninitialized
    -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c)
  renga_cpu_path(path_avx512.cc ${avx512})
  renga_cpu_path(path_amx.cc ${avx512} -mamx-tile -mamx-int8 -mamx-bf16 ${looked_at_elsewhere})
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  target_sources(renga_kernels PRIVATE
    "${CMAKE_CURRENT_LIST_DIR}/path_neon.cc"
    "${CMAKE_CURRENT_LIST_DIR}/path_neon_dotprod.cc"
    "${CMAKE_CURRENT_LIST_DIR}/path_neon_i8mm.cc")
  # Before registers are given out, gcc would move the loads of an unrolled tile to its beginning,
  # and then have no registers for them.
  list(APPEND optimised $<$<CXX_COMPILER_ID:GNU>:-fno-schedule-insns>)
  renga_cpu_path(path_neon.cc ${optimised})
  renga_cpu_path(path_neon_dotprod.cc ${optimised} -march=armv8.2-a+dotprod)
  renga_cpu_path(path_neon_i8mm.cc ${optimised} -march=armv8.2-a+dotprod+i8mm)
endif()
