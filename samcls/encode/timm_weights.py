"""Weights for timm's models: from a file of one's own, or from the network with one answer where there is none.

The hub's client tries a missing network again and again; here the local cache is looked at first, and the
network once, for less than a second.
"""

import os
import re
import socket
import sys
import threading
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import torch
from torch import Tensor, nn

from samcls.encode.checkpoints import faults_of, load_state_dict
from samcls.encode.sam_weights import precision_of, require_finite
from samcls.errors import WeightsError

__all__ = ["load_file", "pretrained_overlay"]

PATIENCE = 0.7  # seconds for the network to answer at all
FILES = ("model.safetensors", "pytorch_model.bin")  # as timm looks for them
HEADS = ("head", "fc", "classifier", "head_dist", "last_linear")


def load_file(body: nn.Module, name: str, path: Path) -> str:
    """Give a model the weights of a file; return what it holds.

    Args:
        body: Without a classification head.
        name: Of the model, for messages.
        path: Safetensors or a PyTorch checkpoint, under any prefix; a classification head is left out.

    Raises:
        WeightsError: the file cannot be read, or its tensors are not the model's.
    """
    table = _from_transformers(load_state_dict(path))
    own = body.state_dict()
    prefix, *others = _prefixes(table, own)
    for other in others:
        pairs = (
            (table[prefix + key], table.get(other + key)) for key in own if prefix + key in table
        )
        if not all(b is not None and torch.equal(a, b) for a, b in pairs):
            raise WeightsError(
                f"{path} holds {name} twice, under {prefix!r} and {other!r}, and they differ; save the one "
                "that is meant alone"
            )
    bare = {key.removeprefix(prefix): v for key, v in table.items() if key.startswith(prefix)}
    remap = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
    tries = [bare] if remap is None else [bare, _remapped(remap, bare, body)]
    tries += [] if remap is None or not prefix else [_remapped(remap, table, body)]
    found = [_without_head(state, own, body) for state in tries]
    fitting = next((state for state in found if not _faults(state, own)), None)
    held = f"{len(bare)} tensors, {precision_of(bare)}" + (f", under {prefix!r}" if prefix else "")
    if fitting is None:
        faults = "; ".join(_faults(found[0], own))
        raise WeightsError(
            f"{path} does not hold {name}: {faults}. It holds {held}; expected {len(own)} tensors. Name "
            "the file of that model, or the model of that file"
        )
    state = {k: v.float() if v.is_floating_point() else v for k, v in fitting.items()}
    require_finite(path, state)
    body.load_state_dict(own | state)
    return f"{name}: {held}"


# Names that transformers gives a DINOv2; query, key and value, which it keeps apart, become one.
TRANSFORMERS = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"^encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"^encoder\.layer\.(\d+)\.(norm|mlp)", r"blocks.\1.\2"),
)
QUERY = re.compile(r"encoder\.layer\.(\d+)\.attention\.attention\.query\.(weight|bias)")


def _from_transformers(table: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Give a DINOv2 that transformers saved timm's names; any other table is returned as it is."""
    anchor = "embeddings.patch_embeddings.projection.weight"
    first = next((key.removesuffix(anchor) for key in table if key.endswith(anchor)), None)
    if first is None:
        return table
    found = {}
    for key, value in table.items():
        name = key.removeprefix(first)
        if query := QUERY.fullmatch(name):
            parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            if all(part in table for part in parts):
                joined = torch.cat([table[part] for part in parts])
                found[f"blocks.{query[1]}.attn.qkv.{query[2]}"] = joined
        elif not re.search(r"mask_token$|\.attention\.attention\.(key|value)\.", name):
            for pattern, own in TRANSFORMERS:
                name, changed = re.subn(pattern, own, name)
                if changed:
                    break
            found[name] = value
    return found


def _prefixes(table: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Find the prefixes under which most of a model's names stand."""
    found: dict[str, int] = {}
    for key in table:
        start = 0
        while start >= 0:
            if key[start:] in own:
                found[key[:start]] = found.get(key[:start], 0) + 1
            start = key.find(".", start) + 1 or -1
    most = max(found.values(), default=0)
    return tuple(prefix for prefix, count in found.items() if count == most) or ("",)


def _remapped(remap: Any, table: Mapping[str, Tensor], body: nn.Module) -> Mapping[str, Tensor]:
    """Let timm bring other projects' names and other input sizes into its own form."""
    try:
        found: Mapping[str, Tensor] = remap(dict(table), body)
    except Exception:  # noqa: BLE001 - made for certain files, it trips over others in any way
        return table
    return found


def _without_head(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], body: nn.Module
) -> dict[str, Tensor]:
    config: Any = body.pretrained_cfg
    named = config.get("classifier") or ()
    heads = (*HEADS, *((named,) if isinstance(named, str) else named))
    starts = tuple(f"{head}." for head in heads)
    return {key: v for key, v in state.items() if key in own or not key.startswith(starts)}


def _faults(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Say what stands against a file; counters of batches may be missing, since they answer nothing."""
    counted = {k: v for k, v in own.items() if k in state or not k.endswith("num_batches_tracked")}
    return faults_of(state, counted)


def pretrained_overlay(name: str, config: Any) -> dict[str, Any]:
    """Return what to tell timm so that it takes a cached file, having made sure that it can have one.

    Args:
        name: Of the model, for messages.
        config: Timm's record of where its weights are published, or None.

    Raises:
        WeightsError: the file is not cached and the network does not answer.
    """
    repository = getattr(config, "hf_hub_id", None)
    address = getattr(config, "url", None) or ""
    if config is None or not (repository or address):
        raise WeightsError(
            f"timm has no pretrained weights for {name}; give --checkpoint FILE, name a model with a "
            "tag such as resnet18.a1_in1k, or give --random-weights for a control"
        )
    if not repository:
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(address).path).name)
        if not cached.is_file():
            _require_network(name, address)
        return {}
    names = (config.hf_hub_filename,) if config.hf_hub_filename else FILES
    for file in names:
        found = huggingface_hub.try_to_load_from_cache(repository, file)
        if isinstance(found, str) and not config.hf_hub_filename:
            return {"file": found, "custom_load": False}
        if isinstance(found, str):
            return {}
    site = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    _require_network(name, f"{site.rstrip('/')}/{repository}")
    return {}


def _require_network(name: str, address: str) -> None:
    cause = (
        "HF_HUB_OFFLINE is set"
        if huggingface_hub.constants.HF_HUB_OFFLINE
        else _silence(urlsplit(address).hostname or "", urlsplit(address).port or 443)
    )
    if cause:
        raise WeightsError(
            f"the pretrained weights of {name} are not on this machine, and {address} cannot be "
            f"reached: {cause}. Connect to the network once, give --checkpoint FILE with a file fetched "
            "elsewhere, or --random-weights for a control"
        )


def _silence(host: str, port: int) -> str:
    """Say why a host does not answer; nothing where it does, or where a proxy would have to be asked."""
    if "https" in urllib.request.getproxies():
        return ""
    answers: list[str] = []

    def ask() -> None:  # in a thread: looking a name up knows no timeout
        try:
            socket.create_connection((host, port), timeout=PATIENCE).close()
            answers.append("")
        except OSError as error:
            answers.append(error.strerror or str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answers[0] if answers else f"no answer within {PATIENCE} s"
