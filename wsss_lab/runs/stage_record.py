"""`stage.json` beside a training stage: what it was computed with, and the hash of its weights.

==================  ================================================================================
``used``            list of `wsss_lab.train.conditions.conditions`; more than one where the run went
                    on elsewhere, for example with other threads
``weights_sha256``  of the weights file, written when the stage is done
``peak_memory_gb``  largest memory up to then, see `wsss_lab.train.log.memory`
==================  ================================================================================

A folder of labels has one with ``network_sha256`` alone, see `require_own_labels`.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsss_lab.config import write_json
from wsss_lab.runs.settings import differences, plain
from wsss_lab.runs.weights_file import read_facts
from wsss_lab.train.log import memory

RECORD = "stage.json"
"""File name, in the stage's folder."""


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a stage; empty if there is none, or it is damaged."""
    try:
        content = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError, RecursionError, MemoryError):
        return {}
    return content if isinstance(content, dict) else {}


def note_conditions(folder: Path, used: Mapping[str, Any]) -> None:
    """Note what a stage is computed with from now on, unless that is what stands there last.

    Raises:
        OutputError: it cannot be written.
    """
    record = read_record(folder)
    before = record.get("used")
    before = before if isinstance(before, list) else []
    if before[-1:] != [dict(used)]:
        write_json(folder / RECORD, record | {"used": [*before, dict(used)]})


def note_weights(folder: Path, digest: str) -> None:
    """Note the SHA-256 of a stage's weights file, before that gets its name, and the memory used.

    Raises:
        OutputError: it cannot be written.
    """
    used = memory()
    space = {} if math.isnan(used) else {"peak_memory_gb": round(used, 3)}
    write_json(folder / RECORD, read_record(folder) | {"weights_sha256": digest} | space)


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_own_weights(weights: Path, folder: Path, facts: Mapping[str, Any]) -> None:
    """Refuse weights that this stage of this run has not made.

    Args:
        weights: file that marks the stage as done.
        folder: of the stage.
        facts: what its weights say about themselves.

    Raises:
        ValueError: another method, part, class list or other settings; or the file has changed.
    """
    remedy = "delete it, and the stage goes on from its checkpoints"
    there = read_facts(weights)
    if there is None:
        raise ValueError(f"{weights}: damaged, or not written by a run of this library; {remedy}")
    own = plain(facts)
    others = [line for key in own for line in differences(there.get(key), own[key], key)]
    if others:
        raise ValueError(f"{weights}: of another run ({'; '.join(others[:3])}); {remedy}")
    noted = read_record(folder).get("weights_sha256")
    if noted is not None and noted != file_digest(weights):
        raise ValueError(f"{weights}: not the file that this stage has written; {remedy}")


def network_digest(*networks: nn.Module) -> str:
    """SHA-256 of networks' states: names, types, shapes and values of parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in (item for each in networks for item in each.state_dict().items()):
        if isinstance(value, Tensor):
            plain_value = value.detach().cpu().contiguous()
            digest.update(f"{name} {plain_value.dtype} {tuple(plain_value.shape)}".encode())
            digest.update(plain_value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def require_own_labels(folder: Path, digest: str) -> None:
    """Refuse label images that another network has made.

    Args:
        folder: of the labels.
        digest: `network_digest` of the network that labels.

    Raises:
        ValueError: the record names another one. Without a record, or without labels, nothing is
            refused.
    """
    noted = read_record(folder).get("network_sha256")
    if noted is not None and noted != digest and next(folder.glob("*.png"), None) is not None:
        raise ValueError(
            f"{folder}: labels of another network than this run's; delete the folder, and they are "
            "made again"
        )


def note_labels(folder: Path, digest: str) -> None:
    """Note the network that makes the labels of a folder.

    Raises:
        OutputError: it cannot be written.
    """
    if read_record(folder).get("network_sha256") != digest:
        write_json(folder / RECORD, {"network_sha256": digest})


def conditions_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Collect the conditions of each training stage of a run's folder, by the stage's folder."""
    found = {}
    for file in sorted(folder.rglob(RECORD)):
        name, record = str(file.parent.relative_to(folder)), read_record(file.parent)
        if "network_sha256" not in record:  # labels
            found["training" if name == "." else name] = record.get("used", [])
    return found


__all__ = [
    "RECORD",
    "conditions_of",
    "file_digest",
    "network_digest",
    "note_conditions",
    "note_labels",
    "note_weights",
    "read_record",
    "require_own_labels",
    "require_own_weights",
]
