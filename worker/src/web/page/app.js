// The page: a wall of cameras, the list of events and the workers, kept up to date by /api/stream.
"use strict";

const STALE_MS = 10_000; // The stream says something every three seconds.
const MOST_EVENTS = 500;
const $ = (id) => document.getElementById(id);

const state = {
  status: null, events: [], next: null, filter: "", stream: null,
  heard: 0, statusAt: 0, statusAge: null, connected: false, announced: new Set(), view: "wall", lastId: null,
};

// ---- Small helpers ----

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") node.className = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function ago(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

const since = (time) => ago((Date.now() - Date.parse(time)) / 1000);
const percent = (p) => (p === null || p === undefined ? "–" : `${Math.round(p * 100)} %`);
const clock = (time) => {
  const date = new Date(time);
  const day = date.toDateString() === new Date().toDateString() ? "" : `${date.toLocaleDateString()} `;
  return day + date.toLocaleTimeString();
};

/** Brings a list of nodes in line with items by key, so that focus and open details stay where they are. */
function reconcile(list, items, key, build, update) {
  const known = new Map([...list.children].map((node) => [node.dataset.key, node]));
  let place = list.firstElementChild;
  for (const item of items) {
    const id = String(key(item));
    let node = known.get(id);
    if (node) known.delete(id);
    else {
      node = build(item);
      node.dataset.key = id;
    }
    if (node === place) place = place.nextElementSibling;
    else list.insertBefore(node, place);
    update(node, item);
  }
  for (const node of known.values()) node.remove();
}

const part = (node, name) => node.querySelector(`[data-part="${name}"]`);

// ---- Cameras ----

function buildCamera(camera) {
  const gauge = (name, label, attributes) =>
    make("div", { class: "gauge" },
      make("span", { class: "dim", "aria-hidden": "true" }, label),
      make("meter", { "data-part": name, "aria-label": `${label} of ${camera.name}`, ...attributes }),
      make("span", { "data-part": `${name}-text` }));
  return make("li", { class: "card" },
    make("div", { class: "top" }, make("h3", {}, camera.name), make("span", { class: "state", "data-part": "state" })),
    gauge("level", "Level", { min: -90, max: 0, value: -90 }),
    gauge("score", "Cry", { min: 0, max: 1, low: 0.3, high: 0.5, optimum: 0, value: 0 }),
    make("p", { "data-part": "cry" }),
    make("p", { class: "dim", "data-part": "error" }),
    make("p", { class: "actions" },
      make("a", { class: "button", href: `#live/${encodeURIComponent(camera.name)}/sound`, "aria-label": `Listen to ${camera.name}` }, "Listen"),
      make("a", { class: "button", href: `#live/${encodeURIComponent(camera.name)}`, "aria-label": `Watch ${camera.name}` }, "Watch"),
      make("a", { href: `#timeline/${encodeURIComponent(camera.name)}`, "aria-label": `Timeline of ${camera.name}` }, "Timeline")));
}

function updateCamera(node, camera) {
  const look = camera.crying ? "crying" : { live: "good", ended: "good", offline: "bad" }[camera.state] || "warn";
  node.className = `card ${look}`;
  put(part(node, "state"), camera.crying ? "CRYING" : camera.state === "offline" ? "NOT HEARD" : camera.state);
  part(node, "level").value = camera.level_dbfs ?? -90;
  put(part(node, "level-text"), camera.level_dbfs === null ? "–" : `${camera.level_dbfs.toFixed(0)} dBFS`);
  part(node, "score").value = camera.score ?? 0;
  put(part(node, "score-text"), percent(camera.score));
  const cry = camera.last_cry;
  put(part(node, "cry"), !cry ? "No cry among the newest events"
    : camera.crying ? `Crying for ${since(cry.onset)}, ${percent(cry.score)} sure`
      : `Last cry ${since(cry.onset)} ago, ${percent(cry.score)} sure`);
  const age = camera.last_audio_age_s;
  const silent = camera.state !== "live" && age !== null ? `Last heard ${ago(age)} ago. ` : "";
  put(part(node, "error"), silent + (camera.last_error ?? ""));
}

