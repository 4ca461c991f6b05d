"""Every encoder that stage one can run. A new one is a module and one line in `REGISTRY`.

The module offers two functions: `check(choice)` refuses what the encoder cannot be, before any file is
touched, and `build(choice, log)` returns it with its weights. It is imported when it is asked for.

    encoder = encoder_module("vit_b").build(EncoderChoice("vit_b", levels="early,neck"), print)
"""

from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast, runtime_checkable

from samcls.encode.base import Encoder, EncoderChoice
from samcls.errors import ConfigError
from samcls.files import meant

__all__ = ["REGISTRY", "EncoderModule", "encoder_module"]

SAM = "samcls.encode.sam"

REGISTRY = {  # a name, or what ends in a colon and goes before one
    "vit_t": SAM,
    "vit_b": SAM,
    "vit_l": SAM,
    "vit_h": SAM,
    "lite0": "samcls.encode.lite0",
    "timm:": "samcls.encode.timm_encoder",
}


@runtime_checkable
class EncoderModule(Protocol):
    """What a module in the registry offers."""

    def check(self, choice: EncoderChoice) -> None:
        """Refuse a choice that cannot be.

        Raises:
            ConfigError: naming the option, what was got and what was expected.
        """

    def build(self, choice: EncoderChoice, log: Callable[[str], None]) -> Encoder:
        """Return the encoder with its weights, on the CPU.

        Args:
            choice: Checked.
            log: Called with a sentence on weights that are not the official ones.

        Raises:
            WeightsError: the weights cannot be used.
        """


def encoder_module(name: str) -> EncoderModule:
    """Import the module of an encoder.

    Raises:
        ConfigError: there is no such encoder.
    """
    kind, colon, _ = name.partition(":")
    module = REGISTRY.get(kind + colon)
    if module is None:
        known = ", ".join(f"{key}<model>" if key.endswith(":") else key for key in REGISTRY)
        raise ConfigError(
            f"unknown encoder {name!r}; expected one of {known}{meant(name, REGISTRY)}"
        )
    return cast("EncoderModule", import_module(module))
