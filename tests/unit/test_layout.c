// SPDX-License-Identifier: AGPL-3.0-or-later
// The pool file: its binary layout, how it comes into being, and what is refused.
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/unit/tap.h"
#include "tests/unit/tenant.h"

static void test_table(void)
{
    // What another build of this version relies on. A change here is a change of POOL_VERSION.
    static const struct {
        const char *what;
        size_t actual, expected;
    } table[] = {
        {"header.magic", offsetof(struct pool_layout, header.magic), 0},
        {"header.version", offsetof(struct pool_layout, header.version), 8},
        {"header.bytes", offsetof(struct pool_layout, header.bytes), 12},
        {"header.chunk_bytes", offsetof(struct pool_layout, header.chunk_bytes), 16},
        {"header.flags", offsetof(struct pool_layout, header.flags), 24},
        {"header.created_ns", offsetof(struct pool_layout, header.created_ns), 32},
        {"header.reaped_ns", offsetof(struct pool_layout, header.reaped_ns), 40},
        {"gpus", offsetof(struct pool_layout, gpus), 128},
        {"gpu.total_chunks", offsetof(struct pool_gpu, total_chunks), 4},
        {"gpu.total_bytes", offsetof(struct pool_gpu, total_bytes), 8},
        {"gpu.uuid", offsetof(struct pool_gpu, uuid), 16},
        {"gpu.context_bytes", offsetof(struct pool_gpu, context_bytes), 32},
        {"gpu.reserved_chunks", offsetof(struct pool_gpu, reserved_chunks), 40},
        {"gpu.open_used", offsetof(struct pool_gpu, open_used), 48},
        {"gpu.name", offsetof(struct pool_gpu, name), 64},
        {"gpu.token", offsetof(struct pool_gpu, token), 128},
        {"gpu.wanting", offsetof(struct pool_gpu, wanting), 256},
        {"gpu.vgpus", offsetof(struct pool_gpu, vgpus), 320},
        {"gpu.level", offsetof(struct pool_gpu, level), 384},
        {"gpu.round", offsetof(struct pool_gpu, round), 408},
        {"gpu.switch_ns", offsetof(struct pool_gpu, switch_ns), 416},
        {"gpu.high", offsetof(struct pool_gpu, high), 432},
        {"gpu.company", offsetof(struct pool_gpu, company), 496},
        {"gpu.company_ns", offsetof(struct pool_gpu, company_ns), 504},
        {"a gpu", sizeof(struct pool_gpu), 512},
        {"processes", offsetof(struct pool_layout, processes), 8320},
        {"process.doorbell", offsetof(struct pool_process, doorbell), 8},
        {"process.bell", offsetof(struct pool_process, bell), 12},
        {"process.started_ns", offsetof(struct pool_process, started_ns), 16},
        {"process.command", offsetof(struct pool_process, command), 24},
        {"a process", sizeof(struct pool_process), 64},
        {"vgpus", offsetof(struct pool_layout, vgpus), 73856},
        {"vgpu.gpu", offsetof(struct pool_vgpu, gpu), 4},
        {"vgpu.weight", offsetof(struct pool_vgpu, weight), 8},
        {"vgpu.priority", offsetof(struct pool_vgpu, priority), 12},
        {"vgpu.quantum_ns", offsetof(struct pool_vgpu, quantum_ns), 16},
        {"vgpu.quota_chunks", offsetof(struct pool_vgpu, quota_chunks), 24},
        {"vgpu.limit_percent", offsetof(struct pool_vgpu, limit_percent), 40},
        {"vgpu.concurrency", offsetof(struct pool_vgpu, concurrency), 44},
        {"vgpu.limited_ns", offsetof(struct pool_vgpu, limited_ns), 48},
        {"vgpu.quota_before", offsetof(struct pool_vgpu, quota_before), 56},
        {"vgpu.name", offsetof(struct pool_vgpu, name), 64},
        {"vgpu.used", offsetof(struct pool_vgpu, used), 128},
        {"vgpu.companion", offsetof(struct pool_vgpu, companion), 160},
        {"vgpu.shared_from", offsetof(struct pool_vgpu, shared_from), 168},
        {"vgpu.pass", offsetof(struct pool_vgpu, pass), 192},
        {"vgpu.waits", offsetof(struct pool_vgpu, waits), 256},
        {"vgpu.members", offsetof(struct pool_vgpu, members), 320},
        {"vgpu.paid_until_ns", offsetof(struct pool_vgpu, paid_until_ns), 304},
        {"vgpu.wait", offsetof(struct pool_vgpu, wait), 448},
        {"a vgpu", sizeof(struct pool_vgpu), 1600},
        {"members", offsetof(struct pool_layout, members), 893056},
        {"member.intent", offsetof(struct pool_member, intent), 8},
        {"member.holding", offsetof(struct pool_member, holding), 16},
        {"member.acknowledged", offsetof(struct pool_member, acknowledged), 24},
        {"member.entered", offsetof(struct pool_member, entered), 64},
        {"member.left", offsetof(struct pool_member, left), 72},
        {"member.active_gen", offsetof(struct pool_member, active_gen), 88},
        {"a member", sizeof(struct pool_member), 128},
        {"the layout", sizeof(struct pool_layout), 2990208},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        is_int(table[i].actual, table[i].expected, "offset or size of %s", table[i].what);
    ok(memcmp(&(uint64_t){POOL_MAGIC}, "vgpupool", 8) == 0, "the magic reads vgpupool in the file");
    is_int(POOL_VERSION, 4, "the version");
    ok(POOL_MAX_GPUS >= 16 && POOL_MAX_VGPUS >= 256 && POOL_MAX_PROCESSES >= 1024, "there is the room that was promised");
}

static void test_bits(void)
{
    static _Atomic uint64_t bits[2];
    pool_bit_set(bits, 5);
    pool_bit_set(bits, 64);
    pool_bit_set(bits, 127);
    is_int(pool_bit_next(bits, 128, 0), 5, "the first bit is found");
    is_int(pool_bit_next(bits, 128, 6), 64, "and the next, in another word");
    is_int(pool_bit_next(bits, 128, 65), 127, "and the last");
    is_int(pool_bit_next(bits, 128, 128), 128, "and then none");
    is_int(pool_bit_next(bits, 3, 0), 3, "a bit behind the end is none");
    is_int(pool_bit_next(bits, 64, 6), 64, "nor one in the next word");
    pool_bit_clear(bits, 5);
    ok(!pool_bit_get(bits, 5) && pool_bit_get(bits, 64), "a bit can be cleared, alone");
}

static void write_pool(const struct pool_header *header, off_t bytes, mode_t mode)
{
    tenant_pool_remove();
    int fd = open(tenant_pool, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || pwrite(fd, header, sizeof *header, 0) < 0 || ftruncate(fd, bytes) || fchmod(fd, mode))
        bail_out("cannot write a pool file");
    close(fd);
}

static void refused(int expected, const char *words, const char *what)
{
    struct pool pool;
    struct error error = {""};
    for (int readonly = 0; readonly < 2; readonly++) {
        int rc = readonly ? pool_open_readonly(&pool, tenant_pool, &error) : pool_open(&pool, tenant_pool, 0, &error);
        is_int(rc, expected, "%s is refused%s", what, readonly ? ", for reading too" : "");
        ok(pool.layout == NULL, "nothing of %s stays mapped", what);
        ok(strstr(error.text, words) && strstr(error.text, tenant_pool) && !strchr(error.text, '\n'),
           "one line names the file and says why: %s", error.text);
    }
}

static void test_refusals(void)
{
    const struct pool_header good = {.magic = POOL_MAGIC,
                                     .version = POOL_VERSION,
                                     .bytes = sizeof(struct pool_layout),
                                     .chunk_bytes = POOL_DEFAULT_CHUNK_BYTES};
    const off_t size = sizeof(struct pool_layout);
    struct pool_header header = good;
    header.version = POOL_VERSION + 1;
    write_pool(&header, size, 0600);
    refused(-EPROTO, "layout version 5 and this library needs 4", "a pool of a newer version");
    header = good;
    header.magic ^= 1;
    write_pool(&header, size, 0600);
    refused(-EINVAL, "is not a pool", "a file with another magic");
    header = good;
    header.bytes -= 64;
    write_pool(&header, size, 0600);
    refused(-EPROTO, "is damaged", "a pool of another size");
    write_pool(&good, size - 1, 0600);
    refused(-EPROTO, "is damaged", "a truncated pool");
    write_pool(&good, 32, 0600);
    refused(-EINVAL, "is not a pool", "a stump");
    for (uint64_t chunk = 1; chunk; chunk <<= 1) {
        if (chunk >= POOL_MIN_CHUNK_BYTES && chunk <= POOL_MAX_CHUNK_BYTES)
            continue;
        header = good;
        header.chunk_bytes = chunk;
        write_pool(&header, size, 0600);
        if (chunk == 1 || chunk == POOL_MAX_CHUNK_BYTES * 2)
            refused(-EINVAL, "is damaged", "a pool of impossible chunks");
    }
    header.chunk_bytes = 3 << 20;
    write_pool(&header, size, 0600);
    refused(-EINVAL, "is damaged", "a pool whose chunk is no power of two");
    static const mode_t modes[] = {0644, 0666, 0604, 0602};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        char what[32];
        snprintf(what, sizeof what, "a pool of mode %04o", (unsigned)modes[i]);
        write_pool(&good, size, modes[i]);
        refused(-EPERM, "open to all users", what);
    }
    if (geteuid() == 0) {
        write_pool(&good, size, 0600);
        if (chown(tenant_pool, 12345, 12345) == 0)
            refused(-EPERM, "belongs to user 12345", "another user's pool");
    }
    tenant_pool_remove();
    mkdir(tenant_pool, 0700);
    struct pool pool;
    struct error error = {""};
    ok(pool_open(&pool, tenant_pool, 0, &error) == -EISDIR && strstr(error.text, tenant_pool), "a directory is refused: %s",
       error.text);
    is_int(pool_open_readonly(&pool, tenant_pool, &error), -EINVAL, "for reading too: %s", error.text);
    rmdir(tenant_pool);
    if (mkfifo(tenant_pool, 0600) == 0)
        refused(-EINVAL, "not a regular file", "a FIFO (at once, without waiting for its other end)");
    tenant_pool_remove();
    if (symlink("/dev/shm/vgpu-test-nowhere", tenant_pool) == 0)
        refused(-ELOOP, "symbolic link", "a symbolic link");
    tenant_pool_remove();
    is_int(pool_open_readonly(&pool, tenant_pool, &error), -ENOENT, "reading creates nothing");
    ok(access(tenant_pool, F_OK) < 0, "and leaves nothing");
    is_int(pool_open(&pool, "/nonexistent/pool", 0, &error), -ENOENT, "no directory, no pool: %s", error.text);
    is_int(pool_open(&pool, tenant_pool, 3 << 20, &error), -EINVAL, "an impossible chunk is refused: %s", error.text);
    ok(access(tenant_pool, F_OK) < 0, "and no pool is made with it");
}

