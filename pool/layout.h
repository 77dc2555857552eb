// SPDX-License-Identifier: AGPL-3.0-or-later
// The pool: the shared-memory file through which all tenants of a node meet. This header defines its binary layout and nothing
// else.
//
// Rules of the layout
//  - Fixed-width fields, no pointers, explicit padding, every size and offset asserted below. A change of layout changes
//    POOL_VERSION; a process that finds another version refuses to attach.
//  - Nothing read from here is trusted: every index is checked against its limit before use, every string is bounded, every
//    figure may be garbage. A wrong figure may cost fairness, never memory safety.
//  - Slots never move. A free slot is found by its state, never by compaction, so a cached index stays valid while its owner
//    lives.
//  - Who writes what:
//      header, gpu identity, vgpu identity and configuration, member bitmaps,
//        process identity                                                                  under the pool lock only
//      account words (vgpu.used, gpu.open_used)                                            lock-free, see pool/account.h
//      token, wanting                                                                      lock-free, see scheduler/token.h
//      company, companion, shared_from                                                     lock-free, see scheduler/company.h
//      vgpu grant and sums (pass to grants)                                                any process that moves the token,
//                                                                                          waits for it or holds it, see
//                                                                                          scheduler/turn.h
//      vgpu counters (peak_chunks, refusals, waits, ...)                                   its members, only ever upwards
//      process doorbell                                                                    any process that rings it
//      process bell                                                                        its process, before it is a member
//      member's side of the account, member gate                                           the member's process; the reaper
//                                                                                          once that process is dead
//      member acknowledged                                                                 also any process that replaces its
//                                                                                          account word
//  - The cache line that the launch gate reads (gpu.token) holds nothing else and is written only when the token changes.
#ifndef VGPU_POOL_LAYOUT_H
#define VGPU_POOL_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define POOL_MAGIC 0x6c6f6f7075706776ull // "vgpupool" in memory order on little-endian machines
#define POOL_VERSION 4u
#define POOL_MAX_GPUS 16u
#define POOL_MAX_VGPUS 512u
#define POOL_MAX_PROCESSES 1024u
#define POOL_NAME_BYTES 64u
#define POOL_UUID_BYTES 16u
#define POOL_NO_INDEX UINT32_MAX
#define POOL_NO_GENERATION UINT32_MAX // those of the token have 24 bits

// The liveness lock of process slot i is the byte POOL_LOCK_OFFSET + 1 + i of the file, the pool lock the byte
// POOL_LOCK_OFFSET. They lie past the end of the file: a lock needs no content.
#define POOL_LOCK_OFFSET (1ll << 40)

enum pool_state { POOL_FREE = 0, POOL_LIVE = 1 };

enum pool_flags { POOL_OVERCOMMIT = 1u << 0 }; // the sum of quotas may pass the physical memory

struct pool_header {
    uint64_t magic;
    uint32_t version;
    uint32_t bytes;       // of the whole layout
    uint64_t chunk_bytes; // the unit of quota, a power of two and a multiple of the driver's 2 MiB block
    uint32_t flags;
    uint32_t pad0;
    uint64_t created_ns;
    _Atomic uint64_t reaped_ns; // when a slot was last reclaimed from a dead process: its memory may still be on its way
    uint8_t pad1[16];
};

// One physical GPU, found by UUID.
struct pool_gpu {
    _Atomic uint32_t state;
    uint32_t total_chunks; // whole chunks in the memory that the driver reports
    uint64_t total_bytes;
    uint8_t uuid[POOL_UUID_BYTES];
    _Atomic uint64_t context_bytes;   // what one context takes on this GPU, 0 while unknown
    _Atomic uint64_t reserved_chunks; // the sum of the quotas of the virtual GPUs on it
    _Atomic uint64_t open_used;       // account: chunks held by virtual GPUs without a quota
    uint8_t pad0[8];
    char name[POOL_NAME_BYTES];

