// SPDX-License-Identifier: AGPL-3.0-or-later
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/region.h"

// Past the end of the file: a lock needs no content.
#define LOCK_BYTE (1ll << 40)

uint64_t page_random(void)
{
    uint64_t value = 0;
    while (value == 0)
        if (getrandom(&value, sizeof value, 0) != (ssize_t)sizeof value)
            value = clock_now_ns() ^ (uint64_t)getpid() << 48;
    return value;
}

int page_create(uint64_t bytes, const uint8_t uuid[POOL_UUID_BYTES], int *out)
{
    struct region_page page = {.magic = REGION_MAGIC, .id = page_random(), .bytes = bytes};
    memcpy(page.uuid, uuid, sizeof page.uuid);
    int fd = descriptor_apart(memfd_create("vgpu-region", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    // Sealed: those who share it cannot shorten it under the others' feet.
    if (fd < 0 || ftruncate(fd, REGION_PAGE_BYTES) < 0 || pwrite(fd, &page, sizeof page, 0) != (ssize_t)sizeof page ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int reason = errno;
        if (fd >= 0)
            close(fd);
        return fail(-reason, "cannot make the page of a region: %s", strerror(reason));
    }
    *out = fd;
    return 0;
}

// Opens the file anew: locks belong to descriptions, and a descriptor from a socket shares its sender's.
static int reopen(int fd)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

static bool lock(int fd)
{
    struct flock request = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_BYTE, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &request) == 0;
}

static struct region_page *map(int fd, struct region_page *at)
{
    void *page = mmap(at, REGION_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | (at ? MAP_FIXED : 0), fd, 0);
    if (page == MAP_FAILED)
        return NULL;
    madvise(page, REGION_PAGE_BYTES, MADV_DONTFORK);
    return page;
}

int page_map(int fd, struct region_page **out, bool *owned)
{
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &status) < 0 || status.st_size != REGION_PAGE_BYTES || seals < 0 || !(seals & F_SEAL_SHRINK))
        return fail(-EPROTO, "what came over the region's socket is not a region's page");
    int own = reopen(fd);
    if (own < 0)
        return fail(-errno, "cannot open the page of a region: %s", strerror(errno));
    *owned = lock(own);
    struct region_page *page = map(own, NULL);
    close(own); // the mapping keeps the lock
    if (!page)
        return fail(-ENOMEM, "cannot map the page of a region");
    if (page->magic != REGION_MAGIC) {
        page_unmap(page);
        return fail(-EPROTO, "the page of a region is of another version of this library");
    }
    *out = page;
    return 0;
}

bool page_claim(int fd, struct region_page *page)
{
    int own = reopen(fd);
    bool claimed = own >= 0 && lock(own) && map(own, page);
    if (own >= 0)
        close(own);
    return claimed;
}

void page_unmap(struct region_page *page)
{
    munmap(page, REGION_PAGE_BYTES);
}
