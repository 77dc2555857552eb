// Passing the simulated GPU's engine between processes, and letting GPU time pass.
// SPDX-License-Identifier: AGPL-3.0-or-later
#include "simgpu/driver/engine.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "simgpu/driver/api.h"
#include "simgpu/state/state.h"

// How long past its slice an unresponsive but live holder keeps the engine: long against a scheduling delay on a busy machine.
#define GRACE_NS 10000000ull
// When to look whether a holder that is over its slice still lives.
#define PROBE_NS 1000000ull
// A sleep ends this much early, and the rest is spent looking at the clock: timers are late by about as much.
#define SPIN_NS 60000ull
// A GPU goes on while the machine that simulates it stalls, so late wake-ups count towards the next sleep, within reason.
#define CREDIT_MAX_NS 20000000ull

static struct state_engine *shared(const struct engine *engine)
{
    return &state_file()->engine[engine->device];
}

static struct state_slot_device *slot_device(const struct engine *engine, uint32_t slot)
{
    return &state_file()->slot[slot].device[engine->device];
}

static uint64_t make_word(uint64_t now, uint32_t slot_plus_1)
{
    return now / 1000 << 16 | slot_plus_1;
}

static uint32_t word_slot_plus_1(uint64_t word)
{
    uint32_t slot_plus_1 = word & 0xffff;
    return slot_plus_1 <= STATE_MAX_SLOTS ? slot_plus_1 : 0;
}

static uint64_t word_slice_end_ns(uint64_t word)
{
    return (word >> 16) * 1000 + state_file()->switch_ns + state_file()->slice_ns;
}

static void futex_wait_until(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns)
{
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / 1000000000), .tv_nsec = (long)(deadline_ns % 1000000000)};
    // Shared, with an absolute CLOCK_MONOTONIC deadline.
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, &deadline, NULL, FUTEX_BITSET_MATCH_ANY);
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

// Sleeps until a deadline, or until somebody new wants the engine.
static void rest_until(struct state_engine *engine, uint32_t contention, uint64_t deadline_ns)
{
    if (now_ns() + SPIN_NS < deadline_ns)
        futex_wait_until(&engine->contention, contention, deadline_ns - SPIN_NS);
    while (now_ns() < deadline_ns && atomic_load(&engine->contention) == contention)
        ;
}

static bool anyone_waits(const struct state_engine *engine)
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < STATE_MAX_SLOTS / 64; i++)
        bits |= atomic_load(&engine->waiting[i]);
    return bits != 0;
}

// The slot + 1 that has waited longest, the excluded one aside; 0 if nobody waits.
static uint32_t oldest_waiter(const struct engine *engine, uint32_t excluded_plus_1)
{
    uint64_t best = UINT64_MAX;
    uint32_t found = 0;

    for (unsigned i = 0; i < STATE_MAX_SLOTS / 64; i++) {
        for (uint64_t bits = atomic_load(&shared(engine)->waiting[i]); bits; bits &= bits - 1) {
            uint32_t slot = i * 64 + (uint32_t)__builtin_ctzll(bits);
            uint64_t ticket = atomic_load(&slot_device(engine, slot)->ticket);
            if (slot + 1 != excluded_plus_1 && ticket < best) {
                best = ticket;
                found = slot + 1;
            }
        }
    }
    return found;
}

static void set_waiting(struct state_engine *engine, uint32_t slot, bool waiting)
{
    uint64_t bit = 1ull << (slot % 64);
    if (waiting)
        atomic_fetch_or(&engine->waiting[slot / 64], bit);
    else
        atomic_fetch_and(&engine->waiting[slot / 64], ~bit);
}

// Moves the engine on from `word` to the longest waiter, or to nobody. False if the word has changed meanwhile.
static bool pass_on(const struct engine *engine, uint64_t word)
{
    struct state_engine *state = shared(engine);

    for (;;) {
        uint32_t next = oldest_waiter(engine, word_slot_plus_1(word));
        uint64_t new_word = make_word(now_ns(), next);
        if (!atomic_compare_exchange_strong(&state->owner, &word, new_word))
            return false;
        if (next) {
            atomic_fetch_add(&slot_device(engine, next - 1)->wake, 1);
            futex_wake(&slot_device(engine, next - 1)->wake);
            return true;
        }
        // A waiter that set its bit after the look above, and looked at the word before the exchange, relies on this second
        // look.
        if (!anyone_waits(state))
            return true;
        word = new_word;
    }
}

static void account(const struct engine *engine, uint64_t now)
{
    uint64_t since = (engine->held_word >> 16) * 1000;
    if (now > since)
        atomic_fetch_add(&shared(engine)->busy_ns, now - since);
}

