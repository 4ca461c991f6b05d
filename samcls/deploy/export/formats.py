"""A graph as files: ONNX, torch.export's own, and weights with what is needed to rebuild it.

Tracing takes some 10 s and ONNX 20 to 60 s more on one core, whatever the encoder's size. `model.onnx` has
opset 20 and a file of weights beside it only past 2 GB. `model.safetensors` and `model.json` rebuild the
module without pickle; only they need samcls to be read.

    traced = trace(ImageGraph(models, encoder, fingerprint, temperatures))
    write_onnx(traced, folder / "model.onnx")
    load_exported(folder)(images)
"""

import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from samcls import __version__
from samcls.deploy.export.graph import HeadGraph, ImageGraph
from samcls.encode.base import Encoder, EncoderChoice
from samcls.encode.registry import encoder_module
from samcls.errors import ExportError, InputError, SamclsError
from samcls.files import to_json
from samcls.learn.fit.prediction import Model, load_model, model_files
from samcls.store.schema import Fingerprint, LevelShape

__all__ = [
    "CachedGraph",
    "Recipe",
    "Traced",
    "load_exported",
    "trace",
    "write_onnx",
    "write_torch",
    "write_weights",
]

FORMAT_VERSION = 1
OPSET = 20
MODEL, WEIGHTS, DESCRIBED = "model.onnx", "model.safetensors", "model.json"
ENCODER = "encoder."  # what stands before the names of the encoder's tensors
BATCH = "batch"


