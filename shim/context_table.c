// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/context_table.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/cancel.h"
#include "base/hash.h"

struct context {
    CUcontext handle;
    struct device *device;
    uint64_t charged_bytes;
    size_t first_limits[CONTEXT_LIMITS];  // 0: not asked yet
    int64_t growth_bytes[CONTEXT_LIMITS]; // charged where positive
    enum context_kind kind;
    bool retired;
    uint32_t users;
    uint32_t attached;    // cuCtxAttach, and the creation
    struct mark *marks;   // all of them, by `sibling`
    struct mark *unused;  // by `next`
    struct mark *earlier; // by `next`
    UT_hash_handle hh;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t unused = PTHREAD_COND_INITIALIZER; // some context has no users any more
static struct context *contexts;

static struct context *find(CUcontext handle)
{
    struct context *context;
    HASH_FIND_PTR(contexts, &handle, context);
    return context;
}

int context_add(CUcontext handle, struct device *device, uint64_t charged_bytes, enum context_kind kind)
{
    struct context *context = calloc(1, sizeof *context);
    if (!context)
        return -ENOMEM;
    *context =
        (struct context){.handle = handle, .device = device, .charged_bytes = charged_bytes, .kind = kind, .attached = 1};
    pthread_mutex_lock(&mutex);
    HASH_ADD_PTR(contexts, handle, context);
    bool added = context->hh.tbl != NULL;
    pthread_mutex_unlock(&mutex);
    if (!added)
        free(context);
    return added ? 0 : -ENOMEM;
}

bool context_known(CUcontext handle, bool *primary)
{
    pthread_mutex_lock(&mutex);
    struct context *context = find(handle);
    bool known = context && context->kind != CONTEXT_GREEN;
    if (known && primary)
        *primary = context->kind == CONTEXT_PRIMARY;
    pthread_mutex_unlock(&mutex);
    return known;
}

CUcontext context_grown(CUcontext handle)
{
    pthread_mutex_lock(&mutex);
    const struct context *context = find(handle);
    const struct device *green_on = context && context->kind == CONTEXT_GREEN ? context->device : NULL;
    pthread_mutex_unlock(&mutex);
    return green_on ? context_primary(green_on) : context ? handle : NULL;
}

// What the context takes beyond what it took at its creation.
static int64_t charged_growth(const struct context *context)
{
    const int64_t *growth = context->growth_bytes;
    int64_t local = growth[CONTEXT_STACK] > growth[CONTEXT_FRAMES] ? growth[CONTEXT_STACK] : growth[CONTEXT_FRAMES];
    return (local > 0 ? local : 0) + (growth[CONTEXT_HEAP] > 0 ? growth[CONTEXT_HEAP] : 0);
}

size_t context_first_limit(CUcontext handle, enum context_limit limit, size_t now)
{
    pthread_mutex_lock(&mutex);
    struct context *context = find(handle);
    if (context && !context->first_limits[limit])
        context->first_limits[limit] = now;
    size_t first = context ? context->first_limits[limit] : now;
    pthread_mutex_unlock(&mutex);
    return first;
}

int64_t context_grow(CUcontext handle, enum context_limit limit, int64_t bytes)
{
    int64_t change = 0;
    pthread_mutex_lock(&mutex);
    struct context *context = find(handle);
    if (context) {
        int64_t before = charged_growth(context);
        context->growth_bytes[limit] = bytes;
        change = charged_growth(context) - before;
    }
    pthread_mutex_unlock(&mutex);
    return change;
}

int64_t context_growth(CUcontext handle, enum context_limit limit)
{
    pthread_mutex_lock(&mutex);
    const struct context *context = find(handle);
    int64_t growth = context ? context->growth_bytes[limit] : 0;
    pthread_mutex_unlock(&mutex);
    return growth;
}

uint32_t context_attach(CUcontext handle, int delta)
{
    pthread_mutex_lock(&mutex);
    struct context *context = find(handle);
    uint32_t left = context ? context->attached += (uint32_t)delta : 0;
    pthread_mutex_unlock(&mutex);
    return left;
}

CUcontext context_primary(const struct device *device)
{
    CUcontext handle = NULL;
    pthread_mutex_lock(&mutex);
    for (struct context *context = contexts; context && !handle; context = context->hh.next)
        if (context->kind == CONTEXT_PRIMARY && context->device == device)
            handle = context->handle;
    pthread_mutex_unlock(&mutex);
    return handle;
}

static void disown(struct mark *list)
{
    for (; list; list = list->next)
        list->context = NULL;
}

// Marks on the context's own lists go with it. Those that somebody holds outlive it, until mark_drop frees them.
static void kill_marks(struct context *context)
{
    disown(context->unused);
    disown(context->earlier);
    for (struct mark *mark = context->marks, *next; mark; mark = next) {
        next = mark->sibling;
        if (mark->context)
            mark->dead = true;
        else
            free(mark);
    }
    context->marks = context->unused = context->earlier = NULL;
}

bool context_retire(CUcontext handle)
{
    int cancel = cancel_disable();
    pthread_mutex_lock(&mutex);
    struct context *context = find(handle);
    if (context) {
        context->retired = true;
        while (context->users)
            pthread_cond_wait(&unused, &mutex);
        kill_marks(context);
    }
    pthread_mutex_unlock(&mutex);
    cancel_restore(cancel);
    return context != NULL;
}

bool context_retired(CUcontext handle)
{
    pthread_mutex_lock(&mutex);
    const struct context *context = find(handle);
    bool retired = context && context->retired;
    pthread_mutex_unlock(&mutex);
    return retired;
}

void context_revive(CUcontext handle)
{
    pthread_mutex_lock(&mutex);
    struct context *context = find(handle);
    if (context)
        context->retired = false;
    pthread_mutex_unlock(&mutex);
}

void context_remove(CUcontext handle)
{
    pthread_mutex_lock(&mutex);
    struct context *context = find(handle);
    if (context)
        HASH_DEL(contexts, context);
    pthread_mutex_unlock(&mutex);
    if (!context)
        return;
    holdings_give(&context->device->holdings, context->charged_bytes + (uint64_t)charged_growth(context));
    free(context);
}

struct context *context_use(CUcontext handle)
{
    pthread_mutex_lock(&mutex);
    struct context *context = find(handle);
    if (context && context->retired)
        context = NULL;
    if (context)
        context->users++;
    pthread_mutex_unlock(&mutex);
    return context;
}

static void release_locked(struct context *context)
{
    if (--context->users == 0 && context->retired)
        pthread_cond_broadcast(&unused);
}

struct context *context_use_next(const struct device *device, struct context *previous)
{
    pthread_mutex_lock(&mutex);
    // Still in the table: a context is removed only after it was retired, and that waits for us.
    struct context *context = previous ? previous->hh.next : contexts;
    while (context && (context->device != device || context->retired))
        context = context->hh.next;
    if (context)
        context->users++;
    if (previous)
        release_locked(previous);
    pthread_mutex_unlock(&mutex);
    return context;
}

void context_release(struct context *context)
{
    pthread_mutex_lock(&mutex);
    release_locked(context);
    pthread_mutex_unlock(&mutex);
}

CUcontext context_handle(const struct context *context)
{
    return context->handle;
}

bool context_is_green(const struct context *context)
{
    return context->kind == CONTEXT_GREEN;
}

CUcontext context_whole(const struct context *context)
{
    return context_is_green(context) ? context_primary(context->device) : context->handle;
}

struct mark *mark_take(struct context *context)
{
    pthread_mutex_lock(&mutex);
    struct mark *mark = context->unused;
    if (mark)
        context->unused = mark->next;
    pthread_mutex_unlock(&mutex);
    if (mark)
        return mark;

