"use strict";
// The surface of a map at a level: marching tetrahedra, and a small rasteriser with a depth buffer. It needs no WebGL,
// so it draws in every browser, over remote displays too.

// Six tetrahedra around the diagonal of a cell; a corner's bits are its offsets x (1), y (2), z (4).
const TETRAHEDRA = [[0, 1, 3, 7], [0, 3, 2, 7], [0, 2, 6, 7], [0, 6, 4, 7], [0, 4, 5, 7], [0, 5, 1, 7]];

// Vertices (x, y, z from the centre, in voxels), unit normals out of the density and triangles of `volume` = `level`.
function surfaceMesh(volume, n, level) {
  const offset = bits => (bits & 1) + n * ((bits >> 1) & 1) + n * n * (bits >> 2);
  const offsets = Array.from({length: 8}, (_, bits) => offset(bits));
  const vertexOf = new Int32Array(7 * n * n * n).fill(-1);  // by lower end and direction of the edge
  const places = [], normals = [], triangles = [];

  // The vertex on the edge between corners a and b (bits, a within b) of the cell at `cell`.
  function vertex(cell, a, b) {
    if (a > b) [a, b] = [b, a];
    const low = cell + offsets[a], high = cell + offsets[b], key = 7 * low + (b ^ a) - 1;
    if (vertexOf[key] < 0) {
      vertexOf[key] = places.length / 3;
      const share = (level - volume[low]) / (volume[high] - volume[low]);
      const p = spot(low), q = spot(high), g = slope(low), h = slope(high), normal = [0, 0, 0];
      for (let k = 0; k < 3; k++) {
        places.push(p[k] + share * (q[k] - p[k]) - (n >> 1));
        normal[k] = -(g[k] + share * (h[k] - g[k]));
      }
      const length = Math.hypot(...normal) || 1;
      normals.push(normal[0] / length, normal[1] / length, normal[2] / length);
    }
    return vertexOf[key];
  }

  function spot(at) { return [at % n, Math.floor(at / n) % n, Math.floor(at / (n * n))]; }

  function slope(at) {
    const [x, y, z] = spot(at);
    const along = (i, step) => volume[i < n - 1 ? at + step : at] - volume[i > 0 ? at - step : at];
    return [along(x, 1), along(y, n), along(z, n * n)];
  }

  for (let z = 0; z < n - 1; z++) for (let y = 0; y < n - 1; y++) for (let x = 0; x < n - 1; x++) {
    const cell = x + n * (y + n * z);
    let inside = 0;
    for (let corner = 0; corner < 8; corner++) inside |= (volume[cell + offsets[corner]] > level) << corner;
    if (inside === 0 || inside === 255) continue;
    for (const corners of TETRAHEDRA) {
      const within = corners.filter(corner => inside >> corner & 1), beyond = corners.filter(corner => !(inside >> corner & 1));
      if (within.length === 1) triangles.push(...beyond.map(b => vertex(cell, within[0], b)));
      else if (within.length === 3) triangles.push(...within.map(a => vertex(cell, a, beyond[0])));
      else if (within.length === 2) {
        const [p, q] = beyond.map(b => vertex(cell, within[0], b)), [r, s] = beyond.map(b => vertex(cell, within[1], b));
        triangles.push(p, q, r, q, s, r);
      }
    }
  }
  return {places: Float32Array.from(places), normals: Float32Array.from(normals), triangles: Uint32Array.from(triangles)};
}

