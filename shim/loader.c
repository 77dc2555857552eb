// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/loader.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

// The parts of a loaded object that a symbol lookup reads.
struct elf {
    Elf64_Addr base;
    const Elf64_Sym *symbols;
    const char *strings;
    const Elf64_Word *hash;
    const uint32_t *gnu_hash;
    const char *soname;
};

// Marks this library's place among the loaded objects.
static const char here;

// The dynamic linker has put addresses into most dynamic sections; read-only ones (the vDSO's) still have offsets.
static const void *elf_pointer(Elf64_Addr base, Elf64_Addr value)
{
    return (const void *)(value < base ? base + value : value);
}

static bool elf_open(struct elf *elf, Elf64_Addr base, const Elf64_Dyn *dynamic)
{
    Elf64_Word soname = 0;
    *elf = (struct elf){.base = base};
    for (const Elf64_Dyn *entry = dynamic; entry->d_tag != DT_NULL; entry++) {
        switch (entry->d_tag) {
        case DT_SYMTAB:
            elf->symbols = elf_pointer(base, entry->d_un.d_ptr);
            break;
        case DT_STRTAB:
            elf->strings = elf_pointer(base, entry->d_un.d_ptr);
            break;
        case DT_HASH:
            elf->hash = elf_pointer(base, entry->d_un.d_ptr);
            break;
        case DT_GNU_HASH:
            elf->gnu_hash = elf_pointer(base, entry->d_un.d_ptr);
            break;
        case DT_SONAME:
            soname = (Elf64_Word)entry->d_un.d_val;
            break;
        default:
            break;
        }
    }
    if (!elf->symbols || !elf->strings)
        return false;
    if (soname)
        elf->soname = elf->strings + soname;
    return true;
}

static void *elf_match(const struct elf *elf, const Elf64_Sym *symbol, const char *name)
{
    unsigned type = symbol->st_info & 0xf, bind = symbol->st_info >> 4;
    if (symbol->st_shndx == SHN_UNDEF || (type != STT_FUNC && type != STT_NOTYPE) || (bind != STB_GLOBAL && bind != STB_WEAK) ||
        !loader_is_same(elf->strings + symbol->st_name, name))
        return NULL;
    return (void *)(elf->base + symbol->st_value);
}

// The first definition of a function by this name, whatever its version.
static void *elf_find(const struct elf *elf, const char *name)
{
    void *found = NULL;
    if (elf->gnu_hash) {
        const uint32_t bucket_count = elf->gnu_hash[0], first = elf->gnu_hash[1], bloom_words = elf->gnu_hash[2];
        const uint32_t *buckets = elf->gnu_hash + 4 + bloom_words * (sizeof(Elf64_Addr) / sizeof(uint32_t));
        const uint32_t *chain = buckets + bucket_count;
        uint32_t hash = 5381;
        for (const char *c = name; *c; c++)
            hash = hash * 33 + (unsigned char)*c;
        uint32_t index = bucket_count ? buckets[hash % bucket_count] : 0;
        if (index < first)
            return NULL;
        do {
            if ((chain[index - first] | 1) == (hash | 1))
                found = elf_match(elf, &elf->symbols[index], name);
        } while (!found && !(chain[index++ - first] & 1));
    } else if (elf->hash) {
        const Elf64_Word bucket_count = elf->hash[0];
        const Elf64_Word *buckets = elf->hash + 2, *chain = buckets + bucket_count;
        uint32_t hash = 0;
        for (const char *c = name; *c; c++) {
            hash = (hash << 4) + (unsigned char)*c;
            hash = (hash ^ (hash >> 24 & 0xf0)) & 0x0fffffff;
        }
        for (Elf64_Word i = bucket_count ? buckets[hash % bucket_count] : 0; i && !found; i = chain[i])
            found = elf_match(elf, &elf->symbols[i], name);
    }
    return found;
}

