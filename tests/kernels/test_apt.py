"""Packages are fetched through a private apt root, from a repository in a folder that a key of the test signs."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from tiny_kernel import make_deb

from uffdlab.errors import HostUnsupported, SourceError
from uffdlab.kernels import apt
from uffdlab.kernels.apt import DebianArchive, Mirrors, choose_mirrors, mirrors_of_this_machine
from uffdlab.kernels.progress import Silent

MAIN = "http://mirror.example/debian/"
OTHERS = """\
Packages|https://other.example/|bookworm|stable|$(ORIGIN)
Packages|https://more.example/|bookworm-pgdg|main|more
Packages|cdrom://here/|bookworm|main|Debian
Translations|https://no.example/|bookworm|main|Debian
"""
SECURITY = "http://mirror.example/debian-security/"


@pytest.mark.parametrize(
    ("targets", "main", "security"),
    [
        (
            f"Packages|{SECURITY}|bookworm-security|main|Debian\nPackages|{MAIN}|bookworm|main|Debian\n",
            MAIN,
            SECURITY,
        ),
        (f"Packages|{MAIN}|bookworm-updates|main|Debian\n", MAIN, ""),
        (f"Packages|{SECURITY}|oldstable/updates|main|Debian\nPackages|{MAIN}|stable|main|Debian\n", MAIN, SECURITY),
        # apt has no lists yet, so it does not know the origin
        (f"Packages|{MAIN}|bookworm|main|$(ORIGIN)\n", MAIN, ""),
        (
            OTHERS + f"Packages|{MAIN}|sid|main|$(ORIGIN)\n",
            MAIN,
            "",
        ),
    ],
)
def test_the_mirrors_are_chosen_from_the_sources_of_the_machine(targets, main, security):
    assert choose_mirrors(targets) == Mirrors(main, security)


@pytest.mark.parametrize("targets", ["", "Packages|http://u.example/ubuntu|noble|main|Ubuntu\n", "garbage\n|||\n"])
def test_a_machine_without_a_debian_mirror_is_refused(targets):
    with pytest.raises(
        HostUnsupported, match=r"kernels come from Debian, and .* knows no mirror of it .*: set UFFDLAB_MIRROR"
    ) as caught:
        choose_mirrors(targets)
    assert caught.value.missing == "a Debian mirror"


def test_the_setting_precedes_the_sources_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("UFFDLAB_MIRROR", f"{MAIN} {SECURITY}")
    monkeypatch.setenv("PATH", str(tmp_path))  # apt is not asked
    assert mirrors_of_this_machine() == Mirrors(MAIN, SECURITY)


def test_security_suites_come_from_the_security_mirror(tmp_path):
    mirrors = Mirrors(MAIN, SECURITY)
    assert f"{SECURITY} bookworm-security main" in mirrors.line("bookworm-security", tmp_path)
    assert f"{MAIN} trixie-backports main" in mirrors.line("trixie-backports", tmp_path)
    assert f"signed-by={tmp_path}" in mirrors.line("trixie", tmp_path)
    assert Mirrors(MAIN, "").line("bookworm-security", tmp_path) == ""


def test_the_error_names_the_missing_tools_of_apt(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostUnsupported, match=r"missing apt-get.*dpkg-deb\. .*apt dpkg.*uffdlab kernel import"):
        DebianArchive().resolve("linux-image-x", ("here",), tmp_path / "root", Silent())
    assert not (tmp_path / "root").exists()


def test_the_error_names_the_missing_keyring(tmp_path, monkeypatch):
    monkeypatch.setattr(apt, "_KEYRINGS", (tmp_path / "none.gpg", tmp_path / "none.pgp"))
    with pytest.raises(HostUnsupported, match=r"none.gpg is missing.* debian-archive-keyring"):
        DebianArchive(Mirrors("file:/x", "")).resolve("linux-image-x", ("here",), tmp_path / "root", Silent())
    (tmp_path / "none.pgp").touch()
    assert apt.keyring() == tmp_path / "none.pgp"


class Repository:
    """A Debian archive in a folder."""

    def __init__(self, folder, home):
        self.folder = folder
        self.home = home
        self.keyring = home / "key.gpg"
        self.suite = folder / "dists" / "here"

    def gpg(self, *arguments, **options):
        return subprocess.run(
            ["gpg", "--homedir", self.home, "--batch", "--yes", "--passphrase", "", "--quiet", *arguments],
            check=True,
            capture_output=True,
            timeout=60,
            **options,
        )

    def publish(self, debs, *, sign=True):
        index = ""
        pool = self.folder / "pool"
        pool.mkdir(parents=True, exist_ok=True)
        for deb in debs:
            shutil.copy(deb, pool)
            control = subprocess.run(["dpkg-deb", "-f", deb], check=True, capture_output=True, text=True).stdout
            digest = hashlib.sha256(deb.read_bytes()).hexdigest()
            index += f"{control}Filename: pool/{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n\n"
        folder = self.suite / "main" / "binary-amd64"
        folder.mkdir(parents=True, exist_ok=True)
        lines = ""
        for name, data in {"Packages": index.encode(), "Packages.gz": gzip.compress(index.encode())}.items():
            (folder / name).write_bytes(data)
            lines += f" {hashlib.sha256(data).hexdigest()} {len(data)} main/binary-amd64/{name}\n"
        release = (
            "Origin: Debian\nSuite: here\nCodename: here\nDate: Tue, 14 Feb 2023 00:00:00 UTC\n"
            f"Architectures: amd64\nComponents: main\nSHA256:\n{lines}"
        )
        (self.suite / "Release").write_text(release)
        (self.suite / "InRelease").unlink(missing_ok=True)
        if sign:
            self.gpg("--clearsign", "--output", self.suite / "InRelease", self.suite / "Release")

    def archive(self):
        return DebianArchive(Mirrors(f"file:{self.folder}", ""), self.keyring)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    if shutil.which("gpg") is None:
        pytest.skip("no gpg to sign a repository with")
    folder = tmp_path_factory.mktemp("gpg")
    folder.chmod(0o700)
    repository = Repository(folder, folder)
    repository.gpg("--quick-generate-key", "test <test@example.org>", "ed25519", "sign", "never")
    repository.gpg("--output", repository.keyring, "--export")
    yield folder
    subprocess.run(["gpgconf", "--homedir", folder, "--kill", "all"], check=False, capture_output=True)


@pytest.fixture
def repository(tmp_path, home):
    repository = Repository(tmp_path / "mirror", home)
    packages = tmp_path / "packages"
    packages.mkdir()

    def package(name, *dependencies):
        return make_deb(packages, name, "7.3-1", {"usr/share/x": name.encode()}, depends=", ".join(dependencies))

    repository.debs = [
        package("linux-image-cloud-amd64", "linux-image-7.3-cloud-amd64 (= 7.3-1)", "linux-modules-7.3"),
        package(
            "linux-image-7.3-cloud-amd64",
            "initramfs-tools | dracut",
            "linux-base (>= 4)",
            "linux-base-7.3",
            "linux-binary-7.3 (= 7.3-1)",
        ),
        package("linux-binary-7.3", "linux-image-7.3-cloud-amd64"),
        package("linux-base-7.3"),
        package("linux-modules-7.3"),
        make_deb(packages, "linux-image-cloud-amd64", "6.1-1", {"usr/share/x": b"old"}),
    ]
    repository.publish(repository.debs)
    return repository


def test_a_repository_of_the_setting_is_used_where_apt_has_no_sources(repository, monkeypatch, tmp_path):
    (tmp_path / "apt.conf").write_text('Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "/dev/null";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.delenv("UFFDLAB_MIRROR", raising=False)
    archive = DebianArchive(keys=repository.keyring)
    with pytest.raises(HostUnsupported, match="set UFFDLAB_MIRROR"):
        archive.resolve("linux-image-cloud-amd64", ("here",), tmp_path / "root", Silent())
    monkeypatch.setenv("UFFDLAB_MIRROR", f"file:{repository.folder}")
    assert archive.resolve("linux-image-cloud-amd64", ("here",), tmp_path / "root", Silent()).version
    assert (tmp_path / "root" / "sources.list").read_text().count("file:") == 1


def test_the_newest_version_is_found_with_the_packages_it_needs(repository, tmp_path):
    root = tmp_path / "root"
    found = repository.archive().resolve("linux-image-cloud-amd64", ("here",), root, Silent())
    assert found.version == "7.3-1"
    names = [deb.package for deb in found.debs]
    assert names == [
        "linux-image-cloud-amd64",
        "linux-image-7.3-cloud-amd64",
        "linux-modules-7.3",
        "linux-base-7.3",
        "linux-binary-7.3",
    ]
    paths = repository.archive().download(found, ("here",), root, Silent())
    assert [path.name.partition("_")[0] for path in paths] == names
    assert all(path.is_file() for path in paths)


def test_the_system_s_apt_is_neither_used_nor_changed(repository, tmp_path, monkeypatch):
    # The system's configuration must not be read: these hooks would fail at once.
    config = tmp_path / "system.conf"
    config.write_text(
        'APT::Update::Pre-Invoke { "false"; };\nAPT::Update::Post-Invoke { "false"; };\n'
        'Acquire::AllowInsecureRepositories "true";\nAPT::Get::AllowUnauthenticated "true";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(config))
    root = tmp_path / "root"
    before = {path: path.stat().st_mtime_ns for path in map(Path, ("/var/lib/apt/lists", "/var/cache/apt"))}
    repository.archive().resolve("linux-image-cloud-amd64", ("here",), root, Silent())
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert {path.name for path in root.iterdir()} <= {"apt.conf", "sources.list", "lists", "cache", "state"}


def test_an_unknown_package_is_an_error(repository, tmp_path):
    with pytest.raises(SourceError, match="here: no package linux-image-none"):
        repository.archive().resolve("linux-image-none", ("here",), tmp_path / "root", Silent())


def assert_refused(repository, tmp_path, message):
    with pytest.raises(SourceError, match=message) as caught:
        repository.archive().resolve("linux-image-cloud-amd64", ("here",), tmp_path / "root", Silent())
    return str(caught.value)


def test_an_unsigned_suite_is_refused(repository, tmp_path):
    repository.publish(repository.debs, sign=False)
    assert_refused(repository, tmp_path, "is not signed")


def test_a_suite_signed_by_another_key_is_refused(repository, tmp_path, home):
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    other_repository = Repository(repository.folder, other)
    other_repository.gpg("--quick-generate-key", "other <s@example.org>", "ed25519", "sign", "never")
    other_repository.publish(repository.debs)
    subprocess.run(["gpgconf", "--homedir", other, "--kill", "all"], check=False, capture_output=True)
    assert_refused(repository, tmp_path, "signatures couldn't be verified|NO_PUBKEY")


def test_a_changed_index_is_refused(repository, tmp_path):
    folder = repository.suite / "main" / "binary-amd64"
    changed = (folder / "Packages").read_bytes().replace(b"7.3-1", b"7.3-2")
    (folder / "Packages").write_bytes(changed)
    (folder / "Packages.gz").write_bytes(gzip.compress(changed))
    assert_refused(repository, tmp_path, "apt-get update for here")


def test_a_changed_package_is_refused(repository, tmp_path):
    root = tmp_path / "root"
    found = repository.archive().resolve("linux-image-cloud-amd64", ("here",), root, Silent())
    deb = next((repository.folder / "pool").glob("linux-binary-7.3_*"))
    data = bytearray(deb.read_bytes())
    data[-1] ^= 1
    deb.write_bytes(data)
    with pytest.raises(SourceError, match=r"linux-binary-7\.3"):
        repository.archive().download(found, ("here",), root, Silent())


def test_a_full_disk_is_reported_and_cleaned_up(repository, tmp_path, monkeypatch):
    output = "E: Write error - write (28: No space left on device)"
    monkeypatch.setattr(DebianArchive, "_apt", lambda *_, **__: (100, output))
    with pytest.raises(HostUnsupported, match="disk"):
        repository.archive().resolve("linux-image-cloud-amd64", ("here",), tmp_path / "root", Silent())
    assert not (tmp_path / "root").exists()


def test_a_mirror_that_is_gone_is_an_error(repository, tmp_path):
    root = tmp_path / "root"
    found = repository.archive().resolve("linux-image-cloud-amd64", ("here",), root, Silent())
    shutil.rmtree(repository.folder)
    with pytest.raises(SourceError, match=r"apt-get download .*failed"):
        repository.archive().download(found, ("here",), root, Silent())
    assert_refused(repository, tmp_path, "Check the network")
