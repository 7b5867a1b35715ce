"""The box that the VM is made from, with a script in place of vagrant; tests/vagrant has the real one."""

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
STARTS_DOWNLOAD = "mkdir -p $VAGRANT_HOME/tmp; truncate -s 1M $VAGRANT_HOME/tmp/box123\n"
FAILS_FROM_DEBIAN_BOX = f"""
if grep -q '"box": "{DEBIAN}"' "$VAGRANT_DOTFILE_PATH/lab.json"; then
	echo running >state; echo "no root device"; exit 1
fi
"""


@pytest.fixture
def boxless(vagrant):
    """Scripted vagrant without a local box: vm/build-box has not run yet."""
    (vagrant.folder / "cache" / "box" / "recipe").unlink()
    return vagrant


def box_of(vagrant):
    return json.loads((vagrant.vm.data / "lab.json").read_text())["box"]


def bring_up_and_print(vagrant):
    """Bring the VM up; return the lines that were printed."""
    printed = []
    descriptor = vagrant.vm.bring_up(WANTED, printed.append)
    os.close(descriptor)
    return printed


def test_the_local_box_is_used_when_it_exists(vagrant):
    assert bring_up_and_print(vagrant) == ["vagrant up"]
    assert vagrant.commands() == ["up --provision"]
    assert box_of(vagrant) == OWN


def test_the_debian_box_is_downloaded_if_there_is_a_network(boxless):
    assert bring_up_and_print(boxless) == [f"vagrant box add {DEBIAN}", "vagrant up"]
    assert boxless.commands() == [ADD, "up --provision"]
    assert box_of(boxless) == DEBIAN


def test_the_debian_box_is_used_when_vagrant_has_it(boxless):
    boxless.write(
        "boxes",
        "1,,ui,info,debian/bookworm64 (libvirt\\, 12)\n1,,box-name,debian/bookworm64\n1,,box-provider,libvirt\n"
        "1,,box-version,12.20250126.1",
    )
    assert bring_up_and_print(boxless) == ["vagrant up"]
    assert boxless.commands() == ["up --provision"]
    assert box_of(boxless) == DEBIAN


@pytest.mark.parametrize(
    "listed", ["debian/bookworm64\n1,,box-provider,virtualbox", "uffdlab/bookworm64\n1,,box-provider,libvirt"]
)
def test_a_box_of_another_name_is_not_used(boxless, listed):
    boxless.write("boxes", f"1,,box-name,{listed}")
    bring_up(boxless.vm)
    assert boxless.commands() == [ADD, "up --provision"]


def test_without_a_network_the_local_box_is_built(boxless):
    boxless.write("fail-box-add", "Error: Could not resolve host: box.test\n")
    assert bring_up_and_print(boxless) == [
        f"vagrant box add {DEBIAN}",
        f"{DEBIAN} is not used (Could not resolve host: box.test): making a box of Debian's packages",
        "vagrant up",
    ]
    assert boxless.commands() == [ADD, "build-box", "up --provision"]
    assert box_of(boxless) == OWN
    boxless.vm.destroy()
    assert bring_up_and_print(boxless) == ["vagrant up"]


@pytest.mark.parametrize("box", [OWN, DEBIAN, "some/box"])
def test_the_environment_variable_chooses_the_box(boxless, monkeypatch, box):
    monkeypatch.setenv("UFFDLAB_BOX", box)
    bring_up(boxless.vm)
    assert boxless.commands() == [*(["build-box"] if box == OWN else []), "up --provision"]
    assert box_of(boxless) == box


