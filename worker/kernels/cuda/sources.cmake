# The CUDA backend's sources, included by worker/kernels/CMakeLists.txt after renga_kernels is made.
target_sources(renga_kernels PRIVATE
  "${CMAKE_CURRENT_LIST_DIR}/arena_device.cc"
  "${CMAKE_CURRENT_LIST_DIR}/attention_calls.cc"
  "${CMAKE_CURRENT_LIST_DIR}/attention_plan.cc"
  "${CMAKE_CURRENT_LIST_DIR}/cuda_backend.cc"
  "${CMAKE_CURRENT_LIST_DIR}/cuda_matrix.cc"
  "${CMAKE_CURRENT_LIST_DIR}/device_images.cc"
  "${CMAKE_CURRENT_LIST_DIR}/driver_api.cc"
  "${CMAKE_CURRENT_LIST_DIR}/driver_device.cc"
  "${CMAKE_CURRENT_LIST_DIR}/launch_queue.cc"
  "${CMAKE_CURRENT_LIST_DIR}/linear_calls.cc"
  "${CMAKE_CURRENT_LIST_DIR}/nccl_api.cc"
  "${CMAKE_CURRENT_LIST_DIR}/nccl_communicator.cc"
  "${CMAKE_CURRENT_LIST_DIR}/packed_weights.cc"
  "${CMAKE_CURRENT_LIST_DIR}/top_calls.cc"
  "${CMAKE_CURRENT_LIST_DIR}/top_merge.cc")

target_link_libraries(renga_kernels PRIVATE ${CMAKE_DL_LIBS})
include("${CMAKE_CURRENT_LIST_DIR}/device_code.cmake")

# The imitation of a card that tests run the kernels on: its fibers know x86 only, and nothing of
# the thread sanitizer.
set(emulated_cuda)
set(cuda_tests)
if(RENGA_TESTS AND NOT RENGA_SANITIZE MATCHES "thread"
   AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(emulated_cuda renga::emulated_cuda)
  set(cuda_tests cuda/arena_device_test.cc cuda/card_budget_test.cc cuda/driver_device_test.cc cuda/emulated_memory_test.cc cuda/nccl_communicator_test.cc
      cuda/tensor_path_test.cc)
  renga_library(emulated_cuda
    HDRS
      cuda/emulation/card_memory.h
      cuda/emulation/emulated_device.h
      cuda/emulation/emulated_kernels.h
      cuda/emulation/fiber.h
      cuda/emulation/made_up_driver.h
      cuda/emulation/tensor_model.h
      cuda/emulation/threads.h
    SRCS
      cuda/emulation/card_memory.cc
      cuda/emulation/emulated_device.cc
      cuda/emulation/emulated_kernels.cc
      cuda/emulation/fiber.cc
      cuda/emulation/made_up_driver.cc
      cuda/emulation/tensor_model.cc
      cuda/emulation/threads.cc
    DEPS
      renga::kernels)
  target_compile_definitions(renga_emulated_cuda INTERFACE RENGA_EMULATED_CUDA=1)
  if(NOT RENGA_STATIC)
    # The driver of the imitated card as a library, which tests of whole processes put in the place
    # of NVIDIA's.
    set_target_properties(renga_emulated_cuda PROPERTIES POSITION_INDEPENDENT_CODE ON)
    add_library(renga_made_up_driver SHARED cuda/emulation/made_up_library.cc)
    target_link_libraries(renga_made_up_driver PRIVATE renga::emulated_cuda renga_flags)
    set_target_properties(renga_made_up_driver PROPERTIES
      OUTPUT_NAME cuda SOVERSION 1
      LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests/made_up_driver")
    # And a made-up NCCL, in a folder of its own: machines with a driver may have none.
    add_library(renga_made_up_nccl SHARED cuda/emulation/made_up_nccl.cc)
    target_link_libraries(renga_made_up_nccl PRIVATE renga_flags Threads::Threads)
    set_target_properties(renga_made_up_nccl PROPERTIES
      OUTPUT_NAME nccl SOVERSION 2
      LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests/made_up_nccl")
    target_compile_definitions(renga_emulated_cuda INTERFACE
      RENGA_MADE_UP_NCCL="$<TARGET_FILE:renga_made_up_nccl>")
  endif()
  # What runs the fibers is not itself looked at, which makes it ten times faster; but the address
  # sanitizer must be told of every change of stacks.
  set(fiber_flags -O2)
  if(RENGA_SANITIZE)
    list(APPEND fiber_flags -fno-sanitize=all)
  endif()
  if(RENGA_SANITIZE MATCHES "address")
    list(APPEND fiber_flags -DRENGA_SANITIZED_FIBERS=1)
  endif()
  set_source_files_properties(
    cuda/emulation/fiber.cc cuda/emulation/tensor_model.cc cuda/emulation/threads.cc PROPERTIES
    COMPILE_OPTIONS "${fiber_flags}" SKIP_UNITY_BUILD_INCLUSION ON)
  # It runs where it is built: with a fused multiply-add as one instruction, where this machine has
  # it, and not a call. Flags by name, so that a compiler cache that moves cannot mistake machines.
  set(emulation_flags -O2 ${RENGA_INLINING_FLAGS})
  if(EXISTS /proc/cpuinfo AND NOT CMAKE_CROSSCOMPILING)
    file(STRINGS /proc/cpuinfo fused REGEX "^flags.* fma .*avx2" LIMIT_COUNT 1)
    if(fused)
      list(APPEND emulation_flags -mfma -mavx2)
    endif()
  endif()
  # The address sanitizer looks at accesses; the other one would double the time and see the same
  # arithmetic as on the host.
  if(RENGA_SANITIZE MATCHES "undefined")
    list(APPEND emulation_flags -fno-sanitize=undefined)
  endif()
  set_source_files_properties(cuda/emulation/emulated_kernels.cc PROPERTIES
    COMPILE_OPTIONS "${emulation_flags}" SKIP_UNITY_BUILD_INCLUSION ON)
endif()
