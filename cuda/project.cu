// Gaussians to images of the particle in given views, and back: the sums behind gem_plugin/ops/project.py.
//
// Defined before this text: REAL (float or double) and REAL_IS_DOUBLE (0 or 1), THREADS of a block, BLOCKS_DRAWING and
// BLOCKS_GATHERING that a multiprocessor shall have registers for, CHUNK Gaussians that a block takes (neighbours in
// space, so that they are neighbours in every view), LANES threads that share a Gaussian's rows, PATCH_PX numbers of
// shared memory for the part of an image under the chunk. CHUNK is a multiple of 32 and of THREADS / LANES, and at most
// 256 and THREADS; LANES is 1, 2, 4, 8, 16 or 32; a row of the image and one number more must fit in the patch.
// common.cu and ellipses.cu stand before this text, too.
//
// A chunk's part of an image that is larger than the patch is taken in bands of rows. Nothing is left out.
//
// Forward, values are integers: in the patch in units of 2^-fine, with `fine` such that the chunk's largest peak
// is below 2^22 units, so that 256 of them fit in 31 bits; in the image in units of 2^-exponent, so small that the sum
// of all peaks fits in 62 bits. The one is a multiple of the other. Sums of integers do not depend on their order, so
// images repeat bit for bit. A contribution is wrong by half a unit of the patch at most: 2^-22 of the chunk's
// largest peak. With double, both units are the image's.
//
// Backward, each Gaussian gathers moments of the gradient; a thread carries them to the Gaussian's ten numbers and adds
// the images in their order. Each number is written once: nothing is atomic.

#define WARPS (THREADS / 32)
#define SLOTS (THREADS / LANES)  // Gaussians at a time

// ---------------------------------------------------------------------------------------------------- forward

#if REAL_IS_DOUBLE
typedef long long Cell;
__device__ inline void add_to_cell(Cell* cell, Cell value) {
  atomicAdd((unsigned long long*)cell, (unsigned long long)value);
}
__device__ inline Cell units(REAL weight, REAL peak) { return (Cell)__double2ll_rn(weight * peak); }
// The image's own: eight bytes of shared memory a pixel buy all digits.
__device__ inline int fine_exponent(int peak_bits, int exponent) { return exponent; }
#else
typedef int Cell;
__device__ inline void add_to_cell(Cell* cell, Cell value) { atomicAdd(cell, value); }
// The nearest whole number of weight * peak, which is below 2^22: it appears in the last bits beside 3 * 2^22.
__device__ inline Cell units(REAL weight, REAL peak) {
  return __float_as_int(fmaf(weight, peak, 12582912.0f)) - 0x4B400000;
}
// Of the patch, such that the largest peak (its bits are given) is below 2^22 units. One that is not finite makes the
// image NaN whatever is summed.
__device__ inline int fine_exponent(int peak_bits, int exponent) {
  const int fine = 21 - ((peak_bits >> 23) - 127);
  return fine < exponent && peak_bits < 0x7f800000 ? fine : exponent;
}
#endif

__device__ inline REAL two_to(int exponent) {
#if REAL_IS_DOUBLE
  return ldexp(1.0, exponent);
#else
  return ldexpf(1.0f, exponent);
#endif
}

__device__ inline int bits_of_peak(REAL peak) { return __float_as_int((float)(peak < 0 ? -peak : peak)); }

// Add the part of a footprint that lies in a band of rows to the patch.
__device__ inline void draw_rows(Footprint f, REAL peak, REAL cut, int lane, int first_row, int last_row,
                                 int patch_left, int stride, Cell* patch) {
  const int end = f.row + f.rows - 1 < last_row ? f.row + f.rows - 1 : last_row;
  for (int y = (f.row > first_row ? f.row : first_row) + lane; y <= end; y += LANES) {
    const Row row = row_of(f, f.dy + (REAL)(y - f.row), cut);
    if (!(row.first <= row.last)) continue;
    const int count = (int)(row.last - row.first) + 1;
    Cell* cell = patch + (y - first_row) * stride + f.column + (int)row.first - patch_left;
    REAL x = row.first - row.top;
    for (int i = 0; i < count; ++i) {
      add_to_cell(cell + i, units(power_of_two(-(row.exponent + f.qxx * x * x)), peak));
      x += 1;
    }
  }
}

