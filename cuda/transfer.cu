// What the microscope does to projections, and what undoes it in images, at the Fourier points of a half plane; and the
// likelihood of projections beside images. Formulas: gem_plugin/optics.py, gem_plugin/conventions.py, docs/method.md.
// THREADS of a block and REAL are defined before this text; common.cu stands before it.
//
// Phases are counted in turns, in double: of hundreds of turns only the fraction matters, and that is what is rounded
// to float. A thread takes one point of one particle: the point is on x of the grid, the particle on y.

// States of images: nothing was done to their CTF; phases flipped; multiplied by it; corrected for it.
#define PHASE_FLIPPED 1
#define PREMULTIPLIED 2
#define CORRECTED 3

__device__ __forceinline__ float sine_of_half_turns(float x) { return sinpif(x); }
__device__ __forceinline__ double sine_of_half_turns(double x) { return sinpi(x); }
__device__ __forceinline__ float cosine_of_half_turns(float x) { return cospif(x); }
__device__ __forceinline__ double cosine_of_half_turns(double x) { return cospi(x); }
__device__ __forceinline__ REAL fraction_of_turns(double turns) { return (REAL)(turns - rint(turns)); }

extern "C" __global__ void __launch_bounds__(THREADS) ctf_of_points(
    const double* __restrict__ of_points,     // [4, points] k^2, kx^2 - ky^2, 2 kx ky at the specimen; turns for all
    const double* __restrict__ of_particles,  // [particles, 6] turns a unit of those three; turns; bits k^2; factor
    const REAL* __restrict__ group_scales,    // [particles] of the signal in each image
    int n_points, int n_particles, int state,
    int is_intact,                            // 1: taken to be 1 up to its first peak
    REAL* __restrict__ transfer,              // [particles, points] written: from the slice to the image
    REAL* __restrict__ adjoint                // [particles, points] written if premultiplied, else not touched
) {
  const int i = blockIdx.x * THREADS + threadIdx.x, particle = blockIdx.y;
  if (i >= n_points) return;
  const double* own = of_particles + 6 * (long long)particle;
  const long long n = n_points, place = particle * n + i;
  REAL ctf = 1;
  if (state != CORRECTED) {
    const double turns = own[0] * of_points[i] + own[1] * of_points[n + i] + own[2] * of_points[2 * n + i] + own[3]
                         + of_points[3 * n + i];
    ctf = -sine_of_half_turns(2 * fraction_of_turns(turns));
    if (is_intact && turns < 0.25 && turns > -0.25) ctf = 1;
    ctf *= power_of_two((REAL)(-own[4] * of_points[i])) * (REAL)own[5];
  }
  if (state == PHASE_FLIPPED && ctf < 0) ctf = -ctf;
  const REAL scale = group_scales[particle];
  if (state == PREMULTIPLIED) {
    adjoint[place] = scale;
    ctf *= ctf;
  }
  transfer[place] = ctf * scale;
}

extern "C" __global__ void __launch_bounds__(THREADS) centre_images(
    const REAL* __restrict__ spectra,         // [particles, spectrum, 2] rfft2 of the images, row by row
    const int* __restrict__ places,           // [points] where each point lies in a spectrum
    const int* __restrict__ frequencies,      // [2, points] kx, ky in cycles a box edge
    const REAL* __restrict__ of_points,       // [points, 2] factors for all particles
    const double* __restrict__ of_particles,  // [particles, 3] turns a cycle on x and on y; a factor
    int n_points, int n_particles, long long spectrum,
    REAL* __restrict__ observed               // [particles, points, 2] written
) {
  const int i = blockIdx.x * THREADS + threadIdx.x, particle = blockIdx.y;
  if (i >= n_points) return;
  const double* own = of_particles + 3 * (long long)particle;
  const REAL half_turns = 2 * fraction_of_turns(own[0] * frequencies[i] + own[1] * frequencies[n_points + i]);
  const REAL factor = (REAL)own[2];
  const REAL c = cosine_of_half_turns(half_turns) * factor, s = sine_of_half_turns(half_turns) * factor;
  const REAL re = c * of_points[2 * i] - s * of_points[2 * i + 1], im = c * of_points[2 * i + 1] + s * of_points[2 * i];
  const REAL* value = spectra + 2 * (particle * spectrum + places[i]);
  REAL* out = observed + 2 * (particle * (long long)n_points + i);
  out[0] = value[0] * re - value[1] * im;
  out[1] = value[0] * im + value[1] * re;
}

