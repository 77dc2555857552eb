// SPDX-License-Identifier: AGPL-3.0-or-later
#include "shim/measure.h"

#include <pthread.h>

#include "base/cancel.h"
#include "base/clock.h"
#include "shim/stream_table.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static bool look(uint64_t *free_bytes)
{
    size_t available, total;
    CUstreamCaptureMode mode = capture_relax();
    CUresult rc = REAL(cuMemGetInfo_v2)(&available, &total);
    capture_restore(mode);
    if (rc == CUDA_SUCCESS)
        *free_bytes = available;
    return rc == CUDA_SUCCESS;
}

static bool lock(uint64_t patience_ns)
{
    if (pthread_mutex_trylock(&mutex) == 0)
        return true;
    if (!patience_ns)
        return false;
    struct timespec until = clock_timespec(clock_now_ns() + patience_ns);
    return pthread_mutex_clocklock(&mutex, CLOCK_MONOTONIC, &until) == 0;
}

void measure_begin(struct measurement *measurement, struct device *device, uint64_t patience_ns)
{
    measurement->cancel = cancel_disable();
    measurement->locked = lock(patience_ns);
    measurement->device = device;
    measure_again(measurement);
}

void measure_again(struct measurement *measurement)
{
    struct device *device = measurement->device;
    measurement->held_bytes = holdings_of_all(&device->holdings, &measurement->stamp);
    measurement->known = device_current() == device && look(&measurement->free_bytes);
}

bool measure_end(const struct measurement *measurement, int64_t *lost_bytes)
{
    uint64_t after, stamp;
    bool known = measurement->known && look(&after);
    uint64_t held = holdings_of_all(&measurement->device->holdings, &stamp);
    *lost_bytes = known ? (int64_t)(measurement->free_bytes - after) - (int64_t)(held - measurement->held_bytes) : 0;
    return measurement->locked && known && stamp == measurement->stamp;
}

void measure_leave(const struct measurement *measurement)
{
    if (measurement->locked)
        pthread_mutex_unlock(&mutex);
    cancel_restore(measurement->cancel);
}

void measure_reset(void)
{
    pthread_mutex_init(&mutex, NULL);
}
