"""The ways of installing: the same modules come out of a wheel, an unpacked download and the bare checkout."""
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")
pytest.importorskip("setuptools", reason="setuptools is not installed")

ROOT = Path(__file__).parents[2]
if not (ROOT / "pyproject.toml").exists():
    pytest.skip("not in a checkout", allow_module_level=True)

MODULES = ("swiftres_plugin.plugin", "swiftres_plugin.protocols.protocol_refine", "swiftres_plugin.viewers.viewer_refine",
           "swiftres_plugin.wizards", "swiftres_plugin.engine.cli.main", "swiftres_plugin.tests.phantom")
PROBE = (f"import importlib, os, swiftres_plugin; [importlib.import_module(name) for name in {MODULES}]; "
         "from swiftres_plugin.plugin import Plugin; folder = Plugin().getPath(); "
         "assert os.path.exists(os.path.join(folder, 'logo.png')); "
         "assert os.path.exists(os.path.join(folder, 'protocols.conf')); print(folder)")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the sources, as git would give them."""
    copy = tmp_path_factory.mktemp("checkout") / "swiftres"
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "benchmarks", "docs")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=unwanted)
    return copy


def build_wheel(source, target):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(target),
                    str(source)], check=True, capture_output=True)
    (wheel,) = target.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def installed(checkout, tmp_path_factory):
    """A folder with the contents of the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    build_wheel(checkout, tmp_path_factory.mktemp("wheel")).extractall(folder)
    return folder


def found_from(path, cwd):
    """The package's folder, after importing `MODULES` with `path` on PYTHONPATH from folder `cwd`."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split()[-1])


def test_every_package_is_declared():
    """A folder that is forgotten in pyproject.toml is missing from every installation."""
    declared = (ROOT / "pyproject.toml").read_text()
    for init in (ROOT / "swiftres_plugin").rglob("__init__.py"):
        name = ".".join(init.parent.relative_to(ROOT).parts)
        assert f'"{name}"' in declared, f"{name} is not in [tool.setuptools] packages"


@pytest.mark.slow
def test_installed(installed, tmp_path):
    assert found_from(installed, tmp_path) == installed / "swiftres_plugin"


@pytest.mark.slow
def test_installed_and_started_in_the_checkout(installed, checkout):
    """The checkout shadows the installed package here, and must be complete itself."""
    assert found_from(installed, checkout) == checkout / "swiftres_plugin"


@pytest.mark.slow
def test_not_installed(checkout, tmp_path):
    assert found_from(checkout, tmp_path) == checkout / "swiftres_plugin"


@pytest.mark.slow
def test_download_without_links(checkout, installed, tmp_path):
    """Archives of some hosts hold a text file in place of the link `swiftres_plugin/tests`."""
    download = tmp_path / "download"
    shutil.copytree(checkout, download, symlinks=True)
    (download / "swiftres_plugin" / "tests").unlink()
    (download / "swiftres_plugin" / "tests").write_text("../tests/scipion")
    names = {name for name in build_wheel(download, tmp_path).namelist() if ".dist-info" not in name}
    assert names == {str(path.relative_to(installed)) for path in (installed / "swiftres_plugin").rglob("*")
                     if path.is_file() and "__pycache__" not in path.parts}


@pytest.mark.slow
def test_entry_points(installed):
    (declared,) = installed.glob("*.dist-info/entry_points.txt")
    lines = declared.read_text().split("\n")
    assert "swiftres_plugin = swiftres_plugin" in lines and "swiftres = swiftres_plugin.engine.cli.main:main" in lines
