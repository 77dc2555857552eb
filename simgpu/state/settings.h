// The settings that a new state file is made with, read from the environment.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_STATE_SETTINGS_H
#define SIMGPU_STATE_SETTINGS_H

#include <stddef.h>
#include <stdint.h>

#define SETTINGS_LEAST_CONTEXT_BYTES (64ull << 20)

struct state_settings {
    uint32_t device_count;
    uint64_t capacity_bytes, context_bytes, code_bytes;
    uint64_t slice_ns, switch_ns;
};

// Reads SIMGPU_DEVICES, SIMGPU_MEMORY, SIMGPU_CONTEXT, SIMGPU_CODE, SIMGPU_SLICE_US and SIMGPU_SWITCH_US. 0, or -EINVAL if one cannot be
// understood: a simulator that silently runs with another size than asked for would make a test pass for the wrong reason.
int settings_read(struct state_settings *settings);

// Writes the absolute path of the state file into `path`: SIMGPU_STATE, or /dev/shm/simgpu.<uid>. 0 or -errno.
int settings_path(char *path, size_t path_bytes);

#endif
