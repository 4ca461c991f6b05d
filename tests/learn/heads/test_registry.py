"""A head carries its own ways: it is one file and one line, and nothing else names it."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from samcls.errors import ConfigError
from samcls.learn.fit.price import members_at_once, solution_seconds
from samcls.learn.heads.base import Counts, Head, Reads, Shape, Tokens
from samcls.learn.heads.classifier import Classifier
from samcls.learn.heads.registry import (
    HEADS,
    head_class,
    known_heads,
    learns_order,
    reads,
    unknown_head,
)
from samcls.learn.runs.folder import load_run
from samcls.learn.runs.train import train
from samcls.learn.settings import TrainConfig
from samcls.store.feature_store import FeatureStore

MakeStore = Callable[..., FeatureStore]

PACKAGE = Path(__file__).parents[3] / "samcls"

# Where a kind of head may be named outside learn/heads, and why.
NAMED = {
    "learn/settings.py": "the default, and the documentation of its options",
    "learn/estimator.py": "the default",
    "cli/learn.py": "help",
    "cli/bench.py": "a default",
    "bench/recipe.py": "a default",
    "bench/guided.py": "the bench of that head",
    "bench/train.py": "the bench of that head",
}
CLASSES = {path.rpartition(".")[2] for path in HEADS.values()} | {"ClosedHead"}


class MaxHead(Head):
    """The largest value of each channel over the tokens that show picture, classified."""

    def __init__(self, config: TrainConfig, shape: Shape, generator: torch.Generator) -> None:
        super().__init__()
        self.levels = tuple(shape.channels)
        self.classifier = Classifier(shape.width, config, shape.classes, 0, generator)

    @classmethod
    def build(cls, config: TrainConfig, shape: Shape, generator: torch.Generator) -> "MaxHead":
        return cls(config, shape, generator)

    def forward(
        self, tokens: Tokens, counts: Counts, generator: torch.Generator | None = None
    ) -> Float[Tensor, "image logit"]:
        shown = [tokens[k].masked_fill(counts[k][:, :, None] == 0, -10) for k in self.levels]
        logits: Tensor = self.classifier(torch.cat([x.amax(1) for x in shown], 1), generator)
        return logits


def test_a_new_head_is_one_file_and_one_line(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named in the table it is trained, saved, read back and priced like any other."""
    monkeypatch.setitem(HEADS, "max", f"{__name__}.MaxHead")
    config = TrainConfig(head="max", epochs=3, intervals=0)
    result = train(make_store(40), config, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert isinstance(run.model.head, MaxHead)
    assert run.model.parameters == result.parameters == 10 * 2 + 2
    assert members_at_once(config, run.model.shape, torch.device("cpu")) == 1
    assert solution_seconds(config) is None
    assert "max" in known_heads()


def test_an_unknown_head_is_told_what_there_is() -> None:
    """And it is read for as most heads are, so that all else that is wrong is said with it."""
    said = f"unknown head slco; known heads: {known_heads()}; did you mean slca?"
    assert unknown_head("slco") == [said]
    assert known_heads().endswith("regressions, ensemble:<head>, guided:<timm model>")
    with pytest.raises(ConfigError, match="unknown head slco"):
        head_class("slco")
    assert reads(TrainConfig(head="slco", window=4)) == Reads(4)
    assert not learns_order("slco")


@pytest.mark.parametrize("name", ["linear", "mlp", "se"])
def test_means_that_suffice_give_the_same_logits(name: str) -> None:
    """A head that says so answers for each level's mean what it answers for its tokens."""
    assert head_class(name).means_suffice
    generator = torch.Generator().manual_seed(0)
    shapes = [Shape({"neck": 8}, {"t": 2}, {"neck": grid}, 1) for grid in ((2, 3), (1, 1))]
    heads = [
        head_class(name).build(TrainConfig(head=name, reduction=2), s, generator) for s in shapes
    ]
    heads[1].load_state_dict(heads[0].state_dict())
    tokens, counts = torch.randn(5, 6, 8, generator=generator), torch.ones(5, 6)
    whole = heads[0]({"neck": tokens}, {"neck": counts})
    means = heads[1]({"neck": tokens.mean(1, keepdim=True)}, {"neck": counts[:, :1]})
    torch.testing.assert_close(whole, means)


def code_of(path: Path) -> tuple[set[str], set[str]]:
    """Names and texts of a module's code, docstrings left out."""
    tree = ast.parse(path.read_text())
    names, texts, told = set(), set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            told.add(id(node.body[0].value))  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.alias):
            names.add(node.name)
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told
        ):
            texts.add(node.value)
    return names, texts


def test_nothing_outside_heads_names_a_kind_of_head() -> None:
    """What a head needs is asked of the head: no class of one and no name of one stands elsewhere."""
    literals = re.compile("|".join(f"^{re.escape(n)}$" if n[-1] != ":" else n for n in HEADS))
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = str(path.relative_to(PACKAGE))
        if inside.startswith(("learn/heads/", "data/", "store/", "encode/")):
            continue
        names, texts = code_of(path)
        said = (names & CLASSES) | {text for text in texts if literals.search(text)}
        if said:
            found[inside] = sorted(said)
    assert set(found) <= set(NAMED), {k: v for k, v in found.items() if k not in NAMED}
