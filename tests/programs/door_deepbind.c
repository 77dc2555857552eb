// SPDX-License-Identifier: AGPL-3.0-or-later
// A runtime whose own dlsym is bound past every preloaded library: the library in argv[2], opened with RTLD_DEEPBIND. Allocates argv[1]
// MiB twice, frees, allocates again, and prints what each says; then the memory it is told of, in MiB.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) << 20, free_bytes, total_bytes;
    void *first = NULL, *second = NULL;
    void *library = argc > 2 ? dlopen(argv[2], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND) : NULL;
    int (*allocate)(void **, size_t) = library ? (int (*)(void **, size_t))dlsym(library, "cudaMalloc") : NULL;
    int (*release)(void *) = library ? (int (*)(void *))dlsym(library, "cudaFree") : NULL;
    int (*info)(size_t *, size_t *) = library ? (int (*)(size_t *, size_t *))dlsym(library, "cudaMemGetInfo") : NULL;
    if (!allocate || !release || !info) {
        puts(dlerror());
        return 1;
    }
    int a = allocate(&first, bytes);
    int b = allocate(&second, bytes);
    int c = release(first);
    int d = allocate(&first, bytes);
    printf("%d %d %d %d\n", a, b, c, d);
    if (info(&free_bytes, &total_bytes) == 0)
        printf("total %zu MiB\n", total_bytes >> 20);
    return 0;
}
