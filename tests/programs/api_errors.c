// SPDX-License-Identifier: AGPL-3.0-or-later
// Wrong configurations and calls: each is refused with one line that says what, and changes nothing.
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api.h"

static struct vgpu_config config(const char *name)
{
    struct vgpu_config fresh = VGPU_CONFIG_INIT;
    fresh.name = name;
    return fresh;
}

static void configurations(void)
{
    struct vgpu *vgpu = NULL;
    struct vgpu_config c;
    struct {
        struct vgpu_config known;
        uint64_t unknown;
    } newer = {VGPU_CONFIG_INIT, 0};
    newer.known.size = sizeof newer;

    REFUSED(vgpu_create(NULL, &vgpu), -EINVAL, "NULL");
    c = config("x");
    REFUSED(vgpu_create(&c, NULL), -EINVAL, "NULL");
    c.size = 0;
    REFUSED(vgpu_create(&c, &vgpu), -EINVAL, "VGPU_CONFIG_INIT");
    c = config("a name");
    REFUSED(vgpu_create(&c, &vgpu), -EINVAL, "name \"a name\": allowed is");
    c = config("");
    REFUSED(vgpu_create(&c, &vgpu), -EINVAL, "allowed is");
    c = config("x"), c.weight = 10001;
    REFUSED(vgpu_create(&c, &vgpu), -EINVAL, "weight 10001: allowed is 1 to 10000");
    c = config("x"), c.concurrency = 65;
    REFUSED(vgpu_create(&c, &vgpu), -EINVAL, "concurrency 65: allowed is 1 to 64, or 0 for 1");
    c = config("x"), c.quantum_us = 999;
    REFUSED(vgpu_create(&c, &vgpu), -EINVAL, "quantum_us 999: allowed is");
    c = config("x"), c.quantum_us = VGPU_QUANTUM_AUTO - 1;
    REFUSED(vgpu_create(&c, &vgpu), -EINVAL, "or VGPU_QUANTUM_AUTO");
    c = config("x"), c.device = 7;
    REFUSED(vgpu_create(&c, &vgpu), -ENODEV, "device 7: this process sees 1 GPU,");
    c = config("x"), c.device_uuid = "GPU-12";
    REFUSED(vgpu_create(&c, &vgpu), -EINVAL, "device_uuid GPU-12: allowed is");
    c = config("x"), c.device_uuid = "GPU-00000000-0000-0000-0000-000000000000";
    REFUSED(vgpu_create(&c, &vgpu), -ENODEV, "no such GPU");
    c = config("x"), c.memory_bytes = 1000;
    REFUSED(vgpu_create(&c, &vgpu), -EINVAL, "less than one chunk");
    c = config("x"), c.memory_bytes = 1ull << 50;
    REFUSED(vgpu_create(&c, &vgpu), -ENOMEM, "does not fit");
    c = config("x"), c.limit_percent = 101;
    REFUSED(vgpu_create(&c, &vgpu), -EINVAL, "limit_percent 101: allowed is 1 to 100");
    c = config("x"), c.priority = 4;
    REFUSED(vgpu_create(&c, &vgpu), -EINVAL, "priority 4: allowed is 1 to 3");
    REFUSED(vgpu_open(&(struct vgpu_config)VGPU_CONFIG_INIT, &vgpu), -EINVAL, "needs a name");
    c = config("x");
    REFUSED(vgpu_open(&c, &vgpu), -ENOENT, "no virtual GPU x");
    EQUAL(vgpu, NULL);
    newer.known.name = "newer";
    newer.unknown = 1;
    REFUSED(vgpu_create(&newer.known, &vgpu), -ENOTSUP, "does not know");
    newer.unknown = 0;
    DONE(vgpu_create(&newer.known, &vgpu));
    DONE(vgpu_destroy(vgpu));
    if (!strstr(vgpu_detail(), "does not know"))
        fail("after calls that succeed, what the last one that failed said has become \"%s\"", vgpu_detail());
}

