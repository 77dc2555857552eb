// SPDX-License-Identifier: AGPL-3.0-or-later
// Which slots of the state file have a live owner. Internal to simgpu/state.
//
// A question about a lock needs a descriptor of its own: the file is opened by path for it and closed again, since a descriptor
// kept open would be at the mercy of programs that close all of theirs.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_STATE_LIVENESS_H
#define SIMGPU_STATE_LIVENESS_H

#include <stdint.h>
#include <sys/stat.h>

struct state_file;

// Remembers where the mapped file is and what it is, so that a file later put in its place is not mistaken for it.
void liveness_remember(const char *path, const struct stat *st);

// Takes the lock of a slot through `fd` without waiting. 0 or -errno.
int liveness_lock(int fd, uint32_t slot);

// Gives back everything that a slot holds. The caller has its lock.
void liveness_clear(struct state_file *file, uint32_t slot);

#endif
