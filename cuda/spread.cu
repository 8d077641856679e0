// Fourier slices of particle images onto a fine Fourier grid, the adjoint of reading slices from it.
//
// Point (kx, ky) of a slice lies at S^T (kx, ky, 0) and is added to the WIDTH cells around it on each axis. The sums are
// real in the end, so a point and its conjugate are one; each is taken at x >= 0.
//
// The grid is cut into bricks of BRICK^3 cells, and a point belongs to the brick of the first cell that it reaches. One
// warp fills one brick. It finds its points itself: of every slice it asks whether the plane meets the brick, and if so
// it tries the few points around the meeting. So nothing is sorted and no list of points is ever written. The points
// are queued in shared memory and spread TILE at a time: first a lane computes the weights of one point, then all lanes
// walk through the points. On each axis, of the six cells a point reaches, two have the same index modulo 3, three apart;
// a lane owns the cells of one class on each axis, so that 27 lanes own 8 cells of each point, no two lanes ever touch
// one cell, and nothing needs to be atomic or to wait between points. Each cell's sum has a fixed order: slices, then
// ky, then kx (in runs).
//
// At the end the padded brick is added to the grid. Bricks whose margins overlap must not run at the same time: the
// host starts the 8 parities of (x, y, z) one after the other, so that BRICK >= WIDTH - 1 suffices. All slices cross
// near the origin: there a brick would keep its warp busy long after all others, so its slices are shared out to
// several warps, each of which writes its sums apart, and add_parts adds them to the grid in their order.
//
// Defines: REAL (float or double), COMPLEX_SUMS (1: values have two parts; 0: one), BRICK, and ROW and LAYER, the
// steps on y and z of the padded brick in shared memory, chosen so that the lanes' cells lie in different banks.

#define WIDTH 6
#define DEGREE 8
#define TABLE_ROW 8   // of the table of coefficients
#define PADDED (BRICK + WIDTH - 1)
#define PADDED_CELLS (PADDED * PADDED * PADDED)
#define TILE 32       // points, one for each lane
#define AHEAD 8       // cells that a lane loads before it stores the first
#define ALL_LANES 0xffffffffu
#define BRICK_CELLS ((PADDED - 1) * (LAYER + ROW + 1) + 1)

struct __align__(2 * sizeof(REAL)) Pair {
    REAL real, imaginary;
};

#if COMPLEX_SUMS
typedef Pair Sum;
#else
typedef REAL Sum;
#endif

// Of the cells of one class modulo 3 on one axis: weights of the nearer and of the one three further, where the nearer is.
struct __align__(4 * sizeof(REAL)) Share {
    REAL nearer, further;
    int place;  // its step in the padded brick
};

#if COMPLEX_SUMS
// On z, times the point's value.
struct __align__(4 * sizeof(REAL)) ValueShare {
    Pair nearer, further;
};
#else
typedef Share ValueShare;
#endif

struct Point {
    Share x[3], y[3];
    ValueShare z[3];
#if COMPLEX_SUMS
    int z_place[3];
    int unused[5];  // so that eight lanes that write their points meet no bank twice
#endif
};

struct Queued {
    int slice, kx, ky, point;
};

// Of kx and of ky, in 2^-32 cells.
struct Steps {
    long long x_of_kx, y_of_kx, z_of_kx, x_of_ky, y_of_ky, z_of_ky;
};

// What a warp knows of the images, of the grid and of its brick.
struct Job {
    const Steps *steps;
    const REAL *values, *adjoint, *weight;
    const int *table;
    int n_points, highest_x, highest_y;
    int first_x, first_y, first_z;        // first cell of the brick
    int origin_x, origin_y, origin_z;     // the cell of frequency 0
    float centre_x, centre_y, centre_z;   // of the brick's points, in cells from there
};

struct Position {
    long long x, y, z;  // cells, 32 bits of them behind the point
    bool flipped;       // the point's conjugate lies there
};

