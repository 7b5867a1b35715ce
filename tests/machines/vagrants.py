"""A vagrant and an ssh that only take notes, and the folder that is their world."""

import os
import subprocess

from uffdlab.machines.vagrant.vm import VagrantVm, Wanted

# Their world is a folder: notes, state, what the guest shows; a file fail-COMMAND makes a command fail, hang-COMMAND
# hang, and do-COMMAND is what it does first.
VAGRANT = """#!/bin/bash
cd {world}
echo "$*" >>notes
name=$1 && [ "$1" != box ] || name=$1-$2
[ ! -e "do-$name" ] || . "./do-$name"
[ ! -e "hang-$name" ] || {{ trap 'sleep 0.3; echo interrupted >>notes; kill $!; exit 1' INT; sleep 60 & wait; }}
[ ! -e "fail-$name" ] || {{ printf '\\033[31mno luck\\033[0m\\n'; echo 'with it' >&2; cat "fail-$name"; exit 3; }}
boot() {{ echo running >state; echo "boot-$RANDOM$RANDOM" >boot; cat release-next >release; provision; }}
provision() {{ sed -n 's/.*"agent_key": "\\(.*\\)".*/\\1/p' "$VAGRANT_DOTFILE_PATH/lab.json" >agents; }}
case $1 in
status) echo "1,default,state,$(cat state)" ;;
up | reload) boot ;;
provision) provision ;;
ssh-config) echo 'Host default' ;;
halt) echo poweroff >state ;;
destroy) echo not_created >state ;;
box) [ "$2" != list ] || cat boxes ;;
esac
"""
SSH = """#!/bin/bash
cd {world}
[ "$(cat state)" = running ] || exit 255
[ ! -e fail-ssh ] || {{ cat fail-ssh >&2; exit 255; }}
for last in "$@"; do :; done
case $last in
*agent.stdio*) exec ${{last#sudo -n}} ;;
*) cat boot release agents ;;
esac
"""
LIST = "box list --machine-readable"
# Leaves what the real one does, but for the box.
BUILD_BOX = """#!/bin/bash
echo build-box >>{world}/notes
mkdir -p {box}
echo '{{"versions": [{{"version": "12.1"}}]}}' >{box}/catalog.json
sha256sum "$0" | cut -c1-16 >{box}/recipe
"""


class World:
    """A Vagrantfile's folder, a PATH, and what the programs there do."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("bin", "vm", "world"):
            (folder / name).mkdir()
        (folder / "vm" / "Vagrantfile").touch()
        self.program("vm/build-box", BUILD_BOX.format(box=folder / "cache" / "box", world=folder / "world"))
        for name, text in (("vagrant", VAGRANT), ("ssh", SSH)):
            self.program(f"bin/{name}", text.format(world=folder / "world"))
        self.put("state", "not_created")
        self.put("release-next", "6.1.0-series")
        self.put("agents", "")
        self.put("boxes", "")
        self.make_box()
        self.vm = VagrantVm(folder / "vm")

    def program(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    def put(self, name, text=""):
        (self.folder / "world" / name).write_text(text + "\n")

    def make_box(self):
        """As a vm/build-box would that has run before."""
        subprocess.run([self.folder / "vm" / "build-box"], check=True)
        self.notes()

    def notes(self):
        """What vagrant was asked to do since the last call, but for the questions."""
        path = self.folder / "world" / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [line for line in lines if line.split()[0] not in {"status", "ssh-config"} and line != LIST]


WANTED = Wanted("vmlinux", "6.1-series", "a" * 64, "6.1.0-series", 1024, 1, "tcg", None, "uffdlab.tar", "0123")


def bring_up(vm, wanted=WANTED):
    os.close(vm.bring_up(wanted))
