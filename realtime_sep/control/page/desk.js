// The page of the desk.  Everything it shows comes over one WebSocket, everything it does goes there;
// the messages are described in docs/desk.md.
"use strict";

const OFF_BELOW = -42; // a fader's lowest step below this is silence
const FLOOR = -60; // the meters' lower end, dBFS
const COLUMNS = 600; // of the spectrogram
const HOLD = 1200; // ms for which a meter's peak stays
const MAIN = 6; // parameters of an effect that are seen at once
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
    ({ hello: onHello, state: onState, meters: onMeters, error: onError, ok: onOk }[message.type] || (() => {}))(message);
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
  effects = message.effects.map((name) => ({ use: name, name: "" }));
  fillEffects();
  if (message.preset_trouble) trouble(message.preset_trouble);
}

// What is chosen where: the kind of device, what stands for none of ours, and what is chosen now.
const CHOOSERS = {
  input: ["input", "the default device", () => state.input],
  output: ["output", "the default device", () => state.output],
  microphone: ["input", "no microphone", () => state.second.microphone],
  monitor: ["output", "no monitor", () => state.second.monitor],
};

function fillDevices() {
  for (const [id, [kind, without, chosen]] of Object.entries(CHOOSERS)) {
    const known = hello.devices.filter((d) => d.kinds.includes(kind)).map((d) => [d.use, d.name]);
    const now = state ? chosen() : null;
    const list = [["", without], ["null", "silence (null device)"], ...known];
    if (now && !list.some(([value]) => value === now)) list.push([now, now === "main" ? "channels of the first device" : now.split("/").pop()]);
    options($(id), list);
    $(id).value = now || "";
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
  showEars();
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
  $("mic-figure").hidden = !state.microphone;
  if (state.microphone) {
    $("mic-latency").textContent = `${state.microphone.ms.toFixed(1)} ms`;
    $("mic-figure").title = `${state.microphone.device}: and ${state.microphone.device_ms.toFixed(1)} ms in devices`;
  }
  trouble(state.running ? (hello && hello.preset_trouble) || "" : problem(state.trouble));
  const chosen = ({ input, output, second }) => JSON.stringify([input, output, second]);
  if (hello && (!before || chosen(before) !== chosen(state))) fillDevices();
  if (!before || before.buses.join() !== state.buses.join()) buildBuses();
  if (!state.recording) $("recorded").textContent = chosenBuses().join(", ");
  $("notices").replaceChildren(...state.notices.toReversed().map((notice) => {
    const item = document.createElement("li");
    item.textContent = `${new Date(1000 * notice.time).toLocaleTimeString()}  ${notice.text}`;
    return item;
  }));
  const newest = state.notices.at(-1);
  if (newest && newest.time > told) tell(newest.text);
  told = Math.max(told, newest?.time ?? 0);
}

// What has just been said is seen for a while, wherever one looks.
let told = Date.now() / 1000 - 30, hush = 0;

function tell(text) {
  $("news").textContent = text;
  $("news").hidden = false;
  clearTimeout(hush);
  hush = setTimeout(() => { $("news").hidden = true; }, 8000);
}

let later = 0;

function showFaders() {
  for (const strip of strips.values()) strip.show?.();
  for (const turn of turns.values()) turn.show();
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
  tell(message.message);
}

function onMeters(message) {
  const levels = message.levels || {};
  for (const [name, strip] of strips) strip.level(levels[name] ?? null);
  for (const [name, { there }] of Object.entries(message.beside || {})) strips.get(name)?.there(there);
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

function parameter(name) {
  return state.parameters.find((p) => p.name === name);
}

function stripNames() {
  // With two stems the other one is the music.
  const stems = state.stems.length <= 2 ? [] : state.stems.filter((n) => n !== "vocals");
  const beside = (name) => (parameter(name) ? [name] : []);
  return ["input", "vocals", "music", ...stems, ...beside("mic"), "master", "output", ...beside("monitor")];
}

function buildStrips(names) {
  strips = new Map(names.map((name) => [name, makeStrip(name)]));
  $("strips").replaceChildren(...[...strips.values()].map((strip) => strip.element));
  $("strips").classList.toggle("many", names.length > 5);
}

function makeStrip(name) {
  const element = $("strip").content.firstElementChild.cloneNode(true);
  const described = parameter(name);
  const label = described ? described.label : name === "input" ? "Input" : "Output";
  element.dataset.name = state.stems.includes(name) && name !== "vocals" ? "stem" : name;
  element.id = `strip-${name}`;
  const title = name === "mic" ? "Mic" : label;
  element.querySelector("h2").textContent = title;
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
      if (!described) showLevel(text, db == null ? null : held, 0);
    }
  };
  const fader = element.querySelector(".fader");
  if (!described) {
    element.classList.add("fixed");
    fader.remove();
    element.querySelector(".scale").remove();
    element.querySelectorAll("button").forEach((button) => { button.disabled = true; });
    return { element, level };
  }
  if (name === "master") meter.remove();
  const has = ["mute", "solo"].filter((kind) => parameter(`${name}.${kind}`));
  for (const kind of ["mute", "solo"]) {
    if (has.includes(kind) || !has.length) continue;
    element.querySelector(`.${kind}`).remove();
  }
  if (!has.length) {
    element.querySelector(".toggles").classList.add("none");
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
  const toggles = has.map((kind) => {
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
  const there = (yes) => {
    if (element.classList.contains("away") !== yes) return;
    element.classList.toggle("away", !yes);
    element.querySelector("h2").textContent = yes ? title : `${title}: away`;
  };
  return { element, level: name === "master" ? () => {} : level, show, fader, there };
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

// ---- what else can be turned: a line each

let turns = new Map();

function makeTurn(p, text, label = text) {
  const line = document.createElement("label"), name = document.createElement("span");
  const value = document.createElement("output");
  let hand = document.createElement(p.choices?.length ? "select" : "input");
  hand.id = `turn-${p.name}`;
  hand.setAttribute("aria-label", label);
  line.className = "line turn";
  line.htmlFor = value.htmlFor = hand.id;
  name.textContent = text;
  line.append(name, hand, value);
  let read, place;
  if (p.choices?.length) {
    options(hand, p.choices.map(([title, number]) => [number, title]));
    [read, place] = [() => Number(hand.value), (number) => { hand.value = number; }];
  } else if (p.kind === "switch") {
    hand.type = "checkbox";
    [read, place] = [() => Number(hand.checked), (number) => { hand.checked = number; }];
  } else if (p.kind === "level") {
    Object.assign(hand, { type: "range", min: OFF_BELOW - 0.5, max: p.maximum, step: 0.5 });
    read = () => (Number(hand.value) < OFF_BELOW ? null : Number(hand.value));
    place = (number) => { hand.value = number ?? OFF_BELOW - 0.5; };
  } else if (p.log && p.minimum > 0) {
    Object.assign(hand, { type: "range", min: 0, max: 1, step: 0.005 });
    const ratio = p.maximum / p.minimum;
    read = () => Math.min(p.minimum * ratio ** hand.value, p.maximum);
    place = (number) => { hand.value = Math.log(number / p.minimum) / Math.log(ratio); };
  } else {
    const fine = 10 ** Math.floor(Math.log10((p.maximum - p.minimum) / 100));
    const step = p.step || (p.name.endsWith("semitones") ? 1 : fine);
    Object.assign(hand, { type: "range", min: p.minimum, max: p.maximum, step });
    [read, place] = [() => Number(hand.value), (number) => { hand.value = number; }];
  }
  const say = (number) => {
    if (hand.type !== "range") return;
    const said = number == null ? "off" : `${+number.toPrecision(3)} ${p.unit}`.replace("-", "−").trim();
    value.textContent = said;
    hand.setAttribute("aria-valuetext", said);
    hand.title = `${p.kind === "level" ? "off" : p.minimum} … ${p.maximum} ${p.unit}`.trim();
  };
  hand.oninput = () => { set(p.name, read()); say(read()); };
  const show = () => {
    const number = state.values[p.name];
    if (ours(p.name) || number === undefined) return;
    place(number);
    say(number);
  };
  turns.set(p.name, { show });
  return line;
}

// ---- the monitor: what the ear hears

function showEars() {
  const names = ["vocals", "music", "mic", "dry"].map((name) => `monitor.${name}`).filter(parameter);
  $("ears").hidden = !names.length;
  if (names.join() !== ($("ears").dataset.names ?? "")) {
    $("ears").dataset.names = names.join();
    $("ears").replaceChildren($("ears").firstElementChild, ...names.map((name) => {
      const p = parameter(name), text = p.label.split(": ").pop();
      return makeTurn(p, text[0].toUpperCase() + text.slice(1), p.label);
    }));
  }
}

// ---- chains of effects

function placeName(name) {
  if (state.stems.length <= 2 && state.stems.includes(name) && name !== "vocals") return "Music";
  return name === "mic" ? "Microphone" : name[0].toUpperCase() + name.slice(1);
}

let place = null, built = "";

function showRack() {
  const known = Object.keys(state.chains);
  const order = [...["mic", "mix"].filter((name) => known.includes(name)), ...known.filter((n) => n !== "mic" && n !== "mix")];
  if (place === null && order.some((name) => state.chains[name].length)) $("rack").open = true;
  if (!order.includes(place)) place = order.find((name) => state.chains[name].length) ?? (order.length ? "mix" : null);
  if (order.join() !== ($("places").dataset.names ?? "")) {
    $("places").dataset.names = order.join();
    $("places").replaceChildren(...order.map((name) => {
      const button = document.createElement("button");
      button.dataset.place = name;
      button.onclick = () => { place = name; showRack(); };
      return button;
    }));
  }
  for (const button of $("places").children) {
    const name = button.dataset.place, count = state.chains[name].length;
    button.textContent = placeName(name) + (count ? ` ${count}` : "");
    showButton(button, name === place);
  }
  const slots = state.chains[place] ?? [];
  const wanted = JSON.stringify([place, slots, Boolean(state.running)]);
  if (wanted !== built) {
    built = wanted;
    const focus = document.activeElement;
    const within = $("chain").contains(focus) && focus.id;
    $("chain").setAttribute("aria-label", `Effects: ${placeName(place)}`);
    $("chain").replaceChildren(...gain(), ...slots.map(makeSlot));
    if (within) ($(within) ?? $("effect")).focus();
  }
  for (const turn of turns.values()) turn.show();
  $("midi").hidden = !state.midi;
  if (state.midi && $("midi-name").length !== state.parameters.length) {
    options($("midi-name"), state.parameters.map((p) => [p.name, p.label]));
  }
}

function gain() {
  const p = place === "mic" && parameter("mic.gain");
  if (!p) return [];
  const item = document.createElement("li");
  item.className = "slot first";
  item.append(makeTurn(p, "Gain", "Microphone: gain before the effects"));
  return [item];
}

function makeSlot(slot, at, slots) {
  const item = $("slot").content.firstElementChild.cloneNode(true);
  item.setAttribute("aria-label", `${slot.name}, ${at + 1} of ${slots.length}`);
  const change = (kind, label, enabled, fields) => {
    const button = item.querySelector(`.${kind}`), here = place;
    button.id = `slot-${place}-${slot.name}-${kind}`;
    button.setAttribute("aria-label", `${slot.name}: ${label}`);
    button.title = label;
    button.disabled = !enabled;
    button.onclick = () => send({ type: "chain", place: here, name: slot.name, ...fields });
    return button;
  };
  const on = change("on", "on", !slot.failed, { do: "bypass", on: !slot.bypassed });
  on.textContent = slot.name;
  showButton(on, !slot.bypassed && !slot.failed);
  change("earlier", "earlier", at > 0, { do: "move", at: at - 1 });
  change("later", "later", at < slots.length - 1, { do: "move", at: at + 1 });
  change("remove", "remove", true, { do: "remove" });
  const late = slot.latency / (state.samplerate || 1) * 1000;
  item.querySelector("small").textContent = slot.bypassed ? "bypassed" : late ? `${late.toFixed(1)} ms` : "";
  const failed = item.querySelector(".failed");
  failed.hidden = !slot.failed;
  failed.textContent = slot.failed ? `taken out: ${slot.failed}` : "";
  const lines = slot.parameters.filter(parameter).map((name) => {
    const p = parameter(name), own = name.split(".").pop();
    const text = p.label.includes(": ") ? p.label.split(": ").pop() : p.label;
    // Alone, "Gate" may be its threshold; within the gate that is not said.
    const same = text.toLowerCase().replace(/\W/g, "") === slot.effect.split(":")[0].toLowerCase();
    return makeTurn(p, same ? own : text, `${slot.name}: ${same ? own : text}`);
  });
  item.append(...lines.slice(0, MAIN));
  if (lines.length > MAIN) {
    const rest = document.createElement("details"), summary = document.createElement("summary");
    summary.textContent = `${lines.length - MAIN} more`;
    rest.append(summary, ...lines.slice(MAIN));
    item.append(rest);
  }
  return item;
}

// Our own effects, and those of foreign plugins, which are looked for when somebody opens the rack.
let effects = [], plugins = null;

function fillEffects() {
  $("effects").replaceChildren(...[...effects, ...(plugins ?? [])].map(({ use, name }) => new Option(name, use)));
}

function onOk(message) {
  if (!message.plugins) return;
  plugins = message.plugins;
  fillEffects();
}

$("rack").ontoggle = () => {
  if ($("rack").open && !plugins?.length) send({ type: "plugins" });
};

// What was typed in full, else the first that has it in its name.
function meant(text) {
  const wanted = text.trim().toLowerCase(), all = [...effects, ...(plugins ?? [])];
  if (!wanted) return "";
  const found = all.find(({ use }) => use.toLowerCase() === wanted)
    ?? all.find(({ use, name }) => `${use} ${name}`.toLowerCase().includes(wanted));
  return found?.use ?? text.trim();
}

$("add").onsubmit = (event) => {
  event.preventDefault();
  const use = meant($("effect").value);
  if (!place || !use) return;
  // A name may end like options; a colon closes it.
  send({ type: "chain", do: "add", place, text: plugins?.some((p) => p.use === use) ? `${use}:` : use });
  $("effect").value = "";
};

// ---- recording

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

function buildBuses() {
  checks($("buses"), state.buses, ["output"], () => {
    if (!state.recording) $("recorded").textContent = chosenBuses().join(", ");
  });
}

function chosenBuses() {
  return [...$("buses").querySelectorAll("input:checked")].map((box) => box.value);
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
for (const id of Object.keys(CHOOSERS)) {
  $(id).onchange = () => send({ type: "device", [id]: $(id).value });
}

function nudge(name, step) {
  const fader = strips.get(name)?.fader;
  if (!fader) return;
  fader.value = Number(fader.value) + step;
  fader.oninput();
}

document.addEventListener("keydown", (event) => {
  if (!state || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.matches("select, input[type=search]")) return;
  const act = {
    v: () => nudge("vocals", -2), V: () => nudge("vocals", 2),
    m: () => nudge("music", -2), M: () => nudge("music", 2),
    k: () => nudge("mic", -2), K: () => nudge("mic", 2),
    i: () => document.querySelector("#strip-mic .mute")?.click(),
    b: () => $("bypass").click(), r: record,
  }[event.key];
  const preset = /^[1-9]$/.test(event.key) ? $("presets").children[event.key - 1] : null;
  if (act || preset) event.preventDefault();
  act?.();
  preset?.click();
});

connect();
