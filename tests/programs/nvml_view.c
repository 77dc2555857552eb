// SPDX-License-Identifier: AGPL-3.0-or-later
// nvml_view [cuda [MEGABYTES]] [stay]: what NVML tells of each GPU, by every version of each function:
//
//     INDEX: total MIB used MIB busy PERCENT compute PID=MIB ... graphics PID ... mps PID ... samples PID ... usages PID ...
//
// With "cuda" it first initialises CUDA and makes a context on every GPU that it sees, with so much memory. With "stay" it stays.
// All versions must agree. nvml_view watch: prints the most that GPU 0 was busy, in percent, in two seconds.
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"

#define ROOM 64

struct process_v1 {
    unsigned pid;
    unsigned long long bytes;
};

struct process_v2 {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
};

struct detail {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
    unsigned long long protected_bytes;
};

static void *library;

static void *function(const char *prefix, const char *middle, const char *suffix)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s%s", prefix, middle, suffix);
    void *found = dlsym(library, name);
    if (!found)
        fail("no %s", name);
    return found;
}

#define NVML(type, name) ((type)function("nvml", name, ""))

typedef int get_list(void *device, unsigned *count, void *processes);

static void expect_same(unsigned count, unsigned other, const struct process_v2 *list, unsigned i, unsigned pid,
                        unsigned long long bytes)
{
    if (count != other || list[i].pid != pid || list[i].bytes != bytes)
        fail("versions differ: %u processes or %u; %u with %llu bytes or %u with %llu", count, other, list[i].pid,
             list[i].bytes, pid, bytes);
}

// One list by all versions of its function, with the question for the room that it takes.
static void print_list(void *device, const char *kind, const char *label, unsigned mode)
{
    struct process_v1 first[ROOM];
    struct process_v2 second[ROOM], third[ROOM];
    struct detail details[ROOM];
    struct {
        unsigned version, mode, count;
        struct detail *details;
    } detail_list = {.mode = mode, .count = ROOM, .details = details};
    unsigned room = 0, count_1 = ROOM, count_2 = ROOM, count_3 = ROOM;
    detail_list.version = sizeof detail_list | 1u << 24;
    int asked = ((get_list *)function("nvmlDeviceGet", kind, "RunningProcesses_v3"))(device, &room, NULL);
    if (((get_list *)function("nvmlDeviceGet", kind, "RunningProcesses"))(device, &count_1, first) ||
        ((get_list *)function("nvmlDeviceGet", kind, "RunningProcesses_v2"))(device, &count_2, second) ||
        ((get_list *)function("nvmlDeviceGet", kind, "RunningProcesses_v3"))(device, &count_3, third) ||
        NVML(int (*)(void *, void *), "DeviceGetRunningProcessDetailList")(device, &detail_list))
        fail("%s: no answer", kind);
    if (asked != (count_3 ? 7 : 0) || room != count_3)
        fail("%s: %d and %u processes without room, %u with", kind, asked, room, count_3);
    printf(" %s", label);
    for (unsigned i = 0; i < count_3; i++) {
        expect_same(count_3, count_1, third, i, first[i].pid, first[i].bytes);
        expect_same(count_3, count_2, third, i, second[i].pid, second[i].bytes);
        expect_same(count_3, detail_list.count, third, i, details[i].pid, details[i].bytes);
        printf(" %u=%llu", third[i].pid, third[i].bytes >> 20);
    }
}

static void print_samples(void *device)
{
    struct {
        unsigned pid;
        unsigned long long timestamp;
        unsigned percent[4];
    } samples[ROOM];
    struct {
        unsigned long long timestamp;
        unsigned pid, percent[6];
    } usages[ROOM];
    struct {
        unsigned version, count;
        unsigned long long since;
        void *usages;
    } info = {.count = ROOM, .usages = usages};
    unsigned count = ROOM;
    info.version = sizeof info | 1u << 24;
    int rc = NVML(int (*)(void *, void *, unsigned *, unsigned long long), "DeviceGetProcessUtilization")(device, samples,
                                                                                                          &count, 0);
    int rc_info = NVML(int (*)(void *, void *), "DeviceGetProcessesUtilizationInfo")(device, &info);
    printf(" samples");
    for (unsigned i = 0; rc == 0 && i < count; i++)
        printf(" %u", samples[i].pid);
    printf(" usages");
    for (unsigned i = 0; rc_info == 0 && i < info.count; i++)
        printf(" %u", usages[i].pid);
}

static void print_device(unsigned index)
{
    void *device;
    struct {
        unsigned long long total, free, used;
    } memory;
    unsigned utilization[2] = {0};
    if (NVML(int (*)(unsigned, void **), "DeviceGetHandleByIndex_v2")(index, &device) ||
        NVML(int (*)(void *, void *), "DeviceGetMemoryInfo")(device, &memory) ||
        NVML(int (*)(void *, void *), "DeviceGetUtilizationRates")(device, utilization))
        fail("no answer");
    printf("%u: total %llu used %llu busy %u", index, memory.total >> 20, memory.used >> 20, utilization[0]);
    print_list(device, "Compute", "compute", 0);
    print_list(device, "Graphics", "graphics", 1);
    print_list(device, "MPSCompute", "mps", 2);
    print_samples(device);
    putchar('\n');
}

static void use_cuda(size_t bytes)
{
    int count;
    CUcontext context;
    CUdeviceptr address;
    OK(cuInit(0));
    OK(cuDeviceGetCount(&count));
    for (int i = 0; i < count; i++) {
        OK(cuDevicePrimaryCtxRetain(&context, i));
        OK(cuCtxSetCurrent(context));
        if (bytes)
            OK(cuMemAlloc(&address, bytes));
    }
}

static unsigned watch(void)
{
    void *device;
    unsigned most = 0, utilization[2] = {0};
    if (NVML(int (*)(unsigned, void **), "DeviceGetHandleByIndex_v2")(0, &device))
        fail("no answer");
    for (int look = 0; look < 10; look++, usleep(200000)) {
        if (NVML(int (*)(void *, void *), "DeviceGetUtilizationRates")(device, utilization))
            fail("no answer");
        if (utilization[0] > most)
            most = utilization[0];
    }
    return most;
}

int main(int argc, char **argv)
{
    unsigned count;
    bool stay = argc > 1 && strcmp(argv[argc - 1], "stay") == 0;
    if (argc > 1 && strcmp(argv[1], "cuda") == 0)
        use_cuda(argc > 2 ? strtoull(argv[2], NULL, 10) * MIB : 0);
    library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!library || NVML(int (*)(void), "Init_v2")() || NVML(int (*)(unsigned *), "DeviceGetCount_v2")(&count))
        fail("no NVML");
    if (argc > 1 && strcmp(argv[1], "watch") == 0) {
        printf("%u\n", watch());
        return 0;
    }
    for (unsigned i = 0; i < count; i++)
        print_device(i);
    fflush(stdout);
    while (stay)
        pause();
    return 0;
}
