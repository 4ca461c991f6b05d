"""Stage two on the command line: train a head, compare two runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from samcls.cli.options import ALLOW_LEAK, MISSING, POSITIVE, STRICT, names
from samcls.cli.shell import Outcome, say, verb
from samcls.cli.tables import show_comparison, show_figures
from samcls.errors import ConfigError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("train")(verb(_train))
    app.command("compare")(verb(_compare))


def _train(
    store: Annotated[str, typer.Argument(help="Feature store, extracted to the end.")],
    run: Annotated[Path, typer.Argument(help="Folder to make for the run.")],
    config: Annotated[
        Path | None, typer.Option(help="TOML with any setting; options given here win over it.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="slca, linear, se, attention-pool, mlp, knn, logistic or guided:<timm model>."
        ),
    ] = None,
    levels: Annotated[
        str | None, typer.Option(help="Comma-separated; all that the store holds by default.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Label columns, comma-separated; all by default.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="CSV with other labels: id, and a column for each task.")
    ] = None,
    ordinal: Annotated[
        str | None, typer.Option(help="Tasks whose classes are ordered, comma-separated.")
    ] = None,
    missing: Annotated[str | None, MISSING] = None,
    positive: Annotated[str | None, POSITIVE] = None,
    window: Annotated[
        int | None, typer.Option(help="SLCA's window, a multiple of the store's.")
    ] = None,
    gate: Annotated[
        str | None, typer.Option(help="multiply or residual; of a guided network too.")
    ] = None,
    upsampling: Annotated[str | None, typer.Option(help="nearest or bilinear.")] = None,
    reduction: Annotated[int | None, typer.Option(help="SLCA's bottleneck.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Most passes over the images.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's peak rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's decay.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of pooled features.")] = None,
    loss: Annotated[str | None, typer.Option(help="cross_entropy or focal.")] = None,
    class_weights: Annotated[str | None, typer.Option(help="none or balanced.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and dropout.")] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Train so many seeds; figures are mean and spread.")
    ] = 1,
    folds: Annotated[
        int,
        typer.Option(min=0, help="Cross-validate over so many group-aware folds of all images."),
    ] = 0,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Train linear, se and SLCA on shuffled images too.")
    ] = False,
    stages: Annotated[
        str | None,
        typer.Option(help="Guided: gated points, of stem and stage1 to stage4, comma-separated."),
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="Guided: none, plain, shuffled or se in place of the gates.")
    ] = None,
    pretrained: Annotated[
        bool | None, typer.Option(help="Guided: start from timm's weights, or from random ones.")
    ] = None,
    freeze_backbone: Annotated[
        bool | None,
        typer.Option("--freeze-backbone", help="Guided: learn gates and classifier alone."),
    ] = None,
    backbone_rate: Annotated[
        float | None, typer.Option(help="Guided: the network's own peak rate.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Guided: parts that a step is worked in, to save memory.")
    ] = None,
    channels_last: Annotated[
        bool | None, typer.Option("--channels-last", help="Guided: memory order for GPUs.")
    ] = None,
    compile_network: Annotated[
        bool | None, typer.Option("--compile", help="Guided: torch.compile, for long runs on GPUs.")
    ] = None,
    jitter: Annotated[
        float | None, typer.Option(help="Guided: change of brightness and contrast, 0 to 1.")
    ] = None,
    train_fraction: Annotated[
        float | None,
        typer.Option(help="Learn from a stratified share of the training split, groups whole."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto (the GPU where there is one), cpu or cuda.")
    ] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="Of training: float32, bfloat16, float16 or auto.")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(min=1, help="MB for features; above it they are streamed.")
    ] = None,
    allow_leak: Annotated[bool, ALLOW_LEAK] = False,
    strict: Annotated[bool, STRICT] = False,
    medmnist: Annotated[
        str | None, typer.Option(help="Keep predictions as MedMNIST does: breastmnist_64, ...")
    ] = None,
) -> Outcome:
    """Stage two: train one head on cached features; validation chooses, test is scored once."""
    given = {
        "head": head,
        "levels": names(levels),
        "tasks": names(tasks),
        "labels": labels,
        "missing": names(missing),
        "ordinal": names(ordinal),
        "positive": names(positive),
        "window": window,
        "gate": gate,
        "upsampling": upsampling,
        "reduction": reduction,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "dropout": dropout,
        "loss": loss,
        "class_weights": class_weights,
        "stages": names(stages),
        "guided_control": control,
        "pretrained": pretrained,
        "freeze_backbone": freeze_backbone,
        "backbone_learning_rate": backbone_rate,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "channels_last": channels_last,
        "compile": compile_network,
        "jitter": jitter,
        "train_fraction": train_fraction,
        "precision": precision,
        "seed": seed,
    }
    settings = _settings(config, {k: v for k, v in given.items() if v is not None})
    options: dict[str, Any] = {
        "every_baseline": baselines,
        "memory": None if memory is None else memory * 1_000_000,
        "medmnist": medmnist,
        "device": device,
        "allow_leak": allow_leak,
        "strict": strict,
    }
    if folds == 1:
        raise ConfigError("--folds is 1; expected 0 (the stored splits) or at least 2")
    if seeds > 1 or folds:
        values = _repeats(store, run, settings, {"seeds": seeds, "folds": folds, **options})
    else:
        values = _one(store, run, settings, options)

    def show() -> None:
        show_figures(values)
        best = ""
        if "best_epoch" in values:
            best = f", best of {values['epochs']} epochs is {values['best_epoch']}"
        typer.echo(f"{run}: {values['parameters']:,} parameters{best}, {values['seconds']:.1f} s")

    return Outcome(values, show)


def _one(store: str, run: Path, settings: Any, options: dict[str, Any]) -> dict[str, Any]:
    from samcls.learn.runs.folder import refuse_overwrite

    refuse_overwrite(run)
    from samcls.learn.runs.train import train

    return train(_opened(store), settings, run, say, **options).to_dict()


def _repeats(store: str, run: Path, settings: Any, options: dict[str, Any]) -> dict[str, Any]:
    from samcls.learn.runs.repeats import train_repeats

    return train_repeats(_opened(store), settings, run, say, **options)


def _opened(store: str) -> Any:
    from samcls.store.feature_store import FeatureStore

    opened = FeatureStore.open(store)
    if opened.fingerprint.encoder == "vit_t":
        say("vit_t is UNTRAINED: seeded random weights, for trying things out and for controls")
    return opened


def _settings(path: Path | None, given: dict[str, Any]) -> Any:
    """The file's settings with those given on the command line in their place."""
    from samcls.config import TrainConfig, load_toml, parse, to_dict

    base = to_dict(load_toml(TrainConfig, path)) if path else {}
    if str(given.get("head", base.get("head"))).startswith("guided:") and "gate" in given:
        given = {"guided_gate" if name == "gate" else name: v for name, v in given.items()}
    return parse(TrainConfig, {**base, **given}, "the options")


def _compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_A RUN_B [RUN_C]...",
            help="Runs, folders of seeds or of folds, or sweeps, on the same images; the first is "
            "compared with every other.",
        ),
    ],
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    resamples: Annotated[int, typer.Option(min=100, help="Paired resamples.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
) -> Outcome:
    """Differences of runs on the same images, groups drawn whole: bootstrap, DeLong's test of AUCs."""
    if split not in {"test", "val"}:
        raise ConfigError(f"--split is {split!r}; expected test or val")
    if not 2 <= len(runs) <= 26:
        raise ConfigError(
            f"got {len(runs)} to compare; expected 2 to 26: samcls compare RUN_A RUN_B"
        )
    from samcls.learn.runs.compare import compare_runs
    from samcls.learn.runs.folder import load_runs

    arms = [load_runs(path) for path in runs]
    values = compare_runs(*arms, split=split, resamples=resamples, seed=seed)
    return Outcome(values, lambda: show_comparison(values))