const urgency = (camera) => (camera.crying ? 0 : camera.state === "offline" ? 1 : camera.state === "live" ? 3 : 2);

function showCameras() {
  const cameras = [...state.status.cameras].sort((a, b) => urgency(a) - urgency(b) || a.name.localeCompare(b.name));
  reconcile($("cameras"), cameras, (c) => c.name, buildCamera, updateCamera);
  const crying = cameras.filter((c) => c.crying).map((c) => c.name);
  const lost = cameras.filter((c) => c.state === "offline").map((c) => c.name);
  const parts = [];
  if (crying.length) parts.push(`Crying: ${crying.join(", ")}.`);
  if (lost.length) parts.push(`Not heard: ${lost.join(", ")}.`);
  put($("summary"), parts.length ? parts.join(" ") : `${cameras.length} cameras, all quiet.`);
  document.title = crying.length ? `CRYING: ${crying.join(", ")}` : "nursery";
  const filter = $("filter");
  const names = cameras.map((c) => c.name).sort();
  if ([...filter.options].slice(1).map((o) => o.value).join("\n") !== names.join("\n")) {
    filter.replaceChildren(make("option", { value: "" }, "all"), ...names.map((n) => make("option", { value: n }, n)));
    filter.value = state.filter;
  }
}

// ---- Events ----

const WHAT = {
  "cry.started": "Cry began", "cry.ended": "Cry ended",
  "motion.started": "Motion began", "motion.ended": "Motion ended",
  "camera.offline": "Camera not heard", "camera.online": "Camera heard again",
};

function describe(event) {
  const data = event.data ?? {};
  const parts = [];
  if (event.type === "cry.started") parts.push(`${percent(data.score)} sure`);
  if (event.type === "cry.ended") parts.push(`${percent(data.peak_score)} sure at most`, `lasted ${ago(data.duration_s ?? 0)}`);
  if (event.type === "camera.offline") parts.push(data.reason ?? "");
  if (event.type === "motion.started") parts.push(`${percent(data.motion)} of the picture`);
  if (event.type === "motion.ended") parts.push(`lasted ${ago(data.duration_s ?? 0)}`);
  if (event.type === "camera.online") parts.push(`away for ${ago(data.duration_s ?? 0)}`);
  return parts.filter(Boolean).join(", ");
}

function buildEvent(event) {
  const kind = event.type.startsWith("cry") ? "cry" : event.type.endsWith("offline") ? "offline" : "online";
  return make("li", { class: kind },
    make("span", { class: "what" }, `${WHAT[event.type] ?? event.type}: ${event.data?.camera ?? ""}`),
    make("time", { datetime: event.timestamp }, clock(event.timestamp)),
    make("span", { class: "more" }, describe(event),
      kind === "cry" ? make("a", { href: `#event/${event.data.event_id}`, "aria-label": `Details of the cry at ${event.data.camera}, ${clock(event.timestamp)}` }, "Details") : null));
}

function showEvents() {
  const concerns = (event) => (event.data?.camera ?? "").split(", ").includes(state.filter);
  const events = state.filter ? state.events.filter(concerns) : state.events;
  reconcile($("event-list"), events, (e) => e.id, buildEvent, () => {});
  put($("events-note"), events.length ? "" : "No events.");
  $("older").hidden = state.next === null || state.events.length >= MOST_EVENTS;
}

function addEvents(events) {
  const known = new Set(state.events.map((e) => e.id));
  const fresh = events.filter((e) => !known.has(e.id));
  state.events = [...state.events, ...fresh].sort((a, b) => b.id - a.id).slice(0, MOST_EVENTS);
}

