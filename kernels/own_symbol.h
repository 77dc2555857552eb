// Finds a function in a library itself, whatever else defines a function of that name.
// SPDX-License-Identifier: AGPL-3.0-or-later
//
// dlsym answers with what a preloaded library wants to be found; a library's own symbol table does not.
#ifndef KERNELS_OWN_SYMBOL_H
#define KERNELS_OWN_SYMBOL_H

#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct own_tables {
    const ElfW(Sym) * symbols;
    const char *names;
    const uint32_t *hash, *gnu_hash; // one of them is enough
};

static inline struct own_tables own_tables_of(const struct link_map *library)
{
    struct own_tables tables = {NULL, NULL, NULL, NULL};

    for (const ElfW(Dyn) *entry = library->l_ld; entry->d_tag != DT_NULL; entry++) {
        // The dynamic loader has made most of these absolute, but not those of a read-only section.
        uintptr_t address = entry->d_un.d_ptr;
        if (address < library->l_addr)
            address += library->l_addr;
        switch (entry->d_tag) {
        case DT_SYMTAB:
            tables.symbols = (const ElfW(Sym) *)address;
            break;
        case DT_STRTAB:
            tables.names = (const char *)address;
            break;
        case DT_HASH:
            tables.hash = (const uint32_t *)address;
            break;
        case DT_GNU_HASH:
            tables.gnu_hash = (const uint32_t *)address;
            break;
        }
    }
    return tables;
}

static inline bool own_symbol_is(const struct own_tables *tables, uint32_t at, const char *name)
{
    return tables->symbols[at].st_shndx != SHN_UNDEF && strcmp(tables->names + tables->symbols[at].st_name, name) == 0;
}

// The number of a symbol that the library defines, 0 for none.
static inline uint32_t own_symbol_number(const struct own_tables *tables, const char *name)
{
    if (!tables->symbols || !tables->names)
        return 0;
    if (tables->hash) { // its second word is the number of symbols
        for (uint32_t at = 1; at < tables->hash[1]; at++)
            if (own_symbol_is(tables, at, name))
                return at;
    } else if (tables->gnu_hash && tables->gnu_hash[0]) {
        // Bucket count, first symbol with a hash, words of the Bloom filter, its shift; filter, buckets, chains.
        const uint32_t *head = tables->gnu_hash, *buckets = head + 4 + head[2] * (sizeof(ElfW(Addr)) / 4);
        const uint32_t *chains = buckets + head[0] - head[1];
        uint32_t hash = 5381;
        for (const char *c = name; *c; c++)
            hash = hash * 33 + (unsigned char)*c;
        for (uint32_t at = buckets[hash % head[0]]; at >= head[1]; at++) {
            if (own_symbol_is(tables, at, name))
                return at;
            if (chains[at] & 1) // the last of its bucket
                break;
        }
    }
    return 0;
}

// The address of `name` in the first loaded library whose file's name begins with `library`, or NULL.
static inline void *own_symbol(const char *library, const char *name)
{
    void *program = dlopen(NULL, RTLD_LAZY);
    struct link_map *map = NULL;

    if (!program || dlinfo(program, RTLD_DI_LINKMAP, &map))
        return NULL;
    for (; map; map = map->l_next) {
        const char *slash = strrchr(map->l_name, '/');
        if (strncmp(slash ? slash + 1 : map->l_name, library, strlen(library)) != 0)
            continue;
        struct own_tables tables = own_tables_of(map);
        uint32_t number = own_symbol_number(&tables, name);
        if (number)
            return (void *)(map->l_addr + tables.symbols[number].st_value);
    }
    return NULL;
}

#endif