static void test_modes(void)
{
    static const mode_t masks[] = {0, 077, 0777};
    struct pool pool;
    struct error error;
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        struct stat status = {0};
        mode_t before = umask(masks[i]);
        is_int(pool_open(&pool, tenant_pool, 0, &error), 0, "a pool is made under umask %03o", (unsigned)masks[i]);
        is_int(umask(before), masks[i], "the umask is unchanged");
        stat(tenant_pool, &status);
        is_int(status.st_mode & 07777, 0600, "its mode is 0600");
        ok((uint64_t)status.st_blocks * 512 >= sizeof(struct pool_layout), "its space is taken");
        pool_close(&pool);
        tenant_pool_remove();
    }
}

static _Atomic uint32_t *gate;

static int create_at_once(void *argument)
{
    struct pool pool;
    struct error error;
    struct stat status;
    becomes(gate, 1);
    if (pool_open(&pool, tenant_pool, 4 << 20, &error) || stat(tenant_pool, &status) || status.st_ino != pool.inode)
        return 1;
    atomic_fetch_add(&pool.layout->processes[(uintptr_t)argument].doorbell, 1);
    atomic_fetch_add(&pool.layout->processes[POOL_MAX_PROCESSES - 1].doorbell, 1);
    return 0;
}

static void test_one_pool(void)
{
    pid_t pids[32];
    struct pool pool;
    struct error error;
    int failures = 0;
    gate = (_Atomic uint32_t *)share(sizeof *gate);
    for (uint32_t i = 0; i < 32; i++)
        pids[i] = spawn(create_at_once, (void *)(uintptr_t)i);
    atomic_store(gate, 1);
    for (uint32_t i = 0; i < 32; i++)
        failures += exit_status(pids[i]) != 0;
    is_int(failures, 0, "32 processes create the pool at once");
    is_int(pool_open(&pool, tenant_pool, 0, &error), 0, "it can be opened without naming a chunk");
    is_int(atomic_load(&pool.layout->processes[POOL_MAX_PROCESSES - 1].doorbell), 32, "all of them met in one");
    is_int(pool.chunk_bytes, 4 << 20, "its chunk is the one asked for");
    pool_close(&pool);
    is_int(pool_open(&pool, tenant_pool, 4 << 20, &error), 0, "the same chunk agrees");
    pool_close(&pool);
    is_int(pool_open(&pool, tenant_pool, 8 << 20, &error), -EINVAL, "another chunk is refused");
    ok(strstr(error.text, "8 MiB") && strstr(error.text, "4 MiB"), "with both figures: %s", error.text);
}