__device__ __forceinline__ Position locate(const Job &job, const Steps &step, int kx, int ky) {
    long long x = kx * step.x_of_kx + ky * step.x_of_ky;
    long long y = kx * step.y_of_kx + ky * step.y_of_ky;
    long long z = kx * step.z_of_kx + ky * step.z_of_ky;
    const long long one = 1ll << 32;
    bool flipped = x < 0;
    Position at;
    at.x = (flipped ? -x : x) + job.origin_x * one;
    at.y = (flipped ? -y : y) + job.origin_y * one;
    at.z = (flipped ? -z : z) + job.origin_z * one;
    at.flipped = flipped;
    return at;
}

// The first of the WIDTH cells that a position reaches.
__device__ __forceinline__ int first_cell(long long position) { return (int)(position >> 32) - (WIDTH / 2 - 1); }

// Where a position lies between two cells, from -1 to 1; rounded once.
__device__ __forceinline__ REAL between(long long position) {
    return (REAL)(int)((unsigned)position ^ 0x80000000u) * (REAL)(1.0 / 2147483648.0);
}

// Weights of six cells by Horner's rule on three axes at once.
__device__ __forceinline__ void weigh(const REAL *coefficients, const Position &at, REAL *wx, REAL *wy, REAL *wz) {
    const REAL ux = between(at.x), uy = between(at.y), uz = between(at.z);
#pragma unroll
    for (int cell = 0; cell < WIDTH; ++cell) {
        REAL x = coefficients[cell], y = x, z = x;
#pragma unroll
        for (int d = 1; d <= DEGREE; ++d) {
            const REAL next = coefficients[d * TABLE_ROW + cell];
            x = x * ux + next;
            y = y * uy + next;
            z = z * uz + next;
        }
        wx[cell] = x;
        wy[cell] = y;
        wz[cell] = z;
    }
}

// Deal six weights to the three classes of cells.
__device__ __forceinline__ void deal(Share *shares, const REAL *w, int first, int step) {
    int owner = first % 3;
#pragma unroll
    for (int cell = 0; cell < 3; ++cell) {
        Share share;
        share.nearer = w[cell];
        share.further = w[cell + 3];
        share.place = (first + cell) * step;
        shares[owner] = share;
        owner = owner == 2 ? 0 : owner + 1;
    }
}

// A lane's part: the weights of one queued point, its value in those on z.
__device__ __forceinline__ void prepare(const Job &job, const REAL *coefficients, const Queued &queued, Point *point) {
    const long long index = (long long)queued.slice * job.n_points + queued.point;
    const REAL strength = job.weight[queued.point] * job.adjoint[index];
#if COMPLEX_SUMS
    const Pair value = ((const Pair *)job.values)[index];
#else
    const REAL value = job.values[index];
#endif
    const Position at = locate(job, job.steps[queued.slice], queued.kx, queued.ky);
    REAL wx[WIDTH], wy[WIDTH], wz[WIDTH];
    weigh(coefficients, at, wx, wy, wz);
    deal(point->x, wx, first_cell(at.x) - job.first_x, 1);
    deal(point->y, wy, first_cell(at.y) - job.first_y, ROW);
    const int first = first_cell(at.z) - job.first_z;
#if COMPLEX_SUMS
    const REAL real = strength * value.real, imaginary = (at.flipped ? -strength : strength) * value.imaginary;
    int owner = first % 3;
#pragma unroll
    for (int cell = 0; cell < 3; ++cell) {
        ValueShare share;
        share.nearer.real = real * wz[cell];
        share.nearer.imaginary = imaginary * wz[cell];
        share.further.real = real * wz[cell + 3];
        share.further.imaginary = imaginary * wz[cell + 3];
        point->z[owner] = share;
        point->z_place[owner] = (first + cell) * LAYER;
        owner = owner == 2 ? 0 : owner + 1;
    }
#else
#pragma unroll
    for (int cell = 0; cell < WIDTH; ++cell) wz[cell] *= strength * value;
    deal(point->z, wz, first, LAYER);
#endif
}

__device__ __forceinline__ void add(REAL &sum, REAL weight, REAL value) { sum += weight * value; }

