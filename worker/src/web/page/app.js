// The page: a wall of cameras, the list of events and the workers, kept up to date by /api/stream.
"use strict";

const STALE_MS = 10_000; // The stream says something every three seconds.
const MOST_EVENTS = 500;
const NEWS_MS = 60_000; // What is older is no news.
const LOST_MS = 30_000; // Of what was lost before that nobody need know now.
const ANSWER_MS = 15_000; // Who does not answer for so long does not answer.
const $ = (id) => document.getElementById(id);

const state = {
  status: null, events: [], next: null, filter: "", stream: null,
  heard: 0, statusAt: 0, connected: false, announced: new Set(), view: "wall", shown: "", begun: false,
  since: Date.now(), listenedAt: 0, why: "", skewMs: 0, lost: null, lostAt: -Infinity,
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

/** What the service's clock shows; that of a phone may be wrong. */
const serviceNow = () => Date.now() + state.skewMs;
const since = (time) => ago((serviceNow() - Date.parse(time)) / 1000);
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

/** An answer of the service, or null where there is none in time. */
async function ask(path, options = {}) {
  const hurry = new AbortController();
  const timer = setTimeout(() => hurry.abort(), ANSWER_MS);
  try {
    return await fetch(path, { signal: hurry.signal, ...options });
  } catch {
    return null;
  } finally {
    clearTimeout(timer);
  }
}

/** Why the service refuses something, in its words; "" where it does not say. */
const refusal = async (response) => (await response?.json().catch(() => null))?.error ?? "";

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
  put(part(node, "cry"), camera.crying === null ? "Not known whether it cried: events are awaited"
    : !cry ? "No cry among the newest events"
    : camera.crying ? `Crying for ${since(cry.onset)}, ${percent(cry.score)} sure`
      : `Last cry ${since(cry.onset)} ago, ${percent(cry.score)} sure`);
  const age = camera.last_audio_age_s;
  const silent = camera.state !== "live" && age !== null ? `Last heard ${ago(age)} ago. ` : "";
  put(part(node, "error"), silent + (camera.last_error ?? ""));
}

const urgency = (camera) => (camera.crying ? 0 : camera.state === "offline" ? 1 : camera.state === "live" ? 3 : 2);

/** What keeps anybody from saying that all is quiet; each a sentence. */
function doubts(status) {
  const named = (what, cameras) => (cameras.length ? [`${what}: ${cameras.map((c) => c.name).join(", ")}.`] : []);
  const heard = status.cameras.filter((c) => c.state === "live" || c.state === "ended");
  const runs = (role) => status.workers.some((w) => w.role === role && w.state === "running");
  const others = status.cameras.filter((c) => !heard.includes(c));
  return [
    ...named("Not heard", others.filter((c) => c.state === "offline")),
    ...named("Not heard at the moment", others.filter((c) => c.state !== "offline")),
    ...named("Heard, but not judged yet", heard.filter((c) => c.state === "live" && c.score === null)),
    ...(status.cameras.length ? [] : ["There is no camera."]),
    ...(runs("infer") ? [] : ["Nobody judges what is heard: no inference process runs."]),
    ...(Date.now() - state.lostAt < LOST_MS ? ["Part of what is heard is not judged: there is too much of it."] : []),
    ...(runs("sink") ? [] : ["Cries are not stored or told at the moment: the sink does not run."]),
    ...(status.alerts.failing_since ? [`Alerts have not been delivered since ${clock(status.alerts.failing_since)}.`] : []),
    ...(status.cameras.some((c) => c.crying === null) ? ["Not known what cries: events are awaited."] : []),
  ];
}

