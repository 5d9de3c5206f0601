// The clip of an event: a player, and a spectrogram with the detector's scores over it, computed here from what is played.
"use strict";

const CLIP_FFT = 512;
const CLIP_BANDS = 128; // Rows of the picture, from low to high in equal steps of the ear (mel).
const CLIP_HIGHEST = 7600; // Hz: what the detector hears.
const CLIP_FLOOR_DB = 70; // What is so far below the loudest is black.
const CLIP_LOOKED_AT = 30e6; // Bytes of the largest one that is taken into memory, for its spectrogram.
const CLIP_AGAIN_MS = 2000; // Wait before what failed is tried again; it doubles, up to
const CLIP_AGAIN_AT_MOST_MS = 30_000;

/** Powers of a frame's frequencies, by a real signal's transform of CLIP_FFT points. */
class ClipTransform {
  constructor() {
    const n = CLIP_FFT;
    this.window = Float32Array.from({ length: n }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / n));
    this.cos = Float32Array.from({ length: n / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / n));
    this.sin = Float32Array.from({ length: n / 2 }, (_, i) => Math.sin((2 * Math.PI * i) / n));
    const bits = Math.log2(n);
    this.reversed = Uint16Array.from({ length: n }, (_, i) => {
      let r = 0;
      for (let b = 0; b < bits; b += 1) r |= ((i >> b) & 1) << (bits - 1 - b);
      return r;
    });
    this.re = new Float32Array(n);
    this.im = new Float32Array(n);
    this.power = new Float32Array(n / 2);
  }

  run(samples, start) {
    const { re, im, cos, sin, reversed, power } = this;
    const n = CLIP_FFT;
    for (let i = 0; i < n; i += 1) {
      re[reversed[i]] = (samples[start + i] ?? 0) * this.window[i];
      im[i] = 0;
    }
    for (let size = 2; size <= n; size *= 2) {
      const half = size / 2;
      const step = n / size;
      for (let block = 0; block < n; block += size) {
        for (let k = 0; k < half; k += 1) {
          const a = block + k;
          const b = a + half;
          const wr = cos[k * step];
          const wi = -sin[k * step];
          const xr = re[b] * wr - im[b] * wi;
          const xi = re[b] * wi + im[b] * wr;
          re[b] = re[a] - xr;
          im[b] = im[a] - xi;
          re[a] += xr;
          im[a] += xi;
        }
      }
    }
    for (let k = 0; k < n / 2; k += 1) power[k] = re[k] * re[k] + im[k] * im[k];
    return power;
  }
}

const clipMel = (hz) => 1127 * Math.log(1 + hz / 700);
const clipHertz = (mel) => 700 * (Math.exp(mel / 1127) - 1);

/** Dark blue over red to yellow: brighter is louder, in greys too. */
function clipColour(value) {
  const v = Math.max(0, Math.min(1, value));
  return [
    Math.round(255 * Math.min(1, 1.8 * v * v + 0.05)),
    Math.round(255 * Math.max(0, 1.5 * v - 0.5)),
    Math.round(255 * (v < 0.5 ? 0.15 + 0.9 * v : 0.6 - 0.9 * (v - 0.5))),
  ];
}

