"""Scipion without scipion-app: its variables must be set before the first import of pyworkflow."""
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

HOME = Path(tempfile.mkdtemp(prefix="swiftres_scipion_"))
HOSTS = "[localhost]\nPARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s\n"

(HOME / "hosts.conf").write_text(HOSTS)
(HOME / "data" / "projects").mkdir(parents=True)
os.environ.update(
    SCIPION_HOME=str(HOME), SCIPION_USER_DATA=str(HOME / "data"), SCIPION_DOMAIN="pwem", SCIPION_PYTHON=sys.executable,
    SCIPION_HOSTS=str(HOME / "hosts.conf"), SCIPION_TESTS_OUTPUT=str(HOME / "tests"), SCIPION_TEST_NOSYNC="True",
    SCIPION_NOTIFY="False", SCIPION_CANCEL_XMIPP_BINDING_WARNING="True", MPLBACKEND="Agg")


def pytest_unconfigure(config):
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty Scipion project; the test runs inside it, as paths of Scipion are relative to the project."""
    from pyworkflow.project import Manager

    monkeypatch.chdir(tmp_path)
    created = Manager().createProject("test", location=str(tmp_path))
    monkeypatch.chdir(created.path)
    return created
