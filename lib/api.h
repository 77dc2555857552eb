// SPDX-License-Identifier: AGPL-3.0-or-later
// What every file that defines a public function includes. The map lib/libvgpu.map gives the symbols their version.
#ifndef VGPU_LIB_API_H
#define VGPU_LIB_API_H

#include "include/vgpu.h"

// No structure of the API is larger, in whatever version: a size beyond was never set.
#define API_STRUCT_MOST 4096u

#define VGPU_API __attribute__((visibility("default")))

#endif
