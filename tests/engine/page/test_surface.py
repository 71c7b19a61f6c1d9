"""The page's own surface viewer, run by node: the mesh of a ball is a closed sphere, and its picture is a lit disc."""
from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import swiftres_plugin.engine.page as page

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed: the page's script is not run")
N, RADIUS = 40, 14.0
PROBE = """
const n = %d, radius = %g, volume = new Float32Array(n * n * n);
for (let i = 0; i < volume.length; i++) {
  const [x, y, z] = [i %% n, Math.floor(i / n) %% n, Math.floor(i / n / n)].map(v => v - (n >> 1));
  volume[i] = 1 + (radius - Math.hypot(x, y, z)) / 20;  // 1 on the sphere
}
const mesh = surfaceMesh(volume, n, 1), edges = new Map(), at = i => mesh.places.slice(3 * i, 3 * i + 3);
let area = 0, worst = 0, outward = 1;
for (let t = 0; t < mesh.triangles.length; t += 3) {
  const corners = mesh.triangles.slice(t, t + 3), [a, b, c] = [...corners].map(at);
  const u = b.map((v, k) => v - a[k]), w = c.map((v, k) => v - a[k]);
  area += Math.hypot(u[1] * w[2] - u[2] * w[1], u[2] * w[0] - u[0] * w[2], u[0] * w[1] - u[1] * w[0]) / 2;
  for (const [p, q] of [[0, 1], [1, 2], [2, 0]]) {
    const key = [corners[p], corners[q]].sort((l, m) => l - m).join();
    edges.set(key, (edges.get(key) || 0) + 1);
  }
}
const count = mesh.places.length / 3;
for (let i = 0; i < count; i++) {
  const p = at(i), r = Math.hypot(...p);
  worst = Math.max(worst, Math.abs(r - radius));
  outward = Math.min(outward, p.reduce((sum, v, k) => sum + v * mesh.normals[3 * i + k], 0) / r);
}
const pixels = {width: 100, height: 100, data: new Uint8ClampedArray(40000)};
paintMesh(pixels, mesh, drag(0.7, 0.3), 2);
let painted = 0;
for (let i = 0; i < 10000; i++) painted += pixels.data[4 * i] < 250 || pixels.data[4 * i + 2] < 250;
const grey = (x, y) => pixels.data[4 * (y * 100 + x)];
console.log(JSON.stringify({area, worst, outward, euler: count - edges.size + mesh.triangles.length / 3,
  closed: [...edges.values()].every(v => v === 2), painted, upperLeft: grey(36, 36), lowerRight: grey(64, 64),
  rotation: drag(Math.PI / 2, 0)}));
"""


@pytest.fixture(scope="module")
def found():
    script = (Path(page.__file__).parent / "surface.js").read_text(encoding="utf-8") + PROBE % (N, RADIUS)
    done = subprocess.run([NODE, "-e", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_mesh_of_a_ball_is_a_closed_sphere(found):
    assert found["closed"] and found["euler"] == 2
    assert found["worst"] < 0.05  # linear interpolation of a field that is nearly linear across a voxel
    assert found["area"] == pytest.approx(4 * 3.14159265 * RADIUS ** 2, rel=0.01)
    assert found["outward"] > 0.99


def test_the_picture_is_a_disc_lit_from_the_upper_left(found):
    assert found["painted"] == pytest.approx(3.14159265 * (2 * RADIUS) ** 2, rel=0.03)
    assert found["upperLeft"] > found["lowerRight"] + 50


def test_a_drag_to_the_right_turns_the_front_to_the_right(found):
    """A quarter turn carries +z, which faces us, to +x."""
    assert [round(value) for value in found["rotation"]] == [0, 0, 1, 0, 1, 0, -1, 0, 0]
