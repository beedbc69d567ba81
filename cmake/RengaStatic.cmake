# Included with RENGA_STATIC: libraries that distributions ship both ways are linked by their archives,
# the compiler's own too. The C library stays shared, since NVIDIA's driver is loaded at run time.

# Before the libraries are looked for.
macro(renga_find_archives)
  set(CMAKE_FIND_LIBRARY_SUFFIXES ".a")
endmacro()

# Points the shared libraries that a package's targets stand for to the archives beside them.
function(renga_use_archives prefix)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(type ${target} TYPE)
    if(NOT target MATCHES "^${prefix}::" OR NOT type STREQUAL "SHARED_LIBRARY")
      continue()
    endif()
    get_target_property(shared ${target} LOCATION)
    string(REGEX REPLACE "\\.so[.0-9]*$" ".a" archive "${shared}")
    if(NOT EXISTS "${archive}")
      message(FATAL_ERROR "RENGA_STATIC is ON, but ${target} has no archive ${archive}")
    endif()
    get_target_property(configurations ${target} IMPORTED_CONFIGURATIONS)
    foreach(configuration IN LISTS configurations)
      set_target_properties(${target} PROPERTIES "IMPORTED_LOCATION_${configuration}" "${archive}")
    endforeach()
  endforeach()
endfunction()
