"""Between the 11 numbers of a Gaussian and what a kernel needs: its footprint, and moments -> gradients.

A kernel sees a Gaussian as centre, peak and the factors of its precision matrix; it returns ten moments of the
incoming gradient g, with d = r - mu and G = exp(-q / 2):
M0 = sum g G; M1 = sum g G d; M2 = sum g G d d^T. One chain rule turns them into the 11 gradients, for every engine.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gem_plugin.ops.reference import rotations_from_quaternions


@dataclass(frozen=True)
class FootprintShape:
    """What the kernels need of N Gaussians beside their centres."""

    factors: NDArray[np.float32]  # [N, 7] Qxx, Qxy/Qxx, Qxz/Qxx, Syy, Syz/Syy, Rzz, sigma_z: see `footprint_shape`
    peaks: NDArray[np.float32]  # [N] value at the centre
    rotations: torch.Tensor  # [N, 3, 3] float64
    scales: torch.Tensor  # [N, 3] float64


def footprint_shape(log_scales: torch.Tensor, quaternions: torch.Tensor, amplitudes: torch.Tensor) -> FootprintShape:
    """Factor the precision matrices so that a kernel can walk a Gaussian plane by plane and row by row.

    q(d) = Rzz dz^2 + Syy (dy + Syz/Syy dz)^2 + Qxx (dx + Qxy/Qxx dy + Qxz/Qxx dz)^2 (an LDL^T factorisation from x
    outwards): the planes with Rzz dz^2 <= cutoff^2, in them the rows, in them the voxels of the ellipsoid.
    Computed in float64; N is small beside the voxels.
    """
    rotations = rotations_from_quaternions(quaternions.double())
    scales = torch.exp(log_scales.double())
    to_axes = rotations / scales[:, None, :]
    q = to_axes @ to_axes.transpose(1, 2)
    qxx, qxy, qxz, qyy, qyz, qzz = q[:, 0, 0], q[:, 0, 1], q[:, 0, 2], q[:, 1, 1], q[:, 1, 2], q[:, 2, 2]
    syy, syz, szz = qyy - qxy**2 / qxx, qyz - qxy * qxz / qxx, qzz - qxz**2 / qxx
    rzz = szz - syz**2 / syy
    factors = torch.stack([qxx, qxy / qxx, qxz / qxx, syy, syz / syy, rzz, rzz.rsqrt()], dim=1)
    peaks = amplitudes.double() / ((2 * math.pi) ** 1.5 * scales.prod(1))
    return FootprintShape(factors.float().numpy(), peaks.float().numpy(), rotations, scales)


def parameter_gradients(
    moments: torch.Tensor,
    log_scales: torch.Tensor,
    quaternions: torch.Tensor,
    amplitudes: torch.Tensor,
    shape: FootprintShape,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of centres, log-scales, quaternions and amplitudes from the moments.

    Parameters
    ----------
    moments : [N, 10] M0; M1 x, y, z; M2 xx, xy, xz, yy, yz, zz

    Returns
    -------
    [N, 3], [N, 3], [N, 4], [N]
    """
    m = moments.double()
    m0, m1 = m[:, 0], m[:, 1:4]
    m2 = m[:, [4, 5, 6, 5, 7, 8, 6, 8, 9]].reshape(-1, 3, 3)
    rotations, scales = shape.rotations, shape.scales
    to_axes = rotations / scales[:, None, :]
    precision = to_axes @ to_axes.transpose(1, 2)
    unit_peak = 1 / ((2 * math.pi) ** 1.5 * scales.prod(1))  # peak of a Gaussian of amplitude 1
    peak = amplitudes.double() * unit_peak
    centre_gradient = peak[:, None] * (precision @ m1[:, :, None])[:, :, 0]
    # dL/dCovariance, symmetric; the normalisation 1 / sqrt(det) gives the M0 term
    covariance_gradient = 0.5 * peak[:, None, None] * (precision @ m2 @ precision - m0[:, None, None] * precision)
    turned = covariance_gradient @ rotations
    scale_gradient = 2 * scales**2 * (rotations * turned).sum(1)
    rotation_gradient = 2 * turned * (scales**2)[:, None, :]  # dL/dQ of Covariance = Q S^2 Q^T
    quaternion_gradient = _quaternion_gradient(rotation_gradient, quaternions.double())
    kind = log_scales.dtype
    return centre_gradient.to(kind), scale_gradient.to(kind), quaternion_gradient.to(kind), (unit_peak * m0).to(kind)


def _quaternion_gradient(v: torch.Tensor, quaternions: torch.Tensor) -> torch.Tensor:
    """Chain dL/dRotation [N, 3, 3] to the unnormalised quaternion [N, 4]."""
    length = quaternions.norm(dim=1, keepdim=True)
    unit = quaternions / length
    w, x, y, z = unit.unbind(1)
    v00, v01, v02, v10, v11, v12, v20, v21, v22 = v.reshape(-1, 9).unbind(1)
    dw = x * (v21 - v12) + y * (v02 - v20) + z * (v10 - v01)
    dx = y * (v01 + v10) + z * (v02 + v20) + w * (v21 - v12) - 2 * x * (v11 + v22)
    dy = x * (v01 + v10) + z * (v12 + v21) + w * (v02 - v20) - 2 * y * (v00 + v22)
    dz = x * (v02 + v20) + y * (v12 + v21) + w * (v10 - v01) - 2 * z * (v00 + v11)
    gradient = 2 * torch.stack([dw, dx, dy, dz], dim=1)
    result: torch.Tensor = (gradient - unit * (unit * gradient).sum(1, keepdim=True)) / length
    return result