static int write_readonly(void *argument)
{
    struct pool *pool = (struct pool *)argument;
    signal(SIGSEGV, SIG_DFL);
    atomic_store(&pool->layout->gpus[0].context_bytes, 1);
    return 0;
}

static void test_readonly(void)
{
    struct pool pool;
    struct error error;
    int status = 0;
    is_int(pool_open_readonly(&pool, tenant_pool, &error), 0, "a pool can be opened for reading");
    is_int(pool.layout->header.version, POOL_VERSION, "and be read");
    ok(mprotect(pool.layout, 4096, PROT_READ | PROT_WRITE) < 0, "it cannot even be made writable");
    madvise(pool.layout, sizeof *pool.layout, MADV_DOFORK);
    pid_t pid = spawn(write_readonly, &pool);
    waitpid(pid, &status, 0);
    ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "a write to it is a fault");
    pool_close(&pool);
}

static void test_path(void)
{
    struct pool pool;
    struct error error;
    char path[PATH_MAX], expected[64];
    snprintf(expected, sizeof expected, "/dev/shm/vgpu.%u", (unsigned)geteuid());
    pool_default_path(path, "/a/b");
    is_str(path, "/a/b", "a configured path is taken as it is");
    pool_default_path(path, NULL);
    ok(strcmp(path, expected) == 0 || strcmp(path, "/run/vgpu/pool") == 0, "else it is the group's or the user's: %s", path);
    if (chdir("/dev/shm") == 0) {
        is_int(pool_open(&pool, tenant_pool + strlen("/dev/shm/"), 0, &error), 0,
               "a relative path is taken from the current directory");
        int lock = chdir("/") == 0 ? pool_lock(&pool, 0, &error) : -1;
        ok(lock >= 0, "and holds when the program moves to another one");
        if (lock >= 0)
            pool_unlock(lock);
        pool_close(&pool);
    }
}

int main(void)
{
    tenant_pool_new("layout");
    test_table();
    test_bits();
    test_refusals();
    test_modes();
    test_one_pool();
    test_readonly();
    test_path();
    tenant_pool_remove();
    return done_testing();
}
