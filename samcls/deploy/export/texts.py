"""What an exported folder says to whoever opens it: its README, and a script that proves it on their machine.

The script needs numpy and onnxruntime alone (torch instead, where there is no ONNX file). Nothing of samcls
is in either but their words.

    readme(contents), check_script("onnx")
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Contents", "check_script", "readme"]

ONNX_LOADER = '''\
import onnxruntime


def load():
    """Return a function from the model's inputs to its outputs."""
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=providers)
    names = [one.name for one in session.get_inputs()]
    return lambda given: session.run(None, dict(zip(names, given)))
'''

TORCH_LOADER = '''\
import torch


def load():
    """Return a function from the model's inputs to its outputs."""
    module = torch.export.load(HERE / "model.pt2").module()

    def run(given):
        with torch.no_grad():
            return [one.numpy() for one in module(*map(torch.from_numpy, given))]

    return run
'''

SCRIPT = '''\
"""Does this model say here what it said where it was made? Needs numpy and {needs} alone.

    python check.py                 its three test pictures; exit status 1 where one differs
    python check.py {file}     what it says of {given}
"""

import json
import sys
from pathlib import Path

import numpy as np
{loader}

HERE = Path(__file__).resolve().parent
BOUND = 1e-4  # of a probability


def main(arguments):
    about = json.loads((HERE / "classes.json").read_text(encoding="utf-8"))
    run = load()
    if arguments:
        return show(about, run, arguments[0])
    test, failed = np.load(HERE / "test_images.npz"), 0
    for number in range(3):
        given = [test[f"given_{{number}}_{{i}}"] for i in range(len(about["inputs"]))]
        found = run(given)
        for i, task in enumerate(about["tasks"]):
            gap = float(np.abs(found[i] - test[f"expected_{{number}}_{{i}}"]).max())
            good = gap <= BOUND
            failed += not good
            print(f"picture {{number}}, {{task}}: {{'ok' if good else 'DIFFERS'}}, by {{gap:.1e}} at most")
    print("the model is what it was" if not failed else f"{{failed}} answers differ by more than {{BOUND}}")
    return 1 if failed else 0


