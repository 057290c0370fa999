// The page of the desk.  Everything it shows comes over one WebSocket, everything it does goes there;
// the messages are described in docs/desk.md.
"use strict";

const OFF_BELOW = -42; // a fader's lowest step below this is silence
const FLOOR = -60; // the meters' lower end, dBFS
const COLUMNS = 600; // of the spectrogram
const HOLD = 1200; // ms for which a meter's peak stays
const OURS = 400; // ms after our own move in which others' values do not pull a fader away
const $ = (id) => document.getElementById(id);

let socket = null;
let state = null;
let hello = null;
let strips = new Map();
let touched = new Map(); // parameter -> when we moved it last
let pending = new Map(); // parameter -> value still to be sent
let asked = 0;

// ---- connection

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") return draw(new Uint8Array(data));
    const message = JSON.parse(data);
    ({ hello: onHello, state: onState, meters: onMeters, error: onError }[message.type] || (() => {}))(message);
  };
  socket.onclose = () => {
    document.body.classList.add("lost");
    trouble("No connection to the desk; trying again …");
    setTimeout(connect, 700);
  };
  socket.onopen = () => document.body.classList.remove("lost");
}

function send(message) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ id: ++asked, ...message }));
}

// A move is sent at once, and those that follow it 30 times a second, the newest of each parameter.
let waiting = false;

function set(name, value) {
  touched.set(name, performance.now());
  pending.set(name, value);
  if (!waiting) flush();
}

function flush() {
  waiting = pending.size > 0;
  if (!waiting) return;
  send({ type: "set", values: Object.fromEntries(pending) });
  pending.clear();
  setTimeout(flush, 33);
}

// ---- what comes in

function onHello(message) {
  hello = message;
  $("presets").replaceChildren(...message.presets.map((preset, i) => {
    const button = document.createElement("button");
    button.textContent = preset.title;
    button.dataset.preset = preset.name;
    if (i < 9) button.setAttribute("aria-keyshortcuts", String(i + 1));
    button.onclick = () => { touched.clear(); send({ type: "preset", name: preset.name }); };
    return button;
  }));
  options($("model"), message.models.map((model) => [model.name, [
    model.name,
    model.latency_ms == null ? "" : `${model.latency_ms.toFixed(0)} ms`,
    model.quality == null ? "" : `${model.quality.toFixed(1)} dB`,
  ].filter(Boolean).join(" · ")]));
  fillDevices();
  checks($("chain"), message.effects, [], chain);
  if (message.preset_trouble) trouble(message.preset_trouble);
}

function fillDevices() {
  for (const side of ["input", "output"]) {
    const known = hello.devices.filter((d) => d.kinds.includes(side)).map((d) => [d.use, d.name]);
    const now = state ? state[side] : null;
    const list = [["", "the default device"], ["null", "none (null device)"], ...known];
    if (now && !list.some(([value]) => value === now)) list.push([now, now.split("/").pop()]);
    options($(side), list);
    $(side).value = now || "";
  }
}

function options(select, list) {
  select.replaceChildren(...list.map(([value, text]) => new Option(text, value)));
}

function onState(message) {
  const before = state;
  state = message;
  const names = stripNames();
  if (names.join() !== [...strips.keys()].join()) buildStrips(names);
  showFaders();
  showButton($("bypass"), state.values.bypass);
  showRack();
  const wet = Math.round(100 * state.values.wet);
  if (!ours("wet")) $("wet").value = wet;
  $("wet-value").textContent = `${wet} %`;
  for (const button of $("presets").children) showButton(button, button.dataset.preset === state.preset);
  showButton($("record"), state.recording);
  $("model-now").textContent = state.switching ? `${state.model} → ${state.switching} …` : state.model;
  if (document.activeElement !== $("model")) $("model").value = state.switching || state.model;
  $("device-now").textContent = state.device;
  $("latency").textContent = state.latency ? `${state.latency.ms.toFixed(1)} ms` : "–";
  $("latency").title = state.latency && state.latency.device_ms
    ? `and ${state.latency.device_ms.toFixed(1)} ms in the device` : "";
  trouble(state.running ? (hello && hello.preset_trouble) || "" : problem(state.trouble));
  if (hello && (!before || before.input !== state.input || before.output !== state.output)) fillDevices();
  if (!before || before.buses.join() !== state.buses.join()) buildBuses();
  if (!state.recording) $("recorded").textContent = chosenBuses().join(", ");
  $("notices").replaceChildren(...state.notices.toReversed().map((notice) => {
    const item = document.createElement("li");
    item.textContent = `${new Date(1000 * notice.time).toLocaleTimeString()}  ${notice.text}`;
    return item;
  }));
}