class CachedGraph(nn.Module):
    """The head alone as a graph: levels as they are cached, one input each, and what shows picture.

    Args:
        head: The part that it wraps.
    """

    def __init__(self, head: HeadGraph) -> None:
        super().__init__()
        self.head = head
        self.outputs = head.outputs

    def forward(self, *given: Tensor) -> tuple[Float[Tensor, "image _class"], ...]:
        """Each task's probabilities, then those under a temperature.

        Args:
            given: For each level in order "image view channel row col", float32; `valid`, "image 2",
                int64; and for a head that looks at pictures "image row col 3", uint8.
        """
        levels = self.head.levels
        pixels = None
        if self.head.pixels:
            pixels = given[-1].permute(0, 3, 1, 2).float()
        maps = dict(zip(levels, given[: len(levels)], strict=True))
        return self.head(maps, given[len(levels)], pixels)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a graph is made of, and of what it is rebuilt.

    Attributes:
        models: Of one run, or of several whose probabilities are averaged.
        fingerprint: Of the features.
        shapes: Of the levels as they are cached.
        temperatures: For tasks that get a second output.
        encoder: That made the features; None for the head alone.
        vertical_first: As for `ImageGraph`.
    """

    models: Sequence[Model]
    fingerprint: Fingerprint
    shapes: Mapping[str, LevelShape]
    temperatures: Mapping[str, float]
    encoder: Encoder | None = None
    vertical_first: bool = False

    def build(self) -> ImageGraph | CachedGraph:
        """Return the graph, in evaluation.

        Raises:
            ExportError: as `ImageGraph`.
        """
        made: ImageGraph | CachedGraph
        if self.encoder is None:
            made = CachedGraph(
                HeadGraph(self.models, self.fingerprint, self.shapes, self.temperatures)
            )
        else:
            made = ImageGraph(
                self.models,
                self.encoder,
                self.fingerprint,
                self.temperatures,
                vertical_first=self.vertical_first,
            )
        return made.eval()


@dataclass(frozen=True, eq=False)
class Traced:
    """A graph that was followed.

    Attributes:
        program: A `torch.export.ExportedProgram`.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        axes: For each input, names of the axes whose length is free.
        classes: Class names of each task.
    """

    program: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: tuple[Mapping[int, str], ...]
    classes: Mapping[str, tuple[str, ...]]


def trace(graph: ImageGraph | CachedGraph) -> Traced:
    """Follow a graph once, lengths left free.

    Args:
        graph: In evaluation.

    Raises:
        ExportError: an operation cannot be traced; with the head, the encoder and the reason.
    """
    head = graph.head
    if isinstance(graph, ImageGraph):
        inputs: tuple[str, ...] = ("images",)
        given: tuple[Tensor, ...] = _pictures()
        axes: tuple[Mapping[int, str], ...] = ({0: BATCH, 1: "height", 2: "width"},)
    else:
        inputs, given = _cached_inputs(head), _cached_example(head)
        axes = tuple({0: BATCH} for _ in inputs)
    dims = {name: torch.export.Dim(name, min=1) for names in axes for name in names.values()}
    free = tuple({axis: dims[name] for axis, name in names.items()} for names in axes)
    shapes = {"images": free[0]} if isinstance(graph, ImageGraph) else {"given": free}
    try:
        with torch.no_grad():
            program = torch.export.export(graph, given, dynamic_shapes=shapes, strict=False)
    except SamclsError:
        raise
    except Exception as error:
        raise _untraceable(graph, "torch.export", error) from error
    return Traced(program, inputs, tuple(graph.outputs), axes, head.tasks)


def write_torch(traced: Traced, path: Path) -> None:
    """Write a traced graph as `torch.export.load` reads it.

    Raises:
        OSError: the disk is full or refuses.
    """
    # torch's own writer ends the whole process where a disk is full.
    held = io.BytesIO()
    with warnings.catch_warnings():
        # It says that weights with the channels last are no whole tensors, and keeps them whole.
        warnings.filterwarnings("ignore", "No complete tensor")
        torch.export.save(traced.program, held)
    path.write_bytes(held.getbuffer())


def write_onnx(traced: Traced, path: Path) -> None:
    """Write a traced graph as ONNX; weights past 2 GB lie in a second file beside it.

    Raises:
        ExportError: the packages of the extra are missing, or ONNX has no such operation.
    """
    try:
        import onnx  # noqa: F401 - named, so that what is missing is said before an hour's work
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f'{error.name} is not installed; get what ONNX needs with pip install "samcls[export]", or '
            "export with --format torch-export"
        ) from error
    try:
        pooling, program = torch.ops.aten.avg_pool2d.default, traced.program
        if any(node.target is pooling for node in program.graph.nodes):
            program = program.run_decompositions({pooling: _summed})
        translated: Any = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(traced.inputs),
            output_names=list(traced.outputs),
            opset_version=OPSET,
            verbose=False,
        )
    except SamclsError:
        raise
    except Exception as error:
        raise ExportError(f"ONNX cannot hold this model: {_first_line(error)}") from error
    _name_axes(translated.model, traced)
    classes = {task: list(names) for task, names in traced.classes.items()}
    translated.model.metadata_props["classes"] = json.dumps(classes, ensure_ascii=False)
    translated.model.producer_name, translated.model.producer_version = "samcls", __version__
    translated.save(str(path))


def _pictures() -> tuple[UInt8[Tensor, "2 row col 3"]]:
    """Two pictures whose sides are no number that any encoder has."""
    rng = np.random.default_rng(0)
    return (torch.from_numpy(rng.integers(0, 256, (2, 61, 83, 3), dtype=np.uint8)),)


def _cached_inputs(head: HeadGraph) -> tuple[str, ...]:
    return (*head.levels, "valid", *(["pixels"] if head.pixels else []))


def _cached_example(head: HeadGraph) -> tuple[Tensor, ...]:
    made, size = head.fingerprint, head.fingerprint.input_size
    shapes = [head.shapes[level] for level in head.levels]
    maps = [torch.randn(2, len(made.views), s.channels, s.rows, s.cols) for s in shapes]
    valid: Int64[Tensor, "image 2"] = torch.tensor([[size, size], [size, size // 2 + 1]])
    pixels = [torch.zeros(2, head.pixels, head.pixels, 3, dtype=torch.uint8)] if head.pixels else []
    return (*maps, valid, *pixels)


def _summed(
    values: Tensor,
    window: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Sum over windows: ONNX knows means alone, and torch's translation would drop the divisor unsaid."""
    del ceil_mode, count_include_pad
    if divisor_override is None:
        return NotImplemented
    down, across = window[0], window[-1]
    rows, cols = values.shape[-2:]
    if any(padding) or rows % down or cols % across or (stride and list(stride) != list(window)):
        raise ExportError("a window's sum over a map that it does not divide cannot be exported")
    split = values.reshape(*values.shape[:-2], rows // down, down, cols // across, across)
    return split.sum((-3, -1)) / divisor_override


def _name_axes(model: Any, traced: Traced) -> None:
    """Call free lengths what they are, in place of the tracer's numbers."""
    names: dict[str, str] = {}
    for value, axes in zip(model.graph.inputs, traced.axes, strict=True):
        for axis, name in axes.items():
            names[str(value.shape[axis])] = name
    values = [*model.graph.inputs, *(out for node in model.graph for out in node.outputs)]
    for value in values:
        if value.shape is not None:
            for axis, length in enumerate(value.shape):
                if not isinstance(length, int) and str(length) in names:
                    value.shape[axis] = names[str(length)]


def _untraceable(graph: ImageGraph | CachedGraph, by: str, error: Exception) -> ExportError:
    heads = ", ".join(sorted({type(member.head).__name__ for member in graph.head.members}))
    about = f"{graph.head.fingerprint.encoder} with {heads}"
    if isinstance(graph, CachedGraph):
        about = heads
    remedy = "try --head-only, or another head or encoder"
    return ExportError(f"{by} cannot follow {about}: {_first_line(error)}; {remedy}")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def write_weights(recipe: Recipe, folder: Path) -> None:
    """Write `model.safetensors` and `model.json`, from which `load_exported` rebuilds the graph.

    Args:
        recipe: What the graph is made of.
        folder: Where the two files go.

    Raises:
        OSError: the disk is full or refuses.
    """
    tensors: dict[str, Tensor] = {}
    described = []
    for number, model in enumerate(recipe.models):
        files = model_files(model)
        described.append(json.loads(files["head.json"]))
        for name, value in safetensors.torch.load(files["head.safetensors"]).items():
            tensors[f"models.{number}.{name}"] = value
    if recipe.encoder is not None:
        tensors |= {ENCODER + k: v for k, v in _tensors(recipe.encoder.plain()).items()}
    owned = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    try:
        safetensors.torch.save_file(owned, folder / WEIGHTS)
    except safetensors.SafetensorError as error:  # what it makes of a full disk
        raise OSError(str(error)) from error
    record = {
        "format_version": FORMAT_VERSION,
        "samcls": __version__,
        "kind": "head" if recipe.encoder is None else "image",
        "fingerprint": recipe.fingerprint.to_dict(),
        "levels": {level: asdict(shape) for level, shape in recipe.shapes.items()},
        "temperatures": dict(recipe.temperatures),
        "vertical_first": recipe.vertical_first,
        "models": described,
    }
    (folder / DESCRIBED).write_bytes(to_json(record))
    shutil.copymode(
        folder / DESCRIBED, folder / WEIGHTS
    )  # safetensors lets its owner alone read it


def load_exported(folder: str | Path) -> ImageGraph | CachedGraph:
    """Rebuild an exported graph from `model.safetensors` and `model.json`, in evaluation.

    Args:
        folder: As `export` wrote it. Nothing in it is run, and no pickle is read.

    Raises:
        InputError: a file is missing, damaged or of another format.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / DESCRIBED).read_text(encoding="utf-8"))
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(f"cannot read the exported model in {folder}: {error}") from error
    version = record.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"the model in {folder} has format {version}; this samcls reads format {FORMAT_VERSION}"
        )
    try:
        return _rebuilt(record, tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(
            f"the exported model in {folder} is damaged: {error}; export it again"
        ) from error


def _rebuilt(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ImageGraph | CachedGraph:
    fingerprint = Fingerprint.from_dict(record["fingerprint"])
    encoder = None
    if record["kind"] == "image":
        choice = EncoderChoice(
            fingerprint.encoder,
            levels=",".join(fingerprint.levels),
            window=fingerprint.window,
            size=fingerprint.input_size,
            random_weights=True,  # which the file's replace
        )
        encoder = encoder_module(choice.name).build(choice, lambda _: None)
    recipe = Recipe(
        models=[_model(i, one, tensors) for i, one in enumerate(record["models"])],
        fingerprint=fingerprint,
        shapes={level: LevelShape(**shape) for level, shape in record["levels"].items()},
        temperatures=record["temperatures"],
        encoder=encoder,
        vertical_first=record["vertical_first"],
    )
    graph = recipe.build()
    if isinstance(graph, ImageGraph):
        with torch.no_grad():
            for name, value in _tensors(graph.encoder).items():
                value.copy_(tensors[ENCODER + name])
    return graph


def _model(number: int, described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Model:
    """Rebuild one run's model from what is its own, as from a run's folder."""
    mark = f"models.{number}."
    own = {k.removeprefix(mark): v for k, v in tensors.items() if k.startswith(mark)}
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "head.json").write_bytes(to_json(described))
        safetensors.torch.save_file(own, Path(place) / "head.safetensors")
        return load_model(place)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, those too that a state dict leaves out."""
    return dict([*module.named_parameters(), *module.named_buffers()])
