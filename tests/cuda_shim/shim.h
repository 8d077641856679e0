// CUDA on the CPU, for tests: every thread of a block is a fiber, run to its next barrier in a fixed order.
// What it notices: barriers that not all threads reach, wrong masks, shared memory that nobody wrote (it is filled with
// NaN), writes outside arrays of known size and outside dynamic shared memory, signed integers that overflow.
// What it does not: memory ordering, occupancy, the rounding of fused operations (nothing is fused here).
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <tuple>
#include <type_traits>
#include <ucontext.h>
#include <utility>

#define GEM_CUDA_SHIM 1
#define __global__ __attribute__((unused))
#define __device__ __attribute__((unused))
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ __attribute__((section("gem_shared"))) static

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;
#define GEM_VECTORS(T, C)                                                                    \
    struct __align__(2 * sizeof(T)) C##2 { T x, y; };                                        \
    struct C##3 { T x, y, z; };                                                              \
    struct __align__(16) C##4 { T x, y, z, w; };                                             \
    inline C##2 make_##C##2(T x, T y) { return {x, y}; }                                     \
    inline C##3 make_##C##3(T x, T y, T z) { return {x, y, z}; }                             \
    inline C##4 make_##C##4(T x, T y, T z, T w) { return {x, y, z, w}; }
