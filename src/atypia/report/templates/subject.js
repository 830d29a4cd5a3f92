// The subject page's own script: shows the volumes with niivue, and makes the mask in the page.
"use strict";

const read = (id) => document.getElementById(id).textContent;
const facts = JSON.parse(read("viewer-facts"));
const layers = JSON.parse(read("viewer-layers"));
const page = document.documentElement;
const element = (id) => document.getElementById(id);
const switches = (key) => document.querySelector(`[data-layer="${key}"]`);
const opacities = (key) => document.querySelector(`[data-opacity="${key}"]`);
const layerOf = (key) => layers.find((layer) => layer.key === key);
const smooth = navigator.hardwareConcurrency > 6;  // edges, where that is cheap
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

let viewer = null;
let ranks = null;  // of the score map: a voxel is above level k where its rank is at least k + 2
let above = [];  // how many voxels are above each level
let waiting = false;

function hasWebgl2() {
  try {
    // Of the viewer's own canvas, which gives niivue this one again: to make a second one is slow.
    return element("canvas").getContext("webgl2", { alpha: true, antialias: smooth }) !== null;
  } catch {
    return false;
  }
}

function shortNumber(value) {
  if (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e5)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

// ---- Layers

function colourMap(colours) {
  const channel = (i) => colours.map((colour) => colour[i]);
  const places = colours.map((_, i) => Math.round((255 * i) / (colours.length - 1)));
  return { R: channel(0), G: channel(1), B: channel(2), A: channel(3), I: places };
}

async function unpack(layer) {
  if (layer.colours) viewer.addColormap(`atypia-${layer.key}`, colourMap(layer.colours));
  layer.volume = await niivue.NVImage.loadFromBase64({
    base64: read(`volume-${layer.key}`),
    name: `${layer.key}.nii.gz`,
    colormap: layer.colours ? `atypia-${layer.key}` : "gray",
    opacity: layer.shown ? layer.opacity : 0,
    cal_min: layer.window[0],
    cal_max: layer.window[1],
  });
}

const unpacked = () => layers.filter((layer) => layer.volume).map((layer) => layer.volume);

function showFirst() {
  // Each volume that is added draws all of them again: only the last one is added so.
  const volumes = unpacked();
  viewer.volumes = volumes.slice(0, -1);
  viewer.addVolume(volumes.at(-1));
}

function redrawOverlays() {
  // Without the scan below them, for which niivue computes gradients each time.
  viewer.volumes.forEach((volume, place) => {
    if (place > 0) viewer.refreshLayers(volume, place);
  });
  viewer.drawScene();
}

// Layers that are hidden at first come when the viewer is idle, or when they are asked for.
function arrive(layer) {
  layer.arriving ??= unpack(layer).then(() => {
    viewer.volumes = unpacked();
    viewer.overlays = viewer.volumes.slice(1);
    redrawOverlays();
  });
  return layer.arriving;
}

async function arriveAll() {
  for (const layer of layers) {
    if (layer.volume) continue;
    await new Promise((idle) => {
      // Safari has none. A busy machine may never be idle.
      if (window.requestIdleCallback) requestIdleCallback(idle, { timeout: 2000 });
      else setTimeout(idle, 50);
    });
    await arrive(layer);
  }
  page.dataset.layers = "all";
}

async function showOpacity(key) {
  const layer = layerOf(key);
  if (!layer.volume) await arrive(layer);
  layer.volume.opacity = switches(key).checked ? opacities(key).value / 100 : 0;
  if (layer === layers[0]) viewer.updateGLVolume();
  else redrawOverlays();
}

// ---- Threshold

function countAbove() {
  const counts = new Uint32Array(facts.levels.length + 2);
  for (let i = 0; i < ranks.length; i += 1) counts[ranks[i]] += 1;
  let sum = 0;
  for (let level = facts.levels.length - 1; level >= 0; level -= 1) {
    sum += counts[level + 2];
    above[level] = sum;
  }
}

function tellThreshold(stop) {
  const level = facts.levels[stop];
  const isStart = stop === facts.start;
  const calibrated = facts.calibrated && isStart ? "(calibrated)" : "";
  const ml = above[stop] * facts.voxelMl;
  element("threshold-value").textContent = shortNumber(level);
  element("threshold-note").textContent = calibrated;
  element("flagged-ml").textContent = `${ml.toFixed(2)} ml`;
  const share = (100 * ml / facts.brainMl).toFixed(2);
  element("flagged-more").textContent = `flagged: ${plural(above[stop], "voxel")}, ${share}\u00a0% of the brain`;
  element("threshold").setAttribute("aria-valuetext", `${shortNumber(level)} ${calibrated}, ${ml.toFixed(2)} ml flagged`);
  element("reset").disabled = isStart;
  const told = element("healthy-share");
  if (told === null) return;
  const healthy = facts.healthyHighest;
  const flagged = healthy.filter((highest) => highest > level).length;
  told.textContent = healthy.length === 0
    ? "How many healthy scans would be flagged is not known: calibrate again with this version."
    : `${flagged} of ${plural(healthy.length, "healthy scan")} (${Math.round(100 * flagged / healthy.length)} %) would have something flagged here.`;
}

function makeMask(stop) {
  const { img } = layerOf("flagged").volume;
  for (let i = 0; i < img.length; i += 1) img[i] = ranks[i] >= stop + 2 ? 1 : 0;
}

function moveThreshold() {
  tellThreshold(Number(element("threshold").value));
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    makeMask(Number(element("threshold").value));
    redrawOverlays();
  });
}

