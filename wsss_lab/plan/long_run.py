"""Shared steps of the notebooks for full scale: from the parameters cell to the results."""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss_lab.data.random_images import random_data
from wsss_lab.evaluate.scores import ORACLE
from wsss_lab.plan.parameters import require_known
from wsss_lab.plan.plan import Plan, data_report
from wsss_lab.runs.contents import PLANS
from wsss_lab.runs.folder import write_json
from wsss_lab.runs.launch import run_or_resume
from wsss_lab.runs.left import first_examples, list_files, read_logs
from wsss_lab.runs.preflight import preflight
from wsss_lab.runs.published import protocol_in_words, rows_beside
from wsss_lab.runs.recipe import find_preset, find_recipe
from wsss_lab.runs.settings import setting_names, with_changes
from wsss_lab.train.log import History

PARAMETERS = {
    "data": "data.name",
    "root": "data.root",
    "train_split": "data.train_split",
    "val_split": "data.val_split",
    "crop": "data.crop",
    "weights": "weights",
    "steps": "run.steps",
    "batch": "run.batch",
    "seed": "run.seed",
    "accelerator": "run.accelerator",
    "devices": "run.devices",
    "precision": "run.precision",
    "accumulate": "run.accumulate",
    "workers": "run.workers",
    "log_every": "run.log_every",
    "save_every": "run.save_every",
    "mask_steps": "mask_steps",
    "affinity_steps": "affinity.steps",
    "report": "report",
    "warmup": "method.warmup",
    "scales": "method.scales",
}
"""Parameter of a notebook -> setting on the command line."""
LEFT_OUT = "probe only: left out"


def configure(method: str, parameters: Mapping[str, Any]) -> Any:
    """Settings of a run from the parameters of a notebook.

    Args:
        method: a key of `wsss_lab.runs.recipe.RECIPES`.
        parameters: by name, e.g. `globals()`: `preset`, `more` (other settings by their dotted
            names) and those of `PARAMETERS`; what else is in it is not looked at. Empty `data` and
            `weights` are the preset's, an empty `root` none.

    Raises:
        ValueError: a name that does not exist, a value of the wrong type, or one that is refused.
    """
    require_known(parameters)
    config = find_preset(method, parameters["preset"])
    changes = {PARAMETERS[name]: parameters[name] for name in PARAMETERS if name in parameters}
    changes["data.name"] = changes["data.name"] or config.data.name
    changes["weights"] = changes["weights"] or config.weights
    changes["data.root"] = changes["data.root"] or None
    return with_changes(config, changes | parameters["more"])


def make_plan(
    method: str, config: Any, out: Path, steps: int, images: int, data: Any = None
) -> Plan:
    """Plan a run: steps, memory, hours and disk, from a short probe of every kind of work.

    Args:
        method: name of a recipe.
        config: its settings.
        out: folder of the run.
        steps: to time of each kind; 0 times nothing.
        images: to time.
        data: lists to train on and to evaluate on, if others than those of the settings.

    Raises:
        ValueError: there is no such method.
    """
    return find_recipe(method).plan(config, out, steps, images, data)


def probe(method: str, config: Any, steps: int = 10, images: int = 16) -> dict[str, Any]:
    """Time a run at full size without its data and weights, which cost no less if they are random.

    Images are random ones of the data set's usual size, in memory: crops and colours are timed,
    reading and decoding files are not.

    Args:
        method: name of a recipe.
        config: its settings.
        steps: to time of each kind.
        images: to label and to score.

    Returns:
        `plan`, the `Plan`; and for a JSON file method, settings of speed, image size and the plan's
        numbers.

    Raises:
        ValueError: your own folder or list.
    """
    data = random_data(config.data)
    run = dataclasses.replace(config.run, nonfinite="skip")
    names = [n for n in setting_names(config) if n.rpartition(".")[2].endswith("weights")]
    names = [n for n in names if not n.startswith("method.")]  # those are weights of losses
    config = dataclasses.replace(with_changes(config, dict.fromkeys(names, "random")), run=run)
    with tempfile.TemporaryDirectory(prefix="wsss_lab_probe_") as nowhere:
        plan = make_plan(method, config, Path(nowhere) / "new", steps, images, data)
    height, width = data[0].images.shape[-2:]
    return {
        "plan": plan,
        **plan_facts(method, config),
        "data": f"random images of {width} x {height} px in the place of {config.data.name}",
        "weights": "random",
    }


def plan_facts(method: str, config: Any) -> dict[str, Any]:
    """Collect the settings that a plan holds for, for its JSON file.

    Args:
        method: name of a recipe.
        config: its settings.
    """
    run = config.run
    return {
        "method": method,
        "crop": config.data.crop,
        "batch": run.batch,
        "precision": run.precision,
        "devices": run.devices * run.nodes,
    }