__device__ __forceinline__ void add(Pair &sum, REAL weight, const Pair &value) {
    sum.real += weight * value.real;
    sum.imaginary += weight * value.imaginary;
}

// A lane's eight cells of each of some points, its class being (i, j, k) on x, y, z.
__device__ __forceinline__ void spread(const Point *points, int n, int i, int j, int k, Sum *brick) {
    for (int p = 0; p < n; ++p) {
        const Share x = points[p].x[i], y = points[p].y[j];
        const ValueShare z = points[p].z[k];
#if COMPLEX_SUMS
        Sum *at = brick + (x.place + y.place + points[p].z_place[k]);
#else
        Sum *at = brick + (x.place + y.place + z.place);
#endif
        Sum sums[8];
#pragma unroll
        for (int c = 0; c < 8; ++c) sums[c] = at[(c & 1) * 3 + (c >> 1 & 1) * (3 * ROW) + (c >> 2) * (3 * LAYER)];
#pragma unroll
        for (int c = 0; c < 8; ++c) {
            const REAL w = (c & 1 ? x.further : x.nearer) * (c >> 1 & 1 ? y.further : y.nearer);
            add(sums[c], w, c >> 2 ? z.further : z.nearer);
        }
#pragma unroll
        for (int c = 0; c < 8; ++c) at[(c & 1) * 3 + (c >> 1 & 1) * (3 * ROW) + (c >> 2) * (3 * LAYER)] = sums[c];
    }
}

__device__ __forceinline__ Sum nothing() {
#if COMPLEX_SUMS
    Pair zero;
    zero.real = zero.imaginary = 0;
    return zero;
#else
    return 0;
#endif
}

__device__ __forceinline__ REAL plus(REAL a, REAL b) { return a + b; }

__device__ __forceinline__ Pair plus(const Pair &a, const Pair &b) {
    Pair sum;
    sum.real = a.real + b.real;
    sum.imaginary = a.imaginary + b.imaginary;
    return sum;
}

// Add the padded brick to the grid; what would lie outside is nothing, because no point reaches it.
__device__ __forceinline__ void flush(const Job &job, const Sum *brick, Sum *grid, int size, int size_x, int lane) {
    for (int start = lane; start < PADDED_CELLS; start += 32 * AHEAD) {
        Sum total[AHEAD];
        long long place[AHEAD];
#pragma unroll
        for (int n = 0; n < AHEAD; ++n) {
            const int cell = start + 32 * n, x = cell % PADDED, y = cell / PADDED % PADDED, z = cell / (PADDED * PADDED);
            const int at_x = job.first_x + x, at_y = job.first_y + y, at_z = job.first_z + z;
            const bool inside = cell < PADDED_CELLS && at_x < size_x && at_y < size && at_z < size;
            place[n] = inside ? ((long long)at_z * size + at_y) * size_x + at_x : -1;
            if (inside) total[n] = plus(grid[place[n]], brick[z * LAYER + y * ROW + x]);
        }
#pragma unroll
        for (int n = 0; n < AHEAD; ++n)
            if (place[n] >= 0) grid[place[n]] = total[n];
    }
}

// Write the padded brick; nothing, if it has no points.
__device__ __forceinline__ void write(const Sum *brick, bool touched, Sum *part, int lane) {
    for (int cell = lane; cell < PADDED_CELLS; cell += 32) {
        const int x = cell % PADDED, y = cell / PADDED % PADDED, z = cell / (PADDED * PADDED);
        part[cell] = touched ? brick[z * LAYER + y * ROW + x] : nothing();
    }
}

// A warp's shared memory.
struct Room {
    Sum *brick;          // [z, y, x] with steps LAYER, ROW and 1
    Point *points;       // [TILE]
    Queued *queue;       // [2 TILE]
    REAL *coefficients;  // [DEGREE + 1, TABLE_ROW]
};

