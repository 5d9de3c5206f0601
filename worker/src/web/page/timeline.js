// A camera looked back on: its level and score, its cries, motion and outages, between two times. Also what draws curves.
"use strict";

const HEIGHT = { top: 8, score: 120, gap: 10, level: 70, axis: 22 };
const LOUD = 0, QUIET = -90;

// ---- Drawing ----

function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

/** A line through values, with gaps where there are none. */
function line(values, x, y) {
  let path = "", down = false;
  values.forEach((value, i) => {
    if (value === null) return void (down = false);
    path += `${down ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
    // A value between two gaps is a dot.
    if (!down && (values[i + 1] ?? null) === null) path += "h1";
    down = true;
  });
  return path;
}

const STEPS_S = [5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800];

/** Round times between two, so many at the most. */
function ticks(from, until, most) {
  const step = (STEPS_S.find((s) => (until - from) / 1000 / s <= most) ?? 604_800) * 1000;
  const shift = new Date(from).getTimezoneOffset() * 60_000;
  const found = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at <= until; at += step) found.push(at);
  return { step, found };
}

function tickText(at, step) {
  const date = new Date(at);
  if (step >= 86_400_000) return date.toLocaleDateString([], { day: "numeric", month: "numeric" });
  const seconds = step < 60_000 ? { second: "2-digit" } : {};
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...seconds });
}

/**
 * Draws curves into a node: `what` has from, until (ms), step_s, threshold, score, level_dbfs, and marks, each with from,
 * until, kind, label and, where it leads anywhere, href.
 */
function drawCurves(node, what, label) {
  const width = Math.max(280, Math.floor(node.clientWidth) || 280);
  const floor = HEIGHT.top + HEIGHT.score, levelTop = floor + HEIGHT.gap, bottom = levelTop + HEIGHT.level;
  const place = (at) => Math.min(width, Math.max(0, ((at - what.from) / (what.until - what.from)) * width));
  const x = (i) => place(what.begin + (i + 0.5) * what.step_s * 1000);
  const yScore = (p) => floor - p * HEIGHT.score;
  const yLevel = (l) => bottom - ((Math.min(LOUD, Math.max(QUIET, l)) - QUIET) / (LOUD - QUIET)) * HEIGHT.level;
  const { step, found } = ticks(what.from, what.until, width / 80);
  const picture = draw("svg", { width, height: bottom + HEIGHT.axis, role: "group", "aria-label": label, class: "curves" },
    ...found.flatMap((at) => [
      draw("line", { x1: place(at), x2: place(at), y1: HEIGHT.top, y2: bottom, class: "grid" }),
      draw("text", { x: place(at) + 3, y: bottom + 15, class: "axis" }, tickText(at, step)),
    ]),
    ...what.marks.map((mark) => {
      const left = place(mark.from), right = Math.max(left + 3, place(mark.until));
      const area = draw("rect", { x: left, width: right - left, y: HEIGHT.top, height: bottom - HEIGHT.top, class: `mark ${mark.kind}` },
        draw("title", {}, mark.label));
      return mark.href ? draw("a", { href: mark.href, "aria-label": mark.label }, area) : area;
    }),
    draw("path", { d: line(what.score, x, yScore), class: "score" }),
    draw("path", { d: line(what.level_dbfs, x, yLevel), class: "level" }),
    draw("line", { x1: 0, x2: width, y1: yScore(what.threshold), y2: yScore(what.threshold), class: "threshold" }),
    draw("text", { x: 3, y: HEIGHT.top + 12, class: "axis" }, "Score"),
    draw("text", { x: 3, y: levelTop + 12, class: "axis" }, "Level"));
  // Whoever is on a mark by keyboard stays there.
  const focused = node.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  node.replaceChildren(picture);
  if (focused) node.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

/** The same in words: rows of equal length. */
function curveRows(what, most) {
  const rows = [];
  const count = what.score.length, each = Math.max(1, Math.ceil(count / most));
  const known = (values, i) => values.slice(i, i + each).filter((v) => v !== null);
  for (let i = 0; i < count; i += each) {
    const scores = known(what.score, i), levels = known(what.level_dbfs, i);
    rows.push([
      clock(what.begin + i * what.step_s * 1000),
      scores.length ? percent(Math.max(...scores)) : "not heard",
      levels.length ? `${(levels.reduce((a, b) => a + b) / levels.length).toFixed(0)} dBFS` : "–",
    ]);
  }
  return rows;
}

function fillTable(body, rows) {
  body.replaceChildren(...rows.map((cells) => make("tr", {}, ...cells.map((c, i) => make(i ? "td" : "th", i ? {} : { scope: "row" }, c)))));
}

const VERDICT = { cry: "a cry", not_cry: "not a cry" };

// ---- The timeline of a camera ----

{
  const REFRESH_MS = 10_000;
  const SPANS = [["1 h", 1], ["3 h", 3], ["12 h", 12], ["24 h", 24], ["7 d", 168], ["30 d", 720]];
  const HOUR_MS = 3_600_000;
  const ROWS = 24;
  const look = { camera: null, hours: 12, until: null, data: null, asked: 0, timer: null };

  function timelineMarks(data) {
    const now = Date.now();
    return [
      ...data.outages.map((o) => ({
        from: Date.parse(o.since), until: o.until ? Date.parse(o.until) : now, kind: "outage",
        label: `Not heard from ${clock(o.since)}${o.until ? ` to ${clock(o.until)}` : " on"}: ${o.reason}`,
      })),
      ...data.motions.map((m) => ({
        from: Date.parse(m.onset), until: m.offset ? Date.parse(m.offset) : now, href: `#event/${m.event_id}`, kind: "motion",
        label: `Motion at ${clock(m.onset)}, ${percent(m.peak_motion ?? m.motion)} of the picture`,
      })),
      ...data.cries.map((c) => ({
        from: Date.parse(c.onset), until: c.offset ? Date.parse(c.offset) : now, href: `#event/${c.event_id}`,
        kind: c.feedback === "not_cry" ? "refuted" : "cry",
        label: `Cry at ${clock(c.onset)}, ${percent(c.peak_score ?? c.score)} sure${c.feedback ? `, said to be ${VERDICT[c.feedback]}` : ""}`,
      })),
    ];
  }

  function showTimeline() {
    const data = look.data;
    if (!data || state.view !== "timeline") return;
    const marks = timelineMarks(data);
    const what = {
      from: Date.parse(data.from), until: Date.parse(data.until), begin: Date.parse(data.curve.from), step_s: data.curve.step_s,
      threshold: data.threshold, score: data.curve.score, level_dbfs: data.curve.level_dbfs, marks,
    };
    drawCurves($("timeline-picture"), what, `Score and level of ${data.camera}, with cries, motion and times when it was not heard`);
    const plural = (n, word, many) => `${n} ${n === 1 ? word : many}`;
    put($("timeline-summary"), `${plural(data.cries.length, "cry", "cries")}, ${plural(data.outages.length, "outage", "outages")}` +
      `${data.motions.length ? `, motion ${plural(data.motions.length, "time", "times")}` : ""}` +
      `${data.truncated ? " (the newest; there are more)" : ""}, ${clock(data.from)} to ${clock(data.until)}.`);
    marks.sort((a, b) => b.from - a.from);
    reconcile($("timeline-marks"), marks, (m) => `${m.href ?? "outage"} ${m.from}`,
      (m) => make("li", { class: m.kind === "outage" ? "offline" : m.kind === "motion" ? "motion" : "cry" }, m.href ? make("a", { href: m.href }) : make("span")),
      (node, m) => put(node.firstElementChild, m.label));
    fillTable($("timeline-rows"), curveRows(what, ROWS));
  }

  async function loadTimeline() {
    const { camera, hours } = look;
    if (state.view !== "timeline" || !camera || !$("login").hidden) return;
    const until = look.until ?? Date.now();
    const asked = (look.asked += 1);
    const points = Math.min(1440, Math.max(240, Math.floor($("timeline-picture").clientWidth || 720)));
    const query = new URLSearchParams({
      from: new Date(until - hours * HOUR_MS).toISOString(), until: new Date(until).toISOString(), points: String(points),
    });
    const response = await ask(`/api/cameras/${encodeURIComponent(camera)}/timeline?${query}`);
    if (asked !== look.asked) return;
    if (response?.status === 401) return showLogin();
    put($("timeline-note"), response?.ok ? ""
      : response?.status === 404 ? "There is no camera of this name, and nothing is known of one."
        : "The timeline could not be loaded; it will be tried again.");
    if (response?.ok) {
      const data = await response.json();
      if (asked !== look.asked) return;
      look.data = data;
      showTimeline();
    }
  }

  /** Now and then anew, while somebody looks and the end is now. */
  function follow() {
    clearInterval(look.timer);
    look.timer = setInterval(() => {
      if (state.view !== "timeline") clearInterval(look.timer);
      else if (!document.hidden && (look.until === null || !look.data)) loadTimeline();
    }, REFRESH_MS);
  }

  function choose(hours, until) {
    look.hours = hours;
    // Where the end would be later than now it is now, and stays so.
    look.until = until === null || until >= Date.now() ? null : until;
    for (const button of $("timeline-spans").children) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.hours) === hours));
    }
    $("timeline-later").disabled = $("timeline-now").disabled = look.until === null;
    loadTimeline();
  }

  $("timeline-spans").append(...SPANS.map(([text, hours]) => {
    const button = make("button", { type: "button", "data-hours": hours, "aria-pressed": "false" }, text);
    button.addEventListener("click", () => choose(hours, look.until));
    return button;
  }));
  const move = (part) => choose(look.hours, (look.until ?? Date.now()) + part * look.hours * HOUR_MS);
  $("timeline-earlier").addEventListener("click", () => move(-0.5));
  $("timeline-later").addEventListener("click", () => move(0.5));
  $("timeline-now").addEventListener("click", () => choose(look.hours, null));

  addEventListener("nursery:view", ({ detail }) => {
    if (detail.view !== "timeline") return;
    if (look.camera !== detail.argument) {
      look.camera = detail.argument;
      look.data = null;
      put($("timeline-title"), `Timeline of ${look.camera || "no camera"}`);
      for (const id of ["timeline-picture", "timeline-marks", "timeline-rows"]) $(id).replaceChildren();
      put($("timeline-summary"), "");
    }
    choose(look.hours, look.until);
    follow();
  });
  addEventListener("nursery:event", ({ detail }) => {
    if (state.view === "timeline" && look.until === null && (detail.data?.camera ?? "").split(", ").includes(look.camera)) loadTimeline();
  });
  addEventListener("resize", () => {
    showTimeline();
  });
  // The page may have begun before this was here.
  if (state.begun) go();
}