// Add what the patch holds to the image; a warp to a row.
__device__ inline void flush(const Cell* patch, int stride, int first_row, int last_row, const Extent& extent,
                             int shift, int n, unsigned long long* __restrict__ image) {
  for (int y = first_row + threadIdx.x / 32; y <= last_row; y += WARPS) {
    for (int x = extent.left + threadIdx.x % 32; x <= extent.right; x += 32) {
      const long long value = patch[(y - first_row) * stride + x - extent.left];
      // a negative number is shifted as the unsigned number that has its bits
      if (value != 0) atomicAdd(&image[(long long)y * n + x], (unsigned long long)value << shift);
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_DRAWING) draw_gaussians(
    const double* __restrict__ rotations,  // [images, 3, 3] map to view; lengths may be scaled, too
    const REAL* __restrict__ view_areas,   // [images] area in the image of a unit square in its plane
    const int* __restrict__ exponents,     // [images] the image's unit is 2^-exponent
    const double* __restrict__ centres,    // [gaussians, 3] x, y, z from the box centre
    const REAL* __restrict__ axes,         // [gaussians, 3, 3] axes in the columns, as long as the widths
    const REAL* __restrict__ least_areas,  // [gaussians] product of the two smaller widths; 0: not drawn
    const REAL* __restrict__ amplitudes,   // [gaussians]
    int n_gaussians, int n_images, int images_per_block, int box_size_px, REAL cutoff,
    unsigned long long* __restrict__ sums  // [images, n, n] int64, added to
) {
  __shared__ Footprint footprints[CHUNK];
  __shared__ REAL peaks[CHUNK];
  __shared__ Cell patch[PATCH_PX];
  __shared__ int bounds[4];
  __shared__ int highest;  // minus the bits of the largest peak
  const int n = box_size_px, lane = threadIdx.x % LANES, slot = threadIdx.x / LANES;
  const REAL cut = (REAL)BITS * cutoff * cutoff;
  const Gaussian g = gaussian_of_thread(centres, axes, least_areas, amplitudes, n_gaussians);
  const int begin = blockIdx.y * images_per_block;
  const int end = begin + images_per_block < n_images ? begin + images_per_block : n_images;
  for (int b = begin; b < end; ++b) {
    if (threadIdx.x < 4) bounds[threadIdx.x] = 0x7fffffff;
    if (threadIdx.x == 0) highest = 0;
    __syncthreads();
    if (threadIdx.x < CHUNK) {
      const Footprint f = see(g, rotations + 9 * (long long)b, view_areas[b], cutoff, n);
      const REAL peak = f.rows > 0 ? g.amplitude * f.unit_peak : (REAL)0;
      footprints[threadIdx.x] = f;
      peaks[threadIdx.x] = peak;
      widen(bounds, f);
      const int least = least_of_warp(-bits_of_peak(peak));
      if (threadIdx.x % 32 == 0) atomicMin(&highest, least);
    }
    __syncthreads();
    const Extent extent = extent_of(bounds);
    const int fine = fine_exponent(-highest, exponents[b]);
    const REAL per_unit = two_to(fine);
    if (extent.right < extent.left) {  // nothing of the chunk is on this image
      __syncthreads();                 // what all have read may be written again
      continue;
    }
    const int stride = (extent.right - extent.left + 1) | 1;  // odd: rows begin in different banks
    const int band = PATCH_PX / stride;
    for (int first_row = extent.top; first_row <= extent.bottom; first_row += band) {
      const int last_row = first_row + band - 1 < extent.bottom ? first_row + band - 1 : extent.bottom;
      for (int i = threadIdx.x; i < (last_row - first_row + 1) * stride; i += THREADS) patch[i] = 0;
      __syncthreads();
      for (int j = slot; j < CHUNK; j += SLOTS) {
        draw_rows(footprints[j], peaks[j] * per_unit, cut, lane, first_row, last_row, extent.left, stride, patch);
      }
      __syncthreads();
      flush(patch, stride, first_row, last_row, extent, exponents[b] - fine, n, sums + (long long)b * n * n);
      __syncthreads();
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS) pixels_of_sums(
    const long long* __restrict__ sums,  // [images, pixels]
    const double* __restrict__ units,    // [images] what one counts for
    long long n_pixels,                  // of an image
    REAL* __restrict__ pixels            // [images, pixels], written
) {
  const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
  if (i >= n_pixels) return;
  const long long place = (long long)blockIdx.y * n_pixels + i;
  pixels[place] = (REAL)((double)sums[place] * units[blockIdx.y]);
}

// ---------------------------------------------------------------------------------------------------- backward

// Sums of w, w u, w v, w u u, w u v, w v v over the rows of a band, with w = gradient * 2^-exponent, v the distance
// from the centre in y and u that from the row's maximum in x.
__device__ inline void gather_rows(Footprint f, REAL cut, int lane, int first_row, int last_row, int patch_left,
                                   int stride, const REAL* patch, REAL* m) {
  const int end = f.row + f.rows - 1 < last_row ? f.row + f.rows - 1 : last_row;
  for (int y = (f.row > first_row ? f.row : first_row) + lane; y <= end; y += LANES) {
    const REAL v = f.dy + (REAL)(y - f.row);
    const Row row = row_of(f, v, cut);
    if (!(row.first <= row.last)) continue;
    const int count = (int)(row.last - row.first) + 1;
    const REAL* cell = patch + (y - first_row) * stride + f.column + (int)row.first - patch_left;
    REAL u = row.first - row.top, s0 = 0, s1 = 0, s2 = 0;
    for (int i = 0; i < count; ++i) {
      const REAL w = cell[i] * power_of_two(-(row.exponent + f.qxx * u * u));
      s0 += w;
      s1 += w * u;
      s2 += w * u * u;
      u += 1;
    }
    m[0] += s0;
    m[1] += s1;
    m[2] += s0 * v;
    m[3] += s2;
    m[4] += s1 * v;
    m[5] += s0 * v * v;
  }
}

// Carry one image's moments to the ten numbers of a Gaussian and add them. With a and b the first rows of the view and
// c = a - slope b, the precision in the image is, carried back to the map, qxx c c^T + qyy b b^T.
__device__ inline void add_gradients(const Footprint& f, const REAL* m, REAL amplitude,
                                     const double* __restrict__ rotation, REAL* s) {
  const REAL b[3] = {(REAL)rotation[3], (REAL)rotation[4], (REAL)rotation[5]};
  const REAL c[3] = {(REAL)rotation[0] - f.slope * b[0], (REAL)rotation[1] - f.slope * b[1],
                     (REAL)rotation[2] - f.slope * b[2]};
  const REAL qxx = f.qxx / (REAL)BITS, qyy = f.qyy / (REAL)BITS, peak = amplitude * f.unit_peak;
  const REAL gc = peak * qxx * m[1], gb = peak * qyy * m[2];
  const REAL hcc = (REAL)0.5 * peak * qxx * (qxx * m[3] - m[0]);
  const REAL hcb = (REAL)0.5 * peak * qxx * qyy * m[4];
  const REAL hbb = (REAL)0.5 * peak * qyy * (qyy * m[5] - m[0]);
  for (int i = 0; i < 3; ++i) s[i] += gc * c[i] + gb * b[i];
  int place = 3;
  for (int i = 0; i < 3; ++i) {
    for (int k = i; k < 3; ++k) {
      s[place++] += hcc * c[i] * c[k] + hcb * (c[i] * b[k] + b[i] * c[k]) + hbb * b[i] * b[k];
    }
  }
  s[9] += f.unit_peak * m[0];
}

// Copy a band of the gradient under the chunk to the patch; a warp to a row.
__device__ inline void fetch(const REAL* __restrict__ image, int n, int first_row, int last_row, const Extent& extent,
                             int stride, REAL* patch) {
  for (int y = first_row + threadIdx.x / 32; y <= last_row; y += WARPS) {
    for (int x = extent.left + threadIdx.x % 32; x <= extent.right; x += 32) {
      patch[(y - first_row) * stride + x - extent.left] = image[(long long)y * n + x];
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_GATHERING) gather_gradients(
    const double* __restrict__ rotations,  // [images, 3, 3]; these seven as in draw_gaussians
    const REAL* __restrict__ view_areas,   // [images]
    const double* __restrict__ centres,    // [gaussians, 3]
    const REAL* __restrict__ axes,         // [gaussians, 3, 3]
    const REAL* __restrict__ least_areas,  // [gaussians]
    const REAL* __restrict__ amplitudes,   // [gaussians]
    const REAL* __restrict__ gradients,    // [images, n, n] of the loss in the images
    int n_gaussians, int n_images, int images_per_block, int box_size_px, REAL cutoff,
    REAL* __restrict__ parts  // [groups of images, gaussians, 10], written: see below
) {
  // dL/dcentre x, y, z; dL/dCovariance xx, xy, xz, yy, yz, zz, half of what a pair of off-diagonal elements does;
  // dL/damplitude
  __shared__ Footprint footprints[CHUNK];
  __shared__ REAL moments[CHUNK][7];  // of six; the seventh keeps the banks apart
  __shared__ REAL patch[PATCH_PX];
  __shared__ int bounds[4];
  const int n = box_size_px, lane = threadIdx.x % LANES, slot = threadIdx.x / LANES;
  const REAL cut = (REAL)BITS * cutoff * cutoff;
  const Gaussian g = gaussian_of_thread(centres, axes, least_areas, amplitudes, n_gaussians);
  REAL total[10] = {};
  const int begin = blockIdx.y * images_per_block;
  const int end = begin + images_per_block < n_images ? begin + images_per_block : n_images;
  for (int b = begin; b < end; ++b) {
    const double* rotation = rotations + 9 * (long long)b;
    if (threadIdx.x < 4) bounds[threadIdx.x] = 0x7fffffff;
    __syncthreads();
    if (threadIdx.x < CHUNK) {
      const Footprint f = see(g, rotation, view_areas[b], cutoff, n);
      footprints[threadIdx.x] = f;
      for (int i = 0; i < 6; ++i) moments[threadIdx.x][i] = 0;
      widen(bounds, f);
    }
    __syncthreads();
    const Extent extent = extent_of(bounds);
    if (extent.right < extent.left) {
      __syncthreads();
      continue;
    }
    const int stride = (extent.right - extent.left + 1) | 1;
    const int band = PATCH_PX / stride;
    for (int first_row = extent.top; first_row <= extent.bottom; first_row += band) {
      const int last_row = first_row + band - 1 < extent.bottom ? first_row + band - 1 : extent.bottom;
      fetch(gradients + (long long)b * n * n, n, first_row, last_row, extent, stride, patch);
      __syncthreads();
      for (int j = slot; j < CHUNK; j += SLOTS) {  // as often in every thread: SLOTS divides CHUNK
        REAL m[6] = {};
        gather_rows(footprints[j], cut, lane, first_row, last_row, extent.left, stride, patch, m);
        for (int i = 0; i < 6; ++i) {
          for (int step = LANES / 2; step > 0; step /= 2) m[i] += __shfl_xor_sync(WHOLE_WARP, m[i], step);
          if (lane == 0) moments[j][i] += m[i];
        }
      }
      __syncthreads();
    }
    if (threadIdx.x < CHUNK && footprints[threadIdx.x].rows > 0) {
      add_gradients(footprints[threadIdx.x], moments[threadIdx.x], g.amplitude, rotation, total);
    }
  }
  const int j = blockIdx.x * CHUNK + threadIdx.x;
  if (threadIdx.x >= CHUNK || j >= n_gaussians) return;
  for (int i = 0; i < 10; ++i) parts[((long long)blockIdx.y * n_gaussians + j) * 10 + i] = total[i];
}

extern "C" __global__ void __launch_bounds__(THREADS) add_parts(
    const REAL* __restrict__ parts,  // [parts, numbers]
    int n_parts, long long n_numbers,
    double* __restrict__ total     // [numbers], written
) {
  const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
  if (i >= n_numbers) return;
  double sum = 0;
  for (int part = 0; part < n_parts; ++part) sum += parts[part * n_numbers + i];
  total[i] = sum;
}