// ---- Crosshair

const clamp = (voxel) => voxel.map((v, axis) => Math.min(Math.max(v, 0), facts.shape[axis] - 1));

function voxelOfCrosshair() {
  return Array.from(viewer.scene.crosshairPos, (share, axis) => share * facts.shape[axis] - 0.5);
}

function goTo(voxel) {
  const shares = clamp(voxel).map((v, axis) => (v + 0.5) / facts.shape[axis]);
  viewer.scene.crosshairPos.set(shares);
  viewer.drawScene();
  tellPlace();
}

function tellPlace() {
  const voxel = voxelOfCrosshair();
  const mm = facts.affine.slice(0, 3).map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
  const [x, y, z] = clamp(voxel.map(Math.round));
  const rank = ranks[x + facts.shape[0] * (y + facts.shape[1] * z)];
  const score = rank === 0 ? "outside the brain" : `score about ${shortNumber(facts.values[rank - 1])}`;
  element("readout").textContent = `x ${mm[0].toFixed(1)}, y ${mm[1].toFixed(1)}, z ${mm[2].toFixed(1)} mm: ${score}`;
}

const STEPS = {
  ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowDown: [0, -1, 0], ArrowUp: [0, 1, 0],
  PageDown: [0, 0, -1], PageUp: [0, 0, 1],
};

function pressKey(event) {
  // niivue's own keys work only under the mouse, and would take letters from screen readers.
  event.stopImmediatePropagation();
  const step = STEPS[event.key];
  if (!step || event.type !== "keydown" || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  if (event.shiftKey) {
    viewer.setRenderAzimuthElevation(viewer.scene.renderAzimuth + 5 * step[0], viewer.scene.renderElevation + 5 * step[1]);
  } else {
    goTo(voxelOfCrosshair().map((v, axis) => Math.round(v) + step[axis]));
  }
}

function chooseLesion(row) {
  for (const other of document.querySelectorAll("tr.chosen")) other.classList.remove("chosen");
  row.classList.add("chosen");
  goTo(facts.lesions[Number(row.dataset.lesion)]);
  element("viewer").scrollIntoView({ block: "nearest" });
}

// ---- Start

function listen() {
  const canvas = element("canvas");
  // In the capture phase of its parent: before niivue's own listeners on the canvas.
  for (const kind of ["keydown", "keyup"]) canvas.parentElement.addEventListener(kind, pressKey, true);
  for (const layer of layers) {
    switches(layer.key).addEventListener("change", () => showOpacity(layer.key));
    opacities(layer.key).addEventListener("input", () => showOpacity(layer.key));
  }
  element("threshold").addEventListener("input", moveThreshold);
  element("reset").addEventListener("click", () => {
    element("threshold").value = facts.start;
    moveThreshold();
  });
  for (const row of document.querySelectorAll("tr[data-lesion]")) row.addEventListener("click", () => chooseLesion(row));
  const views = document.querySelectorAll("[data-view]");
  for (const view of views) {
    view.addEventListener("click", () => {
      for (const other of views) other.setAttribute("aria-pressed", String(other === view));
      viewer.setSliceType(Number(view.dataset.view));
    });
  }
}

async function start() {
  if (!hasWebgl2()) throw new Error("no WebGL 2");
  page.classList.add("viewer");  // before niivue measures its canvas
  viewer = new niivue.Niivue({
    logLevel: "error",
    dragAndDropEnabled: false,
    show3Dcrosshair: true,
    crosshairColor: [0.4, 0.85, 0.75, 0.9],
    crosshairWidth: 0.8 / Math.hypot(...facts.affine.slice(0, 3).map((row) => row[0])),  // 0.8 mm, told in voxels
    multiplanarLayout: 2,  // a square of four
    multiplanarShowRender: 1,  // always
    isNearestInterpolation: false,
    scrollRequiresFocus: true,
  });
  await viewer.attachToCanvas(element("canvas"), smooth);
  // The scores are needed for the mask, shown or not.
  for (const layer of layers) if (layer.shown || layer.key === "score") await unpack(layer);
  ranks = layerOf("score").volume.img;
  countAbove();
  makeMask(facts.start);
  showFirst();
  viewer.onLocationChange = tellPlace;
  listen();
  tellThreshold(facts.start);
  // From the side that the crosshair is on.
  viewer.setRenderAzimuthElevation(facts.focus[0] < facts.shape[0] / 2 ? 110 : 250, 15);
  goTo(facts.focus);
  performance.mark("ready");
  page.dataset.ready = "viewer";
  arriveAll();
}

start().catch((problem) => {
  // The still pictures are there already.
  page.classList.remove("viewer");
  element("no-viewer").textContent += ` (${problem.message})`;
  page.dataset.ready = "stills";
});