async function loadEvents(older) {
  const query = new URLSearchParams({ limit: "50" });
  if (state.filter) query.set("camera", state.filter);
  if (older && state.next !== null) query.set("before", String(state.next));
  const filter = state.filter;
  const response = await fetch(`/api/events?${query}`).catch(() => null);
  if (!response?.ok) {
    if (response?.status === 401) return showLogin();
    put($("events-note"), "Events could not be loaded; they will be tried again.");
    setTimeout(() => loadEvents(older), 2000);
    return;
  }
  const page = await response.json();
  if (filter !== state.filter) return;
  if (!older) state.events = [];
  addEvents(page.events);
  state.next = page.next;
  showEvents();
}

/** Says aloud what somebody who does not look should hear, each thing once. */
function announce(event) {
  if (state.announced.has(event.id)) return;
  state.announced.add(event.id);
  const camera = event.data?.camera ?? "a camera";
  if (event.type === "cry.started") put($("announcer"), `Crying: ${camera}`);
  if (event.type === "cry.ended") put($("announcer"), `${camera}: crying has ended`);
  if (event.type === "camera.offline") put($("announcer"), `Camera not heard: ${camera}`);
}

// ---- Workers ----

function buildWorker(worker) {
  return make("li", { class: "card" },
    make("div", { class: "top" }, make("h3", {}, worker.name), make("span", { class: "state", "data-part": "state" })),
    make("p", { class: "dim", "data-part": "figures" }),
    make("p", { "data-part": "exit" }),
    make("details", {}, make("summary", { "data-part": "cage" }), make("ul", { "data-part": "walls" })));
}

function updateWorker(node, worker) {
  const look = worker.state === "running" ? "good" : worker.state === "backoff" ? "bad" : "warn";
  node.className = `card ${look}`;
  put(part(node, "state"), worker.state);
  const megabytes = (worker.rss_bytes / 1e6).toFixed(0);
  put(part(node, "figures"),
    `up ${ago(worker.uptime_s)}, ${worker.restarts} restarts, ${megabytes} MB, ${worker.cpu_s.toFixed(1)} s of processor`);
  put(part(node, "exit"), worker.last_exit ? `Last end: ${worker.last_exit}` : "");
  const cage = worker.cage;
  const missing = cage?.missing ?? [];
  put(part(node, "cage"), !cage ? "Cage: not said yet"
    : missing.length ? `Cage: ${missing.length} walls missing` : "Cage: whole");
  const lines = cage ? [
    ...missing.map((m) => `missing: ${m.guard}: ${m.why}`),
    ...cage.in_force.map((g) => `in force: ${g}`),
    ...(cage.system_calls === null ? [] : [`${cage.system_calls} system calls`]),
  ] : [];
  reconcile(part(node, "walls"), lines, (l) => l, (l) => make("li", {}, l), () => {});
}

function showWorkers() {
  const s = state.status;
  put($("service"), `nursery ${s.version}, up ${ago(s.uptime_s)}; model ${s.inference.model.id}; ` +
    `${s.inference.scored} windows scored, ${s.inference.quarantined} set aside, latency ${s.inference.latency_ms.p99.toFixed(0)} ms (p99); ` +
    `${s.alerts.pending} alerts pending, ${s.alerts.delivered} delivered${s.alerts.failing_since ? `, failing since ${clock(s.alerts.failing_since)}` : ""}.`);
  reconcile($("worker-list"), s.workers, (w) => w.name, buildWorker, updateWorker);
}

// ---- What is seen ----

function show() {
  if (!state.status) return;
  showCameras();
  if (state.view === "workers") showWorkers();
}

