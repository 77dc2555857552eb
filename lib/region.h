// SPDX-License-Identifier: AGPL-3.0-or-later
// Shared regions: physical memory of one driver handle, mapped by several instances in several processes.
//
// A region is owned by one process, which is charged for it and hands it to openers over a socket beside the pool. Besides the
// memory, all share a page, the region's header. The holder of the page's lock is the owner: when it dies or closes the region,
// one of the others gets the lock, charges one of its instances, and takes over the socket of the name.
//
// Invariants
//  - One region object in each process, for all its mappings; the driver's handle and the page live as long as the object.
//  - An object owns its region exactly while it holds the page's lock: an open-file-description lock kept alive by the mapping
//    of the page, which a fork does not inherit, as in pool/pool.h.
//  - Memory and page reach another process only as descriptors, over a connection whose other end runs as the same user or, if
//    the pool belongs to a group, as a member of that group.
//  - Nothing read from a socket or the page is trusted: sizes and indices are checked, names are our own.
//  - The owner's charge is given back only after its own mapping is gone.
// Lock order: regions, then the pool lock, then the locks of an instance. The service thread waits for peers without a lock,
// and no longer than REGION_PATIENCE_NS.
#ifndef VGPU_LIB_REGION_H
#define VGPU_LIB_REGION_H

#include "base/descriptor.h"
#include "lib/instance.h"

#define REGION_MAGIC 0x6e6f69676572ull // "region"
#define REGION_PAGE_BYTES 8192u
#define REGION_PUBLICATIONS 64u
#define REGION_PATIENCE_NS (500 * NS_PER_MS)

// The work that a generation stands for.
struct region_publication {
    uint64_t writer;     // the process, by a random number; 0: the work is complete
    uint64_t started_ns; // of the writer's slot in the pool: differs for another owner of the slot
    uint64_t slot;
    CUipcEventHandle event;
};
#define REGION_WORDS (sizeof(struct region_publication) / sizeof(uint64_t))

// A generation in the page. Who reads while another writes may find words of both, and then another generation behind them than
// before them.
struct region_place {
    _Atomic uint64_t generation;          // 0 while it is being written
    _Atomic uint64_t words[REGION_WORDS]; // of a region_publication: the first is the writer
};

// The page. Written by every process that has the region.
struct region_page {
    uint64_t magic;
    uint64_t id; // random: distinguishes regions of one name
    uint64_t bytes;
    uint8_t uuid[POOL_UUID_BYTES];
    _Atomic uint32_t unlinked;
    uint32_t pad0;
    _Atomic uint32_t users; // processes that have the region, and those that died with it
    _Atomic uint32_t bell;  // futex: changes with every generation
    _Atomic uint64_t next;  // the last generation given out
    _Atomic uint64_t generation;
    struct region_place places[REGION_PUBLICATIONS];
};

_Static_assert(sizeof(struct region_page) <= REGION_PAGE_BYTES, "the page holds it");
_Static_assert(offsetof(struct region_publication, writer) == 0 && sizeof(struct region_publication) % sizeof(uint64_t) == 0,
               "a publication is whole words");

struct region {
    char name[POOL_NAME_BYTES];
    char path[PATH_MAX]; // of the pool
    CUmemGenericAllocationHandle memory;
    uint64_t bytes;
    int page_fd; // both for openers: imported memory cannot be exported again, but its descriptor can be passed on
    int memory_fd;
    struct region_page *page;
    int listener;             // -1: not the owner, or without a name
    bool owned;               // holds the page's lock
    struct vgpu_region *maps; // those of this process
    struct vgpu_region *payer;
    struct region *next;
};

// One mapping.
struct vgpu_region {
    struct vgpu *vgpu;
    struct region *region;
    CUdeviceptr address;
    bool readonly;
    struct vgpu_region *next;
    // Recorded by publish, for each stream one of its own: a reader may be just about to wait for what another has published.
    struct region_event {
        CUevent event; // NULL: none yet
        CUipcEventHandle handle;
    } published[VGPU_MAX_STREAMS];
    struct {
        uint64_t writer;
        CUevent event;
        CUipcEventHandle handle;
    } imported; // the event last waited for
};

// lib/region_page.c: the page and its lock.
int page_create(uint64_t bytes, const uint8_t uuid[POOL_UUID_BYTES], int *fd);
// Maps the page behind `fd`, checks it, and tries for its lock, *owned. 0 or -errno.
int page_map(int fd, struct region_page **page, bool *owned);
// Tries for the lock of a page that is mapped already. The mapping is replaced at its address. Returns whether the lock is held
// now.
bool page_claim(int fd, struct region_page *page);
void page_unmap(struct region_page *page);
uint64_t page_random(void);

// lib/region_socket.c: handing a region over.
#define REGION_SOCKET_NONE (-ENOENT)        // no such name
#define REGION_SOCKET_STALE (-ECONNREFUSED) // its owner is gone
#define REGION_SOCKET_RESET (-ECONNRESET)   // its owner went while it was asked
// Whether a process listens under the name: 0, or one of these.
int socket_probe(const char *pool, const char *name);
int socket_listen(const struct region *region);
// Asks the owner for the descriptors of page and memory.
int socket_fetch(const char *pool, const char *name, int *page_fd, int *memory_fd);
// Serves one connection to the owner's listener.
void socket_serve(const struct region *region);
void socket_remove(const char *pool, const char *name);

// lib/region_service.c: the thread that serves the regions this process owns and watches those it may come to own.
extern pthread_mutex_t regions_mutex __attribute__((visibility("hidden")));
extern struct region *regions __attribute__((visibility("hidden")));
// Under the mutex: starts the thread, or makes it look at the list anew.
int service_notify(void);
void service_reset(void);

// lib/region_sync.c: before the mapping ends, with its work complete.
void region_sync_end(struct vgpu_region *map);

// lib/region.c, under the mutex: charges a mapping of this process, other than the one that pays now, for a region it owns.
void region_charge(struct region *region);

#endif
