"use strict";
// Puts the numbers of the page into its panels.

const PLANES = ["across x: y right, z up", "across y: x right, z up", "across z: x right, y up"];
const CURVE_COLOURS = {unmasked: COLOURS[0], masked: COLOURS[2], randomised: COLOURS[6], corrected: COLOURS[1]};

function table(rows, head) {
  const lines = rows.map(row => element("tr", row.changed ? {class: "changed"} : {}, ...row.cells.map(
    (text, i) => element(i === 0 && !head ? "th" : "td", row.help && i === row.cells.length - 1 ? {class: "help"} : {}, text))));
  return element("table", {}, ...(head ? [element("tr", {}, ...head.map(text => element("th", {}, text)))] : []), ...lines);
}

function showTexts(data) {
  document.getElementById("facts").append(table(data.facts.map(cells => ({cells}))));
  for (const text of data.record.warnings) {
    document.getElementById("warnings").append(element("span", {class: "warning"}, text));
  }
  document.getElementById("settings").append(table(data.settings.map(row => ({
    cells: [row.branch, row.name, `${row.value} ${row.unit}`, row.help], changed: row.changed, help: true})),
    ["stage", "setting", "value", "meaning (bold: not the default)"]));
  document.getElementById("command").textContent = data.command.map(
    word => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  const degrees = radians => radians === null ? "" : shortNumber(radians * 180 / Math.PI);
  document.getElementById("iterations").append(table(data.record.iterations.map(one => ({cells: [
    String(one.number), one.exhaustive ? "global" : "local", shortNumber(1 / one.max_frequency),
    one.resolution_a === null ? "none" : one.resolution_a.toFixed(2), degrees(one.median_turn_rad),
    one.median_move_a === null ? "" : shortNumber(one.median_move_a), shortNumber(one.mean_max_probability),
    shortNumber(Object.values(one.seconds).reduce((sum, s) => sum + s, 0)), one.class_sizes.join(" ")]})),
    ["iteration", "search", "aligned to (Å)", "resolution (Å)", "turned (degrees)", "moved (Å)", "mean posterior share",
     "seconds", "particles in classes"]));
}

function showSlices(figures) {
  const host = document.getElementById("slices");
  host.replaceChildren();
  for (const [name, images] of Object.entries(figures.slices)) {
    const grid = element("div", {class: "slices"}), canvases = images.planes.map((_, i) => {
      const canvas = element("canvas", {width: images.px, height: images.px});
      grid.append(element("div", {}, canvas, PLANES[i]));
      return canvas;
    });
    const planes = images.planes.map(bytesOf);
    const black = element("input", {type: "range", min: 0, max: 1, step: 0.01, value: 0, input: paint});
    const white = element("input", {type: "range", min: 0, max: 1, step: 0.01, value: 1, input: paint});
    function paint() {
      planes.forEach((bytes, i) => paintGrey(canvases[i], bytes, images.px, Number(black.value), Number(white.value)));
    }
    paint();
    const save = () => savePicture(`${name} slices`, joinedCanvas(canvases));
    host.append(element("div", {class: "panel"},
      element("h2", {}, element("span", {}, `Central slices, ${name} (${Math.round(figures.width_a)} Å wide)`),
              element("button", {click: save}, "save")),
      grid, element("div", {class: "controls"}, element("label", {}, "black ", black), element("label", {}, "white ", white))));
  }
}

function joinedCanvas(canvases) {
  const joined = element("canvas", {width: canvases.reduce((sum, one) => sum + one.width + 4, -4), height: canvases[0].height});
  canvases.forEach((one, i) => joined.getContext("2d").drawImage(one, i * (one.width + 4), 0));
  return joined;
}

function fscAxes(frequency) {
  const highest = frequency[frequency.length - 1];
  return [{low: 0, high: highest, ticks: resolutionTicks(highest), label: "resolution (Å)"},
          {low: -0.1, high: 1.02, ticks: ticks(0, 1, 5), label: "Fourier shell correlation"}];
}

function showCurves(figures) {
  const {frequency, iterations} = figures.fsc, [x, y] = fscAxes(frequency), level = [{at: 0.143, label: "0.143"}];
  const last = iterations[iterations.length - 1], host = document.getElementById("curves");
  const reached = value => value === null ? "none" : `${value.toFixed(2)} Å`;
  const curves = Object.keys(CURVE_COLOURS).map(name => ({
    name: name === "randomised" ? "phases randomised" : `${name}: ${reached(last.resolution_a[name])}`, x: frequency,
    y: last.curves[name], colour: CURVE_COLOURS[name], dash: name === "randomised" ? "3 3" : ""}));
  host.replaceChildren(panel(`FSC of the half maps, iteration ${last.number}`, lineChart(x, y, curves, level)),
                       iterationsPanel(frequency, iterations, x, y, level));
}

// The curves of any iterations together.
function iterationsPanel(frequency, iterations, x, y, level) {
  const kind = element("select", {change: paint}, ...Object.keys(CURVE_COLOURS).map(name => element("option", {}, name)));
  kind.value = "corrected";
  const boxes = iterations.map(one => {
    const box = element("input", {type: "checkbox", change: paint});
    box.checked = true;
    return element("label", {}, box, String(one.number));
  });
  const holder = element("div", {class: "holder"});
  function paint() {
    const lines = iterations.map((one, i) => ({
      name: `iteration ${one.number}`, x: frequency, y: one.curves[kind.value],
      colour: `rgb(${heat(0.85 * i / Math.max(1, iterations.length - 1))})`})).filter((_, i) => boxes[i].firstChild.checked);
    for (const line of lines.slice(0, -6)) line.name = "";
    holder.replaceChildren(panel("FSC of the iterations", lineChart(x, y, lines, level)));
    holder.firstChild.append(element("div", {class: "controls"}, kind, ...boxes));
  }
  paint();
  return holder;
}

function showCourse(data) {
  const host = document.getElementById("course"), all = data.record.iterations, numbers = all.map(one => one.number);
  const x = iterationAxis(numbers), classes = data.classes.length;
  const frequencies = all.flatMap(one => [one.max_frequency, ...one.class_resolution_a.map(a => a === null ? 0 : 1 / a)]);
  const high = 1.25 * Math.max(...frequencies), y = {low: 0, high, ticks: resolutionTicks(high), label: "resolution (Å)"};
  const reached = Array.from({length: classes}, (_, c) => ({
    name: classes > 1 ? `class ${c + 1}` : "reached (FSC 0.143)", colour: COLOURS[c % COLOURS.length], dots: true, x: numbers,
    y: all.map(one => one.class_resolution_a[c] === null ? null : 1 / one.class_resolution_a[c])}));
  const used = {name: "used for the alignment", colour: "#888", dash: "4 3", x: numbers, y: all.map(one => one.max_frequency)};
  host.append(panel("Resolution by iteration", lineChart(x, y, [...reached, used])), panel("Change of the poses", changes(all, x)));
  if (classes > 1) {
    const sizes = Object.fromEntries(reached.map((line, c) => [line.name, all.map(one => one.class_sizes[c])]));
    host.append(panel("Particles in the classes", stackChart(numbers, sizes, "particles")), panel("How settled the classes are", stability(all, x)));
  }
  const stages = [...new Set(all.flatMap(one => Object.keys(one.seconds)))];
  const seconds = Object.fromEntries(stages.map(name => [name, all.map(one => one.seconds[name] || 0)]));
  host.append(panel("Seconds by iteration", stackChart(numbers, seconds, "seconds")));
}

// Share of the particles that changed class, and how unsure they are of it (entropy: 0 sure, 1 not at all).
function stability(all, x) {
  const numbers = all.map(one => one.number), marks = [0, 0.25, 0.5, 0.75, 1].map(at => ({at, label: String(at)}));
  const lines = [["changed class", "class_changes"], ["entropy", "class_entropy"]].map(([name, key], c) => ({
    name, colour: COLOURS[c], dots: true, x: numbers, y: all.map(one => one.class_sizes.filter(n => n > 0).length > 1 ? one[key] : null)}));
  return lineChart(x, {low: 0, high: 1.05, ticks: marks, label: "share"}, lines);
}

// Median turn and move since the iteration before, in powers of ten.
function changes(all, x) {
  const log = value => value === null || value <= 0 ? null : Math.log10(value), numbers = all.map(one => one.number);
  const turn = all.map(one => log(one.median_turn_rad === null ? null : one.median_turn_rad * 180 / Math.PI));
  const move = all.map(one => log(one.median_move_a)), found = [...turn, ...move].filter(value => value !== null);
  const low = Math.floor(Math.min(0, ...found)), high = Math.ceil(Math.max(1, ...found)) + 0.3, marks = [];
  for (let power = low; power <= high; power++) marks.push({at: power, label: shortNumber(10 ** power)});
  const lines = [{name: "median turn (degrees)", colour: COLOURS[0], dots: true, x: numbers, y: turn},
                 {name: "median move (Å)", colour: COLOURS[1], dots: true, x: numbers, y: move}];
  return lineChart(x, {low, high, ticks: marks, label: "since the iteration before"}, lines);
}

function showParticles(data) {
  const host = document.getElementById("particles"), {views, histograms} = data.particles;
  if (views) host.append(panel("Views, as directions of the beam (symmetry mates included)", viewMap(views)));
  for (const one of histograms) host.append(panel(one.name, histogramChart(one)));
}

function showPage(data) {
  showTexts(data);
  const surface = new SurfaceView(document.getElementById("surface")), choice = document.getElementById("class");
  const show = () => {
    const figures = data.classes[Number(choice.value)];
    surface.show(figures.surface);
    showSlices(figures);
    showCurves(figures);
  };
  data.classes.forEach((_, c) => choice.append(element("option", {value: c}, String(c + 1))));
  choice.addEventListener("change", show);
  document.getElementById("class-choice").hidden = data.classes.length < 2;
  show();
  showCourse(data);
  showParticles(data);
}

showPage(JSON.parse(document.getElementById("data").textContent));
