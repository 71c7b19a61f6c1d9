"""Sums of images turned in their plane, on twofold padded half planes: the two-dimensional counterpart of `slices.py`."""
from __future__ import annotations

import torch

from swiftres_plugin.engine.maths.adding import add_parts
from swiftres_plugin.engine.maths.slices import PADDING, SHARED, padded_limit


def empty_planes(count: int, last_shell: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Zero sums (count, 3, 2K+1, K+1): real, imaginary, weight; y and x >= 0 centred as in `slices.py`."""
    limit = padded_limit(last_shell)
    return torch.zeros((count, 3, 2 * limit + 1, limit + 1), device=device)


def insert_planes(sums: torch.Tensor, plane: torch.Tensor, values: torch.Tensor, weights: torch.Tensor,
                  psi_rad: torch.Tensor, wave_px: torch.Tensor) -> None:
    """Add images `values` (B, L) complex and `weights` (B, L), turned by `psi_rad` (B,), to the planes `plane` (B,) of `sums`.

    A coefficient at k goes to Rz(psi) k, shared out over its four neighbours.
    """
    limit = sums.shape[-1] - 1
    points, sign = turned_waves(psi_rad, wave_px)
    points = points + points.new_tensor([0.0, limit])
    corner = points.floor()
    fx, fy = (points - corner).unbind(-1)
    corner = corner.to(torch.int64)
    width, size = limit + 1, sums[0, 0].numel()
    base = plane[:, None] * (3 * size) + corner[..., 1] * width + corner[..., 0]
    channels = torch.stack([values.real, values.imag * sign, weights])
    steps = torch.arange(3, device=sums.device)[:, None, None] * size

    def part(dy: int, dx: int) -> tuple[torch.Tensor, torch.Tensor]:
        share = (fy if dy else 1 - fy) * (fx if dx else 1 - fx)
        return (base + (dy * width + dx) + steps).flatten(), (channels * share).flatten()

    corners = ((0, 0), (0, 1), (1, 0), (1, 1))
    add_parts(sums.view(-1), 0, (part(*one) for one in corners), channels, SHARED * len(values))


def turned_waves(psi_rad: torch.Tensor, wave_px: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded coordinates (B, L, 2) of Rz(psi) k with x made non-negative, and the sign (B, L) that did it."""
    cosine, sine = psi_rad.cos()[:, None], psi_rad.sin()[:, None]
    kx, ky = (PADDING * wave_px.to(psi_rad.dtype)).unbind(-1)
    points = torch.stack([cosine * kx - sine * ky, sine * kx + cosine * ky], dim=-1)
    sign = 1 - 2 * (points[..., 0] < 0).to(points.dtype)
    return points * sign[..., None], sign


def complete_axis(sums: torch.Tensor) -> torch.Tensor:
    """`sums` with the line x = 0 completed, in place, by the conjugate halves of what was inserted."""
    line = sums[..., 0]
    line += line.flip(-1) * line.new_tensor([1.0, -1.0, 1.0])[:, None]
    return sums


def plane_shells(last: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Image shell (rounded) of every point of padded planes with K = `last`: (2K+1, K+1)."""
    axis = torch.arange(-last, last + 1, device=device, dtype=torch.float32)
    return (torch.hypot(axis[:, None], axis[last:][None]) / PADDING).round().to(torch.int64)


def planes_to_images(planes: torch.Tensor, box_px: int) -> torch.Tensor:
    """Images (N, n, n) of centred half planes (N, 2K+1, K+1) complex of orthonormal transforms.

    The fall-off in real space that sharing out over neighbours leaves behind is divided out.
    """
    size = PADDING * box_px
    limit = min(planes.shape[-1] - 1, size // 2 - 1)
    skip = planes.shape[-1] - 1 - limit
    full = planes.new_zeros((len(planes), size, size // 2 + 1))
    rows = torch.arange(-limit, limit + 1, device=planes.device) % size
    full[:, rows, :limit + 1] = planes[:, skip:skip + 2 * limit + 1, :limit + 1]
    images = torch.fft.fftshift(torch.fft.irfft2(full, s=(size, size)), dim=(-2, -1)) * box_px
    lead = size // 2 - box_px // 2
    window = torch.sinc((torch.arange(box_px, device=planes.device) - box_px // 2) / size) ** 2
    return images[:, lead:lead + box_px, lead:lead + box_px] / (window[:, None] * window[None])