GEM_VECTORS(float, float)
GEM_VECTORS(double, double)
GEM_VECTORS(int, int)
#undef GEM_VECTORS
struct uint2 { unsigned x, y; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
struct __align__(8) ushort4 { unsigned short x, y, z, w; };
struct __align__(4) ushort2 { unsigned short x, y; };

// ---- fibers ----------------------------------------------------------------------------------------------------
namespace gem {

enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, GONE };
enum Kind { SYNC, SHUFFLE, BALLOT };
const int MOST_THREADS = 1024;
const size_t STACK = 128 << 10;
const size_t GUARD = 4096;  // bytes of canary on each side of dynamic shared memory
const unsigned char CANARY = 0xA5, POISON = 0xFF;  // POISON: NaN in every floating-point type

struct Fiber {
    void *stack_pointer;
    uint3 thread;
    int index;
    State state;
    int line, vote;  // at the block's barrier
    unsigned mask;   // at a warp's: who takes part
    Kind kind;
    int source;      // lane that is read, or -1
    uint64_t value, result;
};

static Fiber fibers[MOST_THREADS];
static Fiber *current;
static uint3 block_index;
static dim3 block_size, grid_size;
static int n_fibers, n_left, n_at_barrier, barrier_line, votes;
static void *scheduler_stack;
static char *stacks;
static char message[512];
static bool failed;
static unsigned char *dynamic_shared;
static size_t dynamic_bytes;
static void (*body)(void *);
static void *body_arguments;
static bool check_is_off;

#if defined(__x86_64__) && !defined(GEM_PORTABLE)
extern "C" void gem_switch(void **from, void *to);
asm(R"(
.text
.type gem_switch, @function
gem_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size gem_switch, .-gem_switch
)");
static void *fresh_stack(char *bottom, void (*entry)()) {
    void **top = (void **)(bottom + STACK) - 2;
    *--top = nullptr;  // where entry would return to; keeps the stack aligned as after a call
    *--top = (void *)entry;
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    return top;
}
#else
static ucontext_t contexts[MOST_THREADS + 1];
static void gem_switch(void **from, void *to) {
    ucontext_t *self = from == &scheduler_stack ? &contexts[MOST_THREADS] : &contexts[current->index];
    *from = self;
    swapcontext(self, (ucontext_t *)to);
}
static void *fresh_stack(char *bottom, void (*entry)()) {
    ucontext_t *context = &contexts[(bottom - stacks) / STACK];
    getcontext(context);
    context->uc_stack.ss_sp = bottom;
    context->uc_stack.ss_size = STACK;
    makecontext(context, entry, 0);
    return context;
}
#endif

static void leave_fiber() {
    asm volatile("" ::: "memory");
    gem_switch(&current->stack_pointer, scheduler_stack);
    asm volatile("" ::: "memory");
}

#define GEM_FAIL(...)                                                            \
    do {                                                                         \
        if (!gem::failed) snprintf(gem::message, sizeof gem::message, __VA_ARGS__); \
        gem::failed = true;                                                      \
        gem::leave_fiber();                                                      \
    } while (0)

static void release_block() {
    for (int i = 0; i < n_fibers; ++i) {
        if (fibers[i].state == AT_BLOCK_BARRIER) {
            fibers[i].state = READY;
            fibers[i].vote = votes;
        }
    }
    n_at_barrier = votes = 0;
}

static int block_barrier(int line, int vote) {
    Fiber *self = current;
    if (n_left) GEM_FAIL("line %d: thread %d waits at a barrier, but %d of the block's threads have returned", line, self->index, n_left);
    if (n_at_barrier && line != barrier_line)
        GEM_FAIL("threads of a block wait at different barriers: lines %d and %d", barrier_line, line);
    barrier_line = line;
    votes += vote != 0;
    self->state = AT_BLOCK_BARRIER;
    if (++n_at_barrier == n_fibers) release_block();
    else leave_fiber();
    return self->vote;
}

// All lanes of the mask meet here; the last to come does what is asked for all of them.
static uint64_t meet(unsigned mask, Kind kind, uint64_t value, int source) {
    Fiber *self = current;
    int lane = self->index & 31, first = self->index - lane;
    if (!(mask >> lane & 1)) GEM_FAIL("lane %d is not in the mask %08x that it names", lane, mask);
    self->mask = mask, self->kind = kind, self->value = value, self->source = source;
    self->state = AT_WARP_BARRIER;
    for (int l = 0; l < 32; ++l) {
        if (!(mask >> l & 1)) continue;
        if (first + l >= n_fibers) GEM_FAIL("the mask %08x names lane %d, which the block of %d threads has not", mask, l, n_fibers);
        Fiber &other = fibers[first + l];
        if (other.state == GONE) GEM_FAIL("the mask %08x names lane %d, which has returned", mask, l);
        if (other.state == AT_WARP_BARRIER && (other.mask != mask || other.kind != kind)) {
            if (other.mask >> lane & 1) GEM_FAIL("lanes %d and %d meet with different masks or functions: %08x and %08x", lane, l, mask, other.mask);
        }
        if (other.state != AT_WARP_BARRIER || other.mask != mask || other.kind != kind) {
            leave_fiber();
            return self->result;
        }
    }
    uint64_t ballot = 0;
    for (int l = 0; l < 32; ++l)
        if ((mask >> l & 1) && fibers[first + l].value) ballot |= 1ull << l;
    for (int l = 0; l < 32; ++l) {
        if (!(mask >> l & 1)) continue;
        Fiber &other = fibers[first + l];
        bool known = other.source >= 0 && (mask >> other.source & 1);
        if (kind == SHUFFLE) other.result = known ? fibers[first + other.source].value : ~0ull;
        if (kind == BALLOT) other.result = ballot;
        other.state = READY;
    }
    return self->result;
}

template <class T> static T shuffle(unsigned mask, T value, int source) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles take 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = meet(mask, SHUFFLE, bits, source);
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int lane() { return current->index & 31; }

static void fiber_main() {
    body(body_arguments);
    current->state = GONE;
    ++n_left;
    if (n_at_barrier) GEM_FAIL("thread %d returned while others wait at the barrier in line %d", current->index, barrier_line);
    leave_fiber();
    abort();
}

extern "C" char __start_gem_shared[] __attribute__((weak)), __stop_gem_shared[] __attribute__((weak));

static void check_canaries() {
    for (size_t i = 0; i < GUARD && !failed; ++i) {
        if (dynamic_shared[i] == CANARY && dynamic_shared[GUARD + dynamic_bytes + i] == CANARY) continue;
        failed = true;
        snprintf(message, sizeof message, "block (%u, %u, %u) wrote outside its %zu bytes of dynamic shared memory",
                 block_index.x, block_index.y, block_index.z, dynamic_bytes);
    }
}

static void run_block(bool reversed) {
    memset(dynamic_shared, CANARY, dynamic_bytes + 2 * GUARD);
    memset(dynamic_shared + GUARD, POISON, dynamic_bytes);
    if (__start_gem_shared) memset(__start_gem_shared, POISON, __stop_gem_shared - __start_gem_shared);
    n_left = n_at_barrier = votes = 0;
    for (int i = 0; i < n_fibers; ++i) {
        fibers[i].index = i;
        fibers[i].thread = {(unsigned)i, 0, 0};
        fibers[i].state = READY;
        fibers[i].stack_pointer = fresh_stack(stacks + i * STACK, fiber_main);
    }
    while (n_left < n_fibers && !failed) {
        bool idle = true;
        for (int i = 0; i < n_fibers && !failed; ++i) {
            current = &fibers[reversed ? n_fibers - 1 - i : i];
            if (current->state != READY) continue;
            idle = false;
            gem_switch(&scheduler_stack, current->stack_pointer);
        }
        if (idle && !failed) {
            failed = true;
            snprintf(message, sizeof message, "the block hangs: its threads wait at barriers that the others never reach");
        }
    }
    check_canaries();
}

template <class Arguments, class Kernel> struct Call {
    Kernel kernel;
    Arguments arguments;
    static void run(void *self) { std::apply(((Call *)self)->kernel, ((Call *)self)->arguments); }
};

template <class... A, size_t... I>
static int launch(void (*kernel)(A...), void **arguments, const unsigned *grid, int threads, long shared_bytes,
                  int reversed, char *told, std::index_sequence<I...>) {
    Call<std::tuple<A...>, void (*)(A...)> call{kernel, std::tuple<A...>(*(A *)arguments[I]...)};
    body = call.run, body_arguments = &call;
    if (!stacks) stacks = (char *)mmap(nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stacks == MAP_FAILED) return snprintf(told, sizeof message, "no memory for the fibers' stacks");
    n_fibers = threads, block_size = {(unsigned)threads, 1, 1}, grid_size = {grid[0], grid[1], grid[2]};
    dynamic_bytes = shared_bytes, failed = false;
    dynamic_shared = (unsigned char *)aligned_alloc(GUARD, (dynamic_bytes + 3 * GUARD) / GUARD * GUARD);
    size_t blocks = (size_t)grid[0] * grid[1] * grid[2];
    for (size_t i = 0; i < blocks && !failed; ++i) {
        size_t b = reversed ? blocks - 1 - i : i;
        block_index = {(unsigned)(b % grid[0]), (unsigned)(b / grid[0] % grid[1]), (unsigned)(b / grid[0] / grid[1])};
        run_block(reversed);
    }
    free(dynamic_shared);
    if (failed) memcpy(told, message, sizeof message);
    return failed;
}

template <class... A>
static int launch(void (*kernel)(A...), void **arguments, const unsigned *grid, int threads, long shared_bytes,
                  int reversed, char *told) {
    return launch(kernel, arguments, grid, threads, shared_bytes, reversed, told, std::index_sequence_for<A...>{});
}

// What a kernel's parameters are, as words: "const float*", "int", ...
template <class T> static const char *type_name() {
    using P = std::remove_cv_t<std::remove_pointer_t<T>>;
    if (std::is_same_v<P, float> || std::is_same_v<P, float2> || std::is_same_v<P, float3> || std::is_same_v<P, float4>) return "float";
    if (std::is_same_v<P, double> || std::is_same_v<P, double2> || std::is_same_v<P, double3> || std::is_same_v<P, double4>) return "double";
    if (std::is_same_v<P, long> || std::is_same_v<P, unsigned long>) return "long, whose size differs between machines";
    if (std::is_integral_v<P>) return sizeof(P) == 8 ? "int64" : sizeof(P) == 4 ? "int32" : sizeof(P) == 2 ? "int16" : "int8";
    if (std::is_same_v<P, int2> || std::is_same_v<P, int3> || std::is_same_v<P, int4>) return "int32";
    if (std::is_same_v<P, uint2> || std::is_same_v<P, uint4>) return "int32";
    if (std::is_same_v<P, ushort2> || std::is_same_v<P, ushort4>) return "int16";
    return "unknown";
}
template <class T> static void describe_one(char *&text) {
    bool constant = std::is_const_v<std::remove_pointer_t<T>>;
    text += sprintf(text, "%s%s%s;", constant ? "const " : "", type_name<T>(), std::is_pointer_v<T> ? "*" : "");
}
template <class... A> static void describe(void (*)(A...), char *text) {
    *text = 0;
    (describe_one<A>(text), ...);
}

}  // namespace gem

