"""The settings: one table of them, one module that reads them, paths that stay the same after a chdir."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from uffdlab import cachedir, errors, settings
from uffdlab.kernels import catalogue

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    settings.CACHE: settings.cache_folder,
    settings.IMAGES: settings.images_folder,
    settings.KERNELS: settings.kernels_folder,
}
BY_VARIABLE = {each.variable: each for each in settings.SETTINGS}


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    """Return the path of config.toml in an empty home, in which the test starts without any setting."""
    for setting in settings.SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "home" / ".config" / "uffdlab" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


def reads_of_the_environment(path):
    """Yield the variable of each read of os.environ or os.getenv in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Subscript):
            base, key = node.value, node.slice
        elif isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Attribute):
            base, key = (node.func if node.func.attr == "getenv" else node.func.value), node.args[0]
        else:
            continue
        if ast.unparse(base) in {"os.environ", "os.getenv"} and not isinstance(key, ast.Starred):
            yield key.value if isinstance(key, ast.Constant) else ast.unparse(key)


def test_no_other_module_reads_a_setting():
    reads = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "uffdlab").rglob("*.py")
        for name in reads_of_the_environment(path)
    }
    assert ("uffdlab/settings.py", "setting.variable") in reads
    others = {(path, name) for path, name in reads if path != "uffdlab/settings.py"}
    assert others
    # A name that is computed could be any: there is none.
    assert {name for _, name in others if not re.fullmatch(r"(?!UFFDLAB)[A-Z_]+", name)} == set()


def test_the_documentation_has_the_table_of_the_module():
    text = (ROOT / "docs" / "reference" / "settings.md").read_text()
    rows = re.findall(r"^\| `(UFFDLAB_\w+)` \| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE)
    assert [(variable, key) for variable, key, _ in rows] == [(each.variable, each.key) for each in settings.SETTINGS]
    for variable, _, values in rows:
        assert values.startswith("a folder") is BY_VARIABLE[variable].is_folder
        for choice in BY_VARIABLE[variable].choices:
            assert f"`{choice}`" in values


def test_every_variable_that_the_project_names_is_a_setting_or_is_for_tests():
    known = {*BY_VARIABLE}
    for path in [*(ROOT / "uffdlab").rglob("*.py"), *(ROOT / "vm").iterdir(), *(ROOT / "docs").rglob("*.md")]:
        named = set(re.findall(r"\bUFFDLAB_[A-Z]+", path.read_text()))
        assert named <= known, path


def test_the_defaults(tmp_path):
    assert settings.cache_folder() == tmp_path / "home" / ".cache" / "uffdlab"
    assert settings.images_folder() is None
    assert settings.kernels_folder() == tmp_path / "home" / ".config" / "uffdlab"
    assert (settings.machine(), settings.accelerator(), settings.box()) == ("qemu", "auto", "")
    assert not settings.full_tracebacks()


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", ("", "")),
        ("http://mirror.example/debian", ("http://mirror.example/debian", "")),
        (" https://a.example/debian/  file:/srv/security ", ("https://a.example/debian/", "file:/srv/security")),
    ],
)
def test_a_mirror_is_one_address_or_two(monkeypatch, text, addresses):
    monkeypatch.setenv("UFFDLAB_MIRROR", text)
    assert settings.mirror() == addresses


@pytest.mark.parametrize("text", ["mirror.example", "http://a b c", "http://a http://b http://c", "x:/a[b]", 'x:/"'])
def test_a_mirror_that_is_no_address_is_an_error(monkeypatch, text):
    monkeypatch.setenv("UFFDLAB_MIRROR", text)
    with pytest.raises(errors.UsageError, match=r"^UFFDLAB_MIRROR is .*: it must be the address of a mirror of Debian"):
        settings.mirror()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 10**9),
        ("1G", 10**9),
        ("500m", 5 * 10**8),
        ("2 GB", 2 * 10**9),
        ("3k", 3000),
        ("7", 7),
        ("0", 0),
        ("1T", 10**12),
    ],
)
def test_a_size_has_a_unit(monkeypatch, text, size):
    monkeypatch.setenv("UFFDLAB_SAVED", text)
    assert settings.saved_guests() == size


@pytest.mark.parametrize("text", ["much", "-1", "1.5G", "1GiB", "9" * 30, "\u0663"])
def test_a_size_that_is_none_is_an_error(monkeypatch, text):
    monkeypatch.setenv("UFFDLAB_SAVED", text)
    with pytest.raises(errors.UsageError, match=r"^UFFDLAB_SAVED is .*: it must be a size like 500M or 2G"):
        settings.saved_guests()