static void names(void)
{
    struct vgpu *first = api_create("shared", 64 * MIB, 200), *second = NULL;
    struct vgpu_config c = config("shared");
    REFUSED(vgpu_create(&c, &second), -EEXIST, "shared exists already");
    c.weight = 100;
    REFUSED(vgpu_open(&c, &second), -EEXIST, "has 200");
    c.weight = 200;
    DONE(vgpu_open(&c, &second));
    // They are one virtual GPU: what one takes, the other lacks.
    void *memory;
    DONE(vgpu_malloc(first, 40 * MIB, &memory));
    EQUAL(api_free_bytes(second), 24 * MIB);
    DONE(vgpu_destroy(first));
    EQUAL(api_free_bytes(second), 64 * MIB);
    REFUSED(vgpu_create(&c, &first), -EEXIST, "exists already");
    DONE(vgpu_destroy(second));
    DONE(vgpu_create(&c, &first));
    DONE(vgpu_destroy(first));
}

static void calls(void)
{
    struct vgpu *vgpu = api_create("calls", 64 * MIB, 0), *other = api_create("other", 0, 0);
    struct vgpu_launch_config launch = VGPU_LAUNCH_INIT;
    void *memory;
    REFUSED(vgpu_malloc(NULL, 1, &memory), -EINVAL, "virtual GPU is NULL");
    REFUSED(vgpu_malloc(vgpu, 1, NULL), -EINVAL, "no place for the result");
    REFUSED(vgpu_memcpy(vgpu, memory, NULL, 1), -EINVAL, "the source of the copy");
    REFUSED(vgpu_launch(vgpu, NULL), -EINVAL, "NULL");
    REFUSED(vgpu_launch(vgpu, &launch), -EINVAL, "either function or host_function");
    launch.host_function = &launch;
    REFUSED(vgpu_launch(vgpu, &launch), -ENOTSUP, "shared CUDA runtime");
    REFUSED(vgpu_leave(vgpu), -EINVAL, "has not entered");
    DONE(vgpu_enter(vgpu));
    DONE(vgpu_enter(vgpu));
    REFUSED(vgpu_enter(other), -EDEADLK, "another virtual GPU");
    REFUSED(vgpu_destroy(vgpu), -EDEADLK, "in a turn");
    DONE(vgpu_leave(vgpu));
    DONE(vgpu_leave(vgpu));
    REFUSED(vgpu_leave(vgpu), -EINVAL, "has not entered");
    DONE(vgpu_destroy(NULL));
    DONE(vgpu_destroy(other));
    DONE(vgpu_destroy(vgpu));
}

static void children(void)
{
    struct vgpu *vgpu = api_create("parent", 64 * MIB, 0);
    void *memory;
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        REFUSED(vgpu_malloc(vgpu, 1, &memory), -ECHILD, "parent");
        REFUSED(vgpu_destroy(vgpu), -ECHILD, "parent");
        _exit(0);
    }
    waitpid(pid, &status, 0);
    EQUAL(status, 0);
    // No fork handler runs in this one.
    pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        exit(0);
    waitpid(pid, &status, 0);
    EQUAL(status, 0);
    DONE(vgpu_malloc(vgpu, 1, &memory));
    DONE(vgpu_destroy(vgpu));
}

// One process meets others in one pool, and does not make another where that was taken away.
static void without_pool(void)
{
    struct vgpu *vgpu = api_create("stays", 64 * MIB, 0), *other = NULL;
    struct vgpu_config c = config("other");
    if (unlink(getenv("VGPU_POOL")))
        fail("there is no pool");
    REFUSED(vgpu_create(&c, &other), -ESTALE, "removed or replaced");
    EQUAL(other, NULL);
    EQUAL(access(getenv("VGPU_POOL"), F_OK), -1);
    DONE(vgpu_destroy(vgpu));
}

int main(void)
{
    EQUAL(vgpu_detail()[0], 0);
    configurations();
    names();
    calls();
    children();
    without_pool();
    if (strcmp(vgpu_strerror(-ENOMEM), "the quota or the GPU has no room") != 0 || !vgpu_strerror(-9999)[0])
        fail("vgpu_strerror says \"%s\"", vgpu_strerror(-ENOMEM));
    puts("done");
    return 0;
}