function showCameras() {
  const cameras = [...state.status.cameras].sort((a, b) => urgency(a) - urgency(b) || a.name.localeCompare(b.name));
  reconcile($("cameras"), cameras, (c) => c.name, buildCamera, updateCamera);
  const crying = cameras.filter((c) => c.crying).map((c) => c.name);
  const parts = [...(crying.length ? [`Crying: ${crying.join(", ")}.`] : []), ...doubts(state.status)];
  put($("summary"), parts.length ? parts.join(" ") : `${cameras.length} cameras, all quiet.`);
  $("summary").classList.toggle("doubtful", Boolean(parts.length));
  showTitle();
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
  "service.overloaded": "Overloaded", "service.relieved": "Overload is over",
};

function describe(event) {
  const data = event.data ?? {};
  const parts = [];
  if (event.type === "cry.started") parts.push(`${percent(data.score)} sure`);
  if (event.type === "cry.ended") parts.push(`${percent(data.peak_score)} sure at most`, `lasted ${ago(data.duration_s ?? 0)}`);
  if (event.type === "camera.offline" || event.type === "service.overloaded") parts.push(data.reason ?? "");
  if (event.type === "motion.started") parts.push(`${percent(data.motion)} of the picture`);
  if (event.type === "motion.ended") parts.push(`lasted ${ago(data.duration_s ?? 0)}`);
  if (event.type === "service.relieved") parts.push(`lasted ${ago(data.duration_s ?? 0)}`);
  if (event.type === "camera.online") parts.push(`away for ${ago(data.duration_s ?? 0)}`);
  return parts.filter(Boolean).join(", ");
}

function buildEvent(event) {
  const kind = /^(cry|motion)\./.exec(event.type)?.[1] ?? (/offline|overloaded/.test(event.type) ? "offline" : "online");
  return make("li", { class: kind },
    make("span", { class: "what" }, `${WHAT[event.type] ?? event.type}: ${event.data?.camera ?? ""}`),
    make("time", { datetime: event.timestamp }, clock(event.timestamp)),
    make("span", { class: "more" }, describe(event),
      ["cry", "motion"].includes(kind) ? make("a", { href: `#event/${event.data.event_id}`, "aria-label": `Details of the ${kind} at ${event.data.camera}, ${clock(event.timestamp)}` }, "Details") : null));
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
  const response = await ask(`/api/events?${query}`);
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
  if (state.announced.has(event.id) || serviceNow() - Date.parse(event.timestamp) > NEWS_MS) return;
  state.announced.add(event.id);
  const camera = event.data?.camera ?? "a camera";
  if (event.type === "cry.started") put($("announcer"), `Crying: ${camera}`);
  if (event.type === "cry.ended") put($("announcer"), `${camera}: crying has ended`);
  if (event.type === "camera.offline") put($("announcer"), `Camera not heard: ${camera}`);
  if (event.type === "service.overloaded") put($("announcer"), `Overloaded: ${event.data?.reason ?? ""}`);
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
  showTitle();
}

/** Goes where a link led: what is shown now has the focus, and is read. */
function follow() {
  go();
  const shown = location.hash.split("/").slice(0, 2).join("/");
  if (shown === state.shown || !$("login").hidden) return;
  state.shown = shown;
  const title = document.querySelector(`#${state.view} h2`);
  title.tabIndex = -1;
  title.focus();
}

