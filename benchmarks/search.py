"""Networks found by a search against the networks as they are declared, and strategies against each other.

    python benchmarks/search.py networks --model network3_relu --data mnist --epochs 10
    python benchmarks/search.py networks --model unet_satellite --data scenes
    python benchmarks/search.py strategies --model network3_relu --data mnist --labels-per-class 200

`networks` searches with trials of `--trial-epochs`, no network with more parameters than the declared one, and then
trains both with `--seeds` by the same recipe. The validation score counts, whose noise the several seeds show: the
search has seen it for one seed. Test scores stand beside it and choose nothing.

`strategies` gives each strategy the same number of epochs to train in all, as near as whole trials allow. Their results
stand in docs/search.md, those of `networks` in README. All runs are kept in `runs/search_benchmark`; an interrupted
benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common import RESULTS, write_between, write_results

import zoo
from zoo.training.search import Search

FOLDER = Path("runs/search_benchmark")
README = Path(__file__).parent.parent / "README.md"
PAGE = README.parent / "docs" / "search.md"
LONGEST = 9  # epochs of a trial of `strategies`, of which hyperband's 69 trials, three passes, take 261 in all
TRIALS = {"random": 29, "bayesian": 29, "hyperband": 69}


def progress(found: Search) -> None:
    if found.trials:
        best = f", best {found.done[0].score:.4f}" if found.done else ""
        print(f"{found.directory.name}: {len(found.trials)} trials{best}", flush=True)


def networks(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    name, data, recipe = options.model, options.data, options.recipe
    spec = zoo.get_spec(name)
    epochs = options.epochs or spec.recipe(recipe).epochs
    found = zoo.tune(
        name, data, trials=options.trials, strategy=options.strategy, max_parameters=spec.params, recipe=recipe,
        epochs=options.trial_epochs or epochs, out=FOLDER / f"{name}-{options.strategy}", progress=progress,
    )  # fmt: skip
    best = dict(found.done[0].values)
    arguments = {key: best.pop(key) for key in spec.builder_arguments if key in best}
    candidates: dict[str, dict[str, Any]] = {"declared": {}, "found": {"arguments": arguments, **best}}
    rows: dict[str, Any] = {}
    for candidate, given in candidates.items():
        runs = [
            zoo.train(
                name, data, recipe=recipe, epochs=epochs, seed=seed, out=FOLDER / f"{name}-{candidate}-{seed}", **given
            )
            for seed in range(options.seeds)
        ]
        metric = found.metric.name
        rows[candidate] = {
            "values": found.done[0].values if given else {},
            "parameters": runs[0].task.build().count_params(),
            **{split: [run.metrics[split][metric] for run in runs] for split in ("validation", "test")},
        }
        row = rows[candidate]
        for split in ("validation", "test"):
            each = " ".join(f"{score:.4f}" for score in row[split])
            print(f"{candidate:9} {split} {metric} {statistics.mean(row[split]):.4f} ({each})", flush=True)
    trials = len(found.trials)
    return f"search_{name}", {"model": name, "data": data, "epochs": epochs, "trials": trials, "networks": rows}


def strategies(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    name, few = options.model, options.labels_per_class
    changes = {} if few is None else {"labels_per_class": few}
    rows: dict[str, Any] = {}
    for seed in range(options.seeds):
        for strategy, trials in TRIALS.items():
            found = zoo.tune(
                name, options.data, trials=trials, strategy=strategy, recipe=options.recipe, epochs=LONGEST, seed=seed,
                out=FOLDER / f"{name}-{strategy}-{seed}", progress=progress, **changes,
            )  # fmt: skip
            histories = found.directory.glob("trials/trial_*/run/history.csv")  # trials that diverged have one too
            trained = sum(len(history.read_text(encoding="utf-8").splitlines()) - 1 for history in histories)
            row = {"seed": seed, "trials": len(found.trials), "epochs": trained, "best": float(found.done[0].score)}
            rows.setdefault(strategy, []).append(row)
            print(f"{strategy:9} {row}", flush=True)
    measured = {"model": name, "data": options.data, **changes, "metric": found.metric.name, "strategies": rows}
    return f"search_strategies_{name}", measured


def draw() -> None:
    """Writes a table of all results of `networks` into README, and one of those of `strategies` into docs/search.md."""
    lines = ["| network, data | parameters | validation, mean (each seed) | test, mean |", "|---|---|---|---|"]
    for file in sorted(RESULTS.glob("search_*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        for candidate, row in found.get("networks", {}).items():
            values = [
                f"{key} {f'{value:.4g}' if isinstance(value, float) else value}" for key, value in row["values"].items()
            ]
            name = f"`{found['model']}`, {found['data']}, {candidate}"
            name += f" in {found['trials']} trials: {', '.join(values)}" if values else ""
            each = " ".join(f"{score:.4f}" for score in row["validation"])
            means = [f"{statistics.mean(row[split]):.4f}" for split in ("validation", "test")]
            lines.append(f"| {name} | {row['parameters']:,} | {means[0]} ({each}) | {means[1]} |")
    write_between(README, "search", "\n".join(lines))
    lines = ["| strategy | trials | epochs in all | best validation score, mean (each seed) |", "|---|---|---|---|"]
    for file in sorted(RESULTS.glob("search_strategies_*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        few = f", {found['labels_per_class']} labels a class" if "labels_per_class" in found else ""
        for strategy, rows in found["strategies"].items():
            counts = [
                "-".join(f"{end}" for end in sorted({min(each), max(each)}))
                for each in ([row[key] for row in rows] for key in ("trials", "epochs"))
            ]
            best = [row["best"] for row in rows]
            scores = f"{statistics.mean(best):.4f} ({' '.join(f'{score:.4f}' for score in best)})"
            name = f"{strategy}, `{found['model']}`, {found['data']}{few}"
            lines.append(f"| {name} | {counts[0]} | {counts[1]} | {scores} |")
    write_between(PAGE, "strategies", "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("networks", "strategies"))
    parser.add_argument("--model", default="network3_relu")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--recipe", help="of the model; its first one by default")
    parser.add_argument("--strategy", default="bayesian", help="of networks")
    parser.add_argument("--trials", type=int, default=20, help="of networks")
    parser.add_argument("--trial-epochs", type=int, help="of the trials of networks; as many as --epochs by default")
    parser.add_argument("--epochs", type=int, help="of networks, in place of the recipe's")
    parser.add_argument("--labels-per-class", type=int, help="of strategies: train on so many examples of each class")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    name, results = {"networks": networks, "strategies": strategies}[options.what](options)
    path = write_results(name, results)
    draw()
    print(f"written to {path.parent.name}/{path.name}")


if __name__ == "__main__":
    main()
