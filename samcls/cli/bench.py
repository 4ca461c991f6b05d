"""The project's own measurements, on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samcls.cli.shell import Outcome, say, show_table, verb

if TYPE_CHECKING:
    from samcls.bench.table import Bench

__all__ = ["register", "shown"]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    bench = typer.Typer(help="Measure on this machine, side by side.", no_args_is_help=True)
    bench.command("encoder")(verb(_encoder))
    bench.command("extract")(verb(_extract))
    bench.command("store")(verb(_store))
    bench.command("train")(verb(_train))
    bench.command("sweep")(verb(_sweep))
    bench.command("guided")(verb(_guided))
    bench.command("recipe")(verb(_recipe))
    bench.command("predict")(verb(_predict))
    bench.command("audit")(verb(_audit))
    app.add_typer(bench, name="bench")


def shown(bench: "Bench") -> Outcome:
    """Show a bench: one line a figure, its baseline and ratio beside it."""

    def show() -> None:
        machine = bench.machine
        typer.echo(f"{machine['processor']}, {machine['cores']} cores, {machine['system']}")
        show_table(
            ["measure", "value", "unit", "ratio", "to"],
            [
                [
                    row.measure,
                    f"{row.value:.6g}",
                    row.unit,
                    "" if row.ratio is None else f"{row.ratio:.2f}",
                    row.baseline or "",
                ]
                for row in bench.rows
            ],
        )

    return Outcome(bench.to_dict(), show)


def _encoder(
    encoder: Annotated[str, typer.Option(help="vit_t, vit_b, vit_l or vit_h.")] = "vit_b",
    size: Annotated[int | None, typer.Option(help="Input in pixels.")] = None,
    batch: Annotated[int, typer.Option(help="Images encoded together.")] = 1,
    repeats: Annotated[int, typer.Option(help="Timings of each; the shortest counts.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Measure segment_anything under torch.compile too: minutes on a CPU, by default on a "
            "GPU.",
        ),
    ] = None,
) -> Outcome:
    """Measure the encoder against segment_anything itself: speed, distance, memory."""
    from samcls.bench.encoder import bench_encoder

    return shown(bench_encoder(encoder, size, batch, repeats, device, compiled, say))


def _extract(
    manifest: Annotated[Path, typer.Argument(help="CSV with id, path, split and labels.")],
    encoder: Annotated[
        str, typer.Option(help="vit_t, vit_b, vit_l, vit_h, lite0 or timm:<model>.")
    ] = "vit_t",
    images: Annotated[int | None, typer.Option(help="Only the first so many.")] = None,
    precision: Annotated[str, typer.Option(help="As for extract.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> Outcome:
    """Measure a whole extract, with random weights, against the encoder alone; leaves nothing behind."""
    from dataclasses import replace

    from samcls.bench.encoder import bench_extract
    from samcls.data.manifest import read_manifest
    from samcls.encode.extract import ExtractOptions

    rows = read_manifest(manifest)
    options = ExtractOptions(
        encoder=encoder, precision=precision, device=device, random_weights=True
    )
    return shown(bench_extract(replace(rows, rows=rows.rows[:images]), options))


def _train(
    side: Annotated[int, typer.Option(min=1, help="Rows and columns of the full maps.")] = 64,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the maps.")] = 256,
    images: Annotated[int, typer.Option(min=1, help="Images in the training split.")] = 546,
    window: Annotated[int, typer.Option(min=1, help="SLCA's window, a divisor of side.")] = 4,
    encoder_rate: Annotated[
        float | None, typer.Option(help="Encoder's images a second; by default vit_t's, measured.")
    ] = None,
) -> Outcome:
    """Measure an epoch of SLCA on full maps, pooled, streamed, and with the encoder in the loop."""
    from samcls.bench.train import bench_train

    return shown(bench_train(side, channels, images, window, encoder_rate, say))


def _store(
    store: Annotated[
        str | None, typer.Option(help="Measure on this store's features; on drawn ones by default.")
    ] = None,
    megabytes: Annotated[int, typer.Option(help="Size of the payload.")] = 256,
) -> Outcome:
    """Measure this store against zarr-python alone, one file an image, HDF5 and numpy.load."""
    from samcls.bench.store import bench_store

    return shown(bench_store(store, megabytes))


def _sweep(
    store: Annotated[
        str | None, typer.Option(help="Train on this store; on drawn features by default.")
    ] = None,
    configurations: Annotated[int, typer.Option(min=8, help="Runs of the sweep.")] = 48,
    epochs: Annotated[int, typer.Option(min=1, help="Of every run.")] = 30,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the sweep.")] = 2,
) -> Outcome:
    """Measure runs a minute of a sweep, a plain loop, GridSearchCV, and a process for each run."""
    from samcls.bench.sweep import bench_sweep

    return shown(bench_sweep(store, configurations, epochs, workers, say))


def _guided(
    networks: Annotated[
        str, typer.Option(help="timm models whose added cost is counted, comma-separated.")
    ] = "resnet152,legacy_senet154,swinv2_base_window8_256",
    encoder: Annotated[str, typer.Option(help="Whose levels feed the gates.")] = "vit_h",
    window: Annotated[int, typer.Option(min=1, help="That its maps are pooled over.")] = 4,
    reduction: Annotated[int, typer.Option(min=1, help="Of the gates.")] = 16,
    network: Annotated[str, typer.Option(help="timm model whose step is timed.")] = "resnet18",
    size: Annotated[int, typer.Option(min=1, help="Side of its images.")] = 64,
    batch: Annotated[int, typer.Option(min=2, help="Images a step.")] = 32,
    steps: Annotated[int, typer.Option(min=1, help="Timings of each; the shortest counts.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    compile_network: Annotated[
        bool, typer.Option("--compile", help="Time compiled networks too; minutes on a CPU.")
    ] = False,
) -> Outcome:
    """Measure what SLCA's gates add to image networks, and a training step with and without them."""
    from samcls.bench.guided import bench_guided

    named = [name.strip() for name in networks.split(",") if name.strip()]
    options = (network, size, batch, steps, device, precision, compile_network, say)
    return shown(bench_guided(named, encoder, window, reduction, *options))


