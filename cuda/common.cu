// What several kernels need. REAL is float or double.

// Numbers of a warp's lanes that a function of the warp concerns: all.
#define WHOLE_WARP 0xffffffffu

__device__ __forceinline__ float power_of_two(float x) { return exp2f(x); }
__device__ __forceinline__ double power_of_two(double x) { return exp2(x); }
__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }
__device__ __forceinline__ float rounded_up(float x) { return ceilf(x); }
__device__ __forceinline__ double rounded_up(double x) { return ceil(x); }
__device__ __forceinline__ float rounded_down(float x) { return floorf(x); }
__device__ __forceinline__ double rounded_down(double x) { return floor(x); }
// The one that is a number, if one is not.
__device__ __forceinline__ float larger(float x, float y) { return fmaxf(x, y); }
__device__ __forceinline__ double larger(double x, double y) { return fmax(x, y); }
__device__ __forceinline__ float smaller(float x, float y) { return fminf(x, y); }
__device__ __forceinline__ double smaller(double x, double y) { return fmin(x, y); }
// To the nearest whole number.
__device__ __forceinline__ long long nearest_whole(float x) { return __float2ll_rn(x); }
__device__ __forceinline__ long long nearest_whole(double x) { return __double2ll_rn(x); }

// The sum over the lanes of a warp, in every lane, always added in the same order.
template <class T>
__device__ __forceinline__ T sum_over_warp(T x)
{
    for (int step = 16; step; step /= 2) x += __shfl_xor_sync(WHOLE_WARP, x, step);
    return x;
}
