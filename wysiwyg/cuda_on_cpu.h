// CUDA C on a CPU: enough of the language for g++ to build and run the kernels of nbs/11_kernels.ipynb.
//
// Two ways to run a grid:
//   loop    one call per thread, blocks spread over OpenMP threads. For kernels that need no other thread (LANES == 1, or one thread per block).
//   fibers  every thread of a block is a fiber of its own, so that barriers and shuffles work. A fiber runs until it must wait; which one goes
//           next is the schedule: forward, reverse or seeded. Results that differ between schedules betray a race.
// A barrier that some threads never reach is reported, not waited for. With fibers, shared memory starts as NaN in every block.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>
#include <ucontext.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

#define __global__
#define __device__ static inline
#define __shared__ thread_local
#define __launch_bounds__(...)
#define SHIM 1
#ifndef ALIGNED
#define ALIGNED 4           // bytes: a CPU reads several floats from anywhere, a GPU (16) only where a multiple of their size begins
#endif

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) float2 { float x, y; };
#define __logf std::log
static inline int __float2int_rz(float x) { int i = (int)x; return i == INT32_MIN ? 0 : i; }     // 0 for NaN, as on a GPU
static inline int __float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
static inline float __int_as_float(int i) { float x; memcpy(&x, &i, 4); return x; }
static inline float sinpif(float x) { return std::sin(3.14159265358979324f*x); }
static inline float cospif(float x) { return std::cos(3.14159265358979324f*x); }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
using std::size_t;

struct Index { int x; };
static thread_local Index threadIdx, blockIdx, blockDim, gridDim;
alignas(64) thread_local float shared[SHARED_FLOATS];   // `extern __shared__ float shared[];` in a kernel

namespace shim {

enum Wait { READY, WARP, BLOCK, DONE };
enum Schedule { LOOP, FORWARD, REVERSE, SEEDED };       // SEEDED + n: the n-th random order
constexpr int WARP_SIZE = 32, STACK = 1 << 16;

struct Fiber { ucontext_t context; Wait wait; uint64_t slot; uint32_t tile[6]; };
static thread_local std::vector<Fiber> fibers;
static thread_local std::vector<char> stacks;
static thread_local ucontext_t scheduler;
static thread_local int current = -1;                   // -1: not in a fiber
static thread_local char fault[256];
static thread_local void (*body)(void*);
static thread_local void* body_data;

static inline void wait_for(Wait what) {
    if (current < 0) {
        if (blockDim.x > 1) { snprintf(fault, sizeof fault, "a barrier or shuffle in loop mode with %d threads a block: run it with fibers", blockDim.x); }
        return;
    }
    fibers[current].wait = what;
    swapcontext(&fibers[current].context, &scheduler);
}

static void entry() { body(body_data); fibers[current].wait = DONE; swapcontext(&fibers[current].context, &scheduler); }

// Let go those who wait at a barrier that everyone has reached, of warps one at a time: so a warp may be far ahead of the others;
// false: nobody can move.
static bool release(int threads, int schedule, uint32_t& random) {
    bool all = true, any = false;
    for (int i = 0; i < threads; i++) { all &= fibers[i].wait == BLOCK; any |= fibers[i].wait == BLOCK; }
    if (all && any) { for (auto& f : fibers) f.wait = READY; return true; }
    int warps = (threads+WARP_SIZE-1)/WARP_SIZE, first = 0;
    if (schedule >= SEEDED) { random = random*1664525u+1013904223u; first = (random >> 8)%warps; }
    for (int k = 0; k < warps; k++) {
        int w = WARP_SIZE*(schedule == REVERSE ? warps-1-k : (first+k)%warps);
        int end = w+WARP_SIZE < threads ? w+WARP_SIZE : threads, waiting = 0;
        for (int i = w; i < end; i++) waiting += fibers[i].wait == WARP;
        if (waiting < end-w) continue;
        for (int i = w; i < end; i++) fibers[i].wait = READY;
        return true;
    }
    return false;
}

static int pick(int threads, int schedule, uint32_t& random) {
    int ready = 0, chosen = -1;
    for (int i = 0; i < threads; i++) if (fibers[i].wait == READY) {
        ready++;
        if (schedule == FORWARD) { if (chosen < 0) chosen = i; }
        else if (schedule == REVERSE) chosen = i;
        else { random = random*1664525u+1013904223u; if ((random >> 8) % ready == 0) chosen = i; }
    }
    return chosen;
}

// One block, every thread a fiber.
static void run_fibers(int threads, int schedule) {
    fibers.resize(threads); stacks.resize((size_t)threads*STACK);
    for (int i = 0; i < threads; i++) {
        Fiber& f = fibers[i];
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = &stacks[(size_t)i*STACK]; f.context.uc_stack.ss_size = STACK; f.context.uc_link = nullptr;
        f.wait = READY;
        makecontext(&f.context, entry, 0);
    }
    uint32_t random = schedule*2654435761u+blockIdx.x;
    for (;;) {
        int i = pick(threads, schedule, random);
        if (i < 0 && release(threads, schedule, random)) continue;
        if (i < 0) break;
        current = i; threadIdx.x = i;
        swapcontext(&scheduler, &fibers[i].context);
    }
    current = -1;
    int count[4] = {0, 0, 0, 0};
    for (auto& f : fibers) count[f.wait]++;
    if (count[DONE] < threads) snprintf(fault, sizeof fault, "divergent barrier in block %d: %d threads wait for their block, %d for their warp, %d have returned", blockIdx.x, count[BLOCK], count[WARP], count[DONE]);
}

static void poison() { const uint32_t nan = 0x7fc00000u; for (float& x : shared) memcpy(&x, &nan, 4); }

// While it lives tiny numbers are zero, as with a GPU's fast arithmetic: a subnormal costs a CPU a hundred cycles, here and in whatever
// reads the result.
struct NoSubnormals {
#ifdef __SSE__
    unsigned before = _mm_getcsr();
    NoSubnormals() { _mm_setcsr(before | 0x8040); }
    ~NoSubnormals() { _mm_setcsr(before); }
#endif
};

// Run a grid; "" or what went wrong.
template<class Call> static const char* launch(int grid, int block, int schedule, int threads, Call call) {
    static thread_local char kept[256]; char message[256] = "";
    #pragma omp parallel for num_threads(threads) schedule(dynamic, (grid+63)/64) if(threads > 1)
    for (int b = 0; b < grid; b++) {
        NoSubnormals while_it_runs;
        blockIdx.x = b; blockDim.x = block; gridDim.x = grid; fault[0] = 0;
        if (schedule == LOOP) for (int i = 0; i < block; i++) { threadIdx.x = i; call(); }
        else { poison(); body = [](void* p) { (*(Call*)p)(); }; body_data = &call; run_fibers(block, schedule); }
        if (fault[0]) {
            #pragma omp critical
            memcpy(message, fault, sizeof fault);
        }
    }
    return (const char*)memcpy(kept, message, sizeof kept);
}

template<class... A, size_t... I> static const char* unpack(void (*kernel)(A...), std::index_sequence<I...>, int grid, int block, int schedule, int threads, void** args) {
    std::tuple<A...> a(*(A*)args[I]...);
    return launch(grid, block, schedule, threads, [&] { kernel(std::get<I>(a)...); });
}

template<class... A> static const char* start(void (*kernel)(A...), int grid, int block, int schedule, int threads, void** args) {
    return unpack(kernel, std::index_sequence_for<A...>{}, grid, block, schedule, threads, args);
}

// Every lane of the warp gives a value and takes the one of lane `from`.
template<class T> static T exchange(T value, int from) {
    int me = threadIdx.x, warp = me/WARP_SIZE*WARP_SIZE;
    memcpy(&fibers[me].slot, &value, sizeof value);
    wait_for(WARP);
    memcpy(&value, &fibers[warp+from].slot, sizeof value);
    wait_for(WARP);
    return value;
}

}  // namespace shim