function go() {
  // Some views are of something: #timeline/NAME.
  const [wanted, argument = ""] = location.hash.slice(1).split("/");
  state.view = document.getElementById(wanted)?.classList.contains("view") ? wanted : "wall";
  for (const view of document.querySelectorAll(".view")) view.hidden = view.id !== state.view || !$("login").hidden;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  show();
  dispatchEvent(new CustomEvent("nursery:view", { detail: { view: state.view, argument: decode(argument) } }));
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function freshness() {
  if (!$("login").hidden) return void ($("freshness").hidden = true);
  const now = Date.now();
  const silent = now - state.heard > STALE_MS;
  const old = !silent && state.statusAt && now - state.statusAt > STALE_MS;
  const age = state.statusAt ? ` What you see is ${ago((now - state.statusAt) / 1000)} old.` : "";
  const text = silent || !state.connected ? `Not connected; trying again.${age}`
    : old ? `The service does not say how it is.${age}` : "";
  // A short interruption is nothing to shout about.
  const tell = text && (silent || old || now - state.heard > 3000);
  $("freshness").hidden = !tell;
  document.body.classList.toggle("out-of-date", Boolean(tell));
  if (tell) put($("freshness"), `Not up to date: ${text}`);
}

// ---- The stream ----

function listen() {
  state.stream?.close();
  const stream = new EventSource("/api/stream");
  state.stream = stream;
  const on = (name, act) => stream.addEventListener(name, (message) => {
    state.heard = Date.now();
    state.connected = true;
    act(JSON.parse(message.data));
    freshness();
  });
  on("hello", () => {});
  on("ping", () => {});
  on("status", (status) => {
    state.status = status;
    state.statusAt = Date.now();
    show();
  });
  on("event", (event) => {
    addEvents([event]);
    announce(event);
    showEvents();
    dispatchEvent(new CustomEvent("nursery:event", { detail: event }));
  });
  on("reset", () => loadEvents(false));
  stream.onerror = () => {
    state.connected = false;
    freshness();
    // A browser gives up after some answers, such as 401 or 503.
    if (stream.readyState === EventSource.CLOSED && state.stream === stream) setTimeout(begin, 2000);
  };
}

// ---- Login ----

function showLogin() {
  state.stream?.close();
  state.stream = null;
  const first = $("login").hidden;
  $("login").hidden = false;
  $("logout").hidden = true;
  go();
  freshness();
  if (first) $("password").focus();
}

async function begin() {
  const response = await fetch("/api/session").catch(() => null);
  if (!response?.ok) {
    state.connected = false;
    freshness();
    return void setTimeout(begin, 2000);
  }
  const session = await response.json();
  if (!session.logged_in) return showLogin();
  $("login").hidden = true;
  $("logout").hidden = !session.login_required;
  state.heard = Date.now();
  go();
  listen();
  loadEvents(false);
  dispatchEvent(new Event("nursery-begun"));
}

async function login(submit) {
  submit.preventDefault();
  const button = $("login-form").querySelector("button");
  button.disabled = true;
  put($("login-error"), "");
  const response = await fetch("/api/login", {
    method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ password: $("password").value }),
  }).catch(() => null);
  button.disabled = false;
  if (response?.ok) {
    $("password").value = "";
    return begin();
  }
  const wait = response?.headers.get("Retry-After");
  put($("login-error"), response?.status === 401 ? "That password is wrong."
    : wait ? `Too many attempts: try again in ${wait} s.` : "The service does not answer.");
}

async function logout() {
  await fetch("/api/logout", { method: "POST" }).catch(() => null);
  state.status = null;
  state.events = [];
  location.reload();
}

addEventListener("hashchange", go);
$("login-form").addEventListener("submit", login);
$("logout").addEventListener("click", logout);
$("older").addEventListener("click", () => loadEvents(true));
$("filter").addEventListener("change", () => {
  state.filter = $("filter").value;
  state.events = [];
  loadEvents(false);
});
// A phone that wakes up looks at once, and does not wait for its browser to notice.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && $("login").hidden && Date.now() - state.heard > STALE_MS) begin();
});
setInterval(() => {
  freshness();
  // A connection that is dead without an error.
  if (state.stream && Date.now() - state.heard > 2 * STALE_MS) {
    state.heard = Date.now() - STALE_MS;
    listen();
  }
}, 1000);
begin();
