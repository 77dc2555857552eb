// SPDX-License-Identifier: AGPL-3.0-or-later
// Shared regions.
//
// usage: api_region MODULE alone            several virtual GPUs of one process
//        api_region MODULE make NAME        makes a region, publishes, and stays until it is killed
//        api_region MODULE take NAME        opens it, checks what is in it, says so, and stays until its standard input ends
//        api_region MODULE have NAME        opens it, checks and ends
//        api_region MODULE stopped NAME     opens it again and again, while its owner is stopped
//        api_region MODULE closed NAME      opens it without standard streams, makes another, and ends with 0 where none became one of these
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "api.h"

#define BYTES (6 * MIB)
#define WORDS (BYTES / 4)
#define REGION_PAGE_BYTES 8192 // as in lib/region.h

static CUfunction add, spin;
static bool no_eventfd;

// The library's, too: it comes upon this one first.
__attribute__((visibility("default"))) int eventfd(unsigned value, int flags)
{
    errno = EMFILE;
    return no_eventfd ? -1 : (int)syscall(SYS_eventfd2, value, flags);
}

static uint64_t used(struct vgpu *vgpu)
{
    struct vgpu_instance_stats stats = VGPU_STATS_INIT;
    DONE(vgpu_stats(vgpu, &stats));
    return stats.used_bytes;
}

static void write_words(struct vgpu *vgpu, struct vgpu_region *region, uint32_t value, vgpu_stream stream)
{
    CUdeviceptr address = (uintptr_t)vgpu_region_pointer(region);
    uint64_t count = WORDS;
    void *args[] = {&address, &value, &count};
    DONE(vgpu_memset_async(vgpu, vgpu_region_pointer(region), 0, BYTES, stream));
    DONE(api_launch(vgpu, add, stream, args));
}

static void read_words(struct vgpu *vgpu, struct vgpu_region *region, uint32_t value, vgpu_stream stream)
{
    uint32_t *words = malloc(BYTES);
    DONE(vgpu_memcpy_async(vgpu, words, vgpu_region_pointer(region), BYTES, stream));
    DONE(vgpu_synchronize(vgpu, stream));
    for (size_t i = 0; i < WORDS; i++)
        EQUAL(words[i], value);
    free(words);
}

static void errors(struct vgpu *vgpu)
{
    struct vgpu_region *region = NULL;
    REFUSED(vgpu_region_open(vgpu, "none", 0, &region), -ENOENT, "no region none");
    REFUSED(vgpu_region_unlink(vgpu, "none"), -ENOENT, "no region none");
    REFUSED(vgpu_region_create(vgpu, "a/b", 1, &region), -EINVAL, "name \"a/b\"");
    REFUSED(vgpu_region_create(vgpu, NULL, 1, &region), -EINVAL, "name");
    REFUSED(vgpu_region_create(vgpu, "zero", 0, &region), -EINVAL, "0 bytes");
    REFUSED(vgpu_region_create(vgpu, "null", 1, NULL), -EINVAL, "NULL");
    REFUSED(vgpu_region_create(vgpu, "big", 1ull << 40, &region), -ENOMEM, "does not fit");
    REFUSED(vgpu_region_open(vgpu, "none", 2, &region), -EINVAL, "flags 0x2");
    REFUSED(vgpu_region_publish(NULL, NULL, NULL), -EINVAL, "NULL");
    DONE(vgpu_region_close(NULL));
    EQUAL(region, NULL);
    EQUAL(used(vgpu), 0);
}

// What was freed, and is kept for the next allocation, gives way to a region.
static void instead_of_freed(void)
{
    struct vgpu *vgpu = api_create(NULL, 32 * MIB, 0);
    struct vgpu_region *region;
    void *memory;
    DONE(vgpu_malloc(vgpu, 30 * MIB, &memory));
    DONE(vgpu_free(vgpu, memory));
    EQUAL(api_free_bytes(vgpu), 32 * MIB);
    DONE(vgpu_region_create(vgpu, "large", 32 * MIB, &region));
    DONE(vgpu_region_close(region));
    DONE(vgpu_destroy(vgpu));
}

struct waiter {
    struct vgpu *vgpu;
    struct vgpu_region *region;
    uint64_t generation;
};