static inline void __syncthreads() { shim::wait_for(shim::BLOCK); }
static inline void __syncwarp() { shim::wait_for(shim::WARP); }
template<class T> static T __shfl_xor_sync(unsigned, T v, int lanes, int = 32) { return shim::exchange(v, (threadIdx.x%32)^lanes); }
template<class T> static T __shfl_up_sync(unsigned, T v, int by, int width = 32) { int i = threadIdx.x%32; return shim::exchange(v, i%width < by ? i : i-by); }
template<class T> static T __shfl_sync(unsigned, T v, int from, int width = 32) { int i = threadIdx.x%32; return shim::exchange(v, i/width*width+from%width); }

static inline unsigned bf16x2(float low, float high) {     // rounded to nearest, ties to even
    auto half = [](float x) { uint32_t u; memcpy(&u, &x, 4); return x != x ? 0x7fff : (u+0x7fff+((u>>16)&1))>>16; };
    return half(low) | half(high) << 16;
}
// d += a b, the warp's 16x16 by 16x8 tile product of bf16 pairs, laid out over the lanes as the PTX manual says for mma.m16n8k16.
static inline void mma(float* d, const unsigned* a, uint2 b) {
    using namespace shim;
    int me = threadIdx.x, warp = me/WARP_SIZE*WARP_SIZE, g = me%32/4, t = me%4;
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b.x, b.y};
    memcpy(fibers[me].tile, mine, sizeof mine);
    wait_for(WARP);
    auto value = [&](int lane, int word, int odd) { uint32_t u = fibers[warp+lane].tile[word] >> 16*odd << 16; float x; memcpy(&x, &u, 4); return x; };
    for (int i = 0; i < 4; i++) {
        int row = g+i/2*8, column = 2*t+i%2;
        for (int k = 0; k < 16; k++) d[i] += value(row%8*4+k%8/2, row/8+k/8*2, k%2)*value(column*4+k%8/2, 4+k/8, k%2);
    }
    wait_for(WARP);
}

// Four 8x8 matrices of 16-bit numbers: lane l gives the address of row l%8 of matrix l/8, and takes from each matrix two
// neighbours of a column, as the PTX manual says for ldmatrix.x4.trans.
static inline void ldmatrix_trans(unsigned* d, const unsigned short* row) {
    using namespace shim;
    int me = threadIdx.x, warp = me/WARP_SIZE*WARP_SIZE, g = me%32/4, t = me%4;
    if ((uintptr_t)row%16) snprintf(fault, sizeof fault, "ldmatrix: a row must begin at a multiple of 16 bytes");
    memcpy(&fibers[me].slot, &row, sizeof row);
    wait_for(WARP);
    auto value = [&](int lane) { const unsigned short* of; memcpy(&of, &fibers[warp+lane].slot, sizeof of); return of[g]; };
    for (int m = 0; m < 4; m++) d[m] = value(8*m+2*t) | (unsigned)value(8*m+2*t+1) << 16;
    wait_for(WARP);
}

static inline float atomicAdd(float* at, float x) {
    uint32_t old, sum; float before, after;
    __atomic_load((uint32_t*)at, &old, __ATOMIC_RELAXED);
    do { memcpy(&before, &old, 4); after = before+x; memcpy(&sum, &after, 4); }
    while (!__atomic_compare_exchange((uint32_t*)at, &old, &sum, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}
