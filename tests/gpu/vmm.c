// Virtual memory management: physical memory made by one process, exported as a descriptor, mapped and written by another one.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include <cuda.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "tests/gpu/check.h"

#define BYTES (64ull << 20)
#define WORDS (BYTES / 4)

static void send_descriptor(int channel, int fd)
{
    char byte = 0, control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    EXPECT(sendmsg(channel, &message, 0) == 1);
}

// -1 when the other side is done.
static int receive_descriptor(int channel)
{
    int fd;
    char byte, control[CMSG_SPACE(sizeof fd)];
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(channel, &message, 0) != 1)
        return -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    EXPECT(header != NULL);
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

static void start(CUdevice *device)
{
    CUcontext context;
    OK(cuInit(0));
    OK(cuDeviceGet(device, 0));
    OK(cuDevicePrimaryCtxRetain(&context, *device));
    OK(cuCtxSetCurrent(context));
}

static CUdeviceptr map(CUmemGenericAllocationHandle memory, CUdevice device)
{
    CUdeviceptr address;
    CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device},
                              .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    OK(cuMemAddressReserve(&address, BYTES, 0, 0, 0));
    OK(cuMemMap(address, BYTES, 0, memory, 0));
    OK(cuMemSetAccess(address, BYTES, &access, 1));
    return address;
}

static void unmap(CUdeviceptr address)
{
    OK(cuMemUnmap(address, BYTES));
    OK(cuMemAddressFree(address, BYTES));
}

static int importer(int channel)
{
    CUdevice device;
    start(&device);
    for (int fd; (fd = receive_descriptor(channel)) >= 0;) {
        CUmemGenericAllocationHandle memory;
        OK(cuMemImportFromShareableHandle(&memory, (void *)(uintptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
        close(fd);
        CUdeviceptr address = map(memory, device);
        OK(cuMemsetD32(address + BYTES / 2, 0x12345678, WORDS / 4));
        OK(cuCtxSynchronize());
        unmap(address);
        OK(cuMemRelease(memory));
        EXPECT(write(channel, "", 1) == 1);
    }
    return 0;
}

int main(void)
{
    int channel[2], status, supported;
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
    pid_t child = fork(); // before either has called CUDA
    EXPECT(child >= 0);
    close(channel[child ? 1 : 0]);
    if (!child)
        return importer(channel[1]);
    CUdevice device;
    start(&device);
    OK(cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, device));
    if (!supported)
        skip("the GPU's memory cannot be exported as a file descriptor");
    CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                      .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
    uint32_t *values = malloc(BYTES);
    EXPECT(values != NULL);
    while (again()) {
        CUmemGenericAllocationHandle memory;
        int fd;
        char answer;
        OK(cuMemCreate(&memory, BYTES, &properties, 0));
        CUdeviceptr address = map(memory, device);
        OK(cuMemsetD32(address, 0x9abcdef0, WORDS));
        OK(cuCtxSynchronize());
        OK(cuMemExportToShareableHandle(&fd, memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
        send_descriptor(channel[0], fd);
        close(fd);
        EXPECT(read(channel[0], &answer, 1) == 1);
        OK(cuMemcpyDtoH(values, address, BYTES));
        result("exported memory", values, BYTES);
        unmap(address);
        OK(cuMemRelease(memory));
    }
    close(channel[0]);
    EXPECT(waitpid(child, &status, 0) == child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 0;
}