static void *wait_for_two(void *argument)
{
    struct waiter *waiter = argument;
    DONE(vgpu_region_await(waiter->region, NULL, 1, -1, &waiter->generation));
    return NULL;
}

static int nothing(struct vgpu *vgpu, void *argument)
{
    (void)vgpu, (void)argument;
    return 0;
}

static int open_late(struct vgpu *vgpu, void *region)
{
    while (vgpu_submit(vgpu, nothing, NULL, NULL) != -ESHUTDOWN)
        usleep(100);
    return vgpu_region_create(vgpu, "late", BYTES, region);
}

// What a task opens while its virtual GPU is being destroyed keeps that from going.
static void opened_while_ending(void)
{
    struct vgpu *vgpu = api_create("ending", 32 * MIB, 0);
    struct vgpu_region *region = NULL;
    struct vgpu_task *task;
    int result = -1;
    DONE(vgpu_submit(vgpu, open_late, &region, &task));
    REFUSED(vgpu_destroy(vgpu), -EBUSY, "open regions: 1");
    DONE(vgpu_task_wait(task, 0, &result));
    vgpu_task_release(task);
    EQUAL(result, 0);
    // Nothing is lost: it works on, with tasks too.
    EQUAL(used(vgpu), BYTES);
    DONE(vgpu_submit(vgpu, nothing, NULL, &task));
    DONE(vgpu_task_wait(task, -1, &result));
    vgpu_task_release(task);
    DONE(vgpu_region_close(region));
    DONE(vgpu_destroy(vgpu));
}

// Whether a descriptor is of a kind.
static bool is_kind(int fd, const char *kind)
{
    char path[32], target[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, target, sizeof target - 1);
    target[length < 0 ? 0 : length] = '\0';
    return strstr(target, kind);
}

