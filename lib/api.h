// SPDX-License-Identifier: AGPL-3.0-or-later
// Included by every file that defines a public function. The map lib/libvgpu.map gives the symbols their version.
#ifndef VGPU_LIB_API_H
#define VGPU_LIB_API_H

#include <errno.h>

#include "base/cancel.h"
#include "include/vgpu.h"

// No structure of the API is larger, in any version: a larger size was never set.
#define API_STRUCT_MOST 4096u

#define VGPU_API __attribute__((visibility("default")))

// At the beginning of every public function: errno is the program's, and no thread is cancelled inside.
struct entry {
    int saved_errno, cancel;
};

static inline struct entry entry_begin(void)
{
    return (struct entry){errno, cancel_disable()};
}

static inline void entry_end(const struct entry *entry)
{
    cancel_restore(entry->cancel);
    errno = entry->saved_errno;
}

#define ENTRY __attribute__((cleanup(entry_end), unused)) struct entry entry = entry_begin()

#endif
