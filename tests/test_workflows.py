"""Workflows: actions pinned by commit, least permissions, no token where packages are installed."""

import re
from pathlib import Path

import pytest
import yaml

FILES = sorted((Path(__file__).parent.parent / ".github" / "workflows").glob("*.yml"))
INSTALLS = re.compile(r"make |\.ci/run|pip install")


def jobs(path):
    return yaml.safe_load(path.read_text())["jobs"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_and_keep_no_token(path):
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    used = [step for step in steps if "uses" in step]
    assert used
    for step in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
        if step["uses"].startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    assert re.findall(r"uses: \S+@\w+(?!  # v\d)\S*$", path.read_text(), re.MULTILINE) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_job_that_installs_packages_may_only_read(path):
    whole = yaml.safe_load(path.read_text())
    assert whole["permissions"] == {"contents": "read"}
    for name, job in whole["jobs"].items():
        if any(INSTALLS.search(step.get("run", "")) for step in job["steps"]):
            assert "permissions" not in job, name
            assert "github.token" not in str(job), name
            assert "secrets." not in str(job), name
