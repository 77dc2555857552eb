// SPDX-License-Identifier: AGPL-3.0-or-later
// A tenant without a GPU: attaches to the pool through its own interface and shows there what it is told, so that what reads pools can be
// tested without the preload library.
//
//   pool_tenant POOL [KEY=VALUE]...
//
// name, quota, charge (chunks), weight, limit (percent), priority (enum priority), quantum_ms, concurrency: as in a tenancy request. gpu (0): which GPU, of 80 GiB. launches, refusals,
// refused_bytes, peak (chunks), held_ns, charged_ns, waited_ns, idle_ns: figures. waits, wait_us: so many waits of this length. hold=1: takes the token. launch_every_ms: goes on launching.
// scramble=SEED: overwrites all of the pool but its header with random bytes and pretends to be every process in it.
//
// Prints "ready" and stays until it is killed.
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "pool/tenancy.h"
#include "scheduler/grant.h"

#define GPU_BYTES (80ull << 30)

static char **keys;
static struct error problem;

static uint64_t number(const char *key, uint64_t fallback)
{
    size_t length = strlen(key);
    for (char **entry = keys; *entry; entry++)
        if (strncmp(*entry, key, length) == 0 && (*entry)[length] == '=')
            return strtoull(*entry + length + 1, NULL, 0);
    return fallback;
}

static const char *text(const char *key)
{
    size_t length = strlen(key);
    for (char **entry = keys; *entry; entry++)
        if (strncmp(*entry, key, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    return NULL;
}

static int check(int rc)
{
    if (rc < 0) {
        fprintf(stderr, "pool_tenant: %s\n", problem.text);
        exit(1);
    }
    return rc;
}

static void ready_and_wait(struct pool_member *member)
{
    puts("ready");
    fflush(stdout);
    uint64_t pause_ns = number("launch_every_ms", 0) * NS_PER_MS;
    while (pause_ns) {
        struct timespec pause = clock_timespec(pause_ns);
        nanosleep(&pause, NULL);
        atomic_fetch_add(&member->entered, 1);
        atomic_fetch_add(&member->left, 1);
    }
    for (;;)
        pause();
}

static void scramble(struct pool *pool, uint64_t seed)
{
    struct pool_layout *layout = pool->layout;
    unsigned char *bytes = (unsigned char *)layout;
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = sizeof layout->header; i < sizeof *layout; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes[i] = (unsigned char)(state >> 32);
    }
    // Random states would be read as free; a seed that is a multiple of 3 leaves the GPUs of the virtual GPUs random, too.
    for (uint32_t i = 0; i < POOL_MAX_GPUS; i++)
        atomic_store(&layout->gpus[i].state, POOL_LIVE);
    for (uint32_t i = 0; i < POOL_MAX_PROCESSES; i++)
        atomic_store(&layout->processes[i].state, POOL_LIVE);
    for (uint32_t i = 0; i < POOL_MAX_VGPUS; i++) {
        atomic_store(&layout->vgpus[i].state, POOL_LIVE);
        if (seed % 3)
            layout->vgpus[i].gpu = i % (POOL_MAX_GPUS + 1);
    }
    int fd = open(pool->path, O_RDWR | O_CLOEXEC);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = POOL_LOCK_OFFSET + 1, .l_len = POOL_MAX_PROCESSES};
    if (fd < 0 || fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        perror("pool_tenant");
        exit(1);
    }
    ready_and_wait(NULL);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    keys = argv + 2;
    struct pool pool;
    check(pool_open(&pool, argv[1], 0, &problem));
    if (text("scramble"))
        scramble(&pool, number("scramble", 0));

    uint8_t uuid[POOL_UUID_BYTES] = {0xde, 0xad};
    uuid[POOL_UUID_BYTES - 1] = (uint8_t)number("gpu", 0);
    enum priority priority = (enum priority)number("priority", 0);
    uint64_t quantum_ns = number("quantum_ms", 0) * NS_PER_MS;
    struct tenancy_request request = {
        .name = text("name"),
        .quota_chunks = number("quota", 0),
        .weight = (uint32_t)number("weight", 0),
        .limit_percent = (uint32_t)number("limit", 0),
        .priority = text("priority") ? &priority : NULL,
        .quantum_ns = text("quantum_ms") ? &quantum_ns : NULL,
        .concurrency = (uint32_t)number("concurrency", 0),
    };
    int lock = check(pool_lock(&pool, POOL_LOCK_PATIENCE_NS, &problem));
    uint32_t process = (uint32_t)check(pool_claim(&pool, &problem));
    uint32_t gpu = (uint32_t)check(pool_gpu_enter(&pool, uuid, "Test GPU", GPU_BYTES, &problem));
    uint32_t index = (uint32_t)check(pool_vgpu_join(&pool, process, gpu, &request, &problem));
    pool_unlock(lock);

    struct pool_layout *layout = pool.layout;
    struct pool_vgpu *vgpu = &layout->vgpus[index];
    struct pool_member *member = &layout->members[process][gpu];
    struct account_ref ref = {layout, pool_account(layout, index), process, gpu};
    snprintf(problem.text, sizeof problem.text, "the charge does not fit");
    check(account_add(&ref, (int64_t)number("charge", 0), pool_vgpu_limit(layout, index)));
    atomic_store(&member->entered, number("launches", 0));
    atomic_store(&member->left, number("launches", 0));
    const struct {
        const char *key;
        _Atomic uint64_t *figure;
    } figures[] = {
        {"refusals", &vgpu->refusals}, {"refused_bytes", &vgpu->refused_bytes}, {"peak", &vgpu->peak_chunks},
        {"held_ns", &vgpu->held_ns},   {"charged_ns", &vgpu->charged_ns},       {"waited_ns", &vgpu->waited_ns},
        {"idle_ns", &vgpu->idle_ns},
    };
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++)
        if (text(figures[i].key))
            atomic_store(figures[i].figure, number(figures[i].key, 0));
    for (uint64_t i = 0; i < number("waits", 0); i++)
        pool_histogram_add(&vgpu->wait, number("wait_us", 0) * NS_PER_US);
    if (number("hold", 0)) {
        atomic_store(&vgpu->grant_ns, clock_now_ns());
        uint64_t word = token_next(atomic_load(&layout->gpus[gpu].token), index, 0);
        atomic_store(&vgpu->begun, grant_value(word, clock_now_ns()));
        atomic_store(&layout->gpus[gpu].token, word);
    }
    ready_and_wait(member);
}
