"""Which box the VM is made from, with a vagrant that only takes notes; tests/vagrant has the real one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from uffdlab import errors
from uffdlab.machines.vagrant.box import DEBIAN, OWN

from ..vagrants import WANTED, bring_up

ADD = f"box add {DEBIAN} --provider libvirt"
COMES = "mkdir -p $VAGRANT_HOME/tmp; truncate -s 1M $VAGRANT_HOME/tmp/box123\n"
FAILS_FROM_DEBIANS = f"""
if grep -q '"box": "{DEBIAN}"' "$VAGRANT_DOTFILE_PATH/lab.json"; then
	echo running >state; echo "no root device"; exit 1
fi
"""


@pytest.fixture
def bare(world):
    """A world where vm/build-box has not run yet."""
    (world.folder / "cache" / "box" / "recipe").unlink()
    return world


def box_of(world):
    return json.loads((world.vm.data / "lab.json").read_text())["box"]


def bring_up_and_print(world):
    """Bring it up; return the lines that it printed."""
    printed = []
    descriptor = world.vm.bring_up(WANTED, printed.append)
    os.close(descriptor)
    return printed


def test_the_local_box_is_used_when_it_exists(world):
    assert bring_up_and_print(world) == ["vagrant up"]
    assert world.notes() == ["up --provision"]
    assert box_of(world) == OWN


def test_the_debian_box_is_downloaded_where_there_is_a_network(bare):
    assert bring_up_and_print(bare) == [f"vagrant box add {DEBIAN}", "vagrant up"]
    assert bare.notes() == [ADD, "up --provision"]
    assert box_of(bare) == DEBIAN


def test_the_debian_box_is_used_when_vagrant_has_it(bare):
    bare.put(
        "boxes",
        "1,,ui,info,debian/bookworm64 (libvirt\\, 12)\n1,,box-name,debian/bookworm64\n1,,box-provider,libvirt\n"
        "1,,box-version,12.20250126.1",
    )
    assert bring_up_and_print(bare) == ["vagrant up"]
    assert bare.notes() == ["up --provision"]
    assert box_of(bare) == DEBIAN


@pytest.mark.parametrize(
    "listed", ["debian/bookworm64\n1,,box-provider,virtualbox", "uffdlab/bookworm64\n1,,box-provider,libvirt"]
)
def test_a_box_of_another_name_is_not_used(bare, listed):
    bare.put("boxes", f"1,,box-name,{listed}")
    bring_up(bare.vm)
    assert bare.notes() == [ADD, "up --provision"]


def test_without_a_network_the_local_box_is_built(bare):
    bare.put("fail-box-add", "Error: Could not resolve host: box.test\n")
    assert bring_up_and_print(bare) == [
        f"vagrant box add {DEBIAN}",
        f"{DEBIAN} is not used (Could not resolve host: box.test): making a box of Debian's packages",
        "vagrant up",
    ]
    assert bare.notes() == [ADD, "build-box", "up --provision"]
    assert box_of(bare) == OWN
    bare.vm.destroy()
    assert bring_up_and_print(bare) == ["vagrant up"]


@pytest.mark.parametrize("box", [OWN, DEBIAN, "some/box"])
def test_the_user_chooses(bare, monkeypatch, box):
    monkeypatch.setenv("UFFDLAB_BOX", box)
    bring_up(bare.vm)
    assert bare.notes() == [*(["build-box"] if box == OWN else []), "up --provision"]
    assert box_of(bare) == box


def test_a_network_that_drops_every_packet(bare, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.box._FIRST_DATA_DEADLINE", 1.0)
    bare.put("hang-box-add")
    assert f"{DEBIAN} is not used (nothing received in 1 s): making a box of Debian's packages" in bring_up_and_print(
        bare
    )
    assert bare.notes() == [ADD, "interrupted", "build-box", "up --provision"]


def test_a_slow_download_shows_progress(bare, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.box._FIRST_DATA_DEADLINE", 2.0)
    monkeypatch.setattr("uffdlab.machines.vagrant.box._REPORT_INTERVAL", 0.5)
    bare.put("do-box-add", COMES + "sleep 3; rm $VAGRANT_HOME/tmp/box123; sleep 1")
    printed = bring_up_and_print(bare)
    assert printed[1] == f"vagrant box add {DEBIAN}: 1 MiB received"
    assert box_of(bare) == DEBIAN


def test_a_download_that_was_interrupted_and_begins_anew(bare, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.box._FIRST_DATA_DEADLINE", 2.0)
    part = bare.folder / "vagrant-home" / "tmp" / "box123"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" * (8 << 20))
    bare.put("do-box-add", f"truncate -s 0 {part}; sleep 0.6; {COMES} sleep 3")
    bring_up(bare.vm)
    assert box_of(bare) == DEBIAN


def test_metadata_does_not_count_as_received_data(bare, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.box._FIRST_DATA_DEADLINE", 1.0)
    bare.put("do-box-add", COMES.replace("1M", "64K"))
    bare.put("hang-box-add")
    assert "nothing received in 1 s" in bring_up_and_print(bare)[1]


def test_a_download_that_stalls(bare, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.box._NO_DATA_DEADLINE", 1.0)
    bare.put("do-box-add", COMES)
    bare.put("hang-box-add")
    assert "nothing received in 1 s" in bring_up_and_print(bare)[1]


def test_a_download_without_end(bare, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.box._FETCH", 1.0)
    bare.put("hang-box-add")
    assert "the download did not end within 0 minutes" in bring_up_and_print(bare)[1]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_during_the_download(bare, how):
    bare.put("hang-box-add")
    code = (
        "import sys; from pathlib import Path; from tests.machines.vagrants import WANTED\n"
        "from uffdlab.machines.vagrant.vm import VagrantVm; VagrantVm(Path(sys.argv[1])).bring_up(WANTED, print)"
    )
    command = [sys.executable, "-uc", code, bare.folder / "vm"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout.readline() == f"vagrant box add {DEBIAN}\n"
        while ADD not in bare.notes():
            time.sleep(0.05)
        time.sleep(0.3)  # its trap is set after its note
        owner.send_signal(how)
        output = owner.communicate(timeout=30)[0]
    assert output == ("interrupted: cleaning up\n" if how == signal.SIGINT else "")
    (bare.folder / "world" / "hang-box-add").unlink()
    bring_up(bare.vm)
    assert bare.notes() == ["interrupted", ADD, "up --provision"]


def test_a_debian_box_that_does_not_boot(bare):
    bare.put("do-up", FAILS_FROM_DEBIANS)
    note = bare.folder / "cache" / "box" / "refused"
    assert bring_up_and_print(bare) == [
        f"vagrant box add {DEBIAN}",
        "vagrant up",
        f"the VM did not start from {DEBIAN}: removing it",
        f"{DEBIAN} is not used (the VM did not start from it, see {note}): making a box of Debian's packages",
        "vagrant up",
    ]
    assert bare.notes() == [ADD, "up --provision", "destroy --force", "build-box", "up --provision"]
    assert box_of(bare) == OWN
    assert note.read_text().endswith("no root device\n")
    bare.vm.destroy()
    (note.parent / "recipe").unlink()  # as after a change of vm/build-box
    bare.notes()
    bring_up(bare.vm)
    assert bare.notes() == ["build-box", "up --provision"]
    bare.vm.destroy()
    note.unlink()
    (note.parent / "recipe").unlink()
    (bare.folder / "world" / "do-up").unlink()
    bare.notes()
    bring_up(bare.vm)
    assert bare.notes() == [ADD, "up --provision"]


def test_a_debian_box_is_not_refused_for_good_where_destroy_fails(bare):
    bare.put("do-up", FAILS_FROM_DEBIANS)
    bare.put("fail-destroy", "Failed to connect socket\n")
    with pytest.raises(errors.MachineError, match=r"(?s)vagrant destroy .*Failed to connect socket"):
        bring_up(bare.vm)
    assert bare.notes() == [ADD, "up --provision", "destroy --force"]
    assert not (bare.folder / "cache" / "box" / "refused").exists()


def test_a_debian_box_that_the_user_chose_is_not_replaced(bare, monkeypatch):
    monkeypatch.setenv("UFFDLAB_BOX", DEBIAN)
    bare.put("do-up", FAILS_FROM_DEBIANS)
    with pytest.raises(errors.MachineError, match="no root device"):
        bring_up(bare.vm)
    assert bare.notes() == ["up --provision"]
    assert not (bare.folder / "cache" / "box" / "refused").exists()


def test_a_local_box_that_does_not_boot_is_not_replaced(world):
    world.put("fail-up")
    with pytest.raises(errors.MachineError, match="no luck"):
        bring_up(world.vm)
    assert world.notes() == ["up --provision"]


def test_a_vm_that_once_booted_is_not_removed(bare):
    bring_up(bare.vm)
    bare.vm.halt()
    bare.put("do-up", FAILS_FROM_DEBIANS)
    bare.notes()
    with pytest.raises(errors.MachineError, match="no root device"):
        bring_up(bare.vm)
    assert bare.notes() == ["up --provision"]
    assert box_of(bare) == DEBIAN


def test_virtualbox_uses_the_debian_box(world, monkeypatch):
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", "virtualbox")
    bring_up(world.vm)  # ours is there, and is of no use
    assert world.notes() == [f"box add {DEBIAN} --provider virtualbox", "up --provision"]
    assert box_of(world) == DEBIAN


def test_virtualbox_without_a_network(world, monkeypatch):
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", "virtualbox")
    world.put("fail-box-add", "Error: Could not resolve host: box.test\n")
    with pytest.raises(
        errors.HostUnsupported, match=r"not available for virtualbox \(Could not resolve host"
    ) as caught:
        bring_up(world.vm)
    assert caught.value.missing == "box"
    assert world.notes() == [f"box add {DEBIAN} --provider virtualbox"]


def test_a_broken_provider_is_reported_before_a_box_is_fetched(bare):
    bare.put("fail-status")
    with pytest.raises(errors.MachineError, match=r"vagrant status .* ended with status 3"):
        bring_up(bare.vm)
    assert bare.notes() == []


def test_a_box_that_cannot_be_built(bare):
    bare.put("fail-box-add")
    bare.program("vm/build-box", "#!/bin/bash\necho 'box: mke2fs is missing'\nexit 1\n")
    with pytest.raises(errors.HostUnsupported, match=r"vm/build-box could not make the box:\nbox: mke2fs is missing"):
        bring_up(bare.vm)
    assert bare.notes() == [ADD]


def made_from(world, name, version):
    """Vagrant's notes of a VM."""
    machine = world.vm.data / "machines" / "default" / "uffdlab_qemu"
    machine.mkdir(parents=True)
    (machine / "box_meta").write_text(json.dumps({"name": name, "version": version}))
    return machine / "id"


