"""`lite0`: EfficientNet-Lite0 trained on ImageNet, no SAM: for laptops, first looks, and as a control.

Its weights are a package like any other (17 MB, Apache-2.0) and installed with samcls, so that nothing is
fetched when it is used. The architecture is timm's `tf_efficientnet_lite0` (`lite0_net`); the file's tensors bear the names of
the PyTorch port that they were made with, and each is given its place by name. Pixels are brought to
-1..1, as that model was trained: with ImageNet's means the same weights name photographs less surely.

    encoder = build(EncoderChoice("lite0", levels="middle,late"), print)
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from samcls.encode.base import EncoderChoice, random_source, refuse_two_sources
from samcls.encode.checkpoints import faults_of, load_state_dict
from samcls.encode.lite0_net import BLOCKS, Lite0Net
from samcls.encode.timm_encoder import TimmEncoder, chosen_levels, create_body
from samcls.encode.weights import file_sha256, find, need_file, official_name, place, verify
from samcls.errors import ConfigError, WeightsError

__all__ = ["build", "check", "weights_file"]

MODEL = "tf_efficientnet_lite0"
SIZE, STRIDE = 224, 32  # pixels: of the input that it was trained at, and of a cell of its last map


def check(choice: EncoderChoice) -> None:
    """Refuse what the encoder cannot be, and weights that are not on this machine.

    Raises:
        ConfigError: the weights are to be drawn and come from a file, or the size is none that its
            strides divide.
        WeightsError: the weights are not installed, or the file is another.
    """
    refuse_two_sources(choice)
    if choice.size is not None and (choice.size < STRIDE or choice.size % STRIDE):
        raise ConfigError(
            f"size is {choice.size}; expected a multiple of {STRIDE}, which lite0's strides divide, "
            f"such as {SIZE}"
        )
    if not choice.random_weights:
        weights_file(choice.checkpoint)


def weights_file(checkpoint: str | None = None) -> Path:
    """Find the file of the weights: the package's, or one that was asked for.

    Raises:
        WeightsError: the package is not installed or lacks its file, or the file named is not there.
    """
    if checkpoint is not None:
        need_file(Path(checkpoint))
        return Path(checkpoint)
    record = find("lite0")
    path = place(record)
    if not path.is_file():
        raise WeightsError(
            f"lite0's package is installed without its file {path}; install it again with: "
            f"{record.install} --force-reinstall, or give --checkpoint FILE"
        )
    verify(record, path)
    return path


def build(choice: EncoderChoice, log: Callable[[str], None]) -> TimmEncoder:
    """Build the encoder with its weights, or with drawn ones.

    Raises:
        ConfigError: a level is unknown.
        WeightsError: the weights cannot be had, or are other ones than those published.
    """
    body = _blank() if not choice.random_weights else _drawn(choice.seed)
    digest: str | None = None
    source: dict[str, str | None] = {}
    if not choice.random_weights:
        path = weights_file(choice.checkpoint)
        digest, source = _loaded(body, path)
        if source["official"] is None:
            log(f"{path.name} is not the published checkpoint of lite0: sha256 {digest}")
    encoder = TimmEncoder(
        body,
        choice.name,
        chosen_levels(body, choice.levels),
        choice.size or SIZE,
        choice.precision,
        not choice.random_weights,
        digest,
    )
    encoder.source = source or random_source(choice.seed)
    return encoder


def _blank() -> nn.Module:
    """Return the network, its values to be loaded; the global stream of random numbers stays where it is."""
    with torch.random.fork_rng(devices=[]):
        return Lite0Net()


def _drawn(seed: int) -> nn.Module:
    """Return the network with timm's own initial values."""
    return create_body(MODEL, None, pretrained=False, seed=seed)


def _loaded(body: nn.Module, path: Path) -> tuple[str, dict[str, str | None]]:
    """Give the model a file's weights; return the file's digest and what is known of it."""
    state = _named(load_state_dict(path))
    faults = faults_of(state, body.state_dict())
    if faults:
        raise WeightsError(
            f"{path} does not hold EfficientNet-Lite0: {'; '.join(faults)}. Name the "
            f"file {find('lite0').file_name}, or leave --checkpoint out"
        )
    body.load_state_dict(state)
    digest = file_sha256(path)
    official = official_name(digest)
    return digest, {"file": path.name, "official": official, "holds": f"{len(state)} tensors"}


def _named(table: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a file's tensors timm's names; the classifier is left out."""
    places = [(stage, block) for stage, count in enumerate(BLOCKS) for block in range(count)]
    found = {}
    for key, value in table.items():
        if key.startswith(("_fc.", "classifier.")):
            continue
        block = re.fullmatch(r"_blocks\.(\d+)\.(.*)", key)
        if block and int(block[1]) < len(places):
            number = int(block[1])
            stage, place = places[number]
            # The first block alone does not widen its input, so its layers count from one less.
            layers = FIRST if number == 0 else WIDENING
            name, _, rest = block[2].partition(".")
            found[f"blocks.{stage}.{place}.{layers.get(name, name)}.{rest}"] = value
        else:
            found[re.sub(r"^_conv_", "conv_", re.sub(r"^_bn(\d)", _next, key))] = value
    return found


FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
WIDENING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _next(found: re.Match[str]) -> str:
    return f"bn{int(found[1]) + 1}"
