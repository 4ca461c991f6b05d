"""Networks gated by SLCA against plain ones with hooks, and what the gates cost."""

import copy

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from samcls.errors import ConfigError, InputError
from samcls.learn.heads.base import Shape
from samcls.learn.heads.classifier import Classifier
from samcls.learn.heads.guided.backbone import Point, load_backbone, point_names, points_of
from samcls.learn.heads.guided.net import Gating, GuidedNet, paired_levels
from samcls.learn.heads.guided.resize import Resize, axis_weights
from samcls.learn.settings import TrainConfig

LEVELS = ("patch", "early", "middle", "late", "neck")
SIDE = 64
SLCA = Gating()
TINY_SWIN = {
    "img_size": SIDE,
    "embed_dim": 8,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 1, 2, 2),
    "window_size": 4,
    "drop_path_rate": 0.0,
}
BODIES = {
    "resnet": ("test_resnet", {}),
    "senet": ("legacy_seresnet18", {"layers": (1, 1, 1, 1)}),
    "swin": ("swinv2_tiny_window8_256", TINY_SWIN),
}


def shape(side: int = 4, **reach: float) -> Shape:
    return Shape(
        channels={level: 6 + 2 * i for i, level in enumerate(LEVELS)},
        classes={"grade": 3},
        grids=dict.fromkeys(LEVELS, (side, side)),
        window=2,
        reach=reach,
    )


def body_of(family: str, seed: int = 0) -> nn.Module:
    name, options = BODIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(name, num_classes=0, **options).eval()


def net_of(
    family: str, gating: Gating = SLCA, given: Shape | None = None, *, started: bool = False
) -> GuidedNet:
    body, given = body_of(family), given or shape()
    generator = torch.Generator().manual_seed(1)
    config = TrainConfig(dropout=0.0)
    classifier = Classifier(body.num_features, config, given.classes, 0, generator)
    net = GuidedNet(body, given, gating, classifier, size=SIDE, generator=generator).eval()
    for point in net.points():  # gates far from where they start, or they would hardly matter
        if not started:
            nn.init.zeros_(point.gate.excite.bias)
    return net