// How many symbols the table has: only the hash tables tell.
static uint32_t elf_symbol_count(const struct elf *elf)
{
    if (elf->hash)
        return elf->hash[1];
    if (!elf->gnu_hash)
        return 0;
    const uint32_t bucket_count = elf->gnu_hash[0], first = elf->gnu_hash[1], bloom_words = elf->gnu_hash[2];
    const uint32_t *buckets = elf->gnu_hash + 4 + bloom_words * (sizeof(Elf64_Addr) / sizeof(uint32_t));
    const uint32_t *chain = buckets + bucket_count;
    uint32_t last = 0;
    for (uint32_t i = 0; i < bucket_count; i++)
        if (buckets[i] > last)
            last = buckets[i];
    if (last < first)
        return first;
    while (!(chain[last - first] & 1)) // the end of the last chain
        last++;
    return last + 1;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// A walk over the loaded objects in load order. `visit` must not call the dynamic linker: the walk holds its lock.
struct walk {
    bool (*visit)(struct walk *walk, const struct elf *elf, bool has_address, bool is_us); // true: stop
    const void *address;
    const char *name;
    bool passed;
    unsigned count;
    void *found;
};

static bool contains(const struct dl_phdr_info *info, const void *address)
{
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const Elf64_Phdr *header = &info->dlpi_phdr[i];
        if (header->p_type == PT_LOAD && (Elf64_Addr)address - (info->dlpi_addr + header->p_vaddr) < header->p_memsz)
            return true;
    }
    return false;
}

