"use strict";
// Charts as SVG, drawn from plain numbers. Colours of Okabe and Ito, which colour-blind readers can tell apart.

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#f0e442", "#882255", "#44aa99"];
const CHART = {width: 540, height: 300, left: 54, right: 14, top: 10, bottom: 40};
const LEGEND = {columns: 3, line: 16};

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function shape(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// A titled panel around a picture, with a button that saves it: an SVG as SVG, a canvas as PNG.
function panel(title, picture) {
  const save = element("button", {title: "save this picture", click: () => savePicture(title, picture)}, "save");
  const heading = element("h2", {}, element("span", {}, title), save);
  return element("div", {class: "panel"}, heading, picture);
}

function savePicture(title, picture) {
  const isSvg = picture.tagName.toLowerCase() === "svg";
  const source = isSvg ? new XMLSerializer().serializeToString(picture) : null;
  const link = element("a", {
    download: title.replace(/\W+/g, "_") + (isSvg ? ".svg" : ".png"),
    href: isSvg ? "data:image/svg+xml;charset=utf-8," + encodeURIComponent(source) : picture.toDataURL("image/png")});
  link.click();
}

// Round steps: about `count` ticks from low to high.
function ticks(low, high, count = 5) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high * (1 + 1e-9) + 1e-12; at++) found.push(at * step);
  return found.map(at => ({at, label: shortNumber(at)}));
}

function shortNumber(value) {
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(1);
  return String(Number(value.toPrecision(4)));
}

// Ticks in angstroms on an axis that is linear in spatial frequency.
function resolutionTicks(highest) {
  const found = [];
  for (const a of [200, 100, 60, 40, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.5, 2, 1.5, 1.2, 1]) {
    const last = found.length ? found[found.length - 1].at : 0;
    if (1 / a <= highest && 1 / a - last >= 0.075 * highest) found.push({at: 1 / a, label: String(a)});
  }
  return found;
}

