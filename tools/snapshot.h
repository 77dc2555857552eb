// SPDX-License-Identifier: AGPL-3.0-or-later
// The contents of the pool at one moment, copied from shared memory into plain values.
//
// Invariants
//  - The pool is opened read-only and nothing in it is changed: looking never disturbs a tenant and never reaps dead processes.
//  - Whatever the pool contains, even if damaged: every index is checked, every text is bounded and printable ASCII, every sum
//    saturates. Figures may be garbage, memory is safe.
//  - A process counts if its liveness lock is held; a virtual GPU is shown if one of its processes counts. Sums over virtual
//    GPUs and processes are computed here from those shown, not taken from the pool, which includes dead processes until they
//    are reaped.
#ifndef VGPU_TOOLS_SNAPSHOT_H
#define VGPU_TOOLS_SNAPSHOT_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "pool/layout.h"

#define SNAPSHOT_UUID_BYTES 48
#define SNAPSHOT_UNKNOWN (-1.0)

struct snapshot_process {
    int32_t pid;
    char command[33];
    uint64_t used_bytes;
    uint64_t launches;
};

struct snapshot_gpu {
    uint32_t index; // in the pool
    char uuid[SNAPSHOT_UUID_BYTES];
    char name[POOL_NAME_BYTES + 1];
    uint64_t total_bytes, context_bytes;
    uint64_t switch_ns;       // cost of a switch, learned or assumed
    bool mps;                 // all its members are clients of MPS
    uint64_t reserved_bytes;  // quotas of the virtual GPUs shown
    uint64_t open_used_bytes; // held by those without a quota
    uint32_t holder;          // index of the virtual GPU that has the token, or POOL_NO_INDEX
};

struct snapshot_vgpu {
    uint32_t index, gpu; // in the pool
    char name[POOL_NAME_BYTES + 1];
    uint32_t weight, priority;
    uint32_t limit_percent; // 0: none
    uint64_t quantum_ns;    // 0: chosen by the scheduler
    uint32_t concurrency;   // how many may run at a time when this one does
    uint64_t quota_bytes;   // 0: none
    uint64_t used_bytes, peak_bytes;
    uint64_t refusals, refused_bytes;
    uint64_t created_ns;
    uint64_t held_ns; // including a grant in progress
    uint64_t charged_ns, waited_ns;
    uint64_t idle_ns; // the part of charged_ns without work
    uint64_t grants, waits, revokes, overruns, overrun_ns, launches;
    bool holder, companion, waiting; // companion: runs beside the holder
    bool contended;                  // it has the token and others wait
    double share_interval;           // part of the time since the previous snapshot, 0 to 1, or SNAPSHOT_UNKNOWN
    double share_since_start;        // 0 to 1
    uint32_t wait[POOL_HISTOGRAM_BUCKETS], handover[POOL_HISTOGRAM_BUCKETS], drain[POOL_HISTOGRAM_BUCKETS];
    size_t process_count;
    struct snapshot_process *processes;
};

struct snapshot {
    char path[PATH_MAX];
    bool exists; // there is a pool at path
    uint32_t version;
    uint64_t chunk_bytes;
    uint64_t at_ns;
    uint64_t interval_ns; // since the previous snapshot, 0: there was none
    size_t gpu_count, vgpu_count;
    struct snapshot_gpu gpus[POOL_MAX_GPUS];
    struct snapshot_vgpu vgpus[POOL_MAX_VGPUS];
};

// Fills in `snapshot` from the pool at `path`. A pool that does not exist is no error. Returns 0, or -errno with `error` filled
// in; in both cases snapshot_clear frees it. Large: keep it off the stack.
int snapshot_take(struct snapshot *snapshot, const char *path, struct error *error);

// Fills in the shares of `now` over the time since `before`, an earlier snapshot of the same path.
void snapshot_compare(struct snapshot *now, const struct snapshot *before);

// Formats a UUID as nvidia-smi does.
void snapshot_format_uuid(char text[SNAPSHOT_UUID_BYTES], const uint8_t uuid[POOL_UUID_BYTES]);

void snapshot_clear(struct snapshot *snapshot);

#endif