def _recipe(
    store: Annotated[str, typer.Argument(help="Feature store; its test split is not looked at.")],
    heads: Annotated[
        str, typer.Option(help="Compared with the regressions, comma-separated.")
    ] = "slca,ensemble:slca",
    resplits: Annotated[int, typer.Option(min=2, help="Divisions of the training split.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Of the heads.")] = 0,
) -> Outcome:
    """Measure heads on divisions of a store's training split: which pays, without a look at the test."""
    from samcls.bench.recipe import bench_recipe
    from samcls.learn.settings import TrainConfig

    named = [name.strip() for name in heads.split(",") if name.strip()]
    return shown(bench_recipe(store, named, resplits, TrainConfig(seed=seed), say))


def _predict(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    manifest: Annotated[Path, typer.Argument(help="Of pictures; they are not changed.")],
) -> Outcome:
    """Measure a run's predictions beside its encoder alone, and how soon the first one comes."""
    from samcls.bench.predict import bench_predict

    return shown(bench_predict(run, manifest, say))


def _audit(
    manifest: Annotated[Path, typer.Argument(help="Of pictures; they are not changed.")],
    encoders: Annotated[str, typer.Option(help="Comma-separated.")] = "lite0,vit_t",
    originals: Annotated[int, typer.Option(min=1, help="Images that twins are planted of.")] = 200,
    folder: Annotated[
        Path | None, typer.Option(help="Keep planted pictures and stores here.")
    ] = None,
    rows: Annotated[
        int, typer.Option(min=0, help="Time the audit of so many rows of noise too; 0 for none.")
    ] = 100_000,
) -> Outcome:
    """Plant twins and wrong labels, and measure how well audits find them; beside imagededup and cleanlab if installed."""
    from samcls.bench.audit import bench_audit

    named = [part.strip() for part in encoders.split(",")]
    return shown(
        bench_audit(manifest, say, encoders=named, originals=originals, folder=folder, rows=rows)
    )