// Called with the engine just got: pays for the switch and starts the slice.
static void begin_turn(struct engine *engine, uint64_t word)
{
    struct state_engine *state = shared(engine);
    uint32_t me = state_slot_index() + 1;
    uint64_t since = (word >> 16) * 1000;

    engine->held_word = word;
    engine->slice_end_ns = word_slice_end_ns(word);
    engine->credit_ns = 0;
    uint32_t last = atomic_exchange(&state->last_slot, me);
    if (last == me || last == 0)
        return;
    uint64_t ready = since + state_file()->switch_ns;
    while (now_ns() < ready)
        rest_until(state, atomic_load(&state->contention), ready);
}

// Overtakes a holder that is over its time, which is counted from when its slice ended or the caller came, `seen_ns`, whichever
// is later: nobody can be blamed for keeping what nobody wanted. Returns when to look again if it is too early.
static uint64_t overtake(const struct engine *engine, uint64_t word, uint64_t seen_ns)
{
    uint64_t now = now_ns(), due = word_slice_end_ns(word);
    uint32_t holder = word_slot_plus_1(word);

    if (due < seen_ns)
        due = seen_ns;
    if (now < due + PROBE_NS)
        return due + PROBE_NS;
    if (now < due + GRACE_NS && (holder == 0 || state_slot_alive(holder - 1)))
        return due + GRACE_NS;
    // A holder that never woke up to its turn still has its bit set, and would get the next turn as well.
    if (pass_on(engine, word) && holder)
        set_waiting(shared(engine), holder - 1, false);
    return now;
}

void engine_acquire(struct engine *engine)
{
    struct state_engine *state = shared(engine);
    uint32_t me = state_slot_index();
    struct state_slot_device *own = slot_device(engine, me);

    if (engine->held_word)
        return;
    uint64_t word = atomic_load(&state->owner);
    uint64_t mine = make_word(now_ns(), me + 1);
    if (engine->beside) {
        engine->held_word = mine;
        return;
    }
    if (!word_slot_plus_1(word) && !anyone_waits(state) && atomic_compare_exchange_strong(&state->owner, &word, mine)) {
        begin_turn(engine, mine);
        return;
    }
    atomic_store(&own->ticket, atomic_fetch_add(&state->ticket, 1) + 1);
    set_waiting(state, me, true);
    atomic_fetch_add(&state->contention, 1);
    futex_wake(&state->contention);
    for (uint64_t seen_word = 0, seen_ns = 0;;) {
        uint32_t wake = atomic_load(&own->wake);
        set_waiting(state, me, true);
        word = atomic_load(&state->owner);
        if (word_slot_plus_1(word) == me + 1)
            break;
        if (!word_slot_plus_1(word)) {
            pass_on(engine, word);
            continue;
        }
        if (word != seen_word) {
            seen_word = word;
            seen_ns = now_ns();
        }
        uint64_t look_again = overtake(engine, word, seen_ns);
        if (look_again > now_ns())
            futex_wait_until(&own->wake, wake, look_again);
    }
    set_waiting(state, me, false);
    begin_turn(engine, word);
}

void engine_release(struct engine *engine)
{
    if (!engine->held_word)
        return;
    account(engine, now_ns());
    if (!engine->beside)
        pass_on(engine, engine->held_word);
    engine->held_word = 0;
    engine->credit_ns = 0;
}

static bool is_lost(const struct engine *engine)
{
    return !engine->beside && atomic_load(&shared(engine)->owner) != engine->held_word;
}

static bool is_wanted(const struct engine *engine)
{
    return !engine->beside && anyone_waits(shared(engine));
}

void engine_check(struct engine *engine)
{
    if (is_lost(engine)) {
        account(engine, engine->slice_end_ns);
        engine->held_word = 0;
    } else if (is_wanted(engine) && now_ns() >= engine->slice_end_ns) {
        engine_release(engine);
    }
    engine_acquire(engine);
}

void engine_pass(struct engine *engine, uint64_t ns)
{
    struct state_engine *state = shared(engine);

    for (;;) {
        uint32_t contention = atomic_load(&state->contention);
        engine_check(engine);
        uint64_t credit = engine->credit_ns < ns ? engine->credit_ns : ns;
        engine->credit_ns -= credit;
        ns -= credit;
        if (!ns)
            return;
        uint64_t start = now_ns(), until = start + ns;
        if (is_wanted(engine) && until > engine->slice_end_ns)
            until = engine->slice_end_ns;
        rest_until(state, contention, until);
        uint64_t now = now_ns(), end = now;
        // Of the time after a loss nothing is known but that it began when the lease was over at the earliest.
        if (is_lost(engine) && end > engine->slice_end_ns)
            end = engine->slice_end_ns > start ? engine->slice_end_ns : start;
        uint64_t passed = end - start;
        if (passed >= ns) {
            uint64_t rest = passed - ns;
            engine->credit_ns = rest < CREDIT_MAX_NS ? rest : CREDIT_MAX_NS;
            return;
        }
        ns -= passed;
    }
}