def inputs(images: int, given: Shape, *, padded: bool = False) -> tuple[dict, dict, Tensor]:
    generator = torch.Generator().manual_seed(2)
    tokens, counts = {}, {}
    for level, channels in given.channels.items():
        rows, cols = given.grids[level]
        tokens[level] = torch.randn(images, rows * cols, channels, generator=generator)
        shown = torch.full((images, rows, cols), 4.0)
        if padded:
            shown[0, rows // 2 :] = 0
            shown[1, :, cols // 2 :] = 0
        counts[level] = shown.flatten(1)
    return tokens, counts, torch.randn(images, 3, SIDE, SIDE, generator=generator)


def reference(
    net: GuidedNet,
    weights: dict[str, Tensor],
    body: nn.Module,
    tokens: dict,
    counts: dict,
    pixels: Tensor,
) -> Tensor:
    """The same arithmetic, written plainly: 1 x 1 convolutions and temporary hooks on a timm model."""
    handles = []
    points = points_of(body, SIDE)
    for name, level in paired_levels(LEVELS, (), tuple(points)).items():
        one, two = f"gates.{name}.gate.squeeze", f"gates.{name}.gate.excite"
        side = round(tokens[level].shape[1] ** 0.5)
        maps = tokens[level].transpose(1, 2).unflatten(2, (side, side))
        count = counts[level].view(-1, 1, side, side)
        if points[name].rows < side:  # larger windows: their means are over all their valid cells
            small = (points[name].rows, points[name].cols)
            weight = functional.adaptive_avg_pool2d(count, small)
            maps = functional.adaptive_avg_pool2d(maps * count, small) / weight.clamp(min=1e-6)
            count = weight
        hidden = functional.conv2d(
            maps, weights[f"{one}.weight"][:, :, None, None], weights[f"{one}.bias"]
        )
        gate = functional.conv2d(
            hidden.relu(), weights[f"{two}.weight"][:, :, None, None], weights[f"{two}.bias"]
        ).sigmoid()
        shown = (count > 0).float()

        def hook(_m, _i, out, gate=gate, shown=shown, last=points[name].channels_last):
            x = out.permute(0, 3, 1, 2) if last else out
            spread, seen = (
                functional.interpolate(v, size=x.shape[2:], mode="nearest-exact")
                for v in (gate, shown)
            )
            y = x + x * spread if net.gating.gate == "residual" else x * spread
            y = torch.where(seen > 0, y, x)
            return y.permute(0, 2, 3, 1) if last else y

        handles.append(body.get_submodule(points[name].module).register_forward_hook(hook))
    try:
        pooled = body(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return functional.linear(
        pooled, weights["classifier.output.weight"], weights["classifier.output.bias"]
    )


def close(a: Tensor, b: Tensor) -> None:
    a, b = a.detach(), b.detach()
    scale = max(1.0, float(b.abs().max()))
    torch.testing.assert_close(a / scale, b / scale, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("family", BODIES)
def test_forward_and_backward_equal_a_plain_network_with_hooks(family: str, padded: bool) -> None:
    """Logits and every gradient are those of the plainest way to write the same network."""
    net = net_of(family)
    tokens, counts, pixels = inputs(3, shape(), padded=padded)
    plain = body_of(family, seed=5)
    plain.load_state_dict(net.body.state_dict())
    weights = {k: v.detach().clone().requires_grad_() for k, v in net.named_parameters()}
    expected = reference(net, weights, plain, tokens, counts, pixels)
    logits = net(tokens, counts, pixels=pixels)
    close(logits, expected)
    logits.square().sum().backward()
    expected.square().sum().backward()
    own = dict(plain.named_parameters())
    for name, value in net.named_parameters():
        other = own[name.removeprefix("body.")] if name.startswith("body.") else weights[name]
        assert value.grad is not None, name
        assert other.grad is not None, name
        close(value.grad, other.grad)


def test_multiplying_gates_equal_the_plain_network_with_hooks() -> None:
    """`multiply` gives x * A where picture is shown."""
    net = net_of("resnet", Gating(gate="multiply"))
    tokens, counts, pixels = inputs(2, shape(2))
    net = net_of("resnet", Gating(gate="multiply"), shape(2))
    plain = body_of("resnet", seed=5)
    plain.load_state_dict(net.body.state_dict())
    weights = dict(net.named_parameters())
    close(
        net(tokens, counts, pixels=pixels),
        reference(net, weights, plain, tokens, counts, pixels),
    )


@pytest.mark.parametrize("kind", ["residual", "multiply"])
@pytest.mark.parametrize("family", BODIES)
def test_gates_at_identity_give_the_plain_networks_logits(family: str, kind: str) -> None:
    """Where every gate changes nothing the answer is timm's own, classifier and all."""
    net = net_of(family, Gating(gate=kind))
    for point in net.points():
        nn.init.zeros_(point.gate.excite.weight)
        nn.init.constant_(point.gate.excite.bias, -200.0 if kind == "residual" else 200.0)
    tokens, counts, pixels = inputs(2, shape())
    name, options = BODIES[family]
    own = timm.create_model(name, num_classes=3, **options).eval()
    own.load_state_dict(net.body.state_dict(), strict=False)
    last = [m for m in own.modules() if isinstance(m, nn.Linear) and m.out_features == 3][-1]
    last.load_state_dict(net.classifier.output.state_dict())
    with torch.no_grad():
        close(net(tokens, counts, pixels=pixels), own(pixels))
        with net.ungated():
            close(net(tokens, counts, pixels=pixels), own(pixels))


def test_gates_start_a_tenth_from_identity() -> None:
    """Pretrained weights meet nearly what they know."""
    given = shape()
    for kind, expected in (("residual", 0.1), ("multiply", 0.9)):
        net = net_of("resnet", Gating(gate=kind), started=True)
        tokens, counts, pixels = inputs(4, given)
        for values in net.attention_maps(tokens, counts, pixels).values():
            assert float(values.mean()) == pytest.approx(expected, abs=0.03)


def test_attention_maps_have_each_stages_size_and_are_neutral_on_padding() -> None:
    """A map for every gated point, of its channels, rows and columns; 0 where nothing is shown."""
    net = net_of("resnet")
    tokens, counts, pixels = inputs(2, shape(), padded=True)
    maps = net.attention_maps(tokens, counts, pixels)
    points = points_of(body_of("resnet"), SIDE)
    assert list(maps) == list(points)
    for name, point in points.items():
        assert maps[name].shape == (2, point.channels, point.rows, point.cols)
        half = point.rows // 2
        assert (maps[name][0, :, half:] == 0).all()
        assert (maps[name][0, :, :half] > 0).all()
    assert net.points()[0].taken() is None


def test_a_copied_network_uses_its_own_gates() -> None:
    """A deep copy is whole: changing its gates changes its answer, and not the original's."""
    net = net_of("resnet")
    tokens, counts, pixels = inputs(2, shape())
    before = net(tokens, counts, pixels=pixels)
    other = copy.deepcopy(net)
    for point in other.points():
        nn.init.constant_(point.gate.excite.bias, 3.0)
    assert (other(tokens, counts, pixels=pixels) - before).abs().max() > 1e-3
    torch.testing.assert_close(net(tokens, counts, pixels=pixels), before)


def test_controls_start_from_the_same_network() -> None:
    """At one seed the network's and the classifier's weights are the same for every control."""
    states = {c: net_of("resnet", Gating(control=c)).state_dict() for c in ("none", "plain", "se")}
    for name, value in states["plain"].items():
        for other in ("none", "se"):
            assert torch.equal(states[other][name], value)
    assert not any(name.startswith("gates.") for name in states["plain"])


def test_se_gates_have_nearly_as_many_parameters() -> None:
    """The control on the network's own features is no smaller and no larger, to one hidden unit."""
    for name, gate in net_of("resnet").gates.items():
        own = net_of("resnet", Gating(control="se")).gates[name]
        wanted = sum(v.numel() for v in gate.gate.parameters())
        got = sum(v.numel() for v in own.gate.parameters())
        unit = own.gate.squeeze.weight.shape[1] * 2 + 1
        assert abs(wanted - got) <= unit


def test_only_stages_asked_for_are_gated() -> None:
    """A list of stages gates those, each by the level at its own place."""
    net = net_of("resnet", Gating(stages=("stage4", "stage2")))
    assert {name: gate.level for name, gate in net.gates.items()} == {
        "stage2": "middle",
        "stage4": "neck",
    }


def test_levels_pair_with_stages_in_order() -> None:
    """As many levels as stages go in order; no stages named means the last ones."""
    points = ("stem", "stage1", "stage2", "stage3", "stage4")
    assert paired_levels(("a", "b"), (), points) == {"stage3": "a", "stage4": "b"}
    assert paired_levels(("a", "b"), ("stem", "stage4"), points) == {"stem": "a", "stage4": "b"}
    assert paired_levels(("a", "b"), ("stage4", "stem"), points) == {"stem": "b", "stage4": "a"}
    with pytest.raises(ConfigError, match=r"3 levels .* cannot be paired with 2 stages"):
        paired_levels(("a", "b", "c"), ("stem", "stage4"), points)
    with pytest.raises(ConfigError, match=r"unknown stage stage9; the network has stem"):
        paired_levels(("a",), ("stage9",), points)
    with pytest.raises(ConfigError, match=r"6 levels"):
        paired_levels(tuple("abcdef"), (), points)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@given(windows=st.integers(1, 9), cells=st.integers(1, 40), reach=st.floats(0.6, 1.0))
def test_a_constant_map_stays_constant(mode: str, windows: int, cells: int, reach: float) -> None:
    """Every cell's weights are not negative and sum to 1, for any sizes."""
    weights = axis_weights(windows, cells, reach, mode)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(cells))


@given(
    windows=st.integers(2, 6),
    times=st.integers(2, 5),
    cut=st.floats(0.0, 0.9),
    seed=st.integers(0, 9),
)
def test_a_cell_takes_the_window_that_it_lies_in(
    windows: int, times: int, cut: float, seed: int
) -> None:
    """With a last window that overhangs the frame, cells still fall where the pixels are."""
    reach = 1 - cut / windows
    cells = windows * times
    values = torch.rand(1, 1, windows, windows, generator=torch.Generator().manual_seed(seed))
    shown = torch.ones(1, 1, windows, windows)
    got = Resize((windows, windows), (cells, cells), reach, "nearest")(values, shown)
    at = np.minimum(np.floor((np.arange(cells) + 0.5) * windows * reach / cells), windows - 1)
    index = torch.from_numpy(at.astype(np.int64))
    torch.testing.assert_close(got[0, 0], values[0, 0][index][:, index])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(12, 12), (6, 6), (5, 7), (2, 3)])
def test_gating_in_blocks_gives_what_enlarged_gates_give(
    size: tuple[int, int], channels_last: bool
) -> None:
    """`gate` equals maps times one plus the enlarged changes, in every memory order."""
    generator = torch.Generator().manual_seed(0)
    resize = Resize((3, 3), size, 1.0, "nearest")
    maps = torch.randn(2, 4, *size, generator=generator)
    change = torch.randn(2, 4, *resize.inner, generator=generator)
    shown = (torch.rand(2, 1, *resize.inner, generator=generator) > 0.3).float()
    if channels_last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    got = resize.gate(maps, change, shown)
    torch.testing.assert_close(got, maps * (1 + resize(change, shown)))
    assert got.stride() == maps.stride()


@given(side=st.integers(1, 8), cells=st.integers(1, 8), seed=st.integers(0, 99))
def test_pooling_windows_for_a_small_stage_keeps_the_mean(side: int, cells: int, seed: int) -> None:
    """Over valid cells the pooled tokens have the mean of those that they came from."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, side * side, 3, generator=generator)
    counts = torch.randint(0, 5, (2, side * side), generator=generator).float()
    counts[:, 0] = 4
    found, weight = Resize((side, side), (cells, cells), 1.0, "nearest").pooled(tokens, counts)
    mean = (tokens * counts[..., None]).sum(1) / counts.sum(1, keepdim=True)
    pooled = (found * weight[..., None]).sum((1, 2)) / weight.sum((1, 2))[:, None]
    torch.testing.assert_close(pooled, mean, atol=1e-5, rtol=1e-4)


@given(cells=st.integers(3, 40), window=st.integers(2, 6))
def test_pooling_an_overhanging_window_counts_its_cells_once(cells: int, window: int) -> None:
    """Pooled for a stage of one cell, tokens are the mean of the map's own cells."""
    values = torch.arange(cells, dtype=torch.float32)
    parts = values.split(window)
    grid = (len(parts), len(parts))
    tokens = torch.stack([part.mean() for part in parts]).repeat_interleave(len(parts))
    sizes = torch.tensor([float(len(part)) for part in parts])
    counts = torch.outer(sizes, sizes).flatten()
    reach = cells / (len(parts) * window)
    resize = Resize(grid, (1, 1), reach, "nearest")
    found, weight = resize.pooled(tokens[None, :, None], counts[None])
    torch.testing.assert_close(found.flatten()[0], values.mean(), rtol=1e-4, atol=1e-4)
    assert (weight > 0).all()


def test_cost_counts_the_gates_by_hand() -> None:
    """Parameters and multiplications of the gates are those of their layers and of the gating."""
    given = shape()
    net = net_of("resnet", given=given)
    found = net.cost(given)
    points = points_of(body_of("resnet"), SIDE)
    parameters = macs = 0
    for (_, point), channels in zip(points.items(), given.channels.values(), strict=True):
        hidden = max(1, channels // 16)
        parameters += channels * hidden + hidden + hidden * point.channels + point.channels
        side = min(4, point.rows)
        macs += side * side * (channels * hidden + hidden * point.channels)
        macs += point.channels * point.rows * point.cols
        if point.rows < 4:  # means over larger windows, by rows and by columns, and their weights
            macs += (channels + 1) * (side * 4 * 4 + side * side * 4)
    assert (found.parameters_added, found.macs_added) == (parameters, macs)
    assert found.parameters == sum(v.numel() for v in net.parameters()) - parameters
    assert "gates add" in str(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "reduction"),
    [("resnet152", 224, 24), ("legacy_senet154", 224, 16), ("swinv2_base_window8_256", 256, 16)],
)
def test_gates_of_sam_vit_h_stay_under_their_limits(name: str, size: int, reduction: int) -> None:
    """At most 5 % more parameters and 1 % more multiplications, from 16 x 16 windows of ViT-H."""
    channels = {level: 256 if level == "neck" else 1280 for level in LEVELS}
    given = Shape(channels, {"grade": 2}, dict.fromkeys(LEVELS, (16, 16)), 4)
    generator = torch.Generator()
    with torch.device("meta"):
        body = load_backbone(name, size, pretrained=False, seed=0)
    classifier = Classifier(body.num_features, TrainConfig(), given.classes, 0, generator)
    net = GuidedNet(
        body, given, Gating(reduction=reduction), classifier, size=size, generator=generator
    )
    found = net.cost(given)
    assert found.parameters_added <= 0.05 * found.parameters
    assert found.macs_added <= 0.01 * found.macs


@pytest.mark.parametrize("name", ["resnet10t", "test_byobnet", "convnext_atto", "efficientnet_b0"])
def test_families_are_gated_where_timm_lists_their_stages(name: str) -> None:
    """Five points, from the stem on, each smaller than the one before or as large."""
    body = load_backbone(name, SIDE, pretrained=False, seed=0)
    points = points_of(body, SIDE)
    assert list(points) == ["stem", "stage1", "stage2", "stage3", "stage4"]
    sides = [point.rows for point in points.values()]
    assert sides == sorted(sides, reverse=True)


def test_swins_points_have_their_channels_last() -> None:
    """A transformer that keeps (row, col, channel) is told from the others."""
    points = points_of(body_of("swin"), SIDE)
    assert points["stage4"] == Point("layers.3", 64, 2, 2, channels_last=True)
    assert all(point.channels_last for point in points.values())


def test_other_families_points_have_their_channels_where_they_are() -> None:
    """Families that keep channels last under other names are seen by their maps' shape."""
    points = points_of(load_backbone("mambaout_femto", SIDE, pretrained=False, seed=0), SIDE)
    assert [point.channels for point in points.values()][1:] == [48, 96, 192, 288]
    assert points["stage4"].channels_last


def test_what_cannot_be_gated_is_said() -> None:
    """Unknown models, flat transformers and images of another size are refused in words."""
    with pytest.raises(ConfigError, match=r"no weights 'nope' of resnet18; it knows a1_in1k"):
        load_backbone("resnet18.nope", SIDE, pretrained=False, seed=0)
    with pytest.raises(ConfigError, match=r"has no module stem, where timm lists"):
        point_names("hrnet_w18_small", SIDE)
    with pytest.raises(ConfigError, match=r"timm knows no model 'resnet1'"):
        load_backbone("resnet1", SIDE, pretrained=False, seed=0)
    with pytest.raises(ConfigError, match=r"no stages that timm lists"):
        points_of(load_backbone("test_vit", SIDE, pretrained=False, seed=0), SIDE)
    net = net_of("resnet")
    tokens, counts, _ = inputs(1, shape())
    with pytest.raises(InputError, match=r"extract --keep-pixels 64"):
        net(tokens, counts)
    with pytest.raises(InputError, match=r"got images of 32 x 32 pixels; .* for 64 x 64"):
        net(tokens, counts, pixels=torch.zeros(1, 3, 32, 32))
