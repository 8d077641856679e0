// Gaussians onto a map, and moments of a map's gradient under each Gaussian (docs/method.md, 4). After common.cu.
//
// A warp has one Gaussian and walks the voxels of its ellipsoid, plane by plane. With the factors of the precision
// matrix (gem_plugin/ops/moments.py), dz counted from the centre, u from the maximum of a row and v from the middle of
// the ellipse that a plane cuts out, the exponent is q = Qxx u^2 + Syy v^2 + Rzz dz^2. Rows of a plane are as long as
// the longest of them, and the lanes take their voxels in turn, row after row, so that few lanes idle though rows are
// short. A voxel counts where q <= cutoff^2 and nowhere else; the walk is a little wider than that, so rounding in it
// decides nothing. Voxels are counted from the one nearest to the centre, so that float keeps its digits in any box.

#define THREADS 128  // of a block, 4 warps; 4 blocks on a multiprocessor leave a thread 128 registers
#define BITS REAL(0.72134752044448170368)  // exp(-q / 2) = 2^-(BITS q)
#define SLACK REAL(0.01)                   // voxels by which the walk is wider than the ellipsoid, on each side
#define NUMBERS_OF_SHAPE 11

struct Gaussian {
    int near_x, near_y, near_z;  // voxel nearest to the centre; may lie outside the box
    REAL x, y, z;                // centre from there
    REAL qxx, x_by_y, x_by_z, syy, y_by_z, rzz, peak;  // Qxx, Qxy/Qxx, Qxz/Qxx, Syy, Syz/Syy, Rzz
    int first_z, behind_z;       // planes of the box that it may reach
};

// The whole number nearest to x in [low, high]; low if x is not a number.
__device__ __forceinline__ int clamped(REAL x, int low, int high)
{
    return (int)smaller(larger(x, REAL(low)), REAL(high));
}

__device__ __forceinline__ Gaussian read_gaussian(const int *nearest, const REAL *shapes, int j, REAL cutoff, int n)
{
    const int *near = nearest + 3 * (long long)j;
    const REAL *shape = shapes + NUMBERS_OF_SHAPE * (long long)j;
    Gaussian g;
    g.near_x = near[0], g.near_y = near[1], g.near_z = near[2];
    g.x = shape[0], g.y = shape[1], g.z = shape[2];
    g.qxx = shape[3], g.x_by_y = shape[4], g.x_by_z = shape[5], g.syy = shape[6], g.y_by_z = shape[7], g.rzz = shape[8];
    g.peak = shape[10];
    REAL reach = cutoff * shape[9] + SLACK;
    g.first_z = clamped(rounded_up(g.z - reach), -g.near_z, n - g.near_z);
    g.behind_z = clamped(rounded_down(g.z + reach) + 1, -g.near_z, n - g.near_z);
    return g;
}

// The part of a plane that a Gaussian may reach. Everything is counted from its nearest voxel.
struct Plane {
    REAL fall, x, y;        // exponent in the ellipse's middle, and where that is
    REAL half;              // of the longest row
    int first_y, rows, width;
};

__device__ __forceinline__ Plane cut_plane(const Gaussian &g, REAL dz, REAL cut2, int n)
{
    Plane p;
    p.fall = g.rzz * dz * dz;
    REAL left = cut2 - p.fall;
    p.x = g.x + (g.x_by_y * g.y_by_z - g.x_by_z) * dz;
    p.y = g.y - g.y_by_z * dz;
    REAL reach = square_root(left / g.syy) + SLACK;
    p.half = square_root(left / g.qxx) + SLACK;
    p.first_y = clamped(rounded_up(p.y - reach), -g.near_y, n - g.near_y);
    int behind_y = clamped(rounded_down(p.y + reach) + 1, -g.near_y, n - g.near_y);
    p.rows = left >= 0 ? max(behind_y - p.first_y, 0) : 0;
    p.width = clamped(2 * p.half, 0, n - 1) + 1;
    return p;
}

// A lane's way through the voxels of a plane.
struct Way {
    int row, column;            // of the plane's part that is walked
    int rows_on, columns_on;    // how far a step of the whole warp leads
};

__device__ __forceinline__ Way begin_way(const Plane &p, int lane)
{
    Way way;
    way.row = lane / p.width, way.column = lane % p.width;
    way.rows_on = 32 / p.width, way.columns_on = 32 % p.width;
    return way;
}

__device__ __forceinline__ void go_on(Way &way, int width)
{
    way.row += way.rows_on;
    way.column += way.columns_on;
    if (way.column >= width) way.column -= width, ++way.row;
}

struct Voxel {
    int x, y;  // from the nearest voxel
    REAL u, v, q;
    bool inside;  // of the ellipsoid and the box
};

__device__ __forceinline__ Voxel look_at(const Gaussian &g, const Plane &p, const Way &way, REAL cut2, int n)
{
    Voxel voxel;
    voxel.y = p.first_y + way.row;
    voxel.v = REAL(voxel.y) - p.y;
    REAL top = p.x - g.x_by_y * voxel.v;
    voxel.x = clamped(rounded_up(top - p.half), -g.near_x, n - g.near_x) + way.column;
    voxel.u = REAL(voxel.x) - top;
    voxel.q = p.fall + g.syy * voxel.v * voxel.v + g.qxx * voxel.u * voxel.u;
    voxel.inside = voxel.q <= cut2 && voxel.x + g.near_x < n;
    return voxel;
}

