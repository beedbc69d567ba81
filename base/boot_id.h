// Which machine this is, and since when it runs.
#ifndef RENGA_BASE_BOOT_ID_H_
#define RENGA_BASE_BOOT_ID_H_

#include <string>

namespace renga::base {

// The same in all processes of a machine, containers included, and another one after every start of
// it: Linux's random number in hexadecimal digits and dashes. "" where the system has none.
std::string BootId();

}  // namespace renga::base

#endif  // RENGA_BASE_BOOT_ID_H_