def test_a_vm_from_another_version_of_the_box_is_not_used(world):
    there = made_from(world, OWN, "12.0")
    bring_up(world.vm)  # Vagrant keeps box_meta of a VM that was destroyed
    there.write_text("uffdlab-qemu")
    with pytest.raises(errors.MachineError, match=r"version 12\.0 of the box .* version 12\.1: remove the VM"):
        bring_up(world.vm)
    world.vm.destroy()


def test_a_vm_from_another_box_is_not_used_where_the_user_chose(world, monkeypatch):
    bring_up(world.vm)
    made_from(world, DEBIAN, "12.0").write_text("uffdlab-qemu")
    bring_up(world.vm)  # it is there, whatever there is beside it
    monkeypatch.setenv("UFFDLAB_BOX", OWN)
    with pytest.raises(errors.MachineError, match=f"made from the box {DEBIAN}, and UFFDLAB_BOX is {OWN}: remove"):
        bring_up(world.vm)


def test_without_vagrants_state_the_box_is_the_requested_one(bare, monkeypatch):
    bring_up(bare.vm)
    made_from(bare, DEBIAN, "12.0").write_text("uffdlab-qemu")
    next(bare.vm.data.glob("machines/default/*/box_meta")).unlink()  # written when Vagrant is done
    monkeypatch.setenv("UFFDLAB_BOX", OWN)
    with pytest.raises(errors.MachineError, match=f"made from the box {DEBIAN}"):
        bring_up(bare.vm)
