// The simulator's environment variables.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/state/settings.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "simgpu/state/state.h"

// A decimal number with an optional binary suffix: 512M, 16G, 16GiB, 4096K. Plain numbers are bytes.
static int parse_bytes(const char *text, uint64_t *bytes)
{
    char *end;
    unsigned shift = 0;

    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *text == '-')
        return -EINVAL;
    switch (*end) {
    case 'k':
    case 'K':
        shift = 10;
        break;
    case 'm':
    case 'M':
        shift = 20;
        break;
    case 'g':
    case 'G':
        shift = 30;
        break;
    case 't':
    case 'T':
        shift = 40;
        break;
    case '\0':
        break;
    default:
        return -EINVAL;
    }
    if (shift && strcmp(end + 1, "") && strcmp(end + 1, "B") && strcmp(end + 1, "iB"))
        return -EINVAL;
    if (value > UINT64_MAX >> shift)
        return -EINVAL;
    *bytes = (uint64_t)value << shift;
    return 0;
}

static int read_bytes(const char *name, uint64_t fallback, uint64_t *bytes)
{
    const char *text = getenv(name);
    if (!text || !*text) {
        *bytes = fallback;
        return 0;
    }
    return parse_bytes(text, bytes);
}

static int read_number(const char *name, uint64_t fallback, uint64_t most, uint64_t *value)
{
    const char *text = getenv(name);
    char *end;

    if (!text || !*text) {
        *value = fallback;
        return 0;
    }
    errno = 0;
    *value = strtoull(text, &end, 10);
    return errno || end == text || *end || *text == '-' || *value > most ? -EINVAL : 0;
}

int settings_read(struct state_settings *settings)
{
    uint64_t devices, slice_us, switch_us;

    if (read_number("SIMGPU_DEVICES", 1, STATE_MAX_DEVICES, &devices) ||
        read_bytes("SIMGPU_MEMORY", 16ull << 30, &settings->capacity_bytes) ||
        read_bytes("SIMGPU_CONTEXT", 512ull << 20, &settings->context_bytes) ||
        read_bytes("SIMGPU_CODE", 0, &settings->code_bytes) || read_number("SIMGPU_SLICE_US", 2000, 10000000, &slice_us) ||
        read_number("SIMGPU_SWITCH_US", 100, 10000000, &switch_us))
        return -EINVAL;
    if (settings->capacity_bytes < STATE_BLOCK_BYTES || settings->context_bytes < SETTINGS_LEAST_CONTEXT_BYTES ||
        settings->capacity_bytes > 1ull << 46 || settings->context_bytes > settings->capacity_bytes ||
        settings->code_bytes > settings->capacity_bytes || slice_us == 0)
        return -EINVAL;
    settings->capacity_bytes &= ~(STATE_BLOCK_BYTES - 1);
    settings->context_bytes = (settings->context_bytes + STATE_BLOCK_BYTES - 1) & ~(STATE_BLOCK_BYTES - 1);
    settings->device_count = (uint32_t)devices;
    settings->slice_ns = slice_us * 1000;
    settings->switch_ns = switch_us * 1000;
    return 0;
}

int settings_path(char *path, size_t path_bytes)
{
    const char *text = getenv("SIMGPU_STATE");
    char cwd[PATH_MAX];
    int length;

    if (!text || !*text) {
        length = snprintf(path, path_bytes, "/dev/shm/simgpu.%u", (unsigned)getuid());
    } else if (*text == '/') {
        length = snprintf(path, path_bytes, "%s", text);
    } else {
        // The path is used again whenever dead processes are looked for, by then perhaps from another directory.
        if (!getcwd(cwd, sizeof cwd))
            return -errno;
        length = snprintf(path, path_bytes, "%s/%s", cwd, text);
    }
    return length < 0 || (size_t)length >= path_bytes ? -ENAMETOOLONG : 0;
}