    mark = calloc(1, sizeof *mark);
    if (!mark || REAL(cuEventCreate)(&mark->event, CU_EVENT_DISABLE_TIMING) != CUDA_SUCCESS) {
        free(mark);
        return NULL;
    }
    mark->context = context;
    pthread_mutex_lock(&mutex);
    mark->sibling = context->marks;
    context->marks = mark;
    pthread_mutex_unlock(&mutex);
    return mark;
}

bool mark_complete(struct mark *mark)
{
    pthread_mutex_lock(&mutex);
    bool complete = mark->dead || REAL(cuEventQuery)(mark->event) != CUDA_ERROR_NOT_READY;
    pthread_mutex_unlock(&mutex);
    return complete;
}

void mark_drop(struct mark *mark)
{
    pthread_mutex_lock(&mutex);
    if (mark->dead) {
        free(mark);
    } else {
        mark->next = mark->context->unused;
        mark->context->unused = mark;
    }
    pthread_mutex_unlock(&mutex);
}

static void drop_earlier(struct context *context, struct mark **link)
{
    struct mark *mark = *link;
    *link = mark->next;
    mark->next = context->unused;
    context->unused = mark;
}

void context_keep_earlier(struct context *context, struct mark *mark, bool whole, const void *owner)
{
    pthread_mutex_lock(&mutex);
    for (struct mark **link = &context->earlier; *link;) {
        if (whole || (owner && (*link)->owner == owner))
            drop_earlier(context, link);
        else
            link = &(*link)->next;
    }
    mark->owner = owner;
    mark->next = context->earlier;
    context->earlier = mark;
    pthread_mutex_unlock(&mutex);
}

static bool earlier_done(struct context *context)
{
    while (context->earlier) {
        if (REAL(cuEventQuery)(context->earlier->event) == CUDA_ERROR_NOT_READY)
            return false;
        drop_earlier(context, &context->earlier);
    }
    return true;
}

bool contexts_earlier_done(const struct device *device)
{
    bool done = true;
    pthread_mutex_lock(&mutex);
    for (struct context *context = contexts; context && done; context = context->hh.next)
        if (context->device == device && !context->retired)
            done = earlier_done(context);
    pthread_mutex_unlock(&mutex);
    return done;
}

void contexts_reset(void)
{
    // Not freed: another thread of the parent may have been in the middle of a change when it forked.
    pthread_mutex_init(&mutex, NULL);
    pthread_cond_init(&unused, NULL);
    contexts = NULL;
}