@pytest.mark.parametrize("setting", FOLDERS, ids=lambda each: each.key)
def test_a_relative_folder_stays_the_same_after_a_chdir(setting, tmp_path, monkeypatch):
    monkeypatch.setenv(setting.variable, "mine")
    assert FOLDERS[setting]() == tmp_path / "mine"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert FOLDERS[setting]() == tmp_path / "mine"
    child = [sys.executable, "-c", f"from uffdlab import settings; print(settings.{FOLDERS[setting].__name__}())"]
    printed = subprocess.run(child, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed.strip() == str(tmp_path / "mine")


def test_a_command_makes_relative_folders_absolute_at_its_start(tmp_path):
    code = "import os\nfrom uffdlab.cli.main import main\nmain(['lab', '--help'], standalone_mode=False)\n"
    code += "main.callback()\nprint(os.environ['UFFDLAB_CACHE'], os.environ['UFFDLAB_KERNELS'])"
    environment = {**os.environ, "UFFDLAB_CACHE": "~/a", "UFFDLAB_KERNELS": "b/../b"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert done.stdout.splitlines()[-1] == f"{tmp_path}/home/a {tmp_path}/b/../b"


@pytest.mark.parametrize("setting", FOLDERS, ids=lambda each: each.key)
def test_a_home_that_does_not_exist_is_an_error_that_names_the_variable(setting, monkeypatch, config):
    monkeypatch.setenv(setting.variable, "~nobody-of-that-name/x")
    with pytest.raises(errors.HostUnsupported, match=f"^{setting.variable} is ~nobody-of-that-name/x: "):
        FOLDERS[setting]()
    monkeypatch.delenv(setting.variable)
    config.write_text(f'{setting.key} = "~nobody-of-that-name/x"\n')
    with pytest.raises(errors.HostUnsupported, match=f"^{setting.key} in {re.escape(str(config))} is ~nobody"):
        FOLDERS[setting]()


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_any_text_becomes_an_absolute_folder_that_does_not_change(text, config, monkeypatch):
    for setting, folder in FOLDERS.items():
        with monkeypatch.context() as patch:
            patch.setenv(setting.variable, text)
            try:
                first = folder()
            except errors.HostUnsupported:
                assert text.startswith("~")
                continue
            assert first.is_absolute()
            patch.chdir("/")
            assert folder() == first
            assert "~" in text or first == config.parents[3] / text


def test_the_users_of_a_folder_read_it_from_the_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("UFFDLAB_CACHE", "~/c")
    monkeypatch.setenv("UFFDLAB_KERNELS", "~/k")
    assert cachedir.root() == tmp_path / "home" / "c"
    assert catalogue.user_folder() == tmp_path / "home" / "k"


def test_config_toml_has_each_setting_and_the_environment_takes_precedence(config, tmp_path, monkeypatch):
    config.write_text(
        'cache = "~/c"\nimages = "/i"\nkernels = "k"\nmachine = "local"\n'
        'accel = "kvm"\nbox = "a/b"\ntraceback = "full"\n'
    )
    assert settings.cache_folder() == tmp_path / "home" / "c"
    assert settings.images_folder() == Path("/i")
    assert settings.kernels_folder() == config.parent / "k"
    assert (settings.machine(), settings.accelerator(), settings.box()) == ("local", "kvm", "a/b")
    assert settings.full_tracebacks()
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "e"))
    monkeypatch.setenv("UFFDLAB_MACHINE", "qemu")
    monkeypatch.setenv("UFFDLAB_ACCEL", "")
    assert settings.cache_folder() == tmp_path / "e"
    assert (settings.machine(), settings.accelerator()) == ("qemu", "kvm")


def test_a_config_toml_that_changes_is_read_again(config):
    config.write_text('accel = "kvm"\n')
    assert settings.accelerator() == "kvm"
    config.write_text('accel = "auto"\n')
    assert settings.accelerator() == "auto"
    config.unlink()
    assert settings.accelerator() == "auto"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cache = 3\n", r"cache is 3: it must be text in quotes"),
        ('cahce = "x"\n', r"there is no setting 'cahce'; did you mean cache\?"),
        ('zzz = "x"\n', r"there is no setting 'zzz'; the keys are cache, images, kernels"),
        ("cache = \n", r"it is not TOML: Invalid value"),
        ("x = " + "[" * 100_000, r"it is not TOML: "),
        ("\udcff", r"it is not TOML: 'utf-8' codec"),
    ],
)
def test_a_wrong_config_toml_is_an_error_that_names_it(config, text, message):
    config.write_bytes(text.encode(errors="surrogateescape"))
    for read in (settings.cache_folder, settings.machine, settings.accelerator, settings.box):
        with pytest.raises(errors.UsageError, match=f"{re.escape(str(config))}: {message}"):
            read()
    assert not settings.full_tracebacks()


def test_a_config_toml_that_cannot_be_read_is_an_error(config):
    config.mkdir()
    with pytest.raises(errors.UsageError, match=f"{re.escape(str(config))}: Is a directory. Correct or remove"):
        settings.machine()


def test_the_error_for_a_wrong_value_names_its_source_and_the_valid_ones(config, monkeypatch):
    config.write_text('accel = "hax"\n')
    message = f"^accel in {re.escape(str(config))} is hax: it must be tcg, kvm or auto$"
    with pytest.raises(errors.UsageError, match=message):
        settings.accelerator()
    monkeypatch.setenv("UFFDLAB_ACCEL", "xen")
    with pytest.raises(errors.UsageError, match=r"^UFFDLAB_ACCEL is xen: it must be tcg, kvm or auto$"):
        settings.accelerator()


def test_a_command_reports_a_wrong_config_toml_in_one_line(config):
    config.write_text("cache = 3\n")
    command = [sys.executable, "-m", "uffdlab", "kernel", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert f"{config}: cache is 3" in done.stderr
    assert "Traceback" not in done.stderr