// The page of this process's only region, which all who have it can write.
static unsigned char *find_page(void)
{
    for (int fd = 3; fd < 256; fd++)
        if (is_kind(fd, "memfd:vgpu-region"))
            return mmap(NULL, REGION_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    fail("no page of a region among the descriptors");
}

// Who damages the page, or dies while he writes it, keeps nobody waiting for longer than asked.
static void damaged_publications(void)
{
    struct vgpu *vgpu = api_create("damaged", 32 * MIB, 0);
    struct vgpu_region *region;
    DONE(vgpu_region_create(vgpu, "damaged", BYTES, &region));
    DONE(vgpu_region_publish(region, NULL, NULL));
    DONE(vgpu_region_await(region, NULL, 0, 0, NULL));
    unsigned char *page = find_page();
    memset(page + REGION_PAGE_BYTES / 64, 0, REGION_PAGE_BYTES - REGION_PAGE_BYTES / 64); // all but the counters
    alarm(20);
    REFUSED(vgpu_region_await(region, NULL, 0, 1000000, NULL), -ETIMEDOUT, "generation");
    alarm(0);
    DONE(vgpu_region_publish(region, NULL, NULL));
    DONE(vgpu_region_await(region, NULL, 1, 0, NULL));
    munmap(page, REGION_PAGE_BYTES);
    DONE(vgpu_region_close(region));
    DONE(vgpu_destroy(vgpu));
}

struct member {
    struct vgpu *vgpu;
    pthread_t thread;
};

static void *come_and_go(void *argument)
{
    const struct member *member = argument;
    struct vgpu_region *region;
    DONE(vgpu_region_open(member->vgpu, "busy", 0, &region));
    for (int i = 0; i < 3; i++) {
        DONE(vgpu_region_publish(region, NULL, NULL));
        DONE(vgpu_region_await(region, NULL, 0, -1, NULL));
    }
    DONE(vgpu_region_close(region));
    return NULL;
}

// Some close their mappings while others publish and await.
static void coming_and_going(void)
{
    struct member members[3];
    struct vgpu *vgpu = api_create(NULL, 32 * MIB, 0);
    struct vgpu_region *region;
    for (int i = 0; i < 3; i++)
        members[i].vgpu = api_create(NULL, 32 * MIB, 0);
    for (int round = 0; round < 20; round++) {
        DONE(vgpu_region_create(vgpu, "busy", BYTES, &region));
        for (int i = 0; i < 3; i++)
            pthread_create(&members[i].thread, NULL, come_and_go, &members[i]);
        for (int i = 0; i < 3; i++)
            pthread_join(members[i].thread, NULL);
        DONE(vgpu_region_close(region));
    }
    for (int i = 0; i < 3; i++)
        DONE(vgpu_destroy(members[i].vgpu));
    DONE(vgpu_destroy(vgpu));
}

static void alone(void)
{
    struct vgpu *a = api_create("a", 32 * MIB, 0), *b = api_create("b", 32 * MIB, 0);
    struct vgpu_region *writer, *reader, *again, *other;
    uint64_t generation = 0;
    errors(a);
    DONE(vgpu_region_create(a, "shared", BYTES - 1000, &writer));
    EQUAL(vgpu_region_bytes(writer), BYTES);
    EQUAL(used(a), BYTES);
    REFUSED(vgpu_region_create(b, "shared", BYTES, &again), -EEXIST, "shared exists already");
    DONE(vgpu_region_open(b, "shared", VGPU_REGION_READONLY, &reader));
    EQUAL(used(b), 0);
    unsigned long long access;
    const CUmemLocation here = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0};
    OK(cuMemGetAccess(&access, &here, (uintptr_t)vgpu_region_pointer(reader)));
    EQUAL(access, CU_MEM_ACCESS_FLAGS_PROT_READ);

    // The reader's stream waits for the writer's work, not only for the number.
    REFUSED(vgpu_region_await(reader, NULL, 0, 0, &generation), -ETIMEDOUT, "still 0");
    REFUSED(vgpu_region_publish(reader, NULL, NULL), -EPERM, "read-only");
    api_spin(a, spin, 20000000);
    write_words(a, writer, 5, NULL);
    DONE(vgpu_region_publish(writer, NULL, &generation));
    EQUAL(generation, 1);
    DONE(vgpu_region_await(reader, NULL, 0, -1, &generation));
    EQUAL(generation, 1);
    read_words(b, reader, 5, NULL);
    struct waiter waiter = {.vgpu = b, .region = reader};
    pthread_t thread;
    pthread_create(&thread, NULL, wait_for_two, &waiter);
    write_words(a, writer, 6, NULL);
    DONE(vgpu_region_publish(writer, NULL, NULL));
    pthread_join(thread, NULL);
    EQUAL(waiter.generation, 2);
    read_words(b, reader, 6, NULL);
    DONE(vgpu_enter(b));
    REFUSED(vgpu_region_await(reader, NULL, 2, -1, NULL), -EDEADLK, "in a turn");
    DONE(vgpu_leave(b));

    // The name goes, the memory stays; then its payer goes, and another pays.
    DONE(vgpu_region_unlink(b, "shared"));
    REFUSED(vgpu_region_open(b, "shared", 0, &again), -ENOENT, "no region shared");
    DONE(vgpu_region_create(b, "shared", 2 * MIB, &other));
    EQUAL(used(b), 2 * MIB);
    REFUSED(vgpu_destroy(a), -EBUSY, "open regions: 1");
    DONE(vgpu_region_close(writer));
    EQUAL(used(a), 0);
    EQUAL(used(b), 2 * MIB + BYTES);
    read_words(b, reader, 6, NULL);
    DONE(vgpu_destroy(a));
    DONE(vgpu_region_close(reader));
    DONE(vgpu_region_close(other));
    EQUAL(used(b), 0);
    REFUSED(vgpu_region_open(b, "shared", 0, &again), -ENOENT, "no region shared");
    DONE(vgpu_destroy(b));
    instead_of_freed();
    coming_and_going();
    opened_while_ending();
    damaged_publications();
    puts("done");
}

static void make(const char *name)
{
    struct vgpu *vgpu = api_create("maker", 32 * MIB, 0);
    struct vgpu_region *region;
    DONE(vgpu_region_create(vgpu, name, BYTES, &region));
    api_spin(vgpu, spin, 500000000); // another process comes before this is done
    write_words(vgpu, region, 9, NULL);
    DONE(vgpu_region_publish(region, NULL, NULL));
    puts("made");
    fflush(stdout);
    pause();
}

