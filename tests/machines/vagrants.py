"""Scripts in place of vagrant and ssh: they record their commands, and do what the files of a folder say."""

import os
import subprocess

from uffdlab.machines.vagrant.vm import VagrantVm, Wanted

# Files of the folder: the recorded commands, the VM's state, the output of the guest.  fail-COMMAND makes a command
# fail, hang-COMMAND makes it hang, and do-COMMAND is a script that it runs first.
VAGRANT = """#!/bin/bash
cd {files}
echo "$*" >>commands
name=$1 && [ "$1" != box ] || name=$1-$2
[ ! -e "do-$name" ] || . "./do-$name"
[ ! -e "hang-$name" ] || {{ trap 'sleep 0.3; echo interrupted >>commands; kill $!; exit 1' INT; sleep 60 & wait; }}
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
cd {files}
[ "$(cat state)" = running ] || exit 255
[ ! -e fail-ssh ] || {{ cat fail-ssh >&2; exit 255; }}
for last in "$@"; do :; done
case $last in
*agent.stdio*) exec ${{last#sudo -n}} ;;
*) cat boot release agents ;;
esac
"""
LIST = "box list --machine-readable"
# It leaves the files that the real script leaves, without the box itself.
BUILD_BOX = """#!/bin/bash
echo build-box >>{files}/commands
mkdir -p {box}
echo '{{"versions": [{{"version": "12.1"}}]}}' >{box}/catalog.json
sha256sum "$0" | cut -c1-16 >{box}/recipe
"""


class ScriptedVagrant:
    """A folder with a Vagrantfile, the scripts, and the files that control them."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("bin", "vm", "files"):
            (folder / name).mkdir()
        (folder / "vm" / "Vagrantfile").touch()
        self.program("vm/build-box", BUILD_BOX.format(box=folder / "cache" / "box", files=folder / "files"))
        for name, text in (("vagrant", VAGRANT), ("ssh", SSH)):
            self.program(f"bin/{name}", text.format(files=folder / "files"))
        self.write("state", "not_created")
        self.write("release-next", "6.1.0-series")
        self.write("agents", "")
        self.write("boxes", "")
        self.make_box()
        self.vm = VagrantVm(folder / "vm")

    def program(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    def write(self, name, text=""):
        (self.folder / "files" / name).write_text(text + "\n")

    def make_box(self):
        """Build the box, as if vm/build-box had run before."""
        subprocess.run([self.folder / "vm" / "build-box"], check=True)
        self.commands()

    def commands(self):
        """Return the commands of vagrant since the last call, without those that only ask for its state."""
        path = self.folder / "files" / "commands"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [line for line in lines if line.split()[0] not in {"status", "ssh-config"} and line != LIST]


WANTED = Wanted("vmlinux", "6.1-series", "a" * 64, "6.1.0-series", 1024, 1, "tcg", None, "uffdlab.tar", "0123")


def bring_up(vm, wanted=WANTED):
    os.close(vm.bring_up(wanted))
