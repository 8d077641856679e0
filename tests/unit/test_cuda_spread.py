"""The GPU's spreading, run on the CPU: against the Numba engine, direct sums in float64, and finufft."""

import dataclasses

import finufft
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gem_plugin import conventions
from gem_plugin.dataset import FourierBatch
from gem_plugin.device_sums import DeviceSliceSums, device_bytes
from gem_plugin.normal_equations import Accumulator, axis_frequencies
from gem_plugin.ops import cuda_spread
from gem_plugin.ops.cuda_spread import BrickPlan, CudaGrid, PointTable, particles_per_call
from gem_plugin.ops.numba_spread import MARGIN, WIDTH, spread_slices
from gem_plugin.spreading import UPSAMPLING, FineGrid, SliceSums, slice_grids
from tests.cuda_shim.emulator import EmulatedGpu
from tests.helpers import NUFFT, relative_error

pytestmark = pytest.mark.usefixtures("emulated_gpu")
CPU = torch.device("cpu")
N = 16
SAME_GRID = 5e-7  # relative L2 difference of two float32 grids; worst measured 1.6e-7
SAME_SUMS = 3e-6  # of their transforms; worst measured 9e-7

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def data_for(plane: conventions.HalfPlane, n_slices: int) -> Data:
    """Transforms, transfer, adjoint and weight of some images."""
    rng = np.random.default_rng(n_slices)
    shape = (n_slices, len(plane.kx))
    observed = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    transfer, adjoint = (rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(2))
    return observed, transfer, adjoint, rng.uniform(0.5, 1.5, shape[1]).astype(np.float32)


def numba_grids(
    grids: tuple[FineGrid, FineGrid], plane: conventions.HalfPlane, slices: np.ndarray, data: Data
) -> tuple[np.ndarray, np.ndarray]:
    b, t = grids
    right, kernel = np.zeros((2, *b.shape), dtype=np.float32), np.zeros(t.shape, dtype=np.float32)
    in_plane = plane.kx.astype(float), plane.ky.astype(float)
    cells = b.cells_per_cycle, 2 * t.cells_per_cycle
    spread_slices(slices, in_plane, data, (b.coefficients(), t.coefficients()), cells, right, kernel)
    return right[0] + 1j * right[1], kernel