/** What a tab says that nobody looks at. */
function showTitle() {
  const crying = state.status?.cameras.filter((c) => c.crying).map((c) => c.name) ?? [];
  const view = !$("login").hidden ? "Log in" : state.view === "wall" ? "" : document.querySelector(`#${state.view} h2`).textContent;
  const title = document.body.classList.contains("out-of-date") ? "NOT UP TO DATE – nursery"
    : crying.length && $("login").hidden ? `CRYING: ${crying.join(", ")}` : view ? `${view} – nursery` : "nursery";
  if (document.title !== title) document.title = title;
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function freshness() {
  const now = Date.now();
  const inside = $("login").hidden;
  const last = Math.max(state.heard, state.since);
  const silent = now - last > STALE_MS;
  const old = !silent && state.statusAt && now - state.statusAt > STALE_MS;
  const text = silent || !state.connected ? `${state.why || "not connected"}; trying again.`
    : old ? "the service does not say how it is." : "";
  // A short interruption is nothing to shout about.
  const tell = inside && text && (silent || old || now - last > 3000);
  $("freshness").hidden = !tell;
  document.body.classList.toggle("out-of-date", Boolean(tell));
  // What is said aloud does not count seconds.
  put($("freshness-said"), tell ? `Not up to date: ${text}` : "");
  put($("freshness"), tell
    ? `Not up to date: ${text}${state.statusAt ? ` What you see is ${ago((now - state.statusAt) / 1000)} old.` : ""}` : "");
  showTitle();
}

// ---- The stream ----

function listen() {
  state.stream?.close();
  const stream = new EventSource("/api/stream");
  state.stream = stream;
  state.listenedAt = Date.now();
  const on = (name, act) => stream.addEventListener(name, (message) => {
    state.heard = Date.now();
    state.connected = true;
    state.why = "";
    act(JSON.parse(message.data));
    freshness();
  });
  on("hello", () => {});
  on("ping", () => {});
  on("status", (status) => {
    const lost = status.cameras.reduce((sum, camera) => sum + camera.dropped, 0);
    if (state.lost !== null && lost > state.lost) state.lostAt = Date.now();
    state.lost = lost;
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
    // A browser gives up after some answers, such as 401 or 503, and does not say which.
    if (stream.readyState !== EventSource.CLOSED || state.stream !== stream) return;
    setTimeout(begin, 2000);
    explain();
  };
}

/** Finds out why there is no stream. */
async function explain() {
  const leave = new AbortController();
  const response = await fetch("/api/stream", { signal: leave.signal }).catch(() => null);
  if (response && !response.ok && response.status !== 401) state.why = await refusal(response);
  leave.abort();
  freshness();
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
  const response = await ask("/api/session");
  const session = response?.ok ? await response.json().catch(() => null) : null;
  if (!session) {
    state.connected = false;
    // Browsers have six connections to a host, which other tabs of this page may hold.
    state.why = response ? await refusal(response) : "no answer, or too many tabs of this page are open";
    freshness();
    return void setTimeout(begin, 2000);
  }
  const served = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isFinite(served)) state.skewMs = Math.abs(served - Date.now()) > 2000 ? served - Date.now() : 0;
  if (!session.logged_in) return showLogin();
  const first = !$("login").hidden || !state.begun;
  if (first) state.since = Date.now();
  $("login").hidden = true;
  $("logout").hidden = !session.login_required;
  state.begun = true;
  go();
  listen();
  loadEvents(false);
  if (first) dispatchEvent(new Event("nursery-begun"));
}

async function login(submit) {
  submit.preventDefault();
  const button = $("login-form").querySelector("button");
  button.disabled = true;
  put($("login-error"), "");
  const response = await ask("/api/login", {
    method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ password: $("password").value }),
  });
  button.disabled = false;
  if (response?.ok) {
    $("password").value = "";
    return begin();
  }
  const wait = response?.headers.get("Retry-After");
  put($("login-error"), response?.status === 401 ? "That password is wrong."
    : wait ? `Too many attempts: try again in ${wait} s.`
      : response ? `Not let in: ${await refusal(response) || `the answer is ${response.status}`}.`
        : "The service does not answer.");
}

async function logout() {
  put($("logout-error"), "");
  const response = await ask("/api/logout", { method: "POST" });
  if (!response?.ok) {
    const why = response ? await refusal(response) : "the service does not answer";
    return put($("logout-error"), `You are still logged in: ${why}.`);
  }
  state.status = null;
  state.events = [];
  location.reload();
}

addEventListener("hashchange", follow);
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
  if (state.stream && Date.now() - Math.max(state.heard, state.listenedAt) > 2 * STALE_MS) listen();
}, 1000);
state.shown = location.hash.split("/").slice(0, 2).join("/");
begin();