// What cannot be served is not kept, nor handed to the caller: the virtual GPU goes.
static void opened_without_service(const char *name)
{
    struct vgpu *vgpu = api_create(NULL, 32 * MIB, 0);
    struct vgpu_region *region = NULL;
    no_eventfd = true;
    REFUSED(vgpu_region_open(vgpu, name, 0, &region), -EMFILE, "eventfd");
    EQUAL(region, NULL);
    REFUSED(vgpu_region_create(vgpu, "unserved", BYTES, &region), -EMFILE, "eventfd");
    EQUAL(region, NULL);
    no_eventfd = false;
    DONE(vgpu_destroy(vgpu));
}

// No attempt waits for long, although those before it still wait to be accepted.
static void stopped(const char *name)
{
    struct vgpu *vgpu = api_create(NULL, 32 * MIB, 0);
    struct vgpu_region *region;
    for (int i = 0; i < 10; i++)
        REFUSED(vgpu_region_open(vgpu, name, 0, &region), -ETIMEDOUT, "is it stopped?");
    REFUSED(vgpu_region_unlink(vgpu, name), -ETIMEDOUT, "is it stopped?");
    DONE(vgpu_destroy(vgpu));
}

static void ignore(int signal)
{
    (void)signal;
}

// Signals that the program handles do not make it fail.
static void interrupted(struct vgpu *vgpu, const char *name)
{
    const struct itimerval often = {.it_interval.tv_usec = 50, .it_value.tv_usec = 50}, never = {0};
    struct vgpu_region *region;
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = ignore, .sa_flags = SA_RESTART}, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 20; i++) {
        DONE(vgpu_region_open(vgpu, name, 0, &region));
        DONE(vgpu_region_close(region));
    }
    setitimer(ITIMER_REAL, &never, NULL);
}

// What the program prints without standard streams is lost, and not written into what it shares.
static void closed(const char *name)
{
    struct vgpu *vgpu = api_create(NULL, 32 * MIB, 0);
    struct vgpu_region *opened, *made;
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        close(fd);
    DONE(vgpu_region_open(vgpu, name, VGPU_REGION_READONLY, &opened));
    DONE(vgpu_region_create(vgpu, "made", BYTES, &made));
    // The driver may have opened something of its own.
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (is_kind(fd, "memfd:vgpu-region") || is_kind(fd, "socket:") || is_kind(fd, "eventfd"))
            _exit(2);
    DONE(vgpu_region_close(made));
    DONE(vgpu_region_close(opened));
    DONE(vgpu_destroy(vgpu));
}

static void take(const char *name, bool stay)
{
    struct vgpu *vgpu = api_create(stay ? "taker" : NULL, 32 * MIB, 0);
    struct vgpu_region *region;
    char line[8];
    uint64_t generation = 0;
    opened_without_service(name);
    interrupted(vgpu, name);
    DONE(vgpu_region_open(vgpu, name, VGPU_REGION_READONLY, &region));
    EQUAL(vgpu_region_bytes(region), BYTES);
    DONE(vgpu_region_await(region, NULL, 0, -1, &generation));
    EQUAL(generation, 1);
    read_words(vgpu, region, 9, NULL);
    puts("read");
    fflush(stdout);
    if (stay) {
        while (read(0, line, sizeof line) > 0)
            ;
        read_words(vgpu, region, 9, NULL);
    }
    DONE(vgpu_region_close(region));
    DONE(vgpu_destroy(vgpu));
    puts("done");
}

int main(int argc, char **argv)
{
    if (argc < 3)
        fail("usage: api_region MODULE alone|make|take|have|stopped|closed [NAME]");
    struct vgpu *first = api_create(NULL, 0, 0);
    start();
    add = api_kernel(argv[1], "add_u32");
    spin = api_kernel(argv[1], "spin_ns");
    if (strcmp(argv[2], "alone") == 0)
        alone();
    else if (argc > 3 && strcmp(argv[2], "make") == 0)
        make(argv[3]);
    else if (argc > 3 && strcmp(argv[2], "stopped") == 0)
        stopped(argv[3]);
    else if (argc > 3 && strcmp(argv[2], "closed") == 0)
        closed(argv[3]);
    else if (argc > 3)
        take(argv[3], strcmp(argv[2], "take") == 0);
    DONE(vgpu_destroy(first));
    return 0;
}
