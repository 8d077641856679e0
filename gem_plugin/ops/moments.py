"""Between the 11 numbers of a Gaussian and what a kernel needs: its footprint, and moments -> gradients.

A kernel on a map sees a Gaussian as centre, peak and the factors of its precision matrix; it returns ten moments of
the incoming gradient g, with d = r - mu and G = exp(-q / 2):
M0 = sum g G; M1 = sum g G d; M2 = sum g G d d^T. A kernel on images sees centre, covariance and amplitude, and
returns the gradients in those ten numbers. One chain rule turns either into the 11 gradients, for every engine.
"""

import math
from dataclasses import dataclass

import torch

from gem_plugin.ops.reference import rotations_from_quaternions

Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Axes:
    """The axes of N Gaussians and the widths along them: covariance = Q diag(s^2) Q^T."""

    rotations: torch.Tensor  # [N, 3, 3] float64, Q: axes in the columns
    scales: torch.Tensor  # [N, 3] float64, s in pixels

    def precision(self) -> torch.Tensor:
        """Inverse covariances, [N, 3, 3]."""
        to_axes = self.rotations / self.scales[:, None, :]
        return to_axes @ to_axes.transpose(1, 2)

    def covariance(self) -> torch.Tensor:
        """Covariances, [N, 3, 3]."""
        from_axes = self.rotations * self.scales[:, None, :]
        return from_axes @ from_axes.transpose(1, 2)


def axes_of(log_scales: torch.Tensor, quaternions: torch.Tensor) -> Axes:
    """Axes and widths in float64, whatever the precision of the parameters; N is small beside the voxels."""
    return Axes(rotations_from_quaternions(quaternions.double()), torch.exp(log_scales.double()))


@dataclass(frozen=True)
class FootprintShape:
    """What the kernels need of N Gaussians beside their centres, float64 on the parameters' device."""

    factors: torch.Tensor  # [N, 7] Qxx, Qxy/Qxx, Qxz/Qxx, Syy, Syz/Syy, Rzz, sigma_z: see `footprint_shape`
    peaks: torch.Tensor  # [N] value at the centre
    axes: Axes


def footprint_shape(log_scales: torch.Tensor, quaternions: torch.Tensor, amplitudes: torch.Tensor) -> FootprintShape:
    """Factor the precision matrices so that a kernel can walk a Gaussian plane by plane and row by row.

    q(d) = Rzz dz^2 + Syy (dy + Syz/Syy dz)^2 + Qxx (dx + Qxy/Qxx dy + Qxz/Qxx dz)^2 (an LDL^T factorisation from x
    outwards): the planes with Rzz dz^2 <= cutoff^2, in them the rows, in them the voxels of the ellipsoid.
    """
    axes = axes_of(log_scales, quaternions)
    q = axes.precision()
    qxx, qxy, qxz, qyy, qyz, qzz = q[:, 0, 0], q[:, 0, 1], q[:, 0, 2], q[:, 1, 1], q[:, 1, 2], q[:, 2, 2]
    syy, syz, szz = qyy - qxy**2 / qxx, qyz - qxy * qxz / qxx, qzz - qxz**2 / qxx
    rzz = szz - syz**2 / syy
    factors = torch.stack([qxx, qxy / qxx, qxz / qxx, syy, syz / syy, rzz, rzz.rsqrt()], dim=1)
    peaks = amplitudes.double() / ((2 * math.pi) ** 1.5 * axes.scales.prod(1))
    return FootprintShape(factors, peaks, axes)


def parameter_gradients(
    moments: torch.Tensor,
    log_scales: torch.Tensor,
    quaternions: torch.Tensor,
    amplitudes: torch.Tensor,
    shape: FootprintShape,
) -> Gradients:
    """Gradients of centres, log-scales, quaternions and amplitudes from the moments on a map.

    Parameters
    ----------
    moments : [N, 10] M0; M1 x, y, z; M2 xx, xy, xz, yy, yz, zz

    Returns
    -------
    [N, 3], [N, 3], [N, 4], [N]
    """
    m = moments.double()
    m0, m1 = m[:, 0], m[:, 1:4]
    m2 = symmetric_matrices(m[:, 4:])
    precision = shape.axes.precision()
    unit_peak = 1 / ((2 * math.pi) ** 1.5 * shape.axes.scales.prod(1))  # peak of a Gaussian of amplitude 1
    peak = amplitudes.double() * unit_peak
    centre_gradient = peak[:, None] * (precision @ m1[:, :, None])[:, :, 0]
    # dL/dCovariance, symmetric; the normalisation 1 / sqrt(det) gives the M0 term
    covariance_gradient = 0.5 * peak[:, None, None] * (precision @ m2 @ precision - m0[:, None, None] * precision)
    kind = log_scales.dtype
    scale_gradient, quaternion_gradient = covariance_chain(covariance_gradient, quaternions, shape.axes)
    return centre_gradient.to(kind), scale_gradient.to(kind), quaternion_gradient.to(kind), (unit_peak * m0).to(kind)


def symmetric_matrices(six: torch.Tensor) -> torch.Tensor:
    """[N, 3, 3] of [N, 6] xx, xy, xz, yy, yz, zz."""
    return six[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)


def covariance_chain(
    covariance_gradient: torch.Tensor, quaternions: torch.Tensor, axes: Axes
) -> tuple[torch.Tensor, torch.Tensor]:
    """Chain dL/dCovariance to log-scales and quaternions, in float64.

    Parameters
    ----------
    covariance_gradient : [N, 3, 3] float64, symmetric: each off-diagonal element has half of what its pair does

    Returns
    -------
    [N, 3], [N, 4]
    """
    rotations, scales = axes.rotations, axes.scales
    turned = covariance_gradient @ rotations
    scale_gradient = 2 * scales**2 * (rotations * turned).sum(1)
    rotation_gradient = 2 * turned * (scales**2)[:, None, :]  # dL/dQ of Covariance = Q S^2 Q^T
    return scale_gradient, _quaternion_gradient(rotation_gradient, quaternions.double())


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