// Paint a mesh into `pixels` (ImageData), turned by `rotation` (9 numbers, rows) and enlarged; seen from +z, y upwards.
function paintMesh(pixels, mesh, rotation, scale, colour = [120, 170, 215]) {
  const {width, height} = pixels, depth = new Float32Array(width * height).fill(-Infinity);
  const count = mesh.places.length / 3, x = new Float32Array(count), y = new Float32Array(count), z = new Float32Array(count);
  const shade = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const p = turned(rotation, mesh.places, 3 * i), m = turned(rotation, mesh.normals, 3 * i);
    x[i] = width / 2 + scale * p[0]; y[i] = height / 2 - scale * p[1]; z[i] = p[2];
    const lit = Math.max(0, -0.40 * m[0] + 0.50 * m[1] + 0.77 * m[2]);
    shade[i] = 0.28 + 0.72 * lit + 0.35 * lit ** 24;
  }
  pixels.data.fill(255);
  let near = -Infinity, far = Infinity;
  for (let i = 0; i < count; i++) { near = Math.max(near, z[i]); far = Math.min(far, z[i]); }
  const haze = v => 0.72 + 0.28 * (v - far) / Math.max(near - far, 1e-6);
  for (let t = 0; t < mesh.triangles.length; t += 3) {
    const a = mesh.triangles[t], b = mesh.triangles[t + 1], c = mesh.triangles[t + 2];
    const area = (x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a]);
    if (area === 0) continue;
    const left = Math.max(0, Math.ceil(Math.min(x[a], x[b], x[c]))), right = Math.min(width - 1, Math.max(x[a], x[b], x[c]));
    const top = Math.max(0, Math.ceil(Math.min(y[a], y[b], y[c]))), bottom = Math.min(height - 1, Math.max(y[a], y[b], y[c]));
    for (let row = top; row <= bottom; row++) for (let column = left; column <= right; column++) {
      const wb = ((column - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (row - y[a])) / area;
      const wc = ((x[b] - x[a]) * (row - y[a]) - (column - x[a]) * (y[b] - y[a])) / area, wa = 1 - wb - wc;
      if (wa < -1e-4 || wb < -1e-4 || wc < -1e-4) continue;
      const at = row * width + column, deep = wa * z[a] + wb * z[b] + wc * z[c];
      if (deep <= depth[at]) continue;
      depth[at] = deep;
      const light = (wa * shade[a] + wb * shade[b] + wc * shade[c]) * haze(deep);
      for (let k = 0; k < 3; k++) pixels.data[4 * at + k] = light * colour[k] + 255 * Math.max(0, light - 1) * 0.6;
    }
  }
}

function turned(r, values, at) {
  const a = values[at], b = values[at + 1], c = values[at + 2];
  return [r[0] * a + r[1] * b + r[2] * c, r[3] * a + r[4] * b + r[5] * c, r[6] * a + r[7] * b + r[8] * c];
}

function product(a, b) {
  const found = [];
  for (let row = 0; row < 3; row++) for (let column = 0; column < 3; column++)
    found.push(a[3 * row] * b[column] + a[3 * row + 1] * b[column + 3] + a[3 * row + 2] * b[column + 6]);
  return found;
}

// Rotation about the screen's axes by a drag of (right, down) radians.
function drag(right, down) {
  const [c, s, d, e] = [Math.cos(right), Math.sin(right), Math.cos(down), Math.sin(down)];
  return product([1, 0, 0, 0, d, -e, 0, e, d], [c, 0, s, 0, 1, 0, -s, 0, c]);
}

// The panel: drag turns, the wheel enlarges, the slider moves the level.
class SurfaceView {
  constructor(host) {
    this.canvas = element("canvas", {width: 520, height: 440, title: "drag to turn, wheel to enlarge, double click to reset"});
    this.slider = element("input", {type: "range", min: 0.01, max: 1, step: 0.005, input: () => this.remesh()});
    this.label = element("span");
    host.replaceWith(this.panel = panel("The map as a surface", this.canvas));
    this.panel.append(element("div", {class: "controls"}, element("label", {}, "level ", this.slider), this.label));
    this.canvas.addEventListener("pointerdown", event => this.canvas.setPointerCapture(event.pointerId));
    this.canvas.addEventListener("pointermove", event => event.buttons && this.turn(event.movementX, event.movementY));
    this.canvas.addEventListener("wheel", event => { event.preventDefault(); this.enlarge(event.deltaY); }, {passive: false});
    this.canvas.addEventListener("dblclick", () => this.reset());
  }

  show(surface) {
    this.surface = surface;
    this.volume = Float32Array.from(bytesOf(surface.voxels), byte => (byte / 255) ** 2);
    this.slider.value = surface.level;
    this.remesh();
    this.reset();
  }

  reset() {
    this.rotation = [1, 0, 0, 0, 1, 0, 0, 0, 1];
    let reach = 1;  // of the vertex farthest from the centre
    for (let i = 0; i < this.mesh.places.length; i += 3) reach = Math.max(reach, Math.hypot(...this.mesh.places.slice(i, i + 3)));
    this.scale = 0.48 * Math.min(this.canvas.width, this.canvas.height) / reach;
    this.paint();
  }

  turn(right, down) {
    this.rotation = product(drag(right / 120, down / 120), this.rotation);
    this.paint();
  }

  enlarge(amount) {
    this.scale *= Math.exp(-amount / 600);
    this.paint();
  }

  remesh() {
    const level = Number(this.slider.value);
    this.mesh = surfaceMesh(this.volume, this.surface.px, level);
    this.label.textContent = `${shortNumber(level * this.surface.top)} (${Math.round(100 * level)} % of the highest density)`;
    this.paint();
  }

  paint() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      const pen = this.canvas.getContext("2d"), pixels = pen.createImageData(this.canvas.width, this.canvas.height);
      paintMesh(pixels, this.mesh, this.rotation, this.scale);
      pen.putImageData(pixels, 0, 0);
    });
  }
}
