"""The spectrum of a scan as a few figures, and how far it lies from those of healthy scans.

Artefacts are made in k-space, and many leave no voxel that is wrong by itself: a ghost, a stripe or
noise changes how the energy is spread over wavelengths and over neighbouring lines of k-space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atypia.volume import Array

Features = NDArray[np.float64]

BAND_EDGES_MM = (250.0, 67.0, 33.0, 20.0, 12.5, 8.3, 0.0)
"""Wavelengths between which energies are summed."""
SHRINKAGE = 0.03
"""Share of the identity in the correlation of the figures, which few scans determine badly."""
LEAST_SPREAD = 0.02
"""Smallest standard deviation of a logarithm that is believed."""
TINY = 1e-12


def band_energies(image: Array, brain: Array, spacing_mm: tuple[float, float, float]) -> Features:
    """Give the energy of a brain in bands of wavelength, as logarithms.

    Parameters
    ----------
    image
        `(X, Y, Z)`; what lies outside of the brain counts as zero.
    brain
        `(X, Y, Z)` boolean, not empty.
    spacing_mm
        Voxel size along X, Y, Z.

    Returns
    -------
    numpy.ndarray
        `(6,)`, natural logarithms of the mean square by brain voxel in each band of
        `BAND_EDGES_MM`, coarse to fine.
    """
    power = _power(image, brain)
    frequencies = [np.fft.fftfreq(n, d) for n, d in zip(power.shape, spacing_mm, strict=True)]
    x, y, z = np.ix_(*(np.square(f).astype(np.float32) for f in frequencies))
    limits = [1 / edge if edge else np.inf for edge in BAND_EDGES_MM]
    band = np.digitize(np.sqrt(x + y + z), limits)
    sums = np.bincount(band.ravel(), power.ravel(), len(limits) + 1)[1 : len(limits)]
    logarithms: Features = np.log(np.maximum(sums, TINY))
    return logarithms


def line_roughness(image: Array, brain: Array) -> Features:
    """Give how unevenly the energy is spread over neighbouring lines of k-space along each axis.

    In a scan without artefacts neighbouring lines have similar energies; ghosts, lost lines, motion
    and spikes make single lines or every n-th one stronger or weaker.

    Parameters
    ----------
    image
        `(X, Y, Z)`; what lies outside of the brain counts as zero.
    brain
        `(X, Y, Z)` boolean, not empty.

    Returns
    -------
    numpy.ndarray
        `(3,)`, along X, Y, Z: the logarithm of the root mean square by which a line's logarithmic
        energy differs from the mean of both neighbours, the innermost lines left out.
    """
    power = _power(image, brain)
    found = []
    for axis in range(3):
        lines = power.sum(tuple(other for other in range(3) if other != axis))
        energies = np.log(np.maximum(lines[1 : len(lines) // 2], TINY))
        bends = energies[1:-1] - (energies[:-2] + energies[2:]) / 2
        outer = bends[2:] if len(bends) > 2 else np.ones(1)
        found.append(np.log(max(float(np.sqrt(np.mean(np.square(outer)))), TINY)))
    return np.array(found)


def highest_point(
    image: Array, brain: Array, spacing_mm: tuple[float, float, float], longest_mm: float = 25.0
) -> float:
    """Give by how much the strongest point of k-space exceeds the usual one of its wavelength.

    The energies of a brain without artefacts fall smoothly with the frequency. A spike, stripes or
    ripples stand out of it as one point, which no structure of the brain does at short wavelengths.

    Parameters
    ----------
    image
        `(X, Y, Z)`; what lies outside of the brain counts as zero.
    brain
        `(X, Y, Z)` boolean, not empty.
    spacing_mm
        Voxel size along X, Y, Z.
    longest_mm
        Longer waves are left out.

    Returns
    -------
    float
        Natural logarithm of an energy over the geometric mean of those of like wavelength; 0 where
        the grid is too coarse for any.
    """
    energies = np.log(np.maximum(_power(image, brain), TINY))
    frequencies = [np.fft.fftfreq(n, d) for n, d in zip(image.shape, spacing_mm, strict=True)]
    x, y, z = np.ix_(*(np.square(f).astype(np.float32) for f in frequencies))
    radius = np.sqrt(x + y + z)
    # Shells as thick as the spacing of lines in k-space along the shortest axis of the grid.
    thickness = max(1 / (n * d) for n, d in zip(image.shape, spacing_mm, strict=True))
    shell = (radius / thickness).astype(np.int64).ravel()
    usual = np.bincount(shell, energies.ravel()) / np.maximum(np.bincount(shell), 1)
    beyond = (energies.ravel() - usual[shell])[radius.ravel() > 1 / longest_mm]
    return float(beyond.max(initial=0.0))


def spectrum_of(
    image: Array, brain: Array, spacing_mm: tuple[float, float, float], residual: Array | None
) -> Features:
    """Give the figures by which spectra are compared.

    Parameters
    ----------
    image
        `(X, Y, Z)`, normalised intensities.
    brain
        `(X, Y, Z)` boolean, not empty.
    spacing_mm
        Voxel size along X, Y, Z.
    residual
        `(X, Y, Z)`, scan minus restoration; None to look at the scan alone.

    Returns
    -------
    numpy.ndarray
        `band_energies` of the residual (unless None) and of the image, `line_roughness` of the
        image: `(15,)` or `(9,)`.
    """
    parts = [] if residual is None else [band_energies(residual, brain, spacing_mm)]
    parts += [band_energies(image, brain, spacing_mm), line_roughness(image, brain)]
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class UsualSpectrum:
    """Which spectra healthy scans have.

    Parameters
    ----------
    centre, spread
        `(K,)`, mean and standard deviation of each figure.
    correlation
        `(K, K)`, with a little of the identity.
    """

    centre: Features
    spread: Features
    correlation: Features

    @classmethod
    def learn(cls, spectra: Features) -> UsualSpectrum:
        """Learn from healthy scans.

        Parameters
        ----------
        spectra
            `(scans, K)`, rows of `spectrum_of`; from 20 scans on the distances rank well.

        Raises
        ------
        ValueError
            Without a scan.
        """
        if spectra.ndim != 2 or not spectra.size:
            raise ValueError("no spectra of healthy scans to learn from")
        centre = spectra.mean(axis=0)
        spread = np.maximum(spectra.std(axis=0), LEAST_SPREAD)
        unit = (spectra - centre) / spread
        identity = np.eye(spectra.shape[1])
        correlation = unit.T @ unit / len(unit)
        return cls(centre, spread, (1 - SHRINKAGE) * correlation + SHRINKAGE * identity)

    def distance(self, spectrum: Features) -> float:
        """Give the Mahalanobis distance of one scan's spectrum, in standard deviations.

        Parameters
        ----------
        spectrum
            `(K,)`, of `spectrum_of`.
        """
        unit = (spectrum - self.centre) / self.spread
        return float(np.sqrt(unit @ np.linalg.solve(self.correlation, unit)))


def _power(image: Array, brain: Array) -> NDArray[np.float32]:
    """Give the squared amplitude of every wave; they sum to the brain's mean square."""
    import torch

    inside = torch.from_numpy(np.where(brain, image, 0).astype(np.float32))
    scale = inside.numel() * max(int(brain.sum()), 1)
    power: NDArray[np.float32] = (torch.fft.fftn(inside).abs().square() / scale).numpy()
    return power