def test_a_download_that_receives_nothing_is_ended(boxless, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.box._FIRST_DATA_DEADLINE", 1.0)
    boxless.write("hang-box-add")
    assert f"{DEBIAN} is not used (nothing received in 1 s): making a box of Debian's packages" in bring_up_and_print(
        boxless
    )
    assert boxless.commands() == [ADD, "interrupted", "build-box", "up --provision"]


def test_a_slow_download_shows_progress(boxless, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.box._FIRST_DATA_DEADLINE", 2.0)
    monkeypatch.setattr("uffdlab.machines.vagrant.box._REPORT_INTERVAL", 0.5)
    boxless.write("do-box-add", STARTS_DOWNLOAD + "sleep 3; rm $VAGRANT_HOME/tmp/box123; sleep 1")
    printed = bring_up_and_print(boxless)
    assert printed[1] == f"vagrant box add {DEBIAN}: 1 MiB received"
    assert box_of(boxless) == DEBIAN


def test_a_download_that_starts_again_is_not_ended(boxless, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.box._FIRST_DATA_DEADLINE", 2.0)
    part = boxless.folder / "vagrant-home" / "tmp" / "box123"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" * (8 << 20))
    boxless.write("do-box-add", f"truncate -s 0 {part}; sleep 0.6; {STARTS_DOWNLOAD} sleep 3")
    bring_up(boxless.vm)
    assert box_of(boxless) == DEBIAN


def test_metadata_does_not_count_as_received_data(boxless, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.box._FIRST_DATA_DEADLINE", 1.0)
    boxless.write("do-box-add", STARTS_DOWNLOAD.replace("1M", "64K"))
    boxless.write("hang-box-add")
    assert "nothing received in 1 s" in bring_up_and_print(boxless)[1]


def test_a_download_that_stalls_is_ended(boxless, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.box._NO_DATA_DEADLINE", 1.0)
    boxless.write("do-box-add", STARTS_DOWNLOAD)
    boxless.write("hang-box-add")
    assert "nothing received in 1 s" in bring_up_and_print(boxless)[1]


def test_a_download_past_its_deadline_is_ended(boxless, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.box._FETCH", 1.0)
    boxless.write("hang-box-add")
    assert "the download did not end within 0 minutes" in bring_up_and_print(boxless)[1]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_a_download_is_ended_with_its_interrupted_or_killed_owner(boxless, signal_number):
    boxless.write("hang-box-add")
    code = (
        "import sys; from pathlib import Path; from tests.machines.vagrants import WANTED\n"
        "from uffdlab.machines.vagrant.vm import VagrantVm; VagrantVm(Path(sys.argv[1])).bring_up(WANTED, print)"
    )
    command = [sys.executable, "-uc", code, boxless.folder / "vm"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdout.readline() == f"vagrant box add {DEBIAN}\n"
        while ADD not in boxless.commands():
            time.sleep(0.05)
        time.sleep(0.3)  # the script sets its trap after it has recorded the command
        owner.send_signal(signal_number)
        output = owner.communicate(timeout=30)[0]
    assert output == ("interrupted: cleaning up\n" if signal_number == signal.SIGINT else "")
    (boxless.folder / "files" / "hang-box-add").unlink()
    bring_up(boxless.vm)
    assert boxless.commands() == ["interrupted", ADD, "up --provision"]


def test_a_debian_box_that_does_not_boot_is_replaced_by_the_local_box(boxless):
    boxless.write("do-up", FAILS_FROM_DEBIAN_BOX)
    record = boxless.folder / "cache" / "box" / "refused"
    assert bring_up_and_print(boxless) == [
        f"vagrant box add {DEBIAN}",
        "vagrant up",
        f"the VM did not start from {DEBIAN}: removing it",
        f"{DEBIAN} is not used (the VM did not start from it, see {record}): making a box of Debian's packages",
        "vagrant up",
    ]
    assert boxless.commands() == [ADD, "up --provision", "destroy --force", "build-box", "up --provision"]
    assert box_of(boxless) == OWN
    assert record.read_text().endswith("no root device\n")
    boxless.vm.destroy()
    (record.parent / "recipe").unlink()  # as after a change of vm/build-box
    boxless.commands()
    bring_up(boxless.vm)
    assert boxless.commands() == ["build-box", "up --provision"]
    boxless.vm.destroy()
    record.unlink()
    (record.parent / "recipe").unlink()
    (boxless.folder / "files" / "do-up").unlink()
    boxless.commands()
    bring_up(boxless.vm)
    assert boxless.commands() == [ADD, "up --provision"]


def test_a_debian_box_is_not_recorded_as_refused_if_destroy_fails(boxless):
    boxless.write("do-up", FAILS_FROM_DEBIAN_BOX)
    boxless.write("fail-destroy", "Failed to connect socket\n")
    with pytest.raises(errors.MachineError, match=r"(?s)vagrant destroy .*Failed to connect socket"):
        bring_up(boxless.vm)
    assert boxless.commands() == [ADD, "up --provision", "destroy --force"]
    assert not (boxless.folder / "cache" / "box" / "refused").exists()


def test_a_debian_box_that_the_user_chose_is_not_replaced(boxless, monkeypatch):
    monkeypatch.setenv("UFFDLAB_BOX", DEBIAN)
    boxless.write("do-up", FAILS_FROM_DEBIAN_BOX)
    with pytest.raises(errors.MachineError, match="no root device"):
        bring_up(boxless.vm)
    assert boxless.commands() == ["up --provision"]
    assert not (boxless.folder / "cache" / "box" / "refused").exists()


def test_a_local_box_that_does_not_boot_is_not_replaced(vagrant):
    vagrant.write("fail-up")
    with pytest.raises(errors.MachineError, match="no luck"):
        bring_up(vagrant.vm)
    assert vagrant.commands() == ["up --provision"]


def test_a_vm_that_once_booted_is_not_removed(boxless):
    bring_up(boxless.vm)
    boxless.vm.halt()
    boxless.write("do-up", FAILS_FROM_DEBIAN_BOX)
    boxless.commands()
    with pytest.raises(errors.MachineError, match="no root device"):
        bring_up(boxless.vm)
    assert boxless.commands() == ["up --provision"]
    assert box_of(boxless) == DEBIAN


def test_virtualbox_uses_the_debian_box(vagrant, monkeypatch):
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", "virtualbox")
    bring_up(vagrant.vm)  # the local box exists, but not for virtualbox
    assert vagrant.commands() == [f"box add {DEBIAN} --provider virtualbox", "up --provision"]
    assert box_of(vagrant) == DEBIAN


def test_virtualbox_without_a_network_is_an_error(vagrant, monkeypatch):
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", "virtualbox")
    vagrant.write("fail-box-add", "Error: Could not resolve host: box.test\n")
    with pytest.raises(
        errors.HostUnsupported, match=r"not available for virtualbox \(Could not resolve host"
    ) as caught:
        bring_up(vagrant.vm)
    assert caught.value.missing == "box"
    assert vagrant.commands() == [f"box add {DEBIAN} --provider virtualbox"]


def test_a_broken_provider_is_reported_before_a_box_is_fetched(boxless):
    boxless.write("fail-status")
    with pytest.raises(errors.MachineError, match=r"vagrant status .* ended with status 3"):
        bring_up(boxless.vm)
    assert boxless.commands() == []


def test_a_box_that_cannot_be_built_is_reported_with_the_output(boxless):
    boxless.write("fail-box-add")
    boxless.program("vm/build-box", "#!/bin/bash\necho 'box: mke2fs is missing'\nexit 1\n")
    with pytest.raises(errors.HostUnsupported, match=r"vm/build-box could not make the box:\nbox: mke2fs is missing"):
        bring_up(boxless.vm)
    assert boxless.commands() == [ADD]


def record_vm(vagrant, name, version):
    """Write what Vagrant records of a VM made from this box; return the path of its id."""
    machine = vagrant.vm.data / "machines" / "default" / "uffdlab_qemu"
    machine.mkdir(parents=True)
    (machine / "box_meta").write_text(json.dumps({"name": name, "version": version}))
    return machine / "id"


def test_a_vm_from_another_version_of_the_box_is_not_used(vagrant):
    vm_id = record_vm(vagrant, OWN, "12.0")
    bring_up(vagrant.vm)  # Vagrant keeps box_meta of a VM that was destroyed
    vm_id.write_text("uffdlab-qemu")
    with pytest.raises(errors.MachineError, match=r"version 12\.0 of the box .* version 12\.1: remove the VM"):
        bring_up(vagrant.vm)
    vagrant.vm.destroy()


def test_a_vm_from_another_box_is_not_used_if_the_user_chose_a_box(vagrant, monkeypatch):
    bring_up(vagrant.vm)
    record_vm(vagrant, DEBIAN, "12.0").write_text("uffdlab-qemu")
    bring_up(vagrant.vm)  # an existing VM is used, whatever other boxes there are
    monkeypatch.setenv("UFFDLAB_BOX", OWN)
    with pytest.raises(errors.MachineError, match=f"made from the box {DEBIAN}, and UFFDLAB_BOX is {OWN}: remove"):
        bring_up(vagrant.vm)


def test_without_vagrant_s_record_the_box_is_the_one_that_was_requested(boxless, monkeypatch):
    bring_up(boxless.vm)
    record_vm(boxless, DEBIAN, "12.0").write_text("uffdlab-qemu")
    next(boxless.vm.data.glob("machines/default/*/box_meta")).unlink()  # Vagrant writes it at its end
    monkeypatch.setenv("UFFDLAB_BOX", OWN)
    with pytest.raises(errors.MachineError, match=f"made from the box {DEBIAN}"):
        bring_up(boxless.vm)
