"""How images become features: every option of stage one, checked before any file is touched."""

from dataclasses import dataclass

from samcls.data.images import Resize
from samcls.encode.base import EncoderChoice
from samcls.encode.precision import PRECISIONS
from samcls.encode.registry import encoder_module
from samcls.errors import ConfigError
from samcls.views import view_names

__all__ = ["ExtractOptions"]

MOST_PIXELS = 4096  # side of the images that a store keeps; 50 MB each


@dataclass(frozen=True)
class ExtractOptions:
    """How images become features.

    Attributes:
        encoder: `vit_t`, `vit_b`, `vit_l`, `vit_h`, or `timm:` and a model that timm knows.
        checkpoint: file that holds the encoder's weights; by default the official one that was
            fetched, or timm's own. None for `vit_t`.
        levels: comma-separated names, or `all` for the five.
        window: side of the pooling window, in map cells; 1 keeps the whole map.
        views: `none`, `flip` (as it is, and mirrored) or `d4` (all eight symmetries).
        size: side of the encoder input in pixels; the encoder's own by default.
        resize: `longest` keeps the aspect and pads; `stretch` does not.
        keep_pixels: keep each image beside its features, in a square of so many pixels and framed as
            the encoder's own, for networks that look at images; none by default.
        storage: `float16` or `float32`.
        keep_bits: mantissa bits that stored values are rounded to, which compresses; all by default.
        precision: of the encoder's arithmetic: `auto`, `float32`, `bfloat16` or `float16`. `auto` takes
            what an existing store was made with, else bfloat16 where the hardware multiplies it.
        device: `auto`, `cpu`, `cuda` or any name that torch knows.
        batch: images encoded together; chosen from the input size and free memory by default.
        flush_seconds: results are written at least this often while writing is cheap.
        workers: processes that encode whole shards side by side; more than one starts a local Dask
            cluster, which shares this machine's threads out.
        dask: address of a running Dask scheduler to use instead.
        random_weights: draw the weights, as a control: for SAM's sizes and timm's models.
        seed: of drawn weights.
        removed: what becomes of images that the manifest has no more, and of rows in another order:
            `refuse`; `keep` (the rows stay unused, the store keeps its order); `drop` (the store is
            written anew without them, in the manifest's order, encoding nothing again).
        changed: what becomes of images that are done and whose files changed: `ignore` (their files
            are not read), `report` (each is read, and the extract stops if one changed) or `encode`.
    """

    encoder: str = "vit_t"
    checkpoint: str | None = None
    levels: str = "all"
    window: int = 4
    views: str = "none"
    size: int | None = None
    resize: Resize = "longest"
    keep_pixels: int | None = None
    storage: str = "float16"
    keep_bits: int | None = None
    precision: str = "auto"
    device: str = "auto"
    batch: int | None = None
    flush_seconds: float = 10.0
    workers: int = 1
    dask: str | None = None
    random_weights: bool = False
    seed: int = 0
    removed: str = "refuse"
    changed: str = "ignore"

    def __post_init__(self) -> None:
        """Refuse options that cannot be, before any file is touched.

        Raises:
            ConfigError: naming the option, what was got and what was expected.
        """
        view_names(self.views)
        encoder_module(self.encoder).check(self.encoder_choice)
        choices = {
            "resize": ("longest", "stretch"),
            "storage": ("float16", "float32"),
            "precision": ("auto", *PRECISIONS),
            "removed": ("refuse", "keep", "drop"),
            "changed": ("ignore", "report", "encode"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; expected {' or '.join(allowed)}"
                )
        for name in ("window", "batch", "workers", "keep_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; expected at least 1")
        if self.keep_pixels is not None and self.keep_pixels > MOST_PIXELS:
            raise ConfigError(
                f"keep_pixels is {self.keep_pixels}, the side of the images that are kept; expected "
                f"at most {MOST_PIXELS}, such as 224"
            )

    @property
    def encoder_choice(self) -> EncoderChoice:
        """What of these options concerns the encoder itself."""
        return EncoderChoice(
            name=self.encoder,
            levels=self.levels,
            window=self.window,
            size=self.size,
            checkpoint=self.checkpoint,
            random_weights=self.random_weights,
            seed=self.seed,
            precision=self.precision,
        )
