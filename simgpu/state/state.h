// SPDX-License-Identifier: AGPL-3.0-or-later
// The node-wide state of the simulated GPUs: one shared-memory file that every process of the node maps.
//
// Invariants:
//  - The file is made complete under a temporary name and then linked, so nobody ever sees a half-written header. The header
//    never changes afterwards; settings in a later process's environment are ignored.
//  - A slot belongs to the process that holds the write lock on byte STATE_LOCK_OFFSET + index of the file. The lock is an open
//    file description lock, and the description stays alive only through the process's mapping: the kernel drops both when the
//    process dies, whatever it dies of. A forked child does not inherit the mapping, so it cannot keep the slot alive.
//  - Only the owner of a slot writes to it, except the sweeper, which holds the dead owner's lock while it does.
//  - Physical use of a device is the sum of `committed_bytes` over all slots and never exceeds the capacity.
//
// The functions are thread-safe once state_open has returned. They return 0 or -errno.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_STATE_STATE_H
#define SIMGPU_STATE_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STATE_MAGIC 0x54535550474d4953ull // "SIMGPUST", little-endian
#define STATE_VERSION 2u
#define STATE_MAX_DEVICES 16u
#define STATE_MAX_SLOTS 256u
#define STATE_NO_SLOT UINT32_MAX
// Far behind the end of the file: lock bytes need no storage, and nothing else ever locks there.
#define STATE_LOCK_OFFSET (1ll << 40)
#define STATE_BLOCK_BYTES (2ull << 20) // the driver's unit of physical memory

// The engine of one device: who runs kernels. driver/engine.c owns the protocol; the sweeper only clears waiting bits.
struct state_engine {
    _Atomic uint64_t owner;  // microseconds of CLOCK_MONOTONIC at the hand-over << 16 | slot + 1, or 0 there
    _Atomic uint64_t ticket; // last ticket drawn
    _Atomic uint64_t waiting[STATE_MAX_SLOTS / 64]; // one bit per slot that wants the engine
    _Atomic uint64_t busy_ns;                       // time that the engine was held, for NVML
    _Atomic uint32_t contention;                    // futex: counts arrivals, so that a sleeping holder notices them
    _Atomic uint32_t last_slot;                     // slot + 1 of the last holder: whoever differs pays for a switch
    uint64_t reserved[8];
};
_Static_assert(sizeof(struct state_engine) == 128, "layout of struct state_engine");

struct state_slot_device {
    _Atomic uint64_t committed_bytes; // physical memory held
    _Atomic uint64_t tentative_bytes; // reservations that are being tried
    _Atomic uint64_t ticket;          // place in the engine's queue, valid while the waiting bit is set
    _Atomic uint32_t wake;            // futex of a thread that waits for the engine
    _Atomic uint32_t contexts;
};
_Static_assert(sizeof(struct state_slot_device) == 32, "layout of struct state_slot_device");

struct state_slot {
    _Atomic uint32_t live;
    _Atomic uint32_t pid; // as its own PID namespace numbers it; for NVML only, liveness never depends on it
    uint64_t reserved[7];
    struct state_slot_device device[STATE_MAX_DEVICES];
};
_Static_assert(sizeof(struct state_slot) == 64 + 32 * STATE_MAX_DEVICES, "layout of struct state_slot");

struct state_file {
    uint64_t magic;
    uint32_t version, file_bytes;
    uint32_t device_count, slot_count;
    uint64_t capacity_bytes, context_bytes, code_bytes;
    uint64_t slice_ns, switch_ns;
    uint8_t uuid_seed[16];
    uint64_t reserved[6];
    struct state_engine engine[STATE_MAX_DEVICES];
    struct state_slot slot[STATE_MAX_SLOTS];
};
_Static_assert(sizeof(struct state_file) == 128 + 128 * STATE_MAX_DEVICES + 576 * STATE_MAX_SLOTS,
               "layout of struct state_file");

// Maps the state file, making it first if there is none. With `join` the process also claims a slot, and then keeps the mapping
// out of forked children. -ENOSPC: all slots are taken; -EPROTO: the file has another layout; -EINVAL: a setting makes no
// sense; -EPERM: the file belongs to somebody else or is open to others.
int state_open(bool join);

// The mapped file, NULL before state_open, and this process's slot, STATE_NO_SLOT unless it joined.
struct state_file *state_file(void);
uint32_t state_slot_index(void);

// Takes or gives back physical memory of a device on behalf of this process. The caller sees to the rounding. -ENOMEM: it does
// not fit, even after the memory of dead processes was taken back.
int state_reserve(uint32_t device, uint64_t bytes);
void state_release(uint32_t device, uint64_t bytes);

// Physical memory in use on a device by all live processes.
uint64_t state_used(uint32_t device);

// Frees the slots of dead processes.
void state_sweep(void);

// True unless the slot is certainly not held by a live process.
bool state_slot_alive(uint32_t slot);

// Writes the 16 bytes that identify a device. They depend on the file and the index alone.
void state_uuid(uint32_t device, uint8_t uuid[16]);

// The same as text, which begins with "GPU-", or with "MIG-" where SIMGPU_MIG is 1 in this process.
void state_uuid_text(uint32_t device, char *text, size_t text_bytes);

#endif