// The loss sum strength (|CTF X|^2 - 2 Re CTF X conj(Y)) of a projection's transform X, which is the likelihood less a
// constant, and its gradient d/dRe + i d/dIm in the spectrum that X is taken from.
extern "C" __global__ void __launch_bounds__(THREADS) compare_spectra(
    const REAL* __restrict__ spectra,    // [particles, spectrum, 2] rfft2 of the projections, row by row
    const int* __restrict__ places,      // [points] where each point lies in a spectrum
    const REAL* __restrict__ factors,    // [points] from the spectrum to X: sign and greyscale
    const REAL* __restrict__ strengths,  // [points] weight over noise power
    const REAL* __restrict__ ctf,        // [particles, points]
    const REAL* __restrict__ observed,   // [particles, points, 2] Y
    int n_points, int n_particles, long long spectrum,
    REAL* __restrict__ gradients,        // [particles, spectrum, 2] written where points lie
    double* __restrict__ losses          // [particles, blocks on x] written: sums over a block's points
) {
  __shared__ double of_warps[THREADS / 32];
  const int i = blockIdx.x * THREADS + threadIdx.x, particle = blockIdx.y;
  double loss = 0;
  if (i < n_points) {
    const long long at = 2 * (particle * spectrum + places[i]), own = particle * (long long)n_points + i;
    const REAL factor = factors[i] * ctf[own], strength = strengths[i];
    const REAL re = factor * spectra[at], im = factor * spectra[at + 1];
    const REAL y_re = observed[2 * own], y_im = observed[2 * own + 1];
    loss = (double)strength * ((double)re * (re - 2 * y_re) + (double)im * (im - 2 * y_im));
    gradients[at] = 2 * strength * factor * (re - y_re);
    gradients[at + 1] = 2 * strength * factor * (im - y_im);
  }
  loss = sum_over_warp(loss);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = loss;
  __syncthreads();
  if (threadIdx.x > 0) return;
  double total = 0;
  for (int warp = 0; warp < THREADS / 32; ++warp) total += of_warps[warp];
  losses[particle * (long long)gridDim.x + blockIdx.x] = total;
}

// Fit each projection X (times the CTF) to its image Y by a factor, <X, Y> / <X, X>, 0 where the projection is empty, and
// sum what is left of Y shell by shell. A block takes a particle, a warp of it a shell; every sum has its order.
extern "C" __global__ void __launch_bounds__(THREADS) compare_by_shell(
    const REAL* __restrict__ spectra,      // [particles, spectrum, 2] rfft2 of the projections, row by row
    const int* __restrict__ places,        // [points] where each point lies in a spectrum
    const REAL* __restrict__ factors,      // [points] from the spectrum to X: sign and greyscale
    const double* __restrict__ strengths,  // [points] weight over noise power
    const REAL* __restrict__ ctf,          // [particles, points]
    const REAL* __restrict__ observed,     // [particles, points, 2] Y
    const int* __restrict__ by_shell,      // [points] the points, shell after shell
    const int* __restrict__ bounds,        // [shells + 1] where in by_shell each shell begins, and the last ends
    int n_points, int n_shells, long long spectrum,
    double* __restrict__ scales,           // [particles] written
    double* __restrict__ residuals         // [particles, shells] written
) {
  __shared__ double of_warps[2][THREADS / 32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const REAL* own_spectrum = spectra + 2 * blockIdx.x * spectrum;
  const REAL* own_ctf = ctf + (long long)blockIdx.x * n_points;
  const REAL* own_observed = observed + 2 * (long long)blockIdx.x * n_points;
  double cross = 0, power = 0;
  for (int i = threadIdx.x; i < n_points; i += THREADS) {
    const REAL factor = factors[i] * own_ctf[i];
    const double re = factor * own_spectrum[2 * places[i]], im = factor * own_spectrum[2 * places[i] + 1];
    cross += strengths[i] * (re * own_observed[2 * i] + im * own_observed[2 * i + 1]);
    power += strengths[i] * (re * re + im * im);
  }
  cross = sum_over_warp(cross);
  power = sum_over_warp(power);
  if (lane == 0) {
    of_warps[0][warp] = cross;
    of_warps[1][warp] = power;
  }
  __syncthreads();
  cross = power = 0;
  for (int other = 0; other < THREADS / 32; ++other) {
    cross += of_warps[0][other];
    power += of_warps[1][other];
  }
  const double scale = power > 0 ? cross / power : 0;
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
  for (int shell = warp; shell < n_shells; shell += THREADS / 32) {
    double left = 0;
    for (int member = bounds[shell] + lane; member < bounds[shell + 1]; member += 32) {
      const int i = by_shell[member];
      const REAL factor = factors[i] * own_ctf[i];
      const double re = scale * (factor * own_spectrum[2 * places[i]]) - own_observed[2 * i];
      const double im = scale * (factor * own_spectrum[2 * places[i] + 1]) - own_observed[2 * i + 1];
      left += strengths[i] * (re * re + im * im);
    }
    left = sum_over_warp(left);
    if (lane == 0) residuals[(long long)blockIdx.x * n_shells + shell] = left;
  }
}

// A number for each image that equal images share, and different ones, for all practical purposes, do not: the sum,
// modulo 2^64, of numbers made of a pixel's bits and its place by multiplying with digits of sqrt(2) and sqrt(3).
extern "C" __global__ void __launch_bounds__(THREADS) digest_images(
    const int* __restrict__ images,           // [particles, pixels] the bits of float32
    long long n_pixels,
    unsigned long long* __restrict__ digests  // [particles] int64, added to
) {
  const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
  unsigned long long number = 0;
  if (i < n_pixels) {
    number = ((unsigned long long)i << 32) | (unsigned)images[blockIdx.y * n_pixels + i];
    number = (number + 1) * 0x6A09E667F3BCC909ull;
    number = (number ^ (number >> 32)) * 0xBB67AE8584CAA73Bull;
    number ^= number >> 29;
  }
  number = sum_over_warp(number);
  if (threadIdx.x % 32 == 0) atomicAdd(&digests[blockIdx.y], number);
}