let later = 0;

function showFaders() {
  for (const strip of strips.values()) strip.show?.();
  clearTimeout(later);
  if ([...touched.keys()].some(ours)) later = setTimeout(showFaders, OURS);
}

function problem(text) {
  return text === "starting" ? "Starting …" : `${text} – starting again …`;
}

function trouble(text) {
  if ($("trouble").textContent !== text) $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function onError(message) {
  const item = document.createElement("li");
  item.textContent = message.message;
  $("notices").prepend(item);
  $("more").open = true;
}

function onMeters(message) {
  const levels = message.levels || {};
  for (const [name, strip] of strips) strip.level(levels[name] ?? null);
  if (message.load === undefined) return;
  $("load").textContent = `${(100 * message.load).toFixed(0)} %`;
  figure($("late"), message.late);
  figure($("xruns"), message.xruns);
  if (message.recorded != null) $("recorded").textContent = clock(message.recorded);
}

// What has just happened stands out; what is long past is a number.
const happened = new Map();

function figure(element, count) {
  const before = happened.get(element.id) ?? { count, at: -Infinity };
  if (count > before.count) before.at = performance.now();
  happened.set(element.id, { count, at: before.at });
  element.textContent = count;
  element.classList.toggle("warn", performance.now() - before.at < 8000);
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

function ours(name) {
  return performance.now() - (touched.get(name) ?? -Infinity) < OURS;
}

function showButton(button, on) {
  button.setAttribute("aria-pressed", String(Boolean(on)));
}

// ---- strips

function stripNames() {
  const own = state.parameters.filter((p) => p.kind === "level" && p.name !== "master").map((p) => p.name);
  // With two stems the other one is the music.
  const shown = state.stems.length <= 2 ? own.filter((n) => n === "vocals" || n === "music") : own;
  return ["input", ...shown, "master", "output"];
}

function buildStrips(names) {
  strips = new Map(names.map((name) => [name, makeStrip(name)]));
  $("strips").replaceChildren(...[...strips.values()].map((strip) => strip.element));
}

function makeStrip(name) {
  const element = $("strip").content.firstElementChild.cloneNode(true);
  const parameter = state.parameters.find((p) => p.name === name);
  const label = parameter ? parameter.label : name === "input" ? "Input" : "Output";
  element.dataset.name = parameter && !["vocals", "music", "master"].includes(name) ? "stem" : name;
  element.id = `strip-${name}`;
  element.querySelector("h2").textContent = label;
  const text = element.querySelector(".level");
  const meter = element.querySelector(".meter");
  const bar = meter.querySelector("i");
  const peak = meter.querySelector("u");
  meter.setAttribute("aria-label", `${label} level`);
  let held = FLOOR, heldAt = 0, said = 0;
  const level = (db) => {
    const value = Math.max(db ?? FLOOR, FLOOR), now = performance.now();
    bar.style.clipPath = `inset(${(100 * value) / FLOOR}% 0 0 0)`;
    if (value >= held || now - heldAt > HOLD) [held, heldAt] = [value, now];
    peak.style.bottom = `${100 * (1 - held / FLOOR)}%`;
    if (now - said > 500) {
      said = now;
      meter.setAttribute("aria-valuenow", value.toFixed(0));
      meter.setAttribute("aria-valuetext", db == null ? "silence" : `${db.toFixed(0)} dB`);
      if (!parameter) showLevel(text, db == null ? null : held, 0);
    }
  };
  const fader = element.querySelector(".fader");
  if (!parameter) {
    element.classList.add("fixed");
    fader.remove();
    element.querySelector(".scale").remove();
    element.querySelectorAll("button").forEach((button) => { button.disabled = true; });
    return { element, level };
  }
  if (name === "master") {
    meter.remove();
    element.querySelector(".toggles").style.visibility = "hidden";
    element.querySelectorAll("button").forEach((button) => { button.disabled = true; });
  }
  fader.id = `fader-${name}`;
  fader.setAttribute("aria-label", label);
  text.htmlFor = fader.id;
  const scale = element.querySelector(".scale");
  for (const db of [6, 0, -6, -12, -24, -36]) {
    const mark = document.createElement("span");
    mark.textContent = db > 0 ? `+${db}` : String(db).replace("-", "−");
    mark.style.bottom = `calc(15px + (100% - 30px) * ${(db + 42.5) / 48.5})`;
    scale.append(mark);
  }
  const position = () => (Number(fader.value) < OFF_BELOW ? null : Number(fader.value));
  const tell = (db) => {
    showLevel(text, db, 1);
    fader.setAttribute("aria-valuetext", db == null ? "off" : `${db.toFixed(1)} dB`);
  };
  fader.oninput = () => { set(name, position()); tell(position()); };
  fader.ondblclick = () => { fader.value = 0; fader.oninput(); };
  const toggles = ["mute", "solo"].map((kind) => {
    const button = element.querySelector(`.${kind}`);
    button.setAttribute("aria-label", `${label}: ${kind}`);
    button.onclick = () => set(`${name}.${kind}`, state.values[`${name}.${kind}`] ? 0 : 1);
    return [kind, button];
  });
  const show = () => {
    const db = state.values[name];
    if (!ours(name)) {
      fader.value = db == null ? -42.5 : db;
      tell(db);
    }
    for (const [kind, button] of toggles) showButton(button, state.values[`${name}.${kind}`]);
  };
  return { element, level: name === "master" ? () => {} : level, show, fader };
}

function showLevel(element, db, digits) {
  if (db == null) {
    element.textContent = "off";
    if (!digits) element.textContent = "–";
    return;
  }
  const text = db.toFixed(digits).replace("-", "−");
  element.innerHTML = "<small>dB</small>";
  element.prepend(digits && db > 0 ? `+${text}` : text);
}

// ---- effects

function checks(fieldset, names, on, change) {
  fieldset.replaceChildren(fieldset.firstElementChild, ...names.map((name) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.value = name;
    box.checked = on.includes(name);
    box.onchange = change;
    label.append(box, name);
    return label;
  }));
}

function checked(fieldset) {
  return [...fieldset.querySelectorAll("input:checked")].map((box) => box.value);
}

// Effects keep the order in which they were chosen.
function chain() {
  const wanted = checked($("chain")), kept = state.effects.filter((name) => wanted.includes(name));
  send({ type: "effects", names: [...kept, ...wanted.filter((name) => !kept.includes(name))] });
}

function showRack() {
  for (const box of $("chain").querySelectorAll("input")) box.checked = state.effects.includes(box.value);
  $("midi").hidden = !state.midi;
  const every = state.parameters.map((p) => [p.name, p.label]);
  if (state.midi && $("midi-name").length !== every.length) options($("midi-name"), every);
  const turns = state.parameters.filter((p) => p.kind === "number" && p.name.includes("."));
  const names = turns.map((p) => p.name).join();
  if (names !== $("turns").dataset.names) {
    $("turns").dataset.names = names;
    $("turns").replaceChildren(...turns.map((p) => {
      const line = document.createElement("label"), label = document.createElement("span");
      const slider = document.createElement("input"), value = document.createElement("output");
      line.className = "line";
      label.textContent = p.label;
      Object.assign(slider, { id: `turn-${p.name}`, type: "range", min: p.minimum, max: p.maximum });
      slider.step = p.name.endsWith("semitones") ? 1 : "any";
      slider.oninput = () => { set(p.name, Number(slider.value)); slider.show(Number(slider.value)); };
      slider.show = (number) => { value.textContent = `${+number.toPrecision(3)} ${p.unit}`.replace("-", "−"); };
      line.append(label, slider, value);
      return line;
    }));
  }
  for (const p of turns) {
    const slider = $(`turn-${p.name}`);
    if (ours(p.name)) continue;
    slider.value = state.values[p.name];
    slider.show(state.values[p.name]);
  }
}

// ---- recording

function buildBuses() {
  checks($("buses"), state.buses, ["output"], () => {
    if (!state.recording) $("recorded").textContent = chosenBuses().join(", ");
  });
}

function chosenBuses() {
  return checked($("buses"));
}

function record() {
  send({ type: "record", on: !state.recording, ...(state.recording ? {} : { buses: chosenBuses() }) });
}

// ---- the picture: columns enter on the right

const ring = document.createElement("canvas"); // columns in a ring, so that nothing is moved
ring.width = COLUMNS;
let next = 0;

function draw(bytes) {
  const bands = hello ? hello.spectrum.bands : 96;
  if (ring.height !== bands) ring.height = bands;
  const paint = ring.getContext("2d");
  for (let at = 0; at + 2 * bands <= bytes.length; at += 2 * bands) {
    const column = paint.createImageData(1, bands);
    for (let band = 0; band < bands; band++) {
      const loud = bytes[at + band] / 255, voice = bytes[at + bands + band] / 255;
      const light = loud * loud, glow = Math.max(0, loud - 0.62) * 1.6;
      const place = 4 * (bands - 1 - band);
      column.data[place] = 255 * Math.min(1, light * (0.16 + 1.25 * voice) + glow * 0.5);
      column.data[place + 1] = 255 * Math.min(1, light * (0.42 - 0.2 * voice) + glow * 0.55);
      column.data[place + 2] = 255 * Math.min(1, light * (1.35 - 1.1 * voice) + glow * 0.5);
      column.data[place + 3] = 255;
    }
    paint.putImageData(column, next, 0);
    next = (next + 1) % COLUMNS;
  }
  const canvas = $("spectrum"), ratio = devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const onto = canvas.getContext("2d"), first = COLUMNS - next, step = width / COLUMNS;
  onto.imageSmoothingEnabled = true;
  onto.drawImage(ring, next, 0, first, bands, 0, 0, first * step, height);
  if (next) onto.drawImage(ring, 0, 0, next, bands, first * step, 0, next * step, height);
}

// ---- hands

$("bypass").onclick = () => set("bypass", state.values.bypass ? 0 : 1);
$("record").onclick = record;
$("midi-learn").onclick = () => send({ type: "learn", name: $("midi-name").value });
$("wet").oninput = () => {
  set("wet", Number($("wet").value) / 100);
  $("wet-value").textContent = `${$("wet").value} %`;
};
$("model").onchange = () => { send({ type: "model", name: $("model").value }); $("model").blur(); };
for (const side of ["input", "output"]) {
  $(side).onchange = () => send({ type: "device", [side]: $(side).value });
}

function nudge(name, step) {
  const fader = strips.get(name)?.fader;
  if (!fader) return;
  fader.value = Number(fader.value) + step;
  fader.oninput();
}

document.addEventListener("keydown", (event) => {
  if (!state || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.matches("select, input[type=text]")) return;
  const act = {
    v: () => nudge("vocals", -2), V: () => nudge("vocals", 2),
    m: () => nudge("music", -2), M: () => nudge("music", 2),
    b: () => $("bypass").click(), r: record,
  }[event.key];
  const preset = /^[1-9]$/.test(event.key) ? $("presets").children[event.key - 1] : null;
  if (act || preset) event.preventDefault();
  act?.();
  preset?.click();
});

connect();
