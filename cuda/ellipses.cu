// Gaussians as they are seen in an image: ellipses, row by row, and the part of the image they lie in.
// REAL, CHUNK and what else project.cu asks for are defined before this text; common.cu stands before it.

#define BITS 0.72134752044448170  // exp(-q / 2) = 2^-(BITS q)
#define INVERSE_ROOT_OF_BITS 1.1774100225154747
#define INVERSE_OF_TWO_PI 0.15915494309189535
#define LEAST_VARIANCE 1e-20   // px^2: far below the narrowest Gaussian that the host lets through
#define LARGEST_VARIANCE 1e30  // px^2: of what is wider, nothing would be seen
#define FARTHEST 16777216.0    // px: whole numbers up to here are exact in float

// What a thread keeps of its Gaussian while it goes from image to image.
struct Gaussian {
  double x, y, z;   // centre, pixels from the box centre
  REAL axes[9];     // row i: component i of the three axes, each as long as the width along it
  REAL least_area;  // product of the two smaller widths, px^2; 0: is not drawn
  REAL amplitude;
};

// An ellipse as its rows need it. Pixels on x are counted from `column`, exponents are in bits.
struct Footprint {
  REAL slope;        // how far a row's maximum moves in x for a step in y
  REAL qxx, qyy;     // BITS over the variance of x in a row; BITS over the variance of y
  REAL centre_x;
  REAL sigma_x;      // of a row, times BITS^-1/2
  REAL dy;           // of the first row from the centre
  REAL left, right;  // first and last pixel of the footprint's box on the image
  REAL unit_peak;    // value at the centre for amplitude 1
  int column;
  int row, rows;     // rows of the footprint on the image
};

// The pixels of an image that a chunk's footprints lie in.
struct Extent {
  int left, top, right, bottom;
};

__device__ inline Gaussian gaussian_of_thread(
    const double* __restrict__ centres, const REAL* __restrict__ axes, const REAL* __restrict__ least_areas,
    const REAL* __restrict__ amplitudes, int n_gaussians) {
  Gaussian g = {};
  const int j = blockIdx.x * CHUNK + threadIdx.x;
  if (threadIdx.x >= CHUNK || j >= n_gaussians) return g;
  g.x = centres[3 * (long long)j];
  g.y = centres[3 * (long long)j + 1];
  g.z = centres[3 * (long long)j + 2];
  for (int i = 0; i < 9; ++i) g.axes[i] = axes[9 * (long long)j + i];
  g.least_area = least_areas[j];
  g.amplitude = amplitudes[j];
  return g;
}

// The ellipse of a Gaussian in a view: no rows if it is not on the image or not finite.
__device__ inline Footprint see(const Gaussian& g, const double* __restrict__ rotation, REAL view_area, REAL cutoff,
                                int n) {
  Footprint f = {};
  const REAL a[3] = {(REAL)rotation[0], (REAL)rotation[1], (REAL)rotation[2]};
  const REAL b[3] = {(REAL)rotation[3], (REAL)rotation[4], (REAL)rotation[5]};
  REAL u[3], v[3];  // x and y of the three axes in the image
  for (int k = 0; k < 3; ++k) {
    u[k] = a[0] * g.axes[k] + a[1] * g.axes[3 + k] + a[2] * g.axes[6 + k];
    v[k] = b[0] * g.axes[k] + b[1] * g.axes[3 + k] + b[2] * g.axes[6 + k];
  }
  const REAL cxx = u[0] * u[0] + u[1] * u[1] + u[2] * u[2];
  const REAL cxy = u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
  const REAL cyy = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
  // |u x v| = sqrt(cxx cyy - cxy^2) without its cancellation; never below what the widths allow in this view
  const REAL wx = u[1] * v[2] - u[2] * v[1], wy = u[2] * v[0] - u[0] * v[2], wz = u[0] * v[1] - u[1] * v[0];
  const REAL area = larger(square_root(wx * wx + wy * wy + wz * wz), g.least_area * view_area);
  const REAL sigma_y = square_root(cyy), sigma_row = area / sigma_y;
  const double px = rotation[0] * g.x + rotation[1] * g.y + rotation[2] * g.z + n / 2;
  const double py = rotation[3] * g.x + rotation[4] * g.y + rotation[5] * g.z + n / 2;
  const double reach_x = cutoff * square_root(cxx), reach_y = cutoff * sigma_y;
  const bool is_on_image = px + reach_x >= 0 && px - reach_x <= n - 1 && py + reach_y >= 0 && py - reach_y <= n - 1;
  const REAL least = (REAL)LEAST_VARIANCE, largest = (REAL)LARGEST_VARIANCE;
  const bool has_shape = g.least_area > 0 && sigma_row * sigma_row > least && cyy > least && cxx < largest
                         && cyy < largest;
  if (!is_on_image || !has_shape) return f;
  const double column = fmin(fmax(floor(px), -FARTHEST), FARTHEST);
  f.slope = cxy / cyy;
  f.qxx = (REAL)BITS / (sigma_row * sigma_row);
  f.qyy = (REAL)BITS / cyy;
  f.centre_x = (REAL)(px - column);
  f.sigma_x = sigma_row * (REAL)INVERSE_ROOT_OF_BITS;
  f.unit_peak = (REAL)INVERSE_OF_TWO_PI / area;
  f.column = (int)column;
  f.left = (REAL)(fmax(ceil(px - reach_x), 0.0) - column);
  f.right = (REAL)(fmin(floor(px + reach_x), n - 1.0) - column);
  const double first = fmax(ceil(py - reach_y), 0.0), last = fmin(floor(py + reach_y), n - 1.0);
  f.dy = (REAL)(first - py);
  f.row = (int)first;
  f.rows = f.left <= f.right ? (int)(last - first) + 1 : 0;
  return f;
}

// The part of a row that belongs to the footprint: first and last pixel, the maximum's place, the exponent there.
struct Row {
  REAL first, last, top, exponent;
};

__device__ inline Row row_of(const Footprint& f, REAL dy, REAL cut) {
  Row row;
  row.exponent = f.qyy * dy * dy;
  row.top = f.centre_x + f.slope * dy;
  const REAL half = square_root(larger(cut - row.exponent, (REAL)0)) * f.sigma_x;
  row.first = larger(rounded_up(row.top - half), f.left);
  row.last = smaller(rounded_down(row.top + half), f.right);
  return row;
}

__device__ inline int least_of_warp(int value) {
  for (int step = 16; step > 0; step /= 2) {
    const int other = __shfl_xor_sync(WHOLE_WARP, value, step);
    value = other < value ? other : value;
  }
  return value;
}

// Widen the chunk's bounds [4] (left, top, -right, -bottom) by a warp's footprints; whole warps call it.
__device__ inline void widen(int* bounds, const Footprint& f) {
  const int nothing = 0x7fffffff;
  const int own[4] = {f.rows > 0 ? f.column + (int)f.left : nothing, f.rows > 0 ? f.row : nothing,
                      f.rows > 0 ? -(f.column + (int)f.right) : nothing,
                      f.rows > 0 ? -(f.row + f.rows - 1) : nothing};
  for (int i = 0; i < 4; ++i) {
    const int least = least_of_warp(own[i]);
    if (threadIdx.x % 32 == 0) atomicMin(&bounds[i], least);
  }
}

__device__ inline Extent extent_of(const int* bounds) {
  Extent e;
  e.left = bounds[0];
  e.top = bounds[1];
  e.right = -bounds[2];
  e.bottom = -bounds[3];
  return e;
}
