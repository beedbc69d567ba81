# The CPU backend's sources, included by worker/kernels/CMakeLists.txt after renga_kernels is made.
# Each instruction set has translation units of its own, the only ones compiled with its flags.
target_sources(renga_kernels PRIVATE
  "${CMAKE_CURRENT_LIST_DIR}/cpu_path.cc")
