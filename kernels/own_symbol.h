// Finds a function in a library itself, whatever else defines a function of that name.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// dlsym answers with what a preloaded library wants to be found; a library's own symbol table does not.
#ifndef KERNELS_OWN_SYMBOL_H
#define KERNELS_OWN_SYMBOL_H

#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <string.h>

struct own_tables {
    const ElfW(Sym) * symbols;
    const char *names;
    const uint32_t *gnu_hash;
};

static inline struct own_tables own_tables_of(const struct link_map *library)
{
    struct own_tables tables = {NULL, NULL, NULL};

    for (const ElfW(Dyn) *entry = library->l_ld; entry->d_tag != DT_NULL; entry++) {
        // The dynamic loader has made most of these absolute, but not those of a read-only section.
        uintptr_t address = entry->d_un.d_ptr;
        if (address < library->l_addr)
            address += library->l_addr;
        if (entry->d_tag == DT_SYMTAB)
            tables.symbols = (const ElfW(Sym) *)address;
        else if (entry->d_tag == DT_STRTAB)
            tables.names = (const char *)address;
        else if (entry->d_tag == DT_GNU_HASH)
            tables.gnu_hash = (const uint32_t *)address;
    }
    return tables;
}

// The address of `name` in the first loaded library whose file's name begins with `library`, or NULL.
static inline void *own_symbol(const char *library, const char *name)
{
    void *program = dlopen(NULL, RTLD_LAZY);
    struct link_map *map = NULL;
    uint32_t hash = 5381;

    if (!program || dlinfo(program, RTLD_DI_LINKMAP, &map))
        return NULL;
    for (const char *c = name; *c; c++)
        hash = hash * 33 + (unsigned char)*c;
    for (; map; map = map->l_next) {
        const char *slash = strrchr(map->l_name, '/');
        if (strncmp(slash ? slash + 1 : map->l_name, library, strlen(library)) != 0)
            continue;
        struct own_tables tables = own_tables_of(map);
        if (!tables.symbols || !tables.names || !tables.gnu_hash)
            continue;
        // Bucket count, first symbol with a hash, words of the Bloom filter, its shift; filter, buckets, chains.
        const uint32_t *head = tables.gnu_hash, *buckets = head + 4 + head[2] * (sizeof(ElfW(Addr)) / 4);
        const uint32_t *chains = buckets + head[0];
        uint32_t at = head[0] ? buckets[hash % head[0]] : 0;
        for (; at >= head[1]; at++) {
            if ((chains[at - head[1]] | 1) == (hash | 1) && tables.symbols[at].st_value &&
                strcmp(tables.names + tables.symbols[at].st_name, name) == 0)
                return (void *)(map->l_addr + tables.symbols[at].st_value);
            if (chains[at - head[1]] & 1)
                break;
        }
    }
    return NULL;
}

#endif
