// SPDX-License-Identifier: AGPL-3.0-or-later
// Which of the installed driver's functions the library does not know.
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shim/classify.h"
#include "tools/doctor.h"

struct tally {
    unsigned exported, hooked, unknown;
    char names[256]; // of the unknown ones, as many as fit
};

static void count(struct tally *tally, const char *name)
{
    size_t length = strlen(tally->names);
    enum coverage coverage = classify(name, NULL);
    tally->exported++;
    tally->hooked += coverage == COVERAGE_HOOKED;
    tally->unknown += coverage == COVERAGE_UNKNOWN;
    if (coverage != COVERAGE_UNKNOWN)
        return;
    if (length + strlen(name) + sizeof ", ..." < sizeof tally->names)
        snprintf(tally->names + length, sizeof tally->names - length, "%s%s", length ? ", " : "", name);
    else if (length && tally->names[length - 1] != '.')
        snprintf(tally->names + length, sizeof tally->names - length, ", ...");
}

// Every function that the library exports, from its file's table of dynamic symbols; the dynamic linker has accepted the file,
// so its form is checked only for its bounds.
static void count_exports(const unsigned char *file, size_t bytes, struct tally *tally)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)file;
    if (bytes < sizeof *header || header->e_shoff > bytes || header->e_shnum * sizeof(Elf64_Shdr) > bytes - header->e_shoff)
        return;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(file + header->e_shoff);
    for (unsigned i = 0; i < header->e_shnum; i++) {
        const Elf64_Shdr *table = &sections[i];
        if (table->sh_type != SHT_DYNSYM || table->sh_link >= header->e_shnum || table->sh_offset + table->sh_size > bytes)
            continue;
        const Elf64_Shdr *strings = &sections[table->sh_link];
        const Elf64_Sym *symbols = (const Elf64_Sym *)(file + table->sh_offset);
        for (size_t k = 0; k < table->sh_size / sizeof *symbols; k++) {
            const char *name = (const char *)file + strings->sh_offset + symbols[k].st_name;
            if (symbols[k].st_shndx != SHN_UNDEF && ELF64_ST_TYPE(symbols[k].st_info) == STT_FUNC &&
                strncmp(name, "cu", 2) == 0)
                count(tally, name);
        }
    }
}

void doctor_coverage(void *library)
{
    struct link_map *object = NULL;
    struct stat status;
    struct tally tally = {0};
    int fd = dlinfo(library, RTLD_DI_LINKMAP, &object) == 0 ? open(object->l_name, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0 && fstat(fd, &status) == 0) {
        void *file = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file != MAP_FAILED)
            count_exports(file, (size_t)status.st_size, &tally);
    }
    if (fd >= 0)
        close(fd);
    if (tally.exported == 0)
        doctor_say(DOCTOR_WARN, "coverage", "what the driver exports cannot be read");
    else if (tally.unknown == 0)
        doctor_say(DOCTOR_OK, "coverage", "%u of the driver's %u functions are hooked; the others pass through", tally.hooked,
                   tally.exported);
    else
        doctor_say(DOCTOR_WARN, "coverage",
                   "%u of the driver's %u functions are newer than this version, and what goes through them is not limited: %s",
                   tally.unknown, tally.exported, tally.names);
}