// An empty frame: its SVG, and functions from values to places. Axes: {low, high, ticks, label}.
function frame(x, y) {
  const {width, height, left, right, top, bottom} = CHART;
  const svg = shape("svg", {viewBox: `0 0 ${width} ${height}`, xmlns: "http://www.w3.org/2000/svg",
                            "font-family": "sans-serif", "font-size": 11});
  const toX = v => left + (v - x.low) / (x.high - x.low) * (width - left - right);
  const toY = v => height - bottom - (v - y.low) / (y.high - y.low) * (height - top - bottom);
  for (const tick of x.ticks) {
    svg.append(shape("line", {x1: toX(tick.at), x2: toX(tick.at), y1: top, y2: height - bottom, stroke: "#eee"}));
    svg.append(shape("text", {x: toX(tick.at), y: height - bottom + 14, "text-anchor": "middle"}, tick.label));
  }
  for (const tick of y.ticks) {
    svg.append(shape("line", {x1: left, x2: width - right, y1: toY(tick.at), y2: toY(tick.at), stroke: "#eee"}));
    svg.append(shape("text", {x: left - 5, y: toY(tick.at) + 4, "text-anchor": "end"}, tick.label));
  }
  svg.append(shape("path", {d: `M${left} ${top}V${height - bottom}H${width - right}`, fill: "none", stroke: "#888"}));
  svg.append(shape("text", {x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle"}, x.label));
  svg.append(shape("text", {transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`,
                            "text-anchor": "middle"}, y.label));
  return {svg, toX, toY};
}

// Lines: [{name, colour, x: [...], y: [...], dash, dots}]; null is a gap. levels: [{at, label}] across the frame.
function lineChart(x, y, lines, levels = []) {
  const {svg, toX, toY} = frame(x, y);
  for (const level of levels) {
    svg.append(shape("line", {x1: toX(x.low), x2: toX(x.high), y1: toY(level.at), y2: toY(level.at), stroke: "#666",
                              "stroke-dasharray": "5 4"}));
    svg.append(shape("text", {x: toX(x.low) + 4, y: toY(level.at) - 3}, level.label));
  }
  for (const line of lines) {
    let path = "", pen = "M";
    line.x.forEach((value, i) => {
      if (line.y[i] === null || line.y[i] === undefined) { pen = "M"; return; }
      const spot = [toX(value), toY(Math.min(Math.max(line.y[i], y.low), y.high))];
      path += `${pen}${spot[0].toFixed(1)} ${spot[1].toFixed(1)}`;
      pen = "L";
      if (line.dots) svg.append(shape("circle", {cx: spot[0], cy: spot[1], r: 3, fill: line.colour}));
    });
    svg.append(shape("path", {d: path, fill: "none", stroke: line.colour, "stroke-width": 1.8,
                              "stroke-dasharray": line.dash || "none"}));
  }
  legend(svg, lines.filter(line => line.name));
  return svg;
}

// Names of lines, below the frame, where no curve can be; the picture grows by their rows.
function legend(svg, entries) {
  const wide = (CHART.width - CHART.left) / LEGEND.columns, rows = Math.ceil(entries.length / LEGEND.columns);
  entries.forEach((entry, i) => {
    const x = CHART.left + wide * (i % LEGEND.columns), y = CHART.height + LEGEND.line * Math.floor(i / LEGEND.columns) + 6;
    svg.append(shape("line", {x1: x, x2: x + 20, y1: y, y2: y, stroke: entry.colour,
                              "stroke-width": entry.thick || 2, "stroke-dasharray": entry.dash || "none"}),
               shape("text", {x: x + 26, y: y + 4}, entry.name));
  });
  svg.setAttribute("viewBox", `0 0 ${CHART.width} ${CHART.height + LEGEND.line * rows}`);
}

// Bars over bins: edges (n + 1), counts (n); a mark at the median.
function histogramChart(one) {
  const top = Math.max(1, ...one.counts), last = one.edges.length - 1;
  const x = {low: one.edges[0], high: one.edges[last], ticks: ticks(one.edges[0], one.edges[last]), label: one.name};
  const {svg, toX, toY} = frame(x, {low: 0, high: 1.08 * top, ticks: ticks(0, top), label: "particles"});
  one.counts.forEach((count, i) => svg.append(shape("rect", {
    x: toX(one.edges[i]), width: Math.max(0.5, toX(one.edges[i + 1]) - toX(one.edges[i]) - 0.5), y: toY(count),
    height: toY(0) - toY(count), fill: COLOURS[0], "fill-opacity": 0.85})));
  if (one.median !== null) {
    svg.append(shape("line", {x1: toX(one.median), x2: toX(one.median), y1: CHART.top, y2: toY(0), stroke: COLOURS[1],
                              "stroke-width": 2}));
    const beyond = one.left_out ? `, ${one.left_out} beyond the axis` : "";
    legend(svg, [{name: `median ${shortNumber(one.median)}${beyond}`, colour: COLOURS[1]}]);
  }
  return svg;
}

// Stacked bars: one stack for each number, one colour for each name; values[name][i].
function stackChart(numbers, values, label) {
  const names = Object.keys(values), totals = numbers.map((_, i) => names.reduce((sum, name) => sum + values[name][i], 0));
  const top = Math.max(1e-9, ...totals), x = iterationAxis(numbers);
  const {svg, toX, toY} = frame(x, {low: 0, high: 1.05 * top, ticks: ticks(0, top), label});
  const wide = 0.7 * (toX(1) - toX(0));
  numbers.forEach((number, i) => {
    let base = 0;
    names.forEach((name, k) => {
      const end = base + values[name][i];
      svg.append(shape("rect", {x: toX(number) - wide / 2, width: wide, y: toY(end), height: toY(base) - toY(end),
                                fill: COLOURS[k % COLOURS.length]}));
      base = end;
    });
  });
  legend(svg, names.map((name, k) => ({name, colour: COLOURS[k % COLOURS.length], thick: 10})));
  return svg;
}

function iterationAxis(numbers) {
  const last = numbers[numbers.length - 1], step = Math.ceil(last / 12);
  const shown = numbers.filter(n => n % step === 0 || last <= 12);
  return {low: numbers[0] - 0.6, high: last + 0.6, ticks: shown.map(at => ({at, label: String(at)})), label: "iteration"};
}

// The sphere of views after Mollweide; relative[row][column], rows by sine of the latitude, columns by longitude.
function viewMap(views) {
  const width = 540, height = 270, canvas = element("canvas", {width, height: height + 34});
  const pen = canvas.getContext("2d"), pixels = pen.createImageData(width, height);
  const top = Math.max(1, ...views.relative.flat());
  for (let row = 0; row < height; row++) for (let column = 0; column < width; column++) {
    const u = 2 * (column + 0.5) / width - 1, v = 1 - 2 * (row + 0.5) / height;
    if (u * u + v * v >= 1) continue;
    const theta = Math.asin(v), sine = (2 * theta + Math.sin(2 * theta)) / Math.PI;
    const longitude = u / Math.cos(theta);  // from -1 to 1
    const cell = views.relative[Math.min(views.rows - 1, Math.floor((sine + 1) / 2 * views.rows))]
      [Math.min(2 * views.rows - 1, Math.floor((longitude + 1) * views.rows))];
    pixels.data.set([...heat(cell / top), 255], 4 * (row * width + column));
  }
  pen.putImageData(pixels, 0, 0);
  for (let i = 0; i < 200; i++) { pen.fillStyle = `rgb(${heat(i / 199)})`; pen.fillRect(170 + i, height + 8, 1, 10); }
  pen.fillStyle = "#333"; pen.font = "11px sans-serif";
  pen.fillText("0", 158, height + 17);
  pen.fillText(`${shortNumber(top)} times even views`, 376, height + 17);
  return canvas;
}

// Dark violet over green to yellow: brightness rises evenly.
function heat(share) {
  const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(at));
  return stops[i].map((value, k) => Math.round(value + (at - i) * (stops[i + 1][k] - value)));
}

// A grey picture from bytes, its first row at the bottom; black and white are shares of the range of the bytes.
function paintGrey(canvas, bytes, px, black, white) {
  const pen = canvas.getContext("2d"), pixels = pen.createImageData(px, px);
  for (let row = 0; row < px; row++) for (let column = 0; column < px; column++) {
    const grey = 255 * (bytes[row * px + column] / 255 - black) / Math.max(white - black, 1e-3);
    pixels.data.set([grey, grey, grey, 255], 4 * ((px - 1 - row) * px + column));
  }
  pen.putImageData(pixels, 0, 0);
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
}
