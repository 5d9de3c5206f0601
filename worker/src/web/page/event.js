// One event: how sure the detector was, what is known of it, and what people say of it.
"use strict";

{
  const OPEN_MS = 3_000; // How often an event that goes on is looked at.
  const EVENT_ROWS = 30;
  const file = { id: null, data: null, asked: 0, timer: null };

  function showEvent() {
    const data = file.data;
    if (!data || state.view !== "event") return;
    const moved = data.kind === "motion";
    const begin = Date.parse(data.curve.from), step = data.curve.step_s * 1000;
    const what = {
      from: begin, until: begin + Math.max(1, data.curve.score.length) * step, begin, step_s: data.curve.step_s,
      threshold: data.threshold, score: data.curve.score, level_dbfs: data.curve.level_dbfs,
      marks: [{
        from: Date.parse(data.onset), until: data.offset ? Date.parse(data.offset) : Date.now(),
        kind: moved ? "motion" : data.feedback?.verdict === "not_cry" ? "refuted" : "cry",
        label: moved ? "Where something moved" : "Where it cried",
      }],
    };
    put($("event-title"), `${moved ? "Motion" : "Cry"} at ${data.camera}, ${clock(data.onset)}`);
    drawCurves($("event-picture"), what, `Score and level of ${data.camera} around the ${data.kind}, with the threshold`);
    fillTable($("event-rows"), curveRows(what, EVENT_ROWS));
    const facts = [
      ["Camera", data.camera], ["Began", clock(data.onset)], ["Ended", data.offset ? clock(data.offset) : "goes on"],
      ["Lasted", ago(data.duration_s ?? (Date.now() - Date.parse(data.onset)) / 1000)],
      ...(moved
        ? [["Moved at its announcement", `${percent(data.motion)} of the picture`], ["Moved at most", `${percent(data.peak_motion)} of the picture`]]
        : [["Sure at its announcement", percent(data.score)], ["Sure at most", percent(data.peak_score)],
          ["Threshold now", percent(data.threshold)]]),
    ];
    $("event-facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    $("event-timeline").href = `#timeline/${encodeURIComponent(data.camera)}`;
    // What moved is not asked about.
    $("event-verdict").hidden = $("event-said").hidden = moved;
    const verdict = data.feedback?.verdict ?? null;
    $("said-cry").setAttribute("aria-pressed", String(verdict === "cry"));
    $("said-not-cry").setAttribute("aria-pressed", String(verdict === "not_cry"));
    put($("event-said"), verdict ? `Noted ${clock(data.feedback.at)}: this was ${VERDICT[verdict]}.` : "Nobody has said yet what this was.");
    dispatchEvent(new CustomEvent("nursery:file", { detail: data }));
  }

  async function loadEvent() {
    if (state.view !== "event" || !file.id || !$("login").hidden) return;
    const asked = (file.asked += 1);
    const response = await ask(`/api/events/${encodeURIComponent(file.id)}`);
    if (asked !== file.asked) return;
    if (response?.status === 401) return showLogin();
    put($("event-note"), response?.ok ? "" : response?.status === 404 ? "There is no such event (any more)."
      : "The event could not be loaded; it will be tried again.");
    $("event-body").hidden = !response?.ok && !file.data;
    if (response?.ok) {
      const data = await response.json();
      if (asked !== file.asked) return;
      file.data = data;
      showEvent();
    }
  }

  async function say(verdict) {
    const id = file.id;
    put($("event-error"), "");
    const response = await ask(`/api/events/${encodeURIComponent(id)}/feedback`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ verdict }),
    });
    if (id !== file.id) return;
    if (response?.status === 401) return showLogin();
    if (!response?.ok) return put($("event-error"), "That could not be stored: try again.");
    const { feedback } = await response.json();
    if (file.data) file.data.feedback = feedback;
    // An answer that is on its way is older than this.
    file.asked += 1;
    showEvent();
  }

  $("said-cry").addEventListener("click", () => say("cry"));
  $("said-not-cry").addEventListener("click", () => say("not_cry"));
  addEventListener("nursery:view", ({ detail }) => {
    clearInterval(file.timer);
    if (detail.view !== "event") return;
    if (file.id !== detail.argument) {
      file.id = detail.argument;
      file.data = null;
      $("event-body").hidden = true;
      put($("event-title"), "Event");
      put($("event-error"), "");
    }
    loadEvent();
    file.timer = setInterval(() => {
      if (!document.hidden && !file.data?.offset) loadEvent();
    }, OPEN_MS);
  });
  addEventListener("nursery:event", ({ detail }) => {
    if (state.view === "event" && detail.data?.event_id === file.id) loadEvent();
  });
  addEventListener("resize", showEvent);
  if (state.begun) go();
}
