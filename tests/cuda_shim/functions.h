// What kernels call beside the shim's fibers: barriers, shuffles, atomics, conversions, mathematics.
#define threadIdx (gem::current->thread)
#define blockIdx (gem::block_index)
#define blockDim (gem::block_size)
#define gridDim (gem::grid_size)
#define warpSize 32
#define __syncthreads() ((void)gem::block_barrier(__LINE__, 0))
#define __syncthreads_count(p) gem::block_barrier(__LINE__, (p) != 0)
#define __syncthreads_or(p) (gem::block_barrier(__LINE__, (p) != 0) != 0)
#define __syncthreads_and(p) (gem::block_barrier(__LINE__, (p) != 0) == gem::n_fibers)
static inline void __syncwarp(unsigned mask = ~0u) { gem::meet(mask, gem::SYNC, 0, -1); }
static inline unsigned __ballot_sync(unsigned mask, int p) { return (unsigned)gem::meet(mask, gem::BALLOT, p != 0, -1); }
static inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
static inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, p) == mask; }

template <class T> static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    return gem::shuffle(mask, value, (gem::lane() & ~(width - 1)) + (source & (width - 1)));
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    int source = gem::lane() ^ bits, end = (gem::lane() & ~(width - 1)) + width;
    return gem::shuffle(mask, value, source < end ? source : gem::lane());
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32) {
    int source = gem::lane() + (int)step, end = (gem::lane() & ~(width - 1)) + width;
    return gem::shuffle(mask, value, source < end ? source : gem::lane());
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned step, int width = 32) {
    int source = gem::lane() - (int)step;
    return gem::shuffle(mask, value, source >= (gem::lane() & ~(width - 1)) ? source : gem::lane());
}

#define GEM_ATOMICS(T)                                                                             \
    static inline T atomicExch(T *at, T value) { T old = *at; *at = value; return old; }           \
    static inline T atomicMax(T *at, T value) { T old = *at; if (value > old) *at = value; return old; } \
    static inline T atomicMin(T *at, T value) { T old = *at; if (value < old) *at = value; return old; } \
    static inline T atomicOr(T *at, T value) { T old = *at; *at = old | value; return old; }       \
    static inline T atomicAnd(T *at, T value) { T old = *at; *at = old & value; return old; }      \
    static inline T atomicCAS(T *at, T compare, T value) { T old = *at; if (old == compare) *at = value; return old; }
GEM_ATOMICS(int)
GEM_ATOMICS(unsigned)
GEM_ATOMICS(unsigned long long)
#define GEM_ATOMIC_ADD(T, SUM_TYPE) \
    static inline T atomicAdd(T *at, T value) { T old = *at; *at = (T)((SUM_TYPE)old + (SUM_TYPE)value); return old; }
GEM_ATOMIC_ADD(int, unsigned)  // atomics wrap round
GEM_ATOMIC_ADD(unsigned, unsigned)
GEM_ATOMIC_ADD(unsigned long long, unsigned long long)
GEM_ATOMIC_ADD(float, float)
GEM_ATOMIC_ADD(double, double)
static inline void __threadfence() {}
static inline void __threadfence_block() {}
template <class T> static inline T __ldg(const T *at) { return *at; }
template <class T> static inline T __ldcs(const T *at) { return *at; }
template <class T> static inline void __stcs(T *at, T value) { *at = value; }

template <class To, class From> static inline To gem_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits of another size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline int __float_as_int(float x) { return gem_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return gem_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return gem_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return gem_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return gem_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return gem_bits<double>(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }

// CUDA's conversions saturate, and NaN becomes 0.
template <class To> static inline To gem_saturated(double x) {
    const double end = std::ldexp(1.0, 8 * (int)sizeof(To) - 1);
    if (x != x) return 0;
    return x >= end ? (To)((~0ull >> 1) >> (64 - 8 * sizeof(To))) : x < -end ? (To)(1ull << (8 * sizeof(To) - 1)) : (To)x;
}
static inline int __float2int_rn(float x) { return gem_saturated<int>(std::nearbyint(x)); }
static inline int __float2int_rd(float x) { return gem_saturated<int>(std::floor(x)); }
static inline int __float2int_ru(float x) { return gem_saturated<int>(std::ceil(x)); }
static inline int __float2int_rz(float x) { return gem_saturated<int>(std::trunc(x)); }
static inline int __double2int_rn(double x) { return gem_saturated<int>(std::nearbyint(x)); }
static inline int __double2int_rd(double x) { return gem_saturated<int>(std::floor(x)); }
static inline int __double2int_ru(double x) { return gem_saturated<int>(std::ceil(x)); }
static inline int __double2int_rz(double x) { return gem_saturated<int>(std::trunc(x)); }
static inline long long __float2ll_rn(float x) { return gem_saturated<long long>(std::nearbyint(x)); }
static inline long long __double2ll_rn(double x) { return gem_saturated<long long>(std::nearbyint(x)); }
static inline float __ll2float_rn(long long x) { return (float)x; }
static inline double __ll2double_rn(long long x) { return (double)x; }
static inline float __int2float_rn(int x) { return (float)x; }

static inline float rsqrtf(float x) { return (float)(1.0 / std::sqrt((double)x)); }
static inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
static inline float __frsqrt_rn(float x) { return rsqrtf(x); }
static inline float __fsqrt_rn(float x) { return std::sqrt(x); }
static inline float __frcp_rn(float x) { return 1 / x; }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __fma_rn(double x, double y, double z) { return std::fma(x, y, z); }
// The C library has functions of its own by these names.
#define __expf gem_fast_expf
#define __logf gem_fast_logf
#define __sinf gem_fast_sinf
#define __cosf gem_fast_cosf
#define __sincosf gem_fast_sincosf
static inline float gem_fast_expf(float x) { return std::exp(x); }
static inline float gem_fast_logf(float x) { return std::log(x); }
static inline float gem_fast_sinf(float x) { return std::sin(x); }
static inline float gem_fast_cosf(float x) { return std::cos(x); }
static inline void gem_fast_sincosf(float x, float *s, float *c) { *s = std::sin(x), *c = std::cos(x); }
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
static inline double sinpi(double x) { x -= 2 * std::nearbyint(x / 2); return std::sin(M_PI * x); }
static inline double cospi(double x) { x -= 2 * std::nearbyint(x / 2); return std::cos(M_PI * x); }
static inline void sincospi(double x, double *s, double *c) { *s = sinpi(x), *c = cospi(x); }
static inline float sinpif(float x) { return (float)sinpi(x); }
static inline float cospif(float x) { return (float)cospi(x); }
static inline void sincospif(float x, float *s, float *c) { *s = sinpif(x), *c = cospif(x); }

#define GEM_MIN_MAX(T)                                          \
    static inline T min(T a, T b) { return b < a ? b : a; }     \
    static inline T max(T a, T b) { return a < b ? b : a; }
GEM_MIN_MAX(int)
GEM_MIN_MAX(unsigned)
GEM_MIN_MAX(long long)
GEM_MIN_MAX(unsigned long long)
#undef GEM_MIN_MAX
static inline float min(float a, float b) { return std::fmin(a, b); }
static inline float max(float a, float b) { return std::fmax(a, b); }
static inline double min(double a, double b) { return std::fmin(a, b); }
static inline double max(double a, double b) { return std::fmax(a, b); }