static int walk_object(struct dl_phdr_info *info, size_t size, void *argument)
{
    struct walk *walk = argument;
    struct elf elf;
    const Elf64_Dyn *dynamic = NULL;
    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            dynamic = (const Elf64_Dyn *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    if (!dynamic || !elf_open(&elf, info->dlpi_addr, dynamic))
        return 0;
    if (!elf.soname)
        elf.soname = base_name(info->dlpi_name ? info->dlpi_name : "");
    return walk->visit(walk, &elf, contains(info, walk->address), contains(info, &here));
}

static void walk_objects(struct walk *walk)
{
    dl_iterate_phdr(walk_object, walk);
}

// A function of the C library, by its symbol table. dlsym is in libc since glibc 2.34 and in libdl before; all its versions are
// one implementation. Reads the list of objects as a debugger does: it only grows at its end, and both libraries are in it from
// the start, or nothing preloaded would run.
static void *libc_function(const char *name)
{
    void *found = NULL;
    for (const struct link_map *object = _r_debug.r_map; object && !found; object = object->l_next) {
        struct elf elf;
        if (object->l_ld && elf_open(&elf, object->l_addr, object->l_ld) && elf.soname &&
            (loader_is_same(elf.soname, "libc.so.6") || loader_is_same(elf.soname, "libdl.so.2")))
            found = elf_find(&elf, name);
    }
    return found;
}

// Each slot below is filled by whoever comes first; all find the same. Relaxed order will do: the pointers lead to code.
static loader_dlsym *libc_dlsym_function(void)
{
    static loader_dlsym *function;
    loader_dlsym *known = __atomic_load_n(&function, __ATOMIC_RELAXED);
    if (__builtin_expect(known == NULL, 0)) {
        known = (loader_dlsym *)libc_function("dlsym");
        __atomic_store_n(&function, known, __ATOMIC_RELAXED);
    }
    return known;
}

// A failed call of ours has set dlerror(), which the program must not see.
static void *quiet(void *result)
{
    if (!result)
        (void)dlerror();
    return result;
}

static loader_dlvsym *libc_dlvsym_function(void)
{
    static loader_dlvsym *function;
    loader_dlvsym *known = __atomic_load_n(&function, __ATOMIC_RELAXED);
    if (__builtin_expect(known == NULL, 0)) {
        known = (loader_dlvsym *)libc_function("dlvsym");
        __atomic_store_n(&function, known, __ATOMIC_RELAXED);
    }
    return known;
}

void *loader_ask(void *handle, const char *name, const char *version)
{
    loader_dlsym *plain = version ? NULL : libc_dlsym_function();
    loader_dlvsym *versioned = version ? libc_dlvsym_function() : NULL;
    void *found = versioned ? versioned(handle, name, version) : plain ? plain(handle, name) : NULL;
    // Keeps the call from becoming a jump, which would make the caller's caller the one who asks.
    __asm__ volatile("");
    return found;
}

void *loader_find(void *handle, const char *name)
{
    int saved = errno;
    void *found = quiet(loader_ask(handle, name, NULL));
    errno = saved;
    return found;
}

// What follows this library, else the C library's; remembered in *slot.
static void *next_function(void **slot, const char *name)
{
    void *known = __atomic_load_n(slot, __ATOMIC_RELAXED);
    if (__builtin_expect(known == NULL, 0)) {
        known = loader_find(RTLD_NEXT, name);
        if (!known)
            known = libc_function(name);
        __atomic_store_n(slot, known, __ATOMIC_RELAXED);
    }
    return known;
}

loader_dlsym *loader_next_dlsym(void)
{
    static void *slot;
    return (loader_dlsym *)next_function(&slot, "dlsym");
}

loader_dlvsym *loader_next_dlvsym(void)
{
    static void *slot;
    return (loader_dlvsym *)next_function(&slot, "dlvsym");
}

loader_dlclose *loader_next_dlclose(void)
{
    static void *slot;
    return (loader_dlclose *)next_function(&slot, "dlclose");
}

void *loader_library(const char *soname)
{
    int saved = errno;
    void *handle = quiet(dlopen(soname, RTLD_LAZY | RTLD_NOLOAD));
    errno = saved;
    return handle;
}

struct link_map *loader_object(const void *address)
{
    Dl_info info;
    struct link_map *object = NULL;
    return dladdr1(address, &info, (void **)&object, RTLD_DL_LINKMAP) ? object : NULL;
}

const char *loader_soname(const struct link_map *object)
{
    struct elf elf;
    if (object->l_ld && elf_open(&elf, object->l_addr, object->l_ld) && elf.soname)
        return elf.soname;
    return base_name(object->l_name);
}

void loader_each_function(const struct link_map *object, void (*visit)(const char *name, void *argument), void *argument)
{
    struct elf elf;
    if (!object->l_ld || !elf_open(&elf, object->l_addr, object->l_ld))
        return;
    for (uint32_t i = 0, count = elf_symbol_count(&elf); i < count; i++)
        if (elf_match(&elf, &elf.symbols[i], elf.strings + elf.symbols[i].st_name))
            visit(elf.strings + elf.symbols[i].st_name, argument);
}

bool loader_defines(const struct link_map *object, const char *name)
{
    struct elf elf;
    return object->l_ld && elf_open(&elf, object->l_addr, object->l_ld) && elf_find(&elf, name);
}

void *loader_pin(const struct link_map *object)
{
    void *handle = loader_library(object->l_name[0] ? object->l_name : NULL);
    struct link_map *found = NULL;
    if (handle && (dlinfo(handle, RTLD_DI_LINKMAP, &found) != 0 || found != object)) {
        loader_next_dlclose()(handle);
        handle = NULL;
    }
    return handle;
}

void *loader_find_from(const void *address, const char *name)
{
    int saved = errno;
    struct link_map *object = loader_object(address);
    void *handle = object ? loader_pin(object) : NULL;
    void *found = handle ? loader_find(handle, name) : NULL;
    if (handle)
        loader_next_dlclose()(handle);
    errno = saved;
    return found;
}

static bool visit_count(struct walk *walk, const struct elf *elf, bool has_address, bool is_us)
{
    (void)has_address;
    (void)is_us;
    walk->count += strncmp(elf->soname, walk->name, strlen(walk->name)) == 0;
    return false;
}

unsigned loader_count(const char *prefix)
{
    struct walk walk = {.visit = visit_count, .address = &here, .name = prefix};
    walk_objects(&walk);
    return walk.count;
}

static bool visit_after(struct walk *walk, const struct elf *elf, bool has_address, bool is_us)
{
    if (has_address)
        walk->passed = true;
    else if (walk->passed && !is_us)
        walk->found = elf_find(elf, walk->name);
    return walk->found != NULL;
}

void *loader_find_after(const void *address, const char *name)
{
    struct walk walk = {.visit = visit_after, .address = address, .name = name};
    walk_objects(&walk);
    return walk.found;
}

static bool visit_precedes(struct walk *walk, const struct elf *elf, bool has_address, bool is_us)
{
    (void)elf;
    walk->passed |= has_address && !is_us;
    return has_address || is_us;
}

bool loader_precedes_us(const void *address)
{
    struct walk walk = {.visit = visit_precedes, .address = address};
    walk_objects(&walk);
    return walk.passed;
}

bool loader_is_main(const void *address)
{
    const struct link_map *object = loader_object(address);
    return object && object->l_prev == NULL;
}
