"""Print the project's requirements, one a line, with the small CPU build of faiss instead of the GPU build.

`python .ci/requirements.py [EXTRA ...]`. Used by the Makefile on machines without an NVIDIA driver, where the GPU build
would only add 1.4 GB of libraries. Standard library (and pip's own TOML reader on Python 3.10).
"""
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib


def requirements(project, extras):
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [line for line in lines if not line.startswith("faiss-")] + ["faiss-cpu>=1.12,<2"]


if __name__ == "__main__":
    declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    print("\n".join(requirements(declared, sys.argv[1:])))
