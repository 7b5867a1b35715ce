"""The workflow that releases a tag.  It runs only on GitHub; `make dist` lints it, and these tests check its jobs."""

import re

import pytest
import yaml

from .test_packaging import PROJECT, ROOT

FILE = ROOT / ".github" / "workflows" / "release.yml"


@pytest.fixture
def workflow():
    if not FILE.exists():
        pytest.skip("not a git checkout")
    return yaml.safe_load(FILE.read_text())


def commands(job):
    return "\n".join(step.get("run", "") for step in job["steps"])


def test_only_a_tag_of_a_version_starts_the_workflow(workflow):
    assert workflow[True] == {"push": {"tags": ["v[0-9]*"]}}  # YAML 1.1 reads `on` as true


def test_nothing_is_released_before_it_is_tested_and_built(workflow):
    jobs = workflow["jobs"]
    releasing = [name for name, job in jobs.items() if "gh release create" in commands(job)]
    assert releasing == ["release"]
    needed = [jobs[name] for name in jobs["release"]["needs"]]
    assert any(re.search(r"^\s*\.ci/run$", commands(job), re.MULTILINE) for job in needed)
    assert any(re.search(r"^\s*make dist$", commands(job), re.MULTILINE) for job in needed)
    assert (ROOT / ".ci" / "run").is_file()


def test_only_the_job_that_releases_has_write_permission(workflow):
    assert workflow["permissions"] == {}
    writing = {name for name, job in workflow["jobs"].items() if "write" in job["permissions"].values()}
    assert writing == {"release"}


def test_every_job_has_a_deadline_and_every_action_is_one_commit(workflow):
    for job in workflow["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 360
        for step in job["steps"]:
            assert "run" in step or re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])


def test_a_tag_other_than_the_version_stops_the_workflow(workflow):
    (comparison,) = re.findall(r"grep -qx (.*) pyproject.toml", commands(workflow["jobs"]["dist"]))
    pattern = comparison[1:-1].replace("\\", "").replace("${GITHUB_REF_NAME#v}", PROJECT["version"])
    assert pattern in (ROOT / "pyproject.toml").read_text().splitlines()