// Spread the first n points of the queue, at most TILE. Nothing is done for a brick before its first points.
__device__ __forceinline__ void spread_queue(
    const Job &job, const Room &room, const REAL *coefficients, int n, bool &touched, int lane
) {
    if (!touched) {
        for (int cell = lane; cell < BRICK_CELLS; cell += 32) room.brick[cell] = nothing();
        for (int entry = lane; entry < (DEGREE + 1) * TABLE_ROW; entry += 32) room.coefficients[entry] = coefficients[entry];
        touched = true;
    }
    __syncwarp();
    if (lane < n) prepare(job, room.coefficients, room.queue[lane], &room.points[lane]);
    __syncwarp();
    if (lane < 27) spread(room.points, n, lane % 3, lane / 3 % 3, lane / 9, room.brick);
}

// From where to where points can lie on kx or ky.
__device__ __forceinline__ int2 range(const float4 &bound, const Job &job, int sign, int lowest, int highest) {
    const float centre = sign * (bound.x * job.centre_x + bound.y * job.centre_y + bound.z * job.centre_z);
    return make_int2(max(__float2int_ru(centre - bound.w), lowest), min(__float2int_rd(centre + bound.w), highest));
}

// The number of a slice's point if it belongs to the brick and is taken with this sign, else -1.
__device__ __forceinline__ int point_in_brick(const Job &job, const Steps &step, int kx, int ky, int sign) {
    const Position at = locate(job, step, kx, ky);
    const unsigned x = first_cell(at.x) - job.first_x, y = first_cell(at.y) - job.first_y, z = first_cell(at.z) - job.first_z;
    const bool inside = at.flipped == (sign < 0) && x < BRICK && y < BRICK && z < BRICK;
    return inside ? job.table[(ky + job.highest_y) * (job.highest_x + 1) + kx] : -1;
}