    _Alignas(128) _Atomic uint64_t token; // see scheduler/token.h; alone on its pair of lines
    uint8_t pad1[120];

    _Atomic uint64_t wanting[POOL_MAX_VGPUS / 64]; // virtual GPUs that wait for the token
    _Atomic uint64_t vgpus[POOL_MAX_VGPUS / 64];   // virtual GPUs of this GPU

    // The ring; see scheduler/policy.h and scheduler/turn.h. POOL_NO_INDEX stands for none.
    _Atomic uint64_t level;
    _Atomic uint32_t ring;    // the virtual GPU whose place in the ring it is
    _Atomic uint32_t first;   // goes next whatever the ring says: it has just taken the token from the holder
    _Atomic uint32_t on_deck; // is likely to get the token soon, and watches for it
    _Atomic uint32_t mps;     // whether the contexts of all members are clients of MPS
    _Atomic uint64_t round;   // by how much the level was raised last
    // What a switch costs, see policy_learn_switch: the figure that quanta follow from, 0 while unknown, and the running one.
    _Atomic uint64_t switch_ns;
    _Atomic uint64_t switch_seen_ns;
    _Atomic uint64_t high[POOL_MAX_VGPUS / 64]; // virtual GPUs of the high class
    // Those that run beside the holder of the current grant, see scheduler/company.h.
    _Atomic uint64_t company;
    _Atomic uint64_t company_ns;
};

// Counts of time spans by length: four buckets to an octave from 1 us on, see base/histogram.h.
#define POOL_HISTOGRAM_BUCKETS 96u
struct pool_histogram {
    _Atomic uint32_t counts[POOL_HISTOGRAM_BUCKETS];
};

// One virtual GPU: a named share of one physical GPU.
struct pool_vgpu {
    _Atomic uint32_t state;
    uint32_t gpu;
    _Atomic uint32_t weight;
    _Atomic uint32_t priority;     // enum policy_class
    _Atomic uint64_t quantum_ns;   // 0: chosen by the scheduler
    _Atomic uint64_t quota_chunks; // 0: no quota, uses what is not reserved
    uint64_t created_ns;
    _Atomic uint32_t limit_percent; // of the GPU's time, also when alone; 0: none
    _Atomic uint32_t concurrency;   // how many virtual GPUs may run at a time when this one does; 1: it alone
    _Atomic uint64_t limited_ns;    // when the limit was last changed, 0: never
    _Atomic uint64_t quota_before;  // while a lower quota is being tried, the one to restore if that fails; else 0
    char name[POOL_NAME_BYTES];

    _Atomic uint64_t used; // account: chunks held by its members, where it has a quota
    _Atomic uint64_t peak_chunks;
    _Atomic uint64_t refusals; // allocations refused because of the quota
    _Atomic uint64_t refused_bytes;
    _Atomic uint64_t companion;   // the grant of another virtual GPU in which it runs too, see scheduler/company.h
    _Atomic uint64_t shared_from; // until when its part of that grant is booked; a field like turn
    uint8_t pad2[8];
    _Atomic uint64_t begun; // the current grant's first launch, from when it counts; a field like turn

    // The current grant, as scheduler/grant.h says, and the sums over all grants, in nanoseconds.
    _Atomic uint64_t pass;         // GPU time by weight, see scheduler/policy.h
    _Atomic uint64_t turn;         // length of the current turn, 0 while nobody else waits
    _Atomic uint64_t grant_ns;     // when the token came, in plain nanoseconds, for statistics
    _Atomic uint64_t charged_from; // since when others wait for it, 0 while nobody does
    _Atomic uint64_t held_ns;      // token held, contended or not
    _Atomic uint64_t charged_ns;   // token held while others waited: what shares are made of
    _Atomic uint64_t waited_ns;    // summed over launching threads
    _Atomic uint64_t grants;

