"""The Dockerfile, and the files of Binder and of development containers that refer to it.

`make test-install` builds it; see tests/install.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LINES = DOCKERFILE.replace("\\\n", " ").splitlines()


def instructions(name):
    return [line.split()[1:] for line in LINES if line.startswith(name + " ")]


def test_everything_that_is_copied_from_the_checkout_is_committed():
    copied = [each for words in instructions("COPY") if not words[0].startswith("--from") for each in words[:-1]]
    assert copied
    assert [each for each in copied if not (ROOT / each).exists()] == []


def test_binder_uses_the_same_file():
    assert (ROOT / "binder" / "Dockerfile").resolve() == ROOT / "Dockerfile"


def test_the_devcontainer_builds_a_stage_that_there_is():
    given = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())["build"]
    assert (ROOT / ".devcontainer" / given["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (ROOT / ".devcontainer" / given["context"]).resolve() == ROOT
    assert given["target"] in {words[-1] for words in instructions("FROM")}


def test_the_port_is_the_same_everywhere():
    (exposed,) = instructions("EXPOSE")
    (command,) = instructions("CMD")
    assert f'"--port={exposed[0]}"' in " ".join(command)
    documents = DOCKERFILE + (ROOT / "docs" / "reference" / "containers.md").read_text()
    assert set(re.findall(r"127\.0\.0\.1:(\d+):(\d+)", documents)) == {(exposed[0], exposed[0])}


def test_the_last_user_is_not_root():
    assert instructions("USER")[-1] == ["$NB_UID"]
    assert "ARG NB_UID=1000" in LINES


def test_what_a_build_leaves_does_not_go_into_the_image():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "build", "dist", "**/*.so"} <= set(ignored)
