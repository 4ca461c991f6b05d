"""Procedural breast ultrasound phantoms: real image files for the demo and for tests, no download.

A lesion lies in layered tissue; echoes are drawn as scatterers, blurred by the beam, attenuated
with depth and compressed to decibels, as a scanner does. Benign and malignant lesions overlap: a
reader who knew every parameter but one would reach an AUC of 0.96.

    manifest = write_phantoms("demo/data", n=300, seed=0)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage

from samcls.data.manifest import SPLITS, Row
from samcls.data.manifest_file import refuse_existing, write_manifest
from samcls.errors import ConfigError

__all__ = ["CLASSES", "TASK", "phantom", "write_phantoms"]

TASK = "diagnosis"
CLASSES = ("benign", "malignant")
FEWEST = 20  # so that each split gets a patient of each class
SHARES = {"val": 0.2, "test": 0.2}
ANGLES = np.linspace(-np.pi, np.pi, 1440)
SEPARATION = 2.5  # between the classes' means of the hidden character, in standard deviations


@dataclass(frozen=True)
class _Lesion:
    """What two pictures of one lesion share. `character` runs from benign (0) to malignant (1)."""

    character: float
    radius: float  # geometric mean of the half axes, as a share of the picture's shorter side
    aspect: float  # width over height
    spiculation: float  # largest excursion of the margin, as a share of the radius
    lobes: float  # the same for its slow undulation
    echo: float  # amplitude of its echoes, where fat has some 0.3
    blur: float  # width of the margin, as a share of the radius
    halo: float  # echoes of the rim, added to those of the tissue
    attenuation: float  # against tissue: negative brightens what lies behind, positive shades it


def phantom(rng: np.random.Generator, malignant: bool) -> UInt8[np.ndarray, "row col"]:
    """Draw one picture, grey, 0..255, of some 170 to 260 pixels a side.

    Args:
        rng: Where all chance comes from: the same state gives the same picture.
        malignant: Whether the lesion tends to a spiculated, indistinct margin, to be taller than
            wide and to cast a shadow; or to be smooth, oval, wider than tall, and to enhance.
    """
    return _render(rng, _draw_lesion(rng, malignant))


def write_phantoms(
    directory: str | Path, n: int = 300, seed: int = 0, *, overwrite: bool = False
) -> Path:
    """Write `n` pictures as PNG and JPEG files below `images/`, and `manifest.csv` beside it.

    One patient in five has two pictures; a patient is the manifest's group and never lies in two
    splits. Two patients in five are malignant, in every split alike.

    Args:
        directory: Made where it is missing.
        n: Number of pictures, at least 20.
        seed: The same seed and number give the same bytes, on one machine.
        overwrite: Replace a manifest that is there.

    Returns:
        The manifest's path.

    Raises:
        ConfigError: `n` is too small for every split to hold both classes.
        OverwriteRefused: The folder holds a manifest already.
    """
    if n < FEWEST:
        raise ConfigError(
            f"{n} phantoms are too few to fill three splits: ask for {FEWEST} or more"
        )
    home = Path(directory).resolve()
    refuse_existing(home / "manifest.csv", overwrite=overwrite)
    (home / "images").mkdir(parents=True, exist_ok=True)
    pictures = _pictures_of_patients(n, np.random.default_rng([seed, 0]))
    malignant = [i % 5 in {1, 3} for i in range(len(pictures))]
    splits = _splits_of_patients(malignant, np.random.default_rng([seed, 1]))
    rows = [
        row
        for patient, count in enumerate(pictures)
        for row in _write_patient(
            home / "images", patient, count, malignant[patient], splits[patient], seed
        )
    ]
    return write_manifest(rows, [TASK], home / "manifest.csv", overwrite=overwrite)


def _pictures_of_patients(n: int, rng: np.random.Generator) -> list[int]:
    """One or two pictures for each patient, `n` in all."""
    counts: list[int] = []
    while (left := n - sum(counts)) > 0:
        counts.append(min(left, 2 if rng.random() < 0.2 else 1))
    return counts


def _splits_of_patients(malignant: Sequence[bool], rng: np.random.Generator) -> list[str]:
    """Return splits drawn within each class, so that all have the same share of each."""
    splits = [SPLITS[0]] * len(malignant)
    for value in (False, True):
        members = rng.permutation([i for i, m in enumerate(malignant) if m is value]).tolist()
        for split, share in SHARES.items():
            for _ in range(max(1, round(share * malignant.count(value)))):
                splits[members.pop()] = split
    return splits


def _write_patient(
    folder: Path, patient: int, count: int, malignant: bool, split: str, seed: int
) -> list[Row]:
    """Write the pictures of one patient; those of every fifth patient are JPEG files."""
    rng = np.random.default_rng([seed, 2, patient])
    lesion = _draw_lesion(rng, malignant)
    rows = []
    for view in "ab"[:count]:
        name = f"p{patient:04}{view}"
        file = folder / f"{name}{'.jpg' if patient % 5 == 0 else '.png'}"
        Image.fromarray(_render(rng, lesion)).save(file, quality=92)  # which PNG passes over
        rows.append(Row(name, str(file), None, split, f"p{patient:04}", (CLASSES[malignant],)))
    return rows


def _draw_lesion(rng: np.random.Generator, malignant: bool) -> _Lesion:
    """Every visible trait follows one hidden character, which the two classes share in part."""
    hidden = rng.normal(SEPARATION / 2 if malignant else -SEPARATION / 2)
    m = float(1 / (1 + np.exp(-1.1 * hidden)))
    return _Lesion(
        character=m,
        radius=rng.uniform(0.13, 0.24),
        aspect=float(np.exp(np.interp(m, [0, 1], [0.55, -0.25]) + rng.normal(0, 0.13))),
        spiculation=m**2 * rng.uniform(0.15, 0.75),
        lobes=rng.uniform(0.01, 0.04) + 0.09 * m * rng.random(),
        echo=float(np.exp(rng.normal(np.interp(m, [0, 1], [-3.0, -3.3]), 0.4))),
        blur=0.03 + 0.10 * m * rng.random(),
        halo=m * rng.uniform(0.0, 0.35),
        attenuation=float(np.interp(m, [0, 1], [-1.8, 3.0]) + rng.normal(0, 0.5)),
    )


def _render(rng: np.random.Generator, lesion: _Lesion) -> UInt8[np.ndarray, "row col"]:
    """One picture of a lesion, from another place and angle each time."""
    height, width = (int(side) for side in rng.integers((170, 180), (231, 261)))
    z, x = np.mgrid[0:height, 0:width].astype(np.float64)
    tissue = _tissue(rng, z, x)
    inside, rim = _shape(rng, lesion, z, x)
    texture = np.exp(0.45 * _noise(rng, z.shape, (4.0, 5.0)))
    echo = tissue * (1 - inside) + lesion.echo * texture * inside
    echo = echo + lesion.halo * rim
    through = _transmission(rng, lesion, inside)
    return _scan(rng, echo * through)


def _noise(
    rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, float]
) -> Float[np.ndarray, "row col"]:
    """Smooth noise of mean 0 and standard deviation 1, correlated over `sigma` pixels."""
    # Drawn on a grid that just resolves sigma and then interpolated: a third of the time.
    steps = [max(1, int(s / 2)) for s in sigma]
    knots = [(n - 1) // step + 2 for n, step in zip(shape, steps, strict=True)]
    width = [s / step for s, step in zip(sigma, steps, strict=True)]
    field = ndimage.gaussian_filter(rng.standard_normal(knots), width, mode="wrap")
    field = _between(_between(field, shape[0], steps[0]).T, shape[1], steps[1]).T
    scaled: np.ndarray = (field - field.mean()) / field.std()
    return scaled


def _between(
    field: Float[np.ndarray, "knot other"], n: int, step: int
) -> Float[np.ndarray, "{n} other"]:
    """Interpolate linearly between rows that lie `step` pixels apart."""
    knot, part = np.divmod(np.arange(n), step)
    weight = (part / step)[:, None]
    rows: np.ndarray = field[knot] * (1 - weight) + field[knot + 1] * weight
    return rows


def _tissue(
    rng: np.random.Generator, z: Float[np.ndarray, "row col"], x: Float[np.ndarray, "row col"]
) -> Float[np.ndarray, "row col"]:
    """Echo amplitudes of skin, fat, gland, muscle and what lies behind, from the top down."""
    height, width = z.shape
    depths = height * np.array([0.035, rng.uniform(0.15, 0.3), rng.uniform(0.68, 0.82), 0.93])
    amplitudes = (0.8, 0.13, 0.40, 0.14, 0.05)
    bends = (0.004, 0.03, 0.03, 0.02)
    echo = np.full(z.shape, amplitudes[0])
    for depth, bend, amplitude in zip(depths, bends, amplitudes[1:], strict=True):
        line = ndimage.gaussian_filter1d(rng.standard_normal(width), width / 8, mode="wrap")
        edge = depth + bend * height * line / line.std() + rng.normal(0, 0.03) * (x[0] - width / 2)
        below = 1 / (1 + np.exp(-(z - edge) / 1.5))
        echo = echo * (1 - below) + amplitude * below
        fascia = np.exp(-(((z - edge) / 1.3) ** 2)) * np.clip(1 + line / line.std(), 0, 2)
        echo = echo + 0.35 * fascia * (depth > 0.05 * height)
    streaks = np.exp(
        0.33 * _noise(rng, z.shape, (1.6, 11.0)) + 0.25 * _noise(rng, z.shape, (8.0, 14.0))
    )
    septa = np.exp(-((_noise(rng, z.shape, (6.0, 15.0)) / 0.10) ** 2))
    lobules = np.clip(_noise(rng, z.shape, (7.0, 13.0)) - 0.7, 0, None)
    scaled: np.ndarray = (echo + 0.16 * septa) * streaks / (1 + 1.5 * lobules)
    return scaled


def _shape(
    rng: np.random.Generator,
    lesion: _Lesion,
    z: Float[np.ndarray, "row col"],
    x: Float[np.ndarray, "row col"],
) -> tuple[Float[np.ndarray, "row col"], Float[np.ndarray, "row col"]]:
    """How far each pixel lies inside the lesion, and on its rim; both 0..1."""
    height, width = z.shape
    radius = lesion.radius * min(height, width)
    half_width, half_height = radius * np.sqrt(lesion.aspect), radius / np.sqrt(lesion.aspect)
    top = 0.14 * height + half_height
    centre_z = rng.uniform(top, max(top + 1, 0.72 * height - half_height))
    centre_x = rng.uniform(0.3, 0.7) * width
    tilt = rng.normal(0, 0.2)
    dz, dx = z - centre_z, x - centre_x
    u = (dx * np.cos(tilt) + dz * np.sin(tilt)) / half_width
    v = (dz * np.cos(tilt) - dx * np.sin(tilt)) / half_height
    angle, distance = np.arctan2(v, u), np.hypot(u, v)
    depth_inside = np.interp(angle, ANGLES, _margin(rng, lesion)) - distance
    inside = 1 / (1 + np.exp(-depth_inside / (lesion.blur / 2)))
    rim = np.exp(-((depth_inside / (2 * lesion.blur)) ** 2)) * (distance > 0.3)
    return inside, rim


def _margin(rng: np.random.Generator, lesion: _Lesion) -> Float[np.ndarray, " angle"]:
    """Radius at each of ANGLES: an oval of 1, two to five lobes, and 10 to 20 uneven spikes."""
    lobes = sum(np.cos(k * ANGLES + rng.uniform(0, 2 * np.pi)) * rng.normal() for k in (2, 3, 4, 5))
    count = int(rng.integers(10, 21))
    spikes = np.zeros_like(ANGLES)
    for place in np.linspace(-np.pi, np.pi, count, endpoint=False) + rng.normal(
        0, 0.8 / count, count
    ):
        away = np.abs((ANGLES - place + np.pi) % (2 * np.pi) - np.pi)
        spike = rng.uniform(0.15, 1) * np.exp(-away / rng.uniform(0.03, 0.1))
        spikes = np.maximum(spikes, spike)
    radius: np.ndarray = 1 + lesion.lobes * lobes + lesion.spiculation * spikes
    return radius


def _transmission(
    rng: np.random.Generator, lesion: _Lesion, inside: Float[np.ndarray, "row col"]
) -> Float[np.ndarray, "row col"]:
    """Amplitude left of the beam at each depth: the lesion's share and a patchy remainder."""
    height, width = inside.shape
    path = np.cumsum(inside, axis=0) / height
    path = ndimage.gaussian_filter1d(path, 3.0, axis=1, mode="nearest")
    depth = np.linspace(0, 1, height)[:, None]
    contact = ndimage.gaussian_filter1d(rng.standard_normal(width), width / 14, mode="nearest")
    uneven = 1 + 0.12 * contact / contact.std()
    rate = rng.uniform(0.5, 1.3)
    beam: np.ndarray = uneven * np.exp(-rate * depth - 2.2 * lesion.attenuation * path)
    return beam


