// SPDX-License-Identifier: AGPL-3.0-or-later
// A region shared by two programs: start one as `shared_region produce`, the other as `shared_region consume`.
//
//     cc shared_region.c $(pkg-config --cflags --libs vgpu)
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vgpu.h>

#define BYTES (4u << 20)
#define ROUNDS 5

static void check(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, vgpu_strerror(rc), vgpu_detail());
    exit(1);
}

static void produce(struct vgpu *vgpu)
{
    struct vgpu_region *region;
    uint64_t generation;

    check(vgpu_region_create(vgpu, "numbers", BYTES, &region), "vgpu_region_create");
    for (int i = 1; i <= ROUNDS; i++) {
        check(vgpu_memset_async(vgpu, vgpu_region_pointer(region), i, BYTES, NULL), "vgpu_memset_async");
        check(vgpu_region_publish(region, NULL, &generation), "vgpu_region_publish");
    }
    printf("published %d times; press Enter to end\n", ROUNDS);
    fflush(stdout);
    getchar();
    check(vgpu_region_close(region), "vgpu_region_close");
}

static void consume(struct vgpu *vgpu)
{
    struct vgpu_region *region;
    uint64_t generation = 0;
    unsigned char byte = 0;

    check(vgpu_region_open(vgpu, "numbers", VGPU_REGION_READONLY, &region), "vgpu_region_open");
    while (generation < ROUNDS) {
        check(vgpu_region_await(region, NULL, generation, -1, &generation), "vgpu_region_await");
        check(vgpu_memcpy(vgpu, &byte, vgpu_region_pointer(region), 1), "vgpu_memcpy");
    }
    printf("generation %llu: %d\n", (unsigned long long)generation, byte);
    check(vgpu_region_close(region), "vgpu_region_close");
}

int main(int argc, char **argv)
{
    struct vgpu_config config = VGPU_CONFIG_INIT;
    struct vgpu *vgpu;

    if (argc != 2 || (strcmp(argv[1], "produce") != 0 && strcmp(argv[1], "consume") != 0)) {
        fprintf(stderr, "usage: %s produce|consume\n", argv[0]);
        return 2;
    }
    config.memory_bytes = 64u << 20;
    check(vgpu_create(&config, &vgpu), "vgpu_create");
    if (argv[1][0] == 'p')
        produce(vgpu);
    else
        consume(vgpu);
    check(vgpu_destroy(vgpu), "vgpu_destroy");
    return 0;
}
