"""How images become features: every option of stage one, checked before any file is touched.

The command line is made from these fields, so that torch is imported where they are checked.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast, get_args

from samcls.config import Resize, documented, option
from samcls.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from samcls.encode.base import EncoderChoice
    from samcls.store.schema import Fingerprint

__all__ = ["ExtractOptions"]

MOST_PIXELS = 4096  # side of the images that a store keeps; 50 MB each


_what = partial(option, group="Data")
_encoder = partial(option, group="Encoder")
_stored = partial(option, group="Store")
_machine = partial(option, group="Machine")


@documented
@dataclass(frozen=True)
class ExtractOptions:
    """How images become features."""

    encoder: str = _encoder(
        "vit_b",
        "SAM's vit_b, vit_l or vit_h; lite0 (ImageNet-trained, small, installed with samcls); "
        "timm:<model>; or vit_t, a built-in UNTRAINED miniature: see samcls weights list.",
    )
    checkpoint: str | None = _encoder(
        None,
        "File with the encoder's weights; by default the official one that was fetched, or timm's "
        "own.",
    )
    levels: str = _encoder(
        "all", "patch, early, middle, late, neck, block:<i>, comma-separated, or all for the five."
    )
    window: int = _stored(
        4, "Side of the pooling window, in map cells; 1 keeps the whole map.", unit="cells"
    )
    views: str = _encoder(
        "none", "none, flip (as it is, and mirrored) or d4 (all eight symmetries)."
    )
    size: int | None = _encoder(
        None,
        "Side of the encoder's input in pixels, a multiple of 16 for SAM; by default its own.",
        unit="pixels",
    )
    resize: Resize = _encoder(
        "longest", "longest keeps the picture's aspect and pads; stretch does not."
    )
    keep_pixels: int | None = _stored(
        None,
        "Keep each image beside its features, in a square of so many pixels and framed as the "
        "encoder's own, for guided networks; none by default.",
        unit="pixels",
    )
    storage: str = _stored("float16", "float16 or float32.")
    keep_bits: int | None = _stored(
        None, "Mantissa bits that stored values are rounded to, which compresses; all by default."
    )
    precision: str = _machine(
        "auto",
        "Of the encoder's arithmetic: auto, float32, bfloat16 or float16; auto takes what an "
        "existing store was made with, else bfloat16 where the hardware multiplies it.",
    )
    device: str = _machine("auto", "auto, cpu, cuda or any name that torch knows.")
    batch: int | None = _machine(
        None,
        "Images encoded together; by default chosen from the input size and free memory.",
        flags=("--batch", "--batch-size"),
    )
    flush_seconds: float = _machine(
        10.0, "Results are written at least this often while writing is cheap."
    )
    workers: int = _machine(
        1,
        "Processes that encode whole shards side by side; more than one starts a local Dask "
        "cluster, which shares this machine's threads out.",
    )
    dask: str | None = _machine(
        None, "Address of a running Dask scheduler to use instead; paths must be shared."
    )
    random_weights: bool = _encoder(
        False, "Whether to draw the weights, as a control: for SAM's sizes and timm's models."
    )
    seed: int = _encoder(0, "Of drawn weights, vit_t's among them.")
    removed: str = _what(
        "refuse",
        "What becomes of images gone from the manifest, and of rows in another order: refuse, or keep "
        "(the rows stay unused, the store keeps its order).",
    )
    changed: str = _what(
        "ignore",
        "What becomes of done images whose files changed: ignore (not read), report (each is read, "
        "and the extract stops if one changed) or encode.",
    )

    reuse: tuple[str, ...] = _what(
        (),
        "Other stores, made with the same settings: of pictures that they hold, by their pixels, the "
        "features are copied bit for bit and not encoded again.",
    )

    def __post_init__(self) -> None:
        """Refuse options that cannot be, before any file is touched.

        Raises:
            ConfigError: naming the option, what was got and what was expected.
        """
        from samcls.encode.precision import PRECISIONS
        from samcls.encode.registry import encoder_module
        from samcls.views import view_names

        object.__setattr__(self, "reuse", tuple(self.reuse))
        view_names(self.views)
        encoder_module(self.encoder).check(self.encoder_choice)
        choices = {
            "resize": get_args(Resize),
            "storage": ("float16", "float32"),
            "precision": ("auto", *PRECISIONS),
            "removed": ("refuse", "keep"),
            "changed": ("ignore", "report", "encode"),
        }
        if self.removed == "drop":
            raise ConfigError(
                "removed is 'drop', which is no more; to leave rows out, or to order them anew, extract "
                "into another store with --reuse and the old one: nothing is encoded again"
            )
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
    def encoder_choice(self) -> "EncoderChoice":
        """What of these options concerns the encoder itself."""
        from samcls.encode.base import EncoderChoice

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

    @classmethod
    def of(cls, made: "Fingerprint", **given: Any) -> "ExtractOptions":
        """Return the options that a store was made with.

        Args:
            made: The store's.
            given: What a fingerprint does not say, such as `checkpoint` and `device`.

        Raises:
            StoreError: its views are none of the known sets.
        """
        from samcls.views import VIEW_SETS

        views = [name for name, members in VIEW_SETS.items() if members == made.views]
        if not views:
            raise StoreError(f"the store has views {made.views}, which no --views gives")
        return cls(
            encoder=made.encoder,
            levels=",".join(made.levels),
            window=made.window,
            views=views[0],
            size=made.input_size,
            resize=cast("Resize", made.resize),
            storage=made.storage,
            keep_bits=made.keep_bits,
            precision=made.precision,
            **given,
        )