def show(about, run, name):
    given = np.load(name)
    if hasattr(given, "files"):
        given = [given[one] for one in about["inputs"]]
    else:
        if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3:
            print(f"{{name}} is {{given.dtype}} of shape {{given.shape}}; expected uint8, (row, col, 3), RGB")
            return 2
        given = [given[None]]
    for output, values in zip(about["outputs"], run(given)):
        names = about["tasks"][output.removesuffix(":scaled")]
        told = ", ".join(f"{{a}} {{p:.4f}}" for a, p in zip(names, values[0].tolist()))
        print(f"{{output}}: {{told}}")
        if output in about["tasks"]:
            threshold = about["thresholds"][output]
            answer = int(values[0].argmax() if threshold is None else values[0][1] > threshold)
            print(f"{{output}}: answered {{names[answer]}}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
'''

ONNX_USE = """\
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
{given}
names = [output.name for output in session.get_outputs()]
found = dict(zip(names, session.run(None, {fed})))
print(found[{task!r}])  # a row for each picture: {classes}
"""

TORCH_USE = """\
import numpy as np, torch
model = torch.export.load("model.pt2").module()
{given}
with torch.no_grad():
    found = dict(zip({outputs!r}, model({fed})))
print(found[{task!r}])  # a row for each picture: {classes}
"""


@dataclass(frozen=True)
class Contents:
    """What a folder's texts speak of.

    Attributes:
        inputs: Names of the model's inputs.
        outputs: Names of its outputs.
        tasks: Class names of each task.
        thresholds: Of each task of two classes, above which the last one is answered.
        onnx: Whether there is an ONNX file.
        torch: Whether there is a file of torch.export's.
        card: What is known of the run.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    tasks: Mapping[str, Sequence[str]]
    thresholds: Mapping[str, float | None]
    onnx: bool
    torch: bool
    card: str

    @property
    def whole(self) -> bool:
        """Whether pictures are its input, not cached features."""
        return list(self.inputs) == ["images"]


def check_script(contents: Contents) -> str:
    """Return `check.py`."""
    given = ("PICTURE.npy", "a picture, uint8 (row, col, 3), RGB")
    if not contents.whole:
        given = ("FEATURES.npz", "arrays named as the inputs")
    return SCRIPT.format(
        needs="onnxruntime" if contents.onnx else "torch",
        loader=ONNX_LOADER if contents.onnx else TORCH_LOADER,
        file=given[0],
        given=given[1],
    )


def readme(contents: Contents) -> str:
    """Return `README.md`: how to run the model, what goes in and comes out, then the card."""
    front, card = _front_of(contents.card.strip())
    parts = [
        front,
        "# An exported samcls model",
        (
            "`python check.py` says whether it answers here as it did where it was made; it needs numpy and "
            f"{'onnxruntime' if contents.onnx else 'torch'} alone."
        ),
        "## Run it",
        *(f"```python\n{text}```" for text in _uses(contents)),
        "## What goes in",
        _given(contents),
        "## What comes out",
        *_outputs(contents),
        (
            "`model.safetensors` and `model.json` hold the same for samcls: "
            "`samcls.deploy.export.formats.load_exported(folder)` rebuilds the torch module, without pickle."
        ),
    ]
    return "\n\n".join([*parts, card]).strip() + "\n"


def _front_of(card: str) -> tuple[str, str]:
    """Return a card's front matter, which hubs look for on top of a file, and what is behind it."""
    if not card.startswith("---\n"):
        return "", card
    front, _, rest = card.removeprefix("---\n").partition("\n---\n")
    return f"---\n{front}\n---", rest.strip()


def _uses(contents: Contents) -> list[str]:
    task = next(iter(contents.tasks))
    words = {"task": task, "classes": ", ".join(contents.tasks[task])}
    if contents.whole:
        given = 'image = np.load("picture.npy")  # uint8, (row, col, 3), RGB, of any size'
        fed = ['{"images": image[None]}', "torch.from_numpy(image[None])"]
    else:
        given = 'given = np.load("features.npz")  # arrays named as the inputs'
        fed = ["dict(given)", f"*(torch.from_numpy(given[k]) for k in {list(contents.inputs)!r})"]
    found = []
    if contents.onnx:
        found.append(ONNX_USE.format(given=given, fed=fed[0], **words))
    if contents.torch:
        outputs = list(contents.outputs)
        found.append(TORCH_USE.format(given=given, fed=fed[1], outputs=outputs, **words))
    return found


def _given(contents: Contents) -> str:
    if contents.whole:
        return (
            "`images`: uint8, (image, row, col, 3), RGB, 0..255, of any height and width, all of one "
            "batch alike. Nothing is to be resized, padded or normalised before: that is part of the "
            "model. Grey pictures are given three times the same channel. Deeper ones are to be brought "
            "to 8 bits linearly from their own minimum and maximum, as samcls does."
        )
    lines = [
        f"- `{name}`: float32, (image, view, channel, row, col), window means as `samcls extract` "
        "caches them"
        for name in contents.inputs
        if name not in {"valid", "pixels"}
    ]
    lines.append(
        "- `valid`: int64, (image, 2), height and width that show picture, in the encoder's pixels"
    )
    if "pixels" in contents.inputs:
        lines.append(
            "- `pixels`: uint8, (image, row, col, 3), the pictures as the store keeps them"
        )
    return "\n".join(lines)


def _outputs(contents: Contents) -> list[str]:
    lines = []
    for task, names in contents.tasks.items():
        lines.append(f"- `{task}`: float32, (image, class), probabilities of {', '.join(names)}")
        threshold = contents.thresholds.get(task)
        if threshold is not None:
            lines[-1] += f"; {names[-1]} is answered above {threshold:.6g}"
        if f"{task}:scaled" in contents.outputs:
            lines.append(
                f"- `{task}:scaled`: the same under the temperature that validation fixed, which makes "
                "them calibrated; no other class becomes the most probable"
            )
    return ["\n".join(lines)]