def cuda_grids(
    grids: tuple[FineGrid, FineGrid],
    plane: conventions.HalfPlane,
    slices: np.ndarray,
    data: Data,
    dtypes: tuple[torch.dtype, torch.dtype] = (torch.complex64, torch.float32),
    share: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    observed, transfer, adjoint, weight = (torch.from_numpy(array) for array in data)
    points, real, found = PointTable.of(plane, CPU), dtypes[1], []
    for grid, factor, dtype, values in zip(grids, (1, 2), dtypes, (observed, transfer), strict=True):
        cells = factor * grid.cells_per_cycle
        reach = cells * float(np.linalg.norm(slices, ord=2, axis=(1, 2)).max() * plane.radius.max())
        sums = CudaGrid(grid.shape, cells, reach, grid.coefficients(), dtype, CPU, share)
        sums.add(points, slices, values.to(dtype), adjoint.to(real), weight.to(real))
        found.append(sums.sums.numpy())
    return found[0], found[1]


def assert_same_grids(plane: conventions.HalfPlane, slices: np.ndarray, modes: int = N, **options: float) -> None:
    reach = float(plane.radius.max() * np.linalg.norm(slices[:, :2], ord=2, axis=(1, 2)).max())
    grids, data = slice_grids(reach, modes, 2 * modes, **options), data_for(plane, len(slices))
    for found, expected in zip(
        cuda_grids(grids, plane, slices, data), numba_grids(grids, plane, slices, data), strict=True
    ):
        assert relative_error(found, expected) < SAME_GRID
        assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize(("box", "modes"), [(16, 16), (15, 16), (16, 22), (11, 12), (3, 4)])
def test_grids_are_those_of_the_numba_engine(box: int, modes: int) -> None:
    """Even and odd boxes, finer voxels, and boxes of a few points."""
    plane = conventions.half_plane(box, box / 2 - 0.5)
    slices = np.concatenate([Rotation.random(4, 3).as_matrix(), np.eye(3)[None]])
    assert_same_grids(plane, slices, modes)


def test_slices_need_not_be_rotations() -> None:
    """Anisotropic magnification, and images whose box is wider than the map's."""
    distorted = np.eye(3)
    distorted[:2, :2] = [[1.03, 0.02], [-0.01, 0.97]]
    slices = 1.3 * (distorted.T @ Rotation.random(4, 5).as_matrix())
    assert_same_grids(conventions.half_plane(N, N / 2 - 0.5), slices)


def test_points_on_the_borders_of_cells_and_bricks_are_taken_once() -> None:
    """1.5 cells a cycle: every second point lies on a border of b's cells, all of them on T's; some at the reach."""
    plane = conventions.half_plane(N, N / 2 - 1)
    turns = Rotation.from_euler("zyx", [[0, 0, 0], [90, 0, 0], [0, 90, 0], [0, 0, 90], [180, 0, 0]], degrees=True)
    assert_same_grids(plane, np.rint(turns.as_matrix()), upsampling=1.5)


def test_more_slices_than_a_warp_tests_at_once() -> None:
    plane = conventions.half_plane(8, 3.5)
    assert_same_grids(plane, Rotation.random(70, 7).as_matrix(), 8)


def test_a_grid_is_the_direct_sum() -> None:
    """The spreading function itself, in float64, at points so far out that float32 positions would show."""
    rng = np.random.default_rng(4)
    kx, ky = rng.integers(300, 512, 12), rng.integers(-511, 511, 12)
    plane = conventions.HalfPlane(1024, kx, ky, np.ones(12))
    slices = Rotation.random(3, rng).as_matrix() * 8 / 725  # so that a small grid holds them
    grids, data = slice_grids(8, N, 2 * N), data_for(plane, 3)
    observed, transfer, adjoint, weight = data
    founds = cuda_grids(grids, plane, slices, data, (torch.complex128, torch.float64))
    strength = weight.astype(float) * adjoint
    for found, grid, factor, values in zip(founds, grids, (1, 2), (observed, transfer), strict=True):
        expected = direct_grid(grid, factor * grid.cells_per_cycle, plane, slices, strength * values)
        assert relative_error(found, expected) < 2e-6  # the polynomials' error; worst measured 7e-7


def direct_grid(
    grid: FineGrid, cells: float, plane: conventions.HalfPlane, slices: np.ndarray, values: np.ndarray
) -> np.ndarray:
    total = np.zeros(grid.shape, dtype=values.dtype)
    position = np.einsum("mic,ip->mpc", slices[:, :2], np.stack([plane.kx, plane.ky]).astype(float)) * cells
    for (x, y, z), value in zip(position.reshape(-1, 3), values.ravel(), strict=True):
        if x < 0:
            x, y, z, value = -x, -y, -z, np.conj(value)
        origins = (grid.size // 2, grid.size // 2, MARGIN)
        wz, wy, wx = (
            kaiser_bessel(np.arange(size) - origin - place, grid.shape_parameter)
            for size, origin, place in zip(grid.shape, origins, (z, y, x), strict=True)
        )
        total += value * wz[:, None, None] * wy[:, None] * wx
    return total


def kaiser_bessel(distance: np.ndarray, beta: float) -> np.ndarray:
    inside = np.maximum(1 - (2 * distance / WIDTH) ** 2, 0)
    return np.where(np.abs(distance) <= WIDTH / 2, np.i0(beta * np.sqrt(inside)) / np.i0(beta), 0)


@pytest.mark.parametrize("share", [0.1, 1e6])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_juts_out_of_the_grid_appears_nowhere_else(axis: int, share: float) -> None:
    """A point whose last cells on z, y or x are missing: they are not written at the other side or behind the end."""
    plane = conventions.HalfPlane(N, np.array([8]), np.array([0]), np.ones(1))
    one = torch.ones((1, 1))
    sums = CudaGrid((28, 28, 16), 1.375, 11.0, FineGrid(N, 8).coefficients(), torch.float32, CPU, share)
    sums.add(PointTable.of(plane, CPU), np.roll(np.eye(3), 2 - axis, axis=1)[None], one, one, one[0])
    along = np.moveaxis(sums.sums.numpy(), axis, 0)
    assert along[-1].any()
    assert not along[:8].any()


def test_whole_bricks_add_nothing_beyond_the_grid() -> None:
    """Not even zeros, which another brick might be adding to: a negative zero would become positive."""
    plane = conventions.HalfPlane(N, np.array([8]), np.array([0]), np.ones(1))
    one = torch.ones((1, 1))
    sums = CudaGrid((32, 32, 20), 1.375, 11.0, FineGrid(N, 8).coefficients(), torch.float32, CPU, 1e6)
    sums.sums.fill_(-0.0)
    for slices in (np.eye(3), np.roll(np.eye(3), 1, axis=1)):
        sums.add(PointTable.of(plane, CPU), slices[None], one, one, one[0])
    signs = np.signbit(sums.sums.numpy())
    assert not signs.all()
    assert signs[:, :, :2].sum() == signs[:, :, :2].size - 13 * 8 * 2  # of the brick of the point on y


def test_repeating_changes_no_bit_whatever_runs_first(emulated_gpu: EmulatedGpu) -> None:
    plane, slices = conventions.half_plane(N, N / 2 - 0.5), Rotation.random(40, 8).as_matrix()
    grids, data = slice_grids(8, N, 2 * N), data_for(plane, 40)
    before = cuda_grids(grids, plane, slices, data)
    emulated_gpu.reversed_order = True
    for one, other in zip(before, cuda_grids(grids, plane, slices, data), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("share", [0.01, 2.0, 1e6])
def test_bricks_may_be_filled_in_parts(share: float) -> None:
    """All in 64, some in a few, none; there are fewer slices than parts."""
    plane, slices = conventions.half_plane(N, N / 2 - 0.5), Rotation.random(40, 9).as_matrix()
    grids, data = slice_grids(8, N, 2 * N), data_for(plane, 40)
    expected = numba_grids(grids, plane, slices, data)
    for found, wanted in zip(cuda_grids(grids, plane, slices, data, share=share), expected, strict=True):
        assert relative_error(found, wanted) < SAME_GRID


@pytest.mark.parametrize("share", [1.0, 3.0, 1e6])
@pytest.mark.parametrize("edge", [5, 6, 8])
def test_bricks_of_one_parity_share_no_cell_and_hold_every_point(edge: int, share: float) -> None:
    for grid in slice_grids(10, 20, 40):
        reach = 10 * grid.cells_per_cycle
        plan = BrickPlan.of(grid.shape, edge, reach, grid.cells_per_cycle, share)
        owner = np.zeros(np.array(grid.shape) + edge, dtype=int)
        for whole, joined in zip(plan.whole, plan.joined, strict=True):
            filled = np.zeros(np.array(grid.shape) + edge + WIDTH, dtype=int)
            assert (whole[:, 3:] == [0, 1]).all()
            for x, y, z, first, n_parts in np.concatenate([whole, joined]):
                filled[z : z + edge + 5, y : y + edge + 5, x : x + edge + 5] += 1
                owner[z : z + edge, y : y + edge, x : x + edge] += 1
                if n_parts > 1:
                    own = plan.parts[first : first + n_parts]
                    assert (own[:, :3] == [x, y, z]).all()
                    assert (own[:, 3] == np.arange(n_parts)).all()
                    assert (own[:, 4] == n_parts).all()
            assert filled.max(initial=0) <= 1
        assert len(plan.parts) == sum(part[:, 4].sum() for part in plan.joined)
        assert (len(plan.parts) > 0) == (share < 1e6)
        z, y, x = np.indices(grid.shape) + WIDTH // 2 - 1
        z, y, x = z - grid.size // 2, y - grid.size // 2, x - MARGIN
        within = (x >= 0) & (x**2 + y**2 + z**2 <= reach**2)
        assert (owner[: grid.size, : grid.size, : grid.size_x][within] == 1).all()


def test_bricks_are_not_smaller_than_their_margins() -> None:
    with pytest.raises(ValueError, match="smaller than their margins"):
        BrickPlan.of((20, 20, 20), 4, 8, 1.0)


def test_parts_hold_as_many_points_as_they_should() -> None:
    """In the mean over slices in all directions: none holds far more than its share."""
    plane, slices = conventions.half_plane(64, 31.5), Rotation.random(400, 3).as_matrix()
    grid, share = FineGrid(64, 32), 2.0
    plan = BrickPlan.of(grid.shape, 6, 32 * grid.cells_per_cycle, grid.cells_per_cycle, share)
    places = np.einsum("mic,ip->mpc", slices[:, :2], np.stack([plane.kx, plane.ky]).astype(float)).reshape(-1, 3)
    places = np.where(places[:, :1] < 0, -places, places) * grid.cells_per_cycle
    cells = np.floor(places).astype(int) + np.array([MARGIN, grid.size // 2, grid.size // 2]) - 2
    bricks, counts = np.unique(cells // 6, axis=0, return_counts=True)
    n_parts = {tuple(row[:3] // 6): row[4] for row in np.concatenate([*plan.whole, *plan.joined])}
    loads = counts / len(slices) / np.array([n_parts[tuple(brick)] for brick in bricks])
    assert loads.max() < 1.5 * share
    assert counts.max() / len(slices) > 4 * share  # which there would be without parts


def test_lanes_meet_in_no_bank() -> None:
    """27 neighbouring cells of a padded brick, of one word each, lie in as many of the 32 banks."""
    for source in cuda_spread.SOURCES:
        defines = {name: int(value) for name, value in source.defines if name != "REAL"}
        z, y, x = np.indices((3, 3, 3)).reshape(3, -1)
        assert len(np.unique((x + defines["ROW"] * y + defines["LAYER"] * z) % 32)) == 27
        assert defines["ROW"] >= defines["BRICK"] + WIDTH - 1
        assert defines["LAYER"] >= (defines["BRICK"] + WIDTH - 2) * defines["ROW"] + defines["BRICK"] + WIDTH - 1


def device_sums(reach: float, modes: int = N, upsampling: float = UPSAMPLING) -> DeviceSliceSums:
    return DeviceSliceSums(reach, modes, 2 * modes, upsampling, CPU)


@pytest.mark.parametrize(("modes", "band", "upsampling"), [(16, 16, UPSAMPLING), (16, 11, 2.0), (22, 20, UPSAMPLING)])
def test_transforms_are_those_of_the_cpu(modes: int, band: int, upsampling: float) -> None:
    """Of several calls, with planes of different boxes, arrays and tensors."""
    planes = [conventions.half_plane(N, N / 2 - 0.5), conventions.half_plane(13, 6.0, N / 13)]
    sums = SliceSums(7.5, modes, 2 * modes, upsampling), device_sums(7.5, modes, upsampling)
    for number, plane in enumerate((*planes, planes[0])):
        slices = Rotation.random(3, number).as_matrix() * plane.map_cycles
        observed, transfer, adjoint, weight = data_for(plane, 3)
        sums[0].add(plane, slices, observed, (transfer, adjoint), weight)
        if number == 1:
            observed, transfer, adjoint, weight = (torch.from_numpy(a) for a in (observed, transfer, adjoint, weight))
        sums[1].add(plane, slices, observed, (transfer, adjoint), weight)
    right, found = (one.right_side(1) for one in sums)
    assert found.dtype == np.float32
    assert relative_error(found, right) < SAME_SUMS
    spectrum, found = (one.kernel_spectrum(axis_frequencies(modes, band), band) for one in sums)
    assert found.shape == spectrum.shape
    assert relative_error(found, spectrum) < SAME_SUMS


def test_finufft_finds_the_same_right_side() -> None:
    n, m = 32, 12
    plane, slices = conventions.half_plane(n, n / 2 - 0.5), Rotation.random(m, 2).as_matrix()
    observed, _, _, weight = data_for(plane, m)
    ones = np.ones(observed.shape, dtype=np.float32)
    sums = device_sums(float(plane.radius.max()), n)
    sums.add(plane, slices, observed, (ones, ones), weight)
    points = np.einsum("mic,ip->cmp", slices[:, :2], np.stack([plane.kx, plane.ky]).astype(float)).reshape(3, -1)
    strengths = (observed * weight).ravel().astype(complex)
    expected = finufft.nufft3d1(*(2 * np.pi / n * points[::-1].copy()), strengths, (n,) * 3, isign=1, eps=1e-9)
    assert relative_error(sums.right_side(1), expected.real) < NUFFT


def test_no_particles_change_nothing() -> None:
    plane = conventions.half_plane(N, 7.5)
    sums, none = device_sums(7.5), np.zeros((0, len(plane.kx)), dtype=np.float32)
    sums.add(plane, np.zeros((0, 3, 3)), none.astype(np.complex64), (none, none), np.ones(none.shape[1], np.float32))
    assert not sums.right_side(1).any()
    assert not sums.kernel_spectrum(axis_frequencies(N, N), N).any()


def test_what_does_not_fit_is_refused() -> None:
    plane, slices = conventions.half_plane(N, 7.5), Rotation.random(2, 1).as_matrix()
    observed, transfer, adjoint, weight = data_for(plane, 2)
    with pytest.raises(ValueError, match="sums for 7"):
        device_sums(7.5).add(plane, 1.2 * slices, observed, (transfer, adjoint), weight)
    with pytest.raises(ValueError, match="a kernel's argument"):
        device_sums(7.5).add(plane, slices, observed, (transfer, adjoint[:1]), weight)


def test_the_arrays_are_those_of_the_cpu_engine() -> None:
    """Particles of two optics groups, of which one is premultiplied, through the accumulator."""
    plane = conventions.half_plane(N, N / 2 - 0.5)
    noise = (100 + 10 * plane.radius).astype(np.float32)
    engines = (
        Accumulator(plane, [noise, 2 * noise], 1, 20),
        Accumulator(plane, [noise, 2 * noise], 1, 20, engine="cuda"),
    )
    for group in (0, 1):
        observed, transfer, adjoint, _ = data_for(plane, 6)
        batch = FourierBatch(
            np.arange(6), plane, group, Rotation.random(6, group).as_matrix(), observed, transfer, adjoint, np.zeros(6)
        )
        for one in engines:
            one.add(dataclasses.replace(batch, adjoint=transfer) if group == 0 else batch)
    expected, found = (one.finish() for one in engines)
    assert found.n_particles == expected.n_particles == 12
    assert relative_error(found.right_side, expected.right_side) < SAME_SUMS
    assert relative_error(found.spectrum, expected.spectrum) < SAME_SUMS


def test_memory_is_what_was_said() -> None:
    right, kernel = slice_grids(128.5, 256, 512)
    held, most = device_bytes(128.5, 256, 512, 256)
    assert held >= 8 * np.prod(right.shape) + 4 * np.prod(kernel.shape) + 12e6  # and parts of bricks
    assert held < 1.1e9
    assert most < 2e9
    assert device_bytes(256.5, 512, 1024, 512)[1] < 11e9
    assert particles_per_call(25_000, 2**30) == 2**30 // (24 * 25_000)
    assert particles_per_call(25_000, 0) == 1
    assert particles_per_call(10, 2**40) == cuda_spread.MOST_PARTICLES


def test_matrix_products_keep_what_was_set() -> None:
    plane, slices = conventions.half_plane(N, 7.5), Rotation.random(2, 1).as_matrix()
    observed, transfer, adjoint, weight = data_for(plane, 2)
    sums = device_sums(7.5)
    sums.add(plane, slices, observed, (transfer, adjoint), weight)
    torch.set_float32_matmul_precision("high")
    try:
        sums.kernel_spectrum(axis_frequencies(N, N), N)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
