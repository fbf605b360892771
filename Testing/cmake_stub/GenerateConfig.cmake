# Slicer writes the description of the extension here; the stand-in checks that nothing is missing.
foreach(key HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if(NOT EXTENSION_${key})
    message(FATAL_ERROR "EXTENSION_${key} is not set")
  endif()
endforeach()
get_property(modules GLOBAL PROPERTY SLICER_STUB_MODULES)
message(STATUS "Extension ${PROJECT_NAME}: ${modules}")