def _scan(
    rng: np.random.Generator, echo: Float[np.ndarray, "row col"]
) -> UInt8[np.ndarray, "row col"]:
    """Speckle of a beam that widens with depth, thermal noise, and compression to decibels."""
    height = len(echo)
    fields = echo * rng.standard_normal((2, *echo.shape))
    near = _beam(fields, (0.8, 1.2))
    far = _beam(fields, (0.95, 2.3))
    blend = np.linspace(0, 1, height)[:, None]
    real, imaginary = near * (1 - blend) + far * blend
    power = real**2 + imaginary**2 + 1e-6 * rng.chisquare(2, echo.shape)
    decibels = 10 * np.log10(power / np.quantile(power, 0.998))
    shown = np.clip(1 + decibels / rng.uniform(54, 64), 0, 1) ** rng.uniform(1.25, 1.6)
    smooth = ndimage.gaussian_filter(shown, 0.45)
    pixels: np.ndarray = np.rint(255 * smooth).astype(np.uint8)
    return pixels


def _beam(
    fields: Float[np.ndarray, "part row col"], sigma: tuple[float, float]
) -> Float[np.ndarray, "part row col"]:
    """Blur by the point spread function, keeping the power of independent scatterers."""
    gain = np.sqrt(4 * np.pi * sigma[0] * sigma[1])
    blurred: np.ndarray = gain * ndimage.gaussian_filter(fields, (0, *sigma))
    return blurred
