# Cross-compiles for 64-bit ARM with Debian's compiler. RENGA_ARM64_SYSROOT is the folder where the
# libraries' arm64 packages lie unpacked (deploy/install-deps --arm64). What is built runs under
# qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L "${RENGA_ARM64_SYSROOT}")

# The compiler is tried out in projects of its own, which must find the folder too.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES RENGA_ARM64_SYSROOT)
set(CMAKE_FIND_ROOT_PATH "${RENGA_ARM64_SYSROOT}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${RENGA_ARM64_SYSROOT}")
set(ENV{PKG_CONFIG_LIBDIR} "${RENGA_ARM64_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig")