def _free_for_a_run(folder: Path) -> bool:
    """Whether a folder is new, empty, or holds a run; what else is in one stays untouched."""
    if not folder.exists() or (folder / "config.json").is_file():
        return True
    return folder.is_dir() and {file.name for file in folder.iterdir()} <= set(PLANS)


@dataclass(frozen=True)
class LongRun:
    """A run, from a notebook's parameters to what is shown of it.

    With `probe_only` nothing is trained: the plan is made with random images of the data set's
    size and random weights, and written to the folder as `probe.json`.
    """

    method: str
    config: Any
    folder: Path
    probe_only: bool = False

    @classmethod
    def of(cls, method: str, parameters: Mapping[str, Any]) -> "LongRun":
        """Make the run that a notebook's parameters describe.

        Args:
            method: a key of `wsss_lab.runs.recipe.RECIPES`.
            parameters: see `configure`; also `out`, empty for a new temporary folder, and
                `probe_only`.
        """
        config = configure(method, parameters)
        folder = Path(parameters["out"] or tempfile.mkdtemp(prefix=f"{method}_"))
        return cls(method, config, folder, parameters["probe_only"])

    def check(self, look: int) -> str:
        """Check what the run needs, and return `wsss_lab.plan.plan.data_report`.

        Warnings of `wsss_lab.runs.preflight` come first, one line each.

        Raises:
            ValueError, DataError: see both.
            FileNotFoundError, ConnectionError: weights that cannot be had.
            OutputError: too little space on the disk.
        """
        if self.probe_only:
            return "probe only: random images, no data set is read"
        lines: list[str] = []
        stages = find_recipe(self.method).stages
        preflight(self.config, self.folder, stages(self.config) if stages else [], lines.append)
        return "\n".join([*lines, data_report(self.config.data, look=look)])

    def plan(self, steps: int, images: int) -> str:
        """The plan as a table, kept in the folder as `plan.json`, unless there is one.

        With `probe_only` it is of random images, and `probe.json`.

        Args:
            steps: to time of each kind; 0 keeps nothing.
            images: to time.
        """
        if not self.probe_only:
            plan = make_plan(self.method, self.config, self.folder, steps, images)
            kept = self.folder / PLANS[0]
            if steps and not kept.exists() and _free_for_a_run(self.folder):
                write_json(kept, plan_facts(self.method, self.config) | plan.as_dict())
            return str(plan)
        found = probe(self.method, self.config, max(1, steps), max(1, images))
        plan = found.pop("plan")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "probe.json", found | plan.as_dict())
        return f"{found['data']}, random weights\n{plan}"

    def train(self) -> dict[str, Any]:
        """Train and score, or go on with what an earlier start has left.

        Returns:
            The content of `metrics.json`; empty with `probe_only`.
        """
        if self.probe_only:
            return {}
        return run_or_resume(self.method, self.config, self.folder)

    def beside_published(self, metrics: Mapping[str, Any]) -> str:
        """All scores with their protocols, above published ones of the same list.

        Args:
            metrics: what `train` returned.
        """
        if not metrics:
            return LEFT_OUT
        if "no_score" in metrics["results"]:
            return metrics["results"]["no_score"]
        data = self.config.data
        tables = [self._table(metrics["results"]["val"], data.split_of("val"), "segmentation")]
        found = metrics["results"]
        kinds = ("train_maps", "train_labels", "pseudo_labels")
        maps = {kind: score for name in kinds for kind, score in found.get(name, {}).items()}
        if maps:
            split = "train" if data.name == "voc" else data.split_of("train")
            tables.append(self._table(maps, split, "labels"))
        return "\n\n".join(tables)

    def _table(self, scores: Mapping[str, Any], split: str, what: str) -> str:
        rows = []
        for kind, found in scores.items():
            told = ", TRUE TAGS" if kind.endswith(ORACLE) else ", no true tags"
            name = f"{self.method}, {kind.removesuffix(ORACLE)}"
            if "protocol" in found:
                words = protocol_in_words(found["protocol"])
                rows.append((found["miou"], name, words))
            if "best_miou_on_truth" in found:
                at = found["best_threshold_on_truth"]
                words = f"best threshold of this list, {at:.2f}: chosen on the truth{told}"
                rows.append((found["best_miou_on_truth"], name, words))
        return rows_beside(rows, self.config.data.name, split, what)

    def logs(self) -> dict[str, History]:
        """Logs of all trainings of the run by name, in the order in which they were written."""
        return read_logs(self.folder)

    def examples(self, role: str, count: int) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        """Return the first images of a list, see `wsss_lab.runs.left.first_examples`."""
        return first_examples(self.config, self.folder, role, count)

    def files(self) -> str:
        """List the files in the run's folder; label images are counted only."""
        return list_files(self.folder)
