"""`earmark pipeline`."""

from __future__ import annotations

import argparse
from pathlib import Path

from cli.common import add_output, console, literal, print_json
from cli.parser import filled, filled_path
from cli.progress import progress_bar
from cli.targets import check_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from argparse import RawDescriptionHelpFormatter as Raw

    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    compiling = actions.add_parser(
        "compile", help="write the pipeline's YAML for a Kubeflow cluster", formatter_class=Raw
    )
    compiling.add_argument("--out", type=filled_path, default=Path("earmark-pipeline.yaml"), help="file to write")
    compiling.add_argument("--image", default="earmark:latest", help="container image that holds Earmark")
    compiling.add_argument(
        "--volume", metavar="CLAIM", help="PersistentVolumeClaim to mount at /data in every step (required): the store"
    )
    compiling.add_argument("--gpus", type=int, default=0, help="GPUs for the steps that run models")
    compiling.add_argument("--config", type=filled_path, help="YAML file of settings")
    add_output(compiling)
    local = actions.add_parser("local", help="run the pipeline with kfp's local runner, to try it", formatter_class=Raw)
    local.add_argument("catalog", type=filled, metavar="CATALOG")
    local.add_argument("--store", help="folder of the store (default: $EARMARK_STORE, else ./.earmark)")
    local.add_argument("--config", type=filled_path, help="YAML file of settings")
    add_output(local)
    add_output(actions.add_parser("graph", help="print the graph of steps"))


def run(args: argparse.Namespace) -> int:
    if args.action == "graph":
        from pipelines.graph import STEPS

        if args.json:
            steps = [{"name": s.name, "after": s.needs, "over": s.over, "gpu": s.gpu, "title": s.title} for s in STEPS]
            print_json(steps)
            return 0
        for step in STEPS:
            fan = f" (a task each of {step.over})" if step.over else ""
            console().print(f"{step.name:10} after {', '.join(step.needs) or '–'}{fan}: {step.title}")
        return 0
    from core.config import load_config
    from pipelines import kubeflow

    if args.action == "compile":
        _check_compile(args)
    config = load_config(args.config)
    if args.action == "compile":
        kubeflow.compile_pipeline(args.out, image=args.image, volume=args.volume, gpus=args.gpus, config=config)
        if args.json:
            print_json({"out": str(args.out), "image": args.image, "volume": args.volume, "gpus": args.gpus})
        else:
            console().print(
                f"wrote {literal(args.out)}: upload it to Kubeflow Pipelines; parameters: source, store, options"
            )
        return 0
    from core.config import store_uri
    from core.location import check_new_store, store_folder

    store = store_folder(store_uri(args.store))
    check_new_store(store)
    with progress_bar(args.quiet) as (_, on_step):
        on_step("run the pipeline with kfp's local runner")
        run_id = kubeflow.run_locally(str(Path(args.catalog).absolute()), str(store), config=config)
    if args.json:
        print_json({"run_id": run_id, "store": str(store)})
    else:
        console().print(f"run {run_id} enriched {literal(args.catalog)} into {literal(store)}")
    return 0


def _check_compile(args: argparse.Namespace) -> None:
    """Raises `ConfigError` for a pipeline that could not run, or not be written."""
    from core.errors import ConfigError

    if not args.volume:
        raise ConfigError(
            "the steps of the pipeline share the store on a volume: name a PersistentVolumeClaim that all nodes can "
            "write to (ReadWriteMany) with --volume CLAIM; it is mounted at /data, so the run's `store` is a folder "
            "there, such as /data/store"
        )
    if args.gpus < 0:
        raise ConfigError(f"--gpus is 0 or more, not {args.gpus}")
    check_file(args.out, "--out")