/** The picture of mono samples, so many columns wide; a canvas of its own. */
async function clipPicture(samples, rate, columns) {
  const transform = new ClipTransform();
  const top = clipMel(Math.min(CLIP_HIGHEST, rate / 2));
  const edges = Array.from({ length: CLIP_BANDS + 1 }, (_, band) =>
    (clipHertz((top * band) / CLIP_BANDS) / rate) * CLIP_FFT);
  const levels = new Float32Array(columns * CLIP_BANDS);
  let loudest = -120;
  let paused = performance.now();
  for (let x = 0; x < columns; x += 1) {
    // Frames cover a column, however long it is, up to a bound.
    const begin = (x * samples.length) / columns;
    const end = ((x + 1) * samples.length) / columns;
    const frames = Math.max(1, Math.min(8, Math.ceil((end - begin) / CLIP_FFT)));
    for (let f = 0; f < frames; f += 1) {
      const power = transform.run(samples, Math.floor(begin + ((end - begin) * f) / frames));
      for (let band = 0; band < CLIP_BANDS; band += 1) {
        const first = Math.floor(edges[band]);
        const last = Math.max(first, Math.min(power.length - 1, Math.ceil(edges[band + 1]) - 1));
        let sum = 0;
        for (let k = first; k <= last; k += 1) sum += power[k];
        levels[x * CLIP_BANDS + band] += sum / (last - first + 1) / frames;
      }
    }
    for (let band = 0; band < CLIP_BANDS; band += 1) {
      const at = x * CLIP_BANDS + band;
      levels[at] = 10 * Math.log10(levels[at] + 1e-12);
      loudest = Math.max(loudest, levels[at]);
    }
    // The page stays alive meanwhile.
    if (performance.now() - paused > 20) {
      await new Promise((go) => setTimeout(go, 0));
      paused = performance.now();
    }
  }
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = CLIP_BANDS;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, CLIP_BANDS);
  for (let x = 0; x < columns; x += 1) {
    for (let band = 0; band < CLIP_BANDS; band += 1) {
      const value = (levels[x * CLIP_BANDS + band] - loudest + CLIP_FLOOR_DB) / CLIP_FLOOR_DB;
      const [r, g, b] = clipColour(value);
      image.data.set([r, g, b, 255], ((CLIP_BANDS - 1 - band) * columns + x) * 4);
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function clipTicks(seconds) {
  return [1, 2, 5, 10, 15, 30, 60, 120].find((step) => seconds / step <= 8) ?? 300;
}

/** Draws picture, scores, onset and end, and where the player is. `scores`: [{t, p}], seconds since the clip's beginning. */
function drawClip(canvas, view) {
  const { picture, duration, scores, marks, position } = view;
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const axis = 18;
  const plot = height - axis;
  const x = (t) => (t / duration) * width;
  context.imageSmoothingEnabled = true;
  context.drawImage(picture, 0, 0, width, plot);
  const style = getComputedStyle(canvas);
  context.fillStyle = style.color;
  context.font = `12px ${style.fontFamily}`;
  context.textAlign = "center";
  const step = clipTicks(duration);
  for (let t = 0; t <= duration; t += step) {
    context.fillRect(x(t), plot, 1, 4);
    const label = t < 60 ? `${t} s` : `${Math.floor(t / 60)}:${String(t % 60).padStart(2, "0")}`;
    context.fillText(label, Math.max(10, Math.min(width - 12, x(t))), height - 3);
  }
  context.setLineDash([4, 3]);
  context.strokeStyle = "#ffffff";
  for (const t of marks) {
    context.beginPath();
    context.moveTo(x(t), 0);
    context.lineTo(x(t), plot);
    context.stroke();
  }
  context.setLineDash([]);
  if (scores.length) {
    context.beginPath();
    scores.forEach(({ t, p }, n) => {
      const y = plot - p * plot;
      if (n && t - scores[n - 1].t < 3) context.lineTo(x(t), y);
      else context.moveTo(x(t), y);
    });
    context.lineWidth = 4;
    context.strokeStyle = "#000000a0";
    context.stroke();
    context.lineWidth = 2;
    context.strokeStyle = "#7ee0ff";
    context.stroke();
  }
  context.fillStyle = "#ffffff";
  context.fillRect(x(position) - 1, 0, 2, plot);
}

function clipMono(buffer) {
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel += 1) {
    const samples = buffer.getChannelData(channel);
    for (let i = 0; i < mono.length; i += 1) mono[i] += samples[i] / buffer.numberOfChannels;
  }
  return mono;
}

/** What the detector made of it, as far as that is stored: {onset, offset, scores: [{t, p}]}, times in ms since 1970. */
async function clipDetails(eventId) {
  const response = await ask(`/api/events/${encodeURIComponent(eventId)}`);
  const event = response?.ok ? await response.json().catch(() => ({})) : {};
  const begin = Date.parse(event.curve?.from ?? "");
  const scores = (event.curve?.score ?? []).map((p, n) => ({ t: begin + (n + 0.5) * event.curve.step_s * 1000, p }));
  return {
    onset: Date.parse(event.onset ?? ""), offset: Date.parse(event.offset ?? ""),
    scores: scores.filter(({ p }) => typeof p === "number"),
  };
}

/** Shows the clip of an event inside of `place`, as soon as it is complete. */
async function showClip(place, eventId) {
  const url = `/api/events/${encodeURIComponent(eventId)}/clip`;
  const note = document.createElement("p");
  note.className = "dim";
  note.setAttribute("role", "status");
  note.textContent = "Loading the clip.";
  place.replaceChildren(note);
  place.dataset.event = eventId;
  // Another event takes the place of this one.
  const current = () => place.dataset.event === eventId && place.contains(note);
  /** An answer with all of its body, as `take` reads it; null where there will be none. */
  const get = async (headers, take) => {
    for (let wait = CLIP_AGAIN_MS; ; wait = Math.min(2 * wait, CLIP_AGAIN_AT_MOST_MS)) {
      const response = await fetch(url, { headers }).catch(() => null);
      // One that is still being written is there at any moment.
      if (response?.status === 503) wait = CLIP_AGAIN_MS;
      if (!current()) return null;
      if (response?.status === 401) {
        delete place.dataset.event;
        showLogin();
        return null;
      }
      if (response?.status === 404) {
        note.textContent = "There is no clip of this event, or no longer.";
        return null;
      }
      // The connection may break before it is there as a whole.
      const taken = response?.ok ? await take(response).catch(() => null) : null;
      if (taken !== null) return current() ? taken : null;
      const why = response && !response.ok ? await refusal(response) : "";
      note.textContent = why ? `The clip cannot be had at the moment: ${why}.`
        : "The clip could not be loaded; it will be tried again.";
      await new Promise((go) => setTimeout(go, wait));
      if (!current()) return null;
    }
  };
  // Its first byte says what it is; the rest is the player's matter.
  const about = await get({ Range: "bytes=0-0" }, async (response) => {
    await response.arrayBuffer();
    return {
      kind: response.headers.get("Content-Type") ?? "",
      bytes: Number(response.headers.get("Content-Range")?.split("/")[1] ?? response.headers.get("Content-Length")),
      start: Date.parse(response.headers.get("X-Clip-Start") ?? ""),
      shorter: response.headers.get("X-Clip-Note"),
    };
  });
  if (!about) return;
  const { start } = about;
  const film = about.kind.startsWith("video/");
  const player = document.createElement(film ? "video" : "audio");
  player.controls = true;
  player.preload = "metadata";
  player.src = url;
  player.setAttribute("aria-label", "Clip of this event");
  if (film) player.playsInline = true;
  const save = document.createElement("a");
  save.href = url;
  save.download = "";
  save.textContent = "Save the clip";
  const canvas = document.createElement("canvas");
  canvas.className = "spectrogram";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Spectrogram of the clip with the detector's score, see the text beside it");
  place.replaceChildren(player, canvas, note, save);
  const known = about.shorter ? `Shorter than it was meant to be: ${about.shorter}.` : "";
  note.textContent = known;
  if (!(about.bytes <= CLIP_LOOKED_AT)) {
    canvas.hidden = true;
    note.textContent = `${known} It is too large for a spectrogram.`.trim();
    return;
  }
  const bytes = await get({}, (response) => response.arrayBuffer());
  if (!bytes) return void (canvas.hidden = true);
  note.textContent = known;
  // Only to decode: nothing is played by it.
  const context = new OfflineAudioContext(1, 1, 16_000);
  const buffer = await context.decodeAudioData(bytes).catch(() => null);
  if (!current()) return;
  if (!buffer) {
    canvas.hidden = true;
    note.textContent += " This browser cannot decode its sound for a spectrogram.";
    return;
  }
  const seconds = (ms) => (ms - start) / 1000;
  const within = (t) => Number.isFinite(t) && t >= 0 && t <= buffer.duration;
  const details = await clipDetails(eventId);
  const view = {
    picture: await clipPicture(clipMono(buffer), buffer.sampleRate, Math.min(1200, Math.ceil(buffer.duration * 50))),
    duration: buffer.duration,
    scores: details.scores.map(({ t, p }) => ({ t: seconds(t), p })).filter(({ t }) => within(t)),
    marks: [details.onset, details.offset].map(seconds).filter(within),
    position: 0,
  };
  if (!current()) return;
  canvas.dataset.seconds = buffer.duration.toFixed(2);
  const highest = view.scores.reduce((most, { p }) => Math.max(most, p), 0);
  canvas.setAttribute("aria-label", `Spectrogram of ${buffer.duration.toFixed(0)} seconds`
    + (view.scores.length ? `; the detector was at most ${Math.round(highest * 100)} percent sure` : ""));
  const draw = () => {
    if (!current()) return;
    view.position = Math.min(player.currentTime || 0, view.duration);
    drawClip(canvas, view);
    if (!player.paused && !player.ended) requestAnimationFrame(draw);
  };
  ["play", "seeked", "timeupdate", "ended", "loadedmetadata"].forEach((name) => player.addEventListener(name, draw));
  canvas.addEventListener("click", (click) => {
    player.currentTime = (click.offsetX / canvas.clientWidth) * view.duration;
  });
  new ResizeObserver(draw).observe(canvas);
  draw();
}

addEventListener("nursery:view", ({ detail }) => {
  const place = $("clip");
  if (detail.view === "event" && detail.argument && $("login").hidden) {
    if (place.dataset.event !== detail.argument) showClip(place, detail.argument);
  } else {
    // Nothing plays on where nobody sees it.
    delete place.dataset.event;
    place.replaceChildren();
  }
});
