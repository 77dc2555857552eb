// SPDX-License-Identifier: AGPL-3.0-or-later
// uthash as the library uses it, which never exits: without memory for it, an element is not added, and its hh.tbl is NULL.
#ifndef VGPU_BASE_HASH_H
#define VGPU_BASE_HASH_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#endif
