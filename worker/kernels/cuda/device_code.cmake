# Compiles kernels.cu for cards and embeds what comes out; included by sources.cmake. Without a
# compiler for cards, or under a sanitizer (which does not look at device code), a stand-in says that
# there is none.
#
# nvcc 13 knows sm_75 and newer; sm_61 (GTX 10 series) comes from clang 19 with the headers and the
# assembler of CUDA 12, which deploy/install-deps --cuda puts in RENGA_CUDA12.
set(RENGA_CUDA AUTO CACHE STRING "Device code for NVIDIA cards: AUTO (when nvcc is found), ON or OFF")
set(RENGA_CUDA_ARCHITECTURES "75;86" CACHE STRING
  "Cards that nvcc compiles for; others, from 8.0 on, compile the PTX for 8.0 when they load it")
set(RENGA_CUDA12 "$ENV{HOME}/.cache/renga/cuda12" CACHE PATH "CUDA 12's headers and ptxas, for sm_61")

set(code_folder "${PROJECT_BINARY_DIR}/cuda")
set(kernels_source "${CMAKE_CURRENT_LIST_DIR}/kernels.cu")
file(GLOB device_headers CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/device/*.h")
list(APPEND device_headers "${CMAKE_CURRENT_LIST_DIR}/kernel_list.h"
  "${CMAKE_CURRENT_LIST_DIR}/launch_shapes.h" "${CMAKE_CURRENT_LIST_DIR}/top_key.h")

find_program(RENGA_NVCC nvcc PATHS /usr/local/cuda/bin)
find_program(RENGA_CUDA_CLANG NAMES clang++-19 clang++-20 clang++-18)
if(RENGA_CUDA STREQUAL "ON" AND NOT RENGA_NVCC)
  message(FATAL_ERROR "RENGA_CUDA is ON, but there is no nvcc; set RENGA_NVCC, or RENGA_CUDA=OFF")
endif()
set(wants_device_code TRUE)
if(RENGA_CUDA STREQUAL "OFF" OR RENGA_SANITIZE OR RENGA_FUZZ)
  set(wants_device_code FALSE)
endif()

set(RENGA_CUDA_EMBEDS "")
set(RENGA_CUDA_IMAGES "")
set(embedded_files)
# Embeds `file`, for compute capabilities first to last, with Tensor kernels from first_tensor on.
macro(renga_embed_image NAME FILE FIRST LAST DRIVER FIRST_TENSOR)
  string(APPEND RENGA_CUDA_EMBEDS "RENGA_EMBED(${NAME}, \"${FILE}\")\n")
  string(APPEND RENGA_CUDA_IMAGES "      {${FIRST}, ${LAST}, ${DRIVER}, {${NAME}, ${NAME}_end}, ${FIRST_TENSOR}},\n")
  list(APPEND embedded_files "${FILE}")
endmacro()

if(wants_device_code AND RENGA_NVCC)
  execute_process(COMMAND "${RENGA_NVCC}" --version OUTPUT_VARIABLE nvcc_version)
  string(REGEX MATCH "release ([0-9]+)" nvcc_release "${nvcc_version}")
  set(nvcc_major "${CMAKE_MATCH_1}")
  # A pass of the compiler for cards of each kind: before 7.5, with the int8 products of 8 rows that
  # tensor cores have from there on, and with those of 16 rows from 8.0 on. PTX of the last pass is
  # what the driver compiles for cards that come later.
  list(GET RENGA_CUDA_ARCHITECTURES 0 first_architecture)
  set(passes)
  foreach(architecture IN LISTS RENGA_CUDA_ARCHITECTURES)
    set(pass "${first_architecture}")
    if(architecture GREATER_EQUAL 80)
      set(pass 80)
    elseif(architecture GREATER_EQUAL 75)
      set(pass 75)
    endif()
    list(APPEND passes "${pass}")
    list(APPEND code_of_${pass} "sm_${architecture}")
  endforeach()
  list(REMOVE_DUPLICATES passes)
  list(GET passes -1 last_pass)
  list(PREPEND code_of_${last_pass} "compute_${last_pass}")
  set(first_tensor 80)
  if(75 IN_LIST passes)
    set(first_tensor 75)
  endif()
  set(code_flags "")
  set(targets)
  foreach(pass IN LISTS passes)
    list(APPEND targets ${code_of_${pass}})
    list(JOIN code_of_${pass} "," code)
    list(APPEND code_flags -gencode "arch=compute_${pass},code=[${code}]")
  endforeach()
  set(fatbin "${code_folder}/kernels.fatbin")
  add_custom_command(OUTPUT "${fatbin}"
    COMMAND "${CMAKE_COMMAND}" -E make_directory "${code_folder}"
    COMMAND "${RENGA_NVCC}" -std=c++20 -O3 -fmad=false -fatbin -I "${PROJECT_SOURCE_DIR}"
      --threads 2 ${code_flags}
      -o "${fatbin}" "${kernels_source}"
    DEPENDS "${kernels_source}" ${device_headers}
    COMMENT "Compiling the kernels for cards: ${targets}" VERBATIM)
  renga_embed_image(renga_cuda_fatbin "${fatbin}" ${first_architecture} 999 ${nvcc_major}000 ${first_tensor})
endif()

if(wants_device_code AND RENGA_CUDA_CLANG AND EXISTS "${RENGA_CUDA12}/bin/ptxas")
  set(cubin "${code_folder}/kernels_sm61.cubin")
  add_custom_command(OUTPUT "${cubin}"
    COMMAND "${CMAKE_COMMAND}" -E make_directory "${code_folder}"
    COMMAND "${RENGA_CUDA_CLANG}" -x cuda --cuda-device-only --cuda-gpu-arch=sm_61
      "--cuda-path=${RENGA_CUDA12}" -std=c++20 -O3 -ffp-contract=off
      -Wno-unknown-cuda-version -Wno-pass-failed
      -I "${PROJECT_SOURCE_DIR}" -c -o "${cubin}" "${kernels_source}"
    DEPENDS "${kernels_source}" ${device_headers}
    COMMENT "Compiling the kernels for cards: sm_61" VERBATIM)
  renga_embed_image(renga_cuda_sm61 "${cubin}" 61 62 12000 1000)
endif()

if(embedded_files)
  configure_file("${CMAKE_CURRENT_LIST_DIR}/embedded_images.cc.in"
    "${code_folder}/embedded_images.cc" @ONLY)
  # The assembler reads the files, so they come first.
  set_source_files_properties("${code_folder}/embedded_images.cc" TARGET_DIRECTORY renga_kernels
    PROPERTIES OBJECT_DEPENDS "${embedded_files}" SKIP_UNITY_BUILD_INCLUSION ON)
  target_sources(renga_kernels PRIVATE "${code_folder}/embedded_images.cc")
  foreach(file IN LISTS embedded_files)
    message(STATUS "Kernels for cards: ${file}")
  endforeach()
else()
  message(STATUS "Kernels for cards: none (RENGA_CUDA=${RENGA_CUDA})")
  target_sources(renga_kernels PRIVATE "${CMAKE_CURRENT_LIST_DIR}/no_device_images.cc")
endif()