// Launched with one warp a block.
extern "C" __global__ void __launch_bounds__(32) spread_bricks(
    const int *bricks,         // [blocks, 5] first cell on x, y, z; which part of the slices; how many parts there are
    int is_apart,              // 1: write to `parts`; 0: add to `grid` (bricks of one parity, of one part each)
    int n_slices,
    const long long *steps,    // [n_slices, 2, 3] a step of kx and of ky on x, y, z, in 2^-32 cells
    const float4 *bounds,      // [3, n_slices] direction (normal, kx, ky) in the grid; half a brick's extent along it
    const int *table,          // [2 highest_y + 1, highest_x + 1] number of the point at (ky, kx), or -1
    int highest_x,
    int highest_y,
    int n_points,
    const REAL *values,        // [n_slices, n_points], with COMPLEX_SUMS [n_slices, n_points, 2]
    const REAL *adjoint,       // [n_slices, n_points]
    const REAL *weight,        // [n_points]
    const REAL *coefficients,  // [DEGREE + 1, TABLE_ROW] of the weights' polynomials, the highest degree first
    int size,
    int size_x,
    int origin_x,              // cell of frequency 0 on x; on y and z it is size / 2
    REAL *parts,               // [blocks, PADDED, PADDED, PADDED], with COMPLEX_SUMS [..., 2]; z, y, x
    REAL *grid                 // [size, size, size_x], with COMPLEX_SUMS [size, size, size_x, 2]; z, y, x
) {
    __shared__ Sum brick[BRICK_CELLS];
    __shared__ Point points[TILE];
    __shared__ Queued queue[2 * TILE];
    __shared__ REAL shared_coefficients[(DEGREE + 1) * TABLE_ROW];
    Room room;
    room.brick = brick, room.points = points, room.queue = queue, room.coefficients = shared_coefficients;

    const int lane = threadIdx.x, *what = bricks + 5 * (long long)blockIdx.x;
    Job job;
    job.steps = (const Steps *)steps, job.values = values, job.adjoint = adjoint, job.weight = weight, job.n_points = n_points;
    job.table = table, job.highest_x = highest_x, job.highest_y = highest_y;
    job.first_x = what[0], job.first_y = what[1], job.first_z = what[2];
    job.origin_x = origin_x, job.origin_y = job.origin_z = size / 2;
    const float half = 0.5f * BRICK + (WIDTH / 2 - 1);
    job.centre_x = (job.first_x - job.origin_x) + half;
    job.centre_y = (job.first_y - job.origin_y) + half;
    job.centre_z = (job.first_z - job.origin_z) + half;

    const int first_slice = (int)((long long)n_slices * what[3] / what[4]);
    const int end = (int)((long long)n_slices * (what[3] + 1) / what[4]);
    int n_queued = 0;
    bool touched = false;
    for (int start = first_slice; start < end; start += 32) {
        bool meets = false;
        if (start + lane < end) {
            const float4 normal = bounds[start + lane];
            meets = fabsf(normal.x * job.centre_x + normal.y * job.centre_y + normal.z * job.centre_z) <= normal.w;
        }
        for (unsigned left = __ballot_sync(ALL_LANES, meets); left; left &= left - 1) {
            const int slice = start + __ffs(left) - 1;
            const Steps step = job.steps[slice];
            const float4 bound_x = bounds[n_slices + slice], bound_y = bounds[2 * (long long)n_slices + slice];
            for (int sign = 1; sign >= -1; sign -= 2) {
                const int2 x = range(bound_x, job, sign, 0, highest_x), y = range(bound_y, job, sign, -highest_y, highest_y);
                const int across = x.y - x.x + 1, bits = across > 16 ? 5 : across > 8 ? 4 : across > 4 ? 3 : 2;
                const int right = lane & ((1 << bits) - 1), down = lane >> bits;  // the lanes' places in a patch of points
                for (int ky = y.x + down; ky - down <= y.y; ky += 32 >> bits) {
                    for (int kx = x.x + right; kx - right <= x.y; kx += 1 << bits) {
                        const int point = kx <= x.y && ky <= y.y ? point_in_brick(job, step, kx, ky, sign) : -1;
                        const unsigned taken = __ballot_sync(ALL_LANES, point >= 0);
                        if (point >= 0) {
                            const Queued queued = {slice, kx, ky, point};
                            queue[n_queued + __popc(taken & ((1u << lane) - 1))] = queued;
                        }
                        n_queued += __popc(taken);
                        if (n_queued < TILE) continue;
                        spread_queue(job, room, coefficients, TILE, touched, lane);
                        n_queued -= TILE;
                        if (lane < n_queued) queue[lane] = queue[TILE + lane];
                        __syncwarp();
                    }
                }
            }
        }
    }
    if (n_queued > 0) spread_queue(job, room, coefficients, n_queued, touched, lane);
    __syncwarp();
    if (is_apart)
        write(brick, touched, (Sum *)parts + (long long)blockIdx.x * PADDED_CELLS, lane);
    else if (touched)
        flush(job, brick, (Sum *)grid, size, size_x, lane);
}

// Add bricks that were filled in parts to the grid, a thread for each cell and the parts in their order.
extern "C" __global__ void __launch_bounds__(256) add_parts(
    const int *bricks,  // [blocks, 5] first cell on x, y, z; the first part; how many parts; bricks of one parity
    const REAL *parts,  // [parts, PADDED, PADDED, PADDED], with COMPLEX_SUMS [..., 2]; z, y, x
    int size,
    int size_x,
    REAL *grid          // [size, size, size_x], with COMPLEX_SUMS [size, size, size_x, 2]; z, y, x
) {
    const int *what = bricks + 5 * (long long)blockIdx.x;
    const Sum *part = (const Sum *)parts + (long long)what[3] * PADDED_CELLS;
    for (int cell = threadIdx.x; cell < PADDED_CELLS; cell += blockDim.x) {
        const int x = what[0] + cell % PADDED, y = what[1] + cell / PADDED % PADDED, z = what[2] + cell / (PADDED * PADDED);
        if (x >= size_x || y >= size || z >= size) continue;
        Sum total = nothing();
        for (int n = 0; n < what[4]; ++n) total = plus(total, part[(long long)n * PADDED_CELLS + cell]);
        Sum *place = (Sum *)grid + (((long long)z * size + y) * size_x + x);
        *place = plus(*place, total);
    }
}
