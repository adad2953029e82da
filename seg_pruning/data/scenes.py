"""Pictures that resemble colonoscopy, and the masks of their polyps: pure functions of a random generator.

Everything is in floats: colours in [0, 1], lengths in units of the shorter side, coordinates with their
origin in the centre. What is drawn on the mucosa besides polyps is there to be mistaken for them.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from seg_pruning.data.decode import Pixels

Field = npt.NDArray[np.floating]
Random = np.random.Generator


@dataclass(frozen=True)
class Grid:
    """Coordinates of the pixels, each `(H, W)`."""

    y: Field
    x: Field

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.y.shape[0], self.y.shape[1]


def make_grid(height: int, width: int) -> Grid:
    """The grid of a picture."""
    short = min(height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return Grid((y - height / 2 + 0.5) / short, (x - width / 2 + 0.5) / short)


def smooth_noise(random: Random, grid: Grid, cells: int) -> Field:
    """Smooth noise of about `cells` bumps a side, mean 0 and standard deviation about 1."""
    coarse = random.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    height, width = grid.shape
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def blob_distance(random: Random, grid: Grid, radius: float, *, elongation: float, bumps: float) -> Field:
    """Distance from a random centre relative to the boundary of an irregular ellipse: below 1 is inside.

    Args:
        random: Decides centre, direction and outline.
        grid: The pixels.
        radius: Mean radius.
        elongation: Ratio of the axes, at least 1.
        bumps: How much the outline deviates, relative to the radius.
    """
    centre, angle = random.uniform(-0.38, 0.38, 2), random.uniform(0, np.pi)
    dy, dx = grid.y - centre[0], grid.x - centre[1]
    along = (np.cos(angle) * dx + np.sin(angle) * dy) / np.sqrt(elongation)
    across = (-np.sin(angle) * dx + np.cos(angle) * dy) * np.sqrt(elongation)
    direction = np.arctan2(across, along)
    outline = np.ones_like(direction)
    for harmonic in range(2, 6):
        outline += (
            bumps / harmonic * random.standard_normal() * np.cos(harmonic * direction + random.uniform(0, 7))
        )
    return np.asarray(np.hypot(along, across) / (radius * np.clip(outline, 0.4, 1.8)))


def shade(height_map: Field, light: Field, depth: float) -> Field:
    """How much light a surface returns, about 1 where it is flat."""
    slope_y, slope_x = np.gradient(height_map)
    scale = depth * min(height_map.shape)
    lit: Field = 1 + scale * (light[0] * slope_y + light[1] * slope_x)
    return np.clip(lit, 0.35, 1.7)


def mix(picture: Field, colour: Field, alpha: Field) -> Field:
    """`picture` `(H, W, 3)` with a colour laid over it, as opaque as `alpha` `(H, W)` says."""
    weight = alpha[..., None]
    return picture * (1 - weight) + colour * weight


def step(value: Field, softness: float) -> Field:
    """From 0 where `value` is negative to 1 where it is positive, smoothly over a few `softness`.

    Example:
        >>> step(np.array([-9.0, 0.0, 9.0]), 0.1).round(3)
        array([0. , 0.5, 1. ])
    """
    return np.asarray(1 / (1 + np.exp(np.clip(-value / softness, -30, 30))))


def soft_edge(distance: Field, softness: float) -> Field:
    """1 inside, 0 outside, with a smooth step at distance 1."""
    return step(1 - distance, softness)


def mucosa(random: Random, grid: Grid) -> tuple[Field, Field]:
    """The wall of the colon `(H, W, 3)` and its mean colour."""
    colour = np.array([0.72, 0.40, 0.32]) * random.normal(1, 0.08) * random.normal(1, [0.03, 0.06, 0.07])
    tone = sum(smooth_noise(random, grid, cells) / cells**0.5 for cells in (2, 5, 11, 24))
    picture = colour * (1 + 0.10 * np.asarray(tone)[..., None] * random.uniform(0.6, 1.2))
    vessels = np.exp(-((smooth_noise(random, grid, 7) / 0.07) ** 2)) * (smooth_noise(random, grid, 3) > 0)
    return mix(picture, colour * [0.72, 0.45, 0.45], (0.55 * random.uniform() * vessels)), colour


def folds(random: Random, grid: Grid) -> Field:
    """Heights of haustral folds: ridges around a lumen that may lie outside the picture."""
    centre = random.uniform(-0.8, 0.8, 2)
    distance = np.hypot(grid.y - centre[0], grid.x - centre[1]) + 0.06 * smooth_noise(random, grid, 3)
    phase = distance * random.uniform(2.0, 5.0) + random.uniform()
    ridge = np.abs((phase % 1) - 0.5) * 2
    return np.asarray(random.uniform(0.02, 0.07) * ridge ** random.uniform(1.5, 4))


def darkness(random: Random, grid: Grid) -> Field:
    """How light falls off: from the middle to the edges, and into the lumen."""
    centre = random.uniform(-0.2, 0.2, 2)
    spot = np.exp(-((grid.y - centre[0]) ** 2 + (grid.x - centre[1]) ** 2) / random.uniform(0.3, 0.9))
    lumen = blob_distance(random, grid, random.uniform(0.08, 0.25), elongation=1.3, bumps=0.2)
    depth = random.uniform(0.5, 0.9) * (random.uniform() < 0.5)
    return np.asarray((0.45 + 0.65 * spot) * (1 - depth * np.exp(-(lumen**2))))


def add_dome(picture: Field, distance: Field, colour: Field, random: Random, light: Field) -> Field:
    """A raised, slightly rough thing of a colour: a polyp, or what looks like one."""
    grid_noise = random.standard_normal((20, 20), dtype=np.float32)
    rough = np.asarray(cv2.resize(grid_noise, distance.shape[::-1], interpolation=cv2.INTER_CUBIC))
    height = np.sqrt(np.clip(1 - distance**2, 0, None)) * random.uniform(0.015, 0.05)
    opacity = soft_edge(distance, random.uniform(0.03, 0.10)) * random.uniform(0.7, 0.97)
    surface = colour * (1 + 0.06 * rough[..., None])
    laid = mix(picture, surface, opacity) * shade(height, light, random.uniform(0.6, 1.4))[..., None]
    rim = np.exp(-(((distance - 1.05) / 0.10) ** 2)) * random.uniform(0, 0.25)
    return np.asarray(laid * (1 - rim[..., None]))


def add_polyp(
    picture: Field, colour: Field, random: Random, grid: Grid, light: Field
) -> tuple[Field, npt.NDArray[np.bool_]]:
    """The picture with one more polyp, and where it is."""
    radius = 0.08 + 0.24 * random.beta(1.3, 2.0)
    distance = blob_distance(random, grid, radius, elongation=random.uniform(1, 1.6), bumps=0.13)
    tint = 1 + random.normal(0, 0.06, 3) + np.array([0.10, -0.16, -0.10]) * random.uniform(0.4, 1.8)
    return add_dome(picture, distance, colour * tint, random, light), distance < 1


def add_distractors(picture: Field, colour: Field, random: Random, grid: Grid, light: Field) -> Field:
    """What is no polyp: red patches without height, stool, ends of folds, bubbles."""
    for _ in range(random.poisson(0.8)):
        patch = blob_distance(random, grid, random.uniform(0.05, 0.18), elongation=1.5, bumps=0.35)
        alpha = soft_edge(patch, random.uniform(0.1, 0.4)) * random.uniform(0.2, 0.7)
        picture = mix(picture, colour * [1.08, 0.8, 0.82], alpha)
    for _ in range(random.poisson(0.6)):
        stool = blob_distance(random, grid, random.uniform(0.03, 0.12), elongation=1.4, bumps=0.45)
        picture = add_dome(
            picture, stool, np.array([0.62, 0.48, 0.18]) * random.uniform(0.6, 1.1), random, light
        )
    for _ in range(random.poisson(0.8)):
        fold = blob_distance(
            random, grid, random.uniform(0.06, 0.14), elongation=random.uniform(3.5, 7), bumps=0.1
        )
        picture = add_dome(picture, fold, colour * random.uniform(0.95, 1.2), random, light)
    for _ in range(random.poisson(1.5)):
        bubble = blob_distance(random, grid, random.uniform(0.02, 0.06), elongation=1, bumps=0)
        ring = np.exp(-(((bubble - 1) / 0.15) ** 2)) * random.uniform(0.2, 0.6)
        picture = mix(picture, np.array([0.95, 0.9, 0.85]), ring)
    return picture


def add_highlights(picture: Field, random: Random, grid: Grid) -> Field:
    """Specular reflections of the lamp on wet places."""
    wet = smooth_noise(random, grid, int(random.integers(12, 28))) + 0.8 * smooth_noise(random, grid, 3)
    glare = step(wet - random.uniform(2.4, 3.4), 1 / 14)
    return mix(picture, np.array([1.0, 0.98, 0.95]), glare)


def photograph(picture: Field, random: Random) -> Field:
    """What the camera makes of it: blur, exposure, white balance and noise."""
    sharp = np.asarray(cv2.GaussianBlur(picture, (0, 0), random.uniform(0.3, 1.2)))
    exposed = sharp * random.uniform(0.8, 1.15) * random.uniform(0.94, 1.06, 3)
    return exposed + random.normal(0, random.uniform(0.008, 0.03), picture.shape)


def scope_frame(random: Random, grid: Grid) -> Field:
    """1 in the octagon that the scope sees, 0 in the dark corners."""
    far, near = np.maximum(np.abs(grid.y), np.abs(grid.x)), np.minimum(np.abs(grid.y), np.abs(grid.x))
    return step(random.uniform(0.62, 0.85) - far - 0.55 * near, 1 / 120)


def make_scene(random: Random, height: int, width: int) -> tuple[Pixels, Pixels]:
    """A picture, uint8 RGB `(H, W, 3)`, and the mask of its none to three polyps, uint8 0 or 1 `(H, W)`."""
    grid, angle = make_grid(height, width), random.uniform(0, 2 * np.pi)
    light = np.array([np.sin(angle), np.cos(angle)])
    picture, colour = mucosa(random, grid)
    picture = picture * shade(folds(random, grid), light, 1.0)[..., None]
    picture = add_distractors(picture, colour, random, grid, light)
    mask = np.zeros((height, width), dtype=np.bool_)
    for _ in range(int(random.choice(4, p=[0.08, 0.62, 0.22, 0.08]))):
        picture, polyp = add_polyp(picture, colour, random, grid, light)
        mask |= polyp
    lit = add_highlights(picture * darkness(random, grid)[..., None], random, grid)
    frame = scope_frame(random, grid)
    seen = np.clip(photograph(lit, random) * frame[..., None] * 255, 0, 255).astype(np.uint8)
    return seen, (mask & (frame > 0.5)).astype(np.uint8)