#define GEM_ENTRY(NAME)                                                                                               \
    extern "C" int gem_launch_##NAME(void **arguments, const unsigned *grid, int threads, long shared, int reversed, \
                                     char *told) {                                                                    \
        return gem::launch(NAME, arguments, grid, threads, shared, reversed, told);                                   \
    }                                                                                                                 \
    extern "C" void gem_describe_##NAME(char *text) { gem::describe(NAME, text); }

// What -fsanitize calls where it finds something; the data begin with the place.
struct GemPlace { const char *file; unsigned line, column; };
#define GEM_NOTICED(NAME, WHAT)                                              \
    extern "C" void __ubsan_handle_##NAME(GemPlace *place, void *, void *) { \
        GEM_FAIL("%s:%u: " WHAT, place->file, place->line);                  \
    }
GEM_NOTICED(out_of_bounds, "an index outside its array")
GEM_NOTICED(add_overflow, "a sum overflows its integer")
GEM_NOTICED(sub_overflow, "a difference overflows its integer")
GEM_NOTICED(mul_overflow, "a product overflows its integer")
GEM_NOTICED(negate_overflow, "a negative overflows its integer")
GEM_NOTICED(shift_out_of_bounds, "a shift by too many bits")
GEM_NOTICED(divrem_overflow, "a division by zero")
GEM_NOTICED(float_cast_overflow, "a number that its integer cannot hold (CUDA saturates, CPUs do not: clamp it first)")