__device__ __forceinline__ long long index_of(const Gaussian &g, int x, int y, int z, int n)
{
    return ((long long)(z + g.near_z) * n + (y + g.near_y)) * n + (x + g.near_x);
}

// Sums are whole numbers of a unit, so that they do not depend on the order in which the Gaussians come.
extern "C" __global__ void __launch_bounds__(THREADS) draw_gaussians(
    const int *nearest,             // [N, 3] x, y, z of the voxel nearest to the centre
    const REAL *shapes,             // [N, 11] centre from there x, y, z; the seven factors; peak
    const REAL *scale,              // [2] units in 1, and what a unit is
    unsigned long long *sums,       // [n, n, n] z, y, x: added to; two's complement
    REAL cutoff,                    // sigmas
    int n_gaussians,                // N
    int n)                          // edge of the box
{
    int j = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (j >= n_gaussians) return;
    const Gaussian g = read_gaussian(nearest, shapes, j, cutoff, n);
    const REAL cut2 = cutoff * cutoff, height = g.peak * scale[0];
    for (int z = g.first_z; z < g.behind_z; ++z) {
        const Plane p = cut_plane(g, REAL(z) - g.z, cut2, n);
        for (Way way = begin_way(p, lane); way.row < p.rows; go_on(way, p.width)) {
            const Voxel voxel = look_at(g, p, way, cut2, n);
            if (!voxel.inside) continue;
            long long units = nearest_whole(height * power_of_two(-BITS * voxel.q));
            atomicAdd(sums + index_of(g, voxel.x, voxel.y, z, n), (unsigned long long)units);
        }
    }
}

// From whole numbers of a unit to a map.
extern "C" __global__ void __launch_bounds__(THREADS) finish_map(
    const unsigned long long *sums,  // [n_voxels]
    const REAL *scale,               // [2] units in 1, and what a unit is
    REAL *map,                       // [n_voxels]: written
    long long n_voxels)
{
    const REAL unit = scale[1];
    const long long step = (long long)gridDim.x * THREADS;
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n_voxels; i += step)
        map[i] = REAL((long long)sums[i]) * unit;
}

// Moments about the centre of those about the axes of the factorisation: dx = u - a v + b dz, dy = v - c dz.
__device__ __forceinline__ void write_moments(const Gaussian &g, const REAL *s, double *m)
{
    const double a = g.x_by_y, c = g.y_by_z, b = a * c - g.x_by_z;
    const double s0 = s[0], su = s[1], sv = s[2], sw = s[3], suw = s[6], svv = s[7], svw = s[8], sww = s[9];
    const double ux = s[4] - a * s[5] + b * suw, vx = s[5] - a * svv + b * svw, wx = suw - a * svw + b * sww;
    m[0] = s0;
    m[1] = su - a * sv + b * sw;
    m[2] = sv - c * sw;
    m[3] = sw;
    m[4] = ux - a * vx + b * wx;
    m[5] = vx - c * wx;
    m[6] = wx;
    m[7] = svv - c * (2 * svw - c * sww);
    m[8] = svw - c * sww;
    m[9] = sww;
}

extern "C" __global__ void __launch_bounds__(THREADS, 4) gather_moments(
    const int *nearest,    // [N, 3] x, y, z of the voxel nearest to the centre
    const REAL *shapes,    // [N, 11] centre from there x, y, z; the seven factors; peak, which is not used
    const REAL *gradient,  // [n, n, n] z, y, x
    double *moments,       // [N, 10] sums of G g times 1; dx, dy, dz; dx^2, dx dy, dx dz, dy^2, dy dz, dz^2: written
    REAL cutoff,           // sigmas
    int n_gaussians,       // N
    int n)                 // edge of the box
{
    int j = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (j >= n_gaussians) return;
    const Gaussian g = read_gaussian(nearest, shapes, j, cutoff, n);
    const REAL cut2 = cutoff * cutoff;
    REAL s[10] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0};  // of 1; u, v, dz; uu, uv, u dz, vv, v dz, dz dz
    for (int z = g.first_z; z < g.behind_z; ++z) {
        const REAL dz = REAL(z) - g.z;
        const Plane p = cut_plane(g, dz, cut2, n);
        REAL s0 = 0, su = 0, sv = 0;
        for (Way way = begin_way(p, lane); way.row < p.rows; go_on(way, p.width)) {
            const Voxel voxel = look_at(g, p, way, cut2, n);
            if (!voxel.inside) continue;
            const REAL w = gradient[index_of(g, voxel.x, voxel.y, z, n)] * power_of_two(-BITS * voxel.q);
            const REAL wu = w * voxel.u, wv = w * voxel.v;
            s0 += w, su += wu, sv += wv;
            s[4] += wu * voxel.u, s[5] += wu * voxel.v, s[7] += wv * voxel.v;
        }
        s[0] += s0, s[1] += su, s[2] += sv;
        s[3] += s0 * dz, s[6] += su * dz, s[8] += sv * dz, s[9] += s0 * dz * dz;
    }
#pragma unroll
    for (int i = 0; i < 10; ++i) s[i] = sum_over_warp(s[i]);
    if (lane == 0) write_moments(g, s, moments + 10 * (long long)j);
}