    _Atomic uint64_t waits; // launches that found the gate closed
    _Atomic uint64_t revokes;
    _Atomic uint64_t overruns;          // drains that passed their deadline
    _Atomic uint64_t overrun_ns;        // GPU time past the end of a turn, charged to the next
    _Atomic uint64_t idle_ns;           // the part of the charged time without work on the GPU
    _Atomic uint64_t departed_launches; // by members that have gone
    _Atomic uint64_t paid_until_ns;     // of the limit, see policy_cap_pay
    _Atomic uint64_t revoked_ns;        // when the gate was last closed

    _Atomic uint64_t members[POOL_MAX_PROCESSES / 64];

    struct pool_histogram wait;     // of launches that found the gate closed
    struct pool_histogram handover; // from the end of the previous holder's drain to the first launch
    struct pool_histogram drain;    // from the end of a turn to the end of the holder's work
};

// One process. Its liveness lock, not this record, says whether it is alive.
struct pool_process {
    _Atomic uint32_t state;
    int32_t pid;               // in its own PID namespace: for display, never for decisions
    _Atomic uint32_t doorbell; // futex: its agent sleeps here
    _Atomic uint32_t
        bell; // the slot whose doorbell to ring: this one, or where a process has several, the one its agent sleeps at
    uint64_t started_ns;
    char command[32];
    uint8_t pad1[8];
};

// What one process does on one GPU.
struct pool_member {
    // The process's side of the account; see pool/account.h.
    _Atomic uint32_t vgpu; // POOL_NO_INDEX: member of none
    uint32_t pad0;
    _Atomic uint64_t intent;
    _Atomic uint64_t holding;
    _Atomic uint64_t acknowledged;
    uint8_t pad1[32];

    // The process's side of the gate; see scheduler/gate.h.
    _Atomic uint64_t entered;     // launches that have begun
    _Atomic uint64_t left;        // launches that have returned
    _Atomic uint64_t idle_at;     // `entered` when all its work was last seen complete
    _Atomic uint32_t active_gen;  // of the grant under which it launched last, and
    _Atomic uint32_t drained_gen; // of the one whose work it last saw complete; or POOL_NO_GENERATION
    uint8_t pad2[32];
};

struct pool_layout {
    struct pool_header header;
    uint8_t pad0[64];
    struct pool_gpu gpus[POOL_MAX_GPUS];
    struct pool_process processes[POOL_MAX_PROCESSES];
    struct pool_vgpu vgpus[POOL_MAX_VGPUS];
    struct pool_member members[POOL_MAX_PROCESSES][POOL_MAX_GPUS];
};

_Static_assert(sizeof(struct pool_header) == 64, "pool_header");
_Static_assert(offsetof(struct pool_gpu, token) == 128, "the token has its own pair of cache lines");
_Static_assert(offsetof(struct pool_gpu, wanting) == 256, "the token has its own pair of cache lines");
_Static_assert(sizeof(struct pool_gpu) == 512, "pool_gpu");
_Static_assert(offsetof(struct pool_vgpu, used) == 128, "account line");
_Static_assert(offsetof(struct pool_vgpu, pass) == 192, "grant line");
_Static_assert(offsetof(struct pool_vgpu, members) == 320, "member bitmap");
_Static_assert(offsetof(struct pool_gpu, level) == 384, "ring line");
_Static_assert(offsetof(struct pool_vgpu, wait) == 448, "histograms");
_Static_assert(sizeof(struct pool_vgpu) == 1600, "pool_vgpu");
_Static_assert(sizeof(struct pool_process) == 64, "pool_process");
_Static_assert(offsetof(struct pool_member, entered) == 64, "gate line");
_Static_assert(sizeof(struct pool_member) == 128, "pool_member");
_Static_assert(offsetof(struct pool_layout, gpus) == 128, "gpus");
_Static_assert(offsetof(struct pool_layout, processes) == 8320, "processes");
_Static_assert(offsetof(struct pool_layout, vgpus) == 73856, "vgpus");
_Static_assert(offsetof(struct pool_layout, members) == 893056, "members");
_Static_assert(sizeof(struct pool_layout) == 2990208, "pool_layout");

#endif
