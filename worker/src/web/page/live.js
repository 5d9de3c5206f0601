// The live view, #live/NAME or #live/NAME/sound: hears and sees one camera within a second of what happens, and says so
// when it does not.
"use strict";

const EDGE_S = 0.3; // How far behind the newest packet playing aims to be.
const FAR_S = 1.2; // Further behind, it jumps; nearer, it plays a little faster.
const KEEP_S = 15; // What was played is kept for so long.
const SILENT_MS = 2500; // Nothing for so long is not live any more.
const DEAD_MS = 10_000; // The server says something every three seconds.
const REVIVE_MS = 5000; // Wait before what stands still is begun anew once more; it doubles, up to
const REVIVE_AT_MOST_MS = 60_000;
const PICTURE_SCALE = 90_000; // Ticks per second of pictures.
const KIND = { tracks: 1, videoInit: 2, audioInit: 3, video: 4, audio: 5, raw: 6, jpeg: 7, notice: 8, alive: 9 };

const live = {
  name: null, pictures: true, sound: true, volume: 1, session: null, video: null, audio: null, raw: null, tracks: null,
  heard: 0, mediaAt: 0, shownUs: null, note: "", passing: "", passingUntil: 0, reconnects: 0, failures: [],
  drawing: false,
  // Of each track for itself: one may go on while the other stands still.
  tracksAt: 0, pictureAt: 0, pictureGap: 0, movedAt: 0, soundAt: 0, reviveAt: 0, revivePause: REVIVE_MS, wall: null,
};

/** Where a fragment of pictures begins, in seconds, where decoding may begin with it (ISO/IEC 14496-12); else null. */
function keyTime(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let [start, needsOthers] = [null, true];
  const walk = (from, end) => {
    for (let at = from; at + 16 <= end;) {
      const size = view.getUint32(at);
      const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
      if (size < 8 || at + size > end) return;
      if (type === "moof" || type === "traf") walk(at + 8, at + size);
      if (type === "tfdt") start = view.getUint8(at + 8) === 1 ? Number(view.getBigUint64(at + 12)) : view.getUint32(at + 12);
      if (type === "trun") {
        const fields = view.getUint32(at + 8);
        // Of the first sample, after its duration and size.
        const flags = at + 16 + [1, 4, 0x100, 0x200].filter((bit) => fields & bit).length * 4;
        if (fields & 0x400 && flags + 4 <= at + size) needsOthers = Boolean(view.getUint32(flags) & 0x10000);
      }
      at += size;
    }
  };
  walk(0, bytes.length);
  return start === null || needsOthers ? null : start / PICTURE_SCALE;
}

/** One element that plays a fragmented MP4 as it comes, close to its end. */
class Movie {
  constructor(element, mime, failed) {
    this.element = element;
    this.queue = [];
    this.failed = failed;
    this.epochUs = null;
    this.closed = false;
    // How long it mostly takes until the next packet is there, seconds.
    this.gap = 0;
    // Of pictures: where what is kept may begin. Browsers throw away what cannot be decoded any more, all of it.
    this.keys = element instanceof HTMLVideoElement ? [] : null;
    this.seen = { at: null, frames: null };
    this.movedAt = 0;
    const Source = window.ManagedMediaSource ?? window.MediaSource;
    if (!Source || !mime || !Source.isTypeSupported(mime)) throw new Error(`this browser does not play ${mime}`);
    this.source = new Source();
    element.disableRemotePlayback = true;
    this.url = URL.createObjectURL(this.source);
    this.source.addEventListener("sourceopen", () => {
      if (this.closed || this.buffer) return;
      try {
        this.buffer = this.source.addSourceBuffer(mime);
      } catch (error) {
        return this.fail(error);
      }
      this.buffer.addEventListener("updateend", () => this.pump());
      this.buffer.addEventListener("error", () => this.fail(new Error("what the camera sends cannot be decoded")));
      this.pump();
    });
    this.onerror = () => this.fail(element.error ?? new Error("it cannot be played"));
    element.addEventListener("error", this.onerror);
    element.src = this.url;
  }

  fail(error) {
    if (!this.closed) this.failed(error);
  }

  push(bytes) {
    const key = this.keys && keyTime(bytes);
    if (this.keys && key !== null) this.keys = [...this.keys.slice(-2000), key];
    this.queue.push(bytes);
    // Nothing takes it: it would only be older.
    if (this.queue.length > 2000) return this.fail(new Error("this device is too slow"));
    this.pump();
  }

  pump() {
    const { buffer, queue } = this;
    if (this.closed || !buffer || buffer.updating || this.source.readyState !== "open") return;
    try {
      const played = this.element.currentTime - KEEP_S;
      const first = buffer.buffered.length ? buffer.buffered.start(0) : played;
      if (first < played - KEEP_S) {
        const until = this.keys ? this.keys.filter((key) => key <= played).at(-1) ?? first : played;
        if (until > first + 1) {
          this.keys = this.keys?.filter((key) => key >= until) ?? null;
          return buffer.remove(0, until - 0.001);
        }
      }
      if (!queue.length) return;
      // What waits goes in at once.
      const size = queue.reduce((sum, bytes) => sum + bytes.length, 0);
      const all = new Uint8Array(size);
      let at = 0;
      for (const bytes of queue) {
        all.set(bytes, at);
        at += bytes.length;
      }
      queue.length = 0;
      buffer.appendBuffer(all);
    } catch (error) {
      this.fail(error);
    }
  }

  /** How far playing is behind the newest packet, seconds; null before there is one. */
  get behind() {
    const ranges = this.buffer && !this.closed ? this.buffer.buffered : null;
    return ranges?.length ? ranges.end(ranges.length - 1) - this.element.currentTime : null;
  }

  /** Keeps to the end of what there is. */
  follow() {
    const behind = this.behind;
    if (behind === null) return;
    const { element, buffer: { buffered } } = this;
    const start = buffered.start(buffered.length - 1);
    const end = buffered.end(buffered.length - 1);
    this.look();
    // The end goes forward in steps; between two of them as much is to be there as at other times.
    const gap = Math.min(this.gap, 1);
    if (behind > FAR_S + gap || element.currentTime < start) {
      const target = Math.max(start, end - EDGE_S);
      if (Math.abs(target - element.currentTime) > 0.05) element.currentTime = target;
    }
    const rate = behind > 2 * EDGE_S + gap ? 1.1 : behind > 1.4 * EDGE_S + gap ? 1.04 : behind < 0.4 * EDGE_S ? 0.96 : 1;
    if (element.playbackRate !== rate) element.playbackRate = rate;
  }

  /** Notes whether anything moves: time goes on, and pictures are decoded. */
  look() {
    const at = this.element.currentTime;
    const frames = this.element.getVideoPlaybackQuality?.().totalVideoFrames ?? at;
    if (at === this.seen.at || frames === this.seen.frames) return;
    const begins = this.seen.at === null;
    this.seen = { at, frames };
    if (!begins) this.movedAt = performance.now();
  }

  /** Wall-clock time of what is shown, microseconds. */
  get timeUs() {
    return this.epochUs === null ? null : this.epochUs + this.element.currentTime * 1e6;
  }

  close() {
    this.closed = true;
    this.element.removeEventListener("error", this.onerror);
    this.element.removeAttribute("src");
    this.element.load();
    URL.revokeObjectURL(this.url);
  }
}

/** Calls `act(kind, timeUs, content)` for every record of a body. */
async function readRecords(body, act) {
  const reader = body.getReader();
  let buffer = new Uint8Array(1 << 17);
  let [start, end] = [0, 0];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    if (end + value.length > buffer.length) {
      const have = end - start;
      const larger = have + value.length > buffer.length ? new Uint8Array(2 * (have + value.length)) : buffer;
      larger.set(buffer.subarray(start, end));
      [buffer, start, end] = [larger, 0, have];
    }
    buffer.set(value, end);
    end += value.length;
    const view = new DataView(buffer.buffer);
    while (end - start >= 13) {
      const length = view.getUint32(start, true) + 4;
      if (length < 13 || length > 64 << 20) throw new Error("the service sends what is no record");
      if (end - start < length) break;
      const content = buffer.slice(start + 13, start + length);
      act(view.getUint8(start + 4), Number(view.getBigInt64(start + 5, true)), content);
      start += length;
    }
  }
}

const parse = (content) => JSON.parse(new TextDecoder().decode(content));

// ---- What comes ----

function closeVideo() {
  live.video?.close();
  live.video = null;
}

function closeSound() {
  live.audio?.close();
  live.raw?.close();
  live.audio = live.raw = null;
}

/** Begins to play what there is now, as far as that is another than before. */
function onTracks(tracks) {
  const before = live.tracks;
  live.tracks = tracks;
  live.tracksAt = performance.now();
  // After an interruption nothing of what was before goes on, whatever there is now.
  if (live.pictures && (!before || before.video?.generation !== tracks.video?.generation)) {
    closeVideo();
    clearJpeg();
    const { video } = tracks;
    $("live-jpeg").hidden = video?.codec !== "jpeg";
    $("live-video").hidden = video?.codec === "jpeg";
    if (video && video.codec !== "jpeg") {
      try {
        live.video = new Movie($("live-video"), video.mime, (error) => failed("video", error));
        $("live-video").play().catch(() => {});
      } catch (error) {
        tracks.no_video = error.message;
      }
    }
  }
  if (!before || before.audio?.generation !== tracks.audio?.generation) {
    closeSound();
    const { audio } = tracks;
    try {
      if (audio?.mime) live.audio = new Movie($("live-audio"), audio.mime, (error) => failed("audio", error));
      else if (audio) live.raw = new RawSound(audio);
    } catch (error) {
      tracks.no_audio = error.message;
    }
    applySound();
  }
  showLive();
}

function clearJpeg() {
  const canvas = $("live-jpeg");
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  live.shownUs = null;
}

async function onJpeg(content, timeUs) {
  // The newest one only, where decoding takes longer than they come.
  if (live.drawing) return;
  live.drawing = true;
  const { tracks } = live;
  try {
    const picture = await createImageBitmap(new Blob([content], { type: "image/jpeg" }));
    if (live.tracks !== tracks) return picture.close();
    const canvas = $("live-jpeg");
    if (canvas.width !== picture.width) canvas.width = picture.width;
    if (canvas.height !== picture.height) canvas.height = picture.height;
    canvas.getContext("2d").drawImage(picture, 0, 0);
    picture.close();
    live.shownUs = timeUs;
    live.movedAt = performance.now();
  } catch {
    // One that is broken is followed by another.
  } finally {
    live.drawing = false;
  }
}

function onRecord(kind, timeUs, content) {
  const now = performance.now();
  live.heard = now;
  if (kind >= KIND.video && kind <= KIND.jpeg) {
    live.mediaAt = now;
    live.note = "";
  }
  if (kind === KIND.audio || kind === KIND.raw) live.soundAt = now;
  if (kind === KIND.video || kind === KIND.jpeg) {
    const gap = live.pictureAt ? Math.min(now - live.pictureAt, 10_000) : 0;
    live.pictureGap = Math.max(0.9 * live.pictureGap, gap);
    live.pictureAt = now;
    if (live.video) live.video.gap = live.pictureGap / 1000;
  }
  switch (kind) {
    case KIND.tracks: return onTracks(parse(content));
    case KIND.videoInit:
    case KIND.audioInit: {
      const movie = kind === KIND.videoInit ? live.video : live.audio;
      if (!movie) return;
      movie.epochUs = timeUs;
      return movie.push(content);
    }
    case KIND.video: return live.video?.push(content);
    case KIND.audio: return live.audio?.push(content);
    case KIND.raw: return live.sound ? live.raw?.push(content) : undefined;
    case KIND.jpeg: return void onJpeg(content, timeUs);
    case KIND.notice: {
      const { notice, text } = parse(content);
      if (notice === "interrupted") live.note = `Nothing is heard at the moment: ${text}.`;
      if (notice === "moved") {
        live.passing = "This connection is too slow: parts were left out.";
        live.passingUntil = now + 6000;
      }
      return showLive();
    }
    default:
  }
}

// ---- The connection ----

/** Follows the camera until the view is left. */
async function connect(session) {
  let wait = 500;
  while (live.session === session) {
    session.abort = new AbortController();
    live.tracks = null;
    live.heard = performance.now();
    try {
      const path = `/api/cameras/${encodeURIComponent(live.name)}/live?video=${live.pictures ? 1 : 0}`;
      const response = await fetch(path, { signal: session.abort.signal, cache: "no-store" });
      if (live.session !== session) return;
      if (response.status === 401) return showLogin();
      if (!response.ok) {
        const answer = await response.json().catch(() => null);
        live.note = `${answer?.error ?? `The service answers ${response.status}`}.`;
      } else {
        await readRecords(response.body, (...record) => {
          if (live.session !== session) return;
          wait = 500;
          onRecord(...record);
        });
      }
    } catch (error) {
      if (live.session !== session) return;
      if (error.name !== "AbortError") live.note = "Not connected; trying again.";
    }
    if (live.session !== session) return;
    live.reconnects += 1;
    showLive();
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(2 * wait, 5000);
  }
}

/** Begins anew: the server sends everything from the newest key frame on. */
function again(why) {
  live.note = why;
  live.session?.abort?.abort();
}

/** A track cannot be played: once more from the beginning, and where that does not help, without it. */
function failed(track, error) {
  const now = performance.now();
  live.failures = [...live.failures.filter((at) => now - at < 30_000), now];
  if (live.failures.length <= 3) return again(`It begins anew: ${error.message}.`);
  if (live.tracks) live.tracks[`no_${track}`] = error.message;
  if (track === "video") closeVideo();
  else closeSound();
  showLive();
}

function leave() {
  const session = live.session;
  live.session = null;
  session?.abort?.abort();
  closeVideo();
  closeSound();
  live.tracks = null;
  live.shownUs = null;
  Object.assign(live, { mediaAt: 0, tracksAt: 0, pictureAt: 0, pictureGap: 0, movedAt: 0, soundAt: 0, reviveAt: 0,
    revivePause: REVIVE_MS });
}

function enter(name, pictures) {
  leave();
  Object.assign(live, { name, pictures, note: "", passing: "", heard: performance.now() });
  live.session = {};
  $("live-screen").hidden = !pictures;
  clearJpeg();
  showLive();
  connect(live.session);
}

// ---- What is seen ----

/** Makes what is wanted of sound so. */
function applySound() {
  const element = $("live-audio");
  element.volume = live.volume;
  element.muted = !live.sound;
  live.raw?.setVolume(live.sound ? live.volume : 0);
  if (live.sound && live.audio && element.paused) element.play().catch(() => {});
  if (live.sound && live.raw && !live.raw.allowed) live.raw.unlock();
}

/** Sound is wanted, is there, and the browser waits for a tap before it lets it be heard. */
function needsTap() {
  if (!live.sound) return false;
  return Boolean(live.raw && !live.raw.allowed) || Boolean(live.audio && $("live-audio").paused);
}

/** The time of day of a moment, the same whenever it is asked for. */
function wallClock(at) {
  if (live.wall?.at !== at) {
    live.wall = { at, text: new Date(Date.now() - (performance.now() - at)).toLocaleTimeString() };
  }
  return live.wall.text;
}

/** What is not as it was a moment ago, of each track for itself. */
function judge(now) {
  const pictures = live.pictures && Boolean(live.tracks?.video) && !live.tracks.no_video;
  if (live.video) live.movedAt = Math.max(live.movedAt, live.video.movedAt);
  // Some cameras send a picture every few seconds.
  const patience = SILENT_MS + 2 * live.pictureGap;
  return {
    silent: Boolean(live.mediaAt) && now - live.mediaAt > SILENT_MS,
    awaited: pictures && !live.movedAt,
    still: pictures && Boolean(live.movedAt) && now - live.movedAt > patience,
    // Pictures come and are not shown.
    stuck: pictures && now - live.pictureAt < patience && now - Math.max(live.movedAt, live.tracksAt) > patience,
    mute: Boolean(live.tracks?.audio && live.soundAt) && now - live.soundAt > SILENT_MS,
  };
}

/** Begins anew where pictures come that are not shown; seldom, since what is heard is interrupted, too. */
function revive(now, stuck) {
  if (!stuck || document.hidden || now < live.reviveAt) return;
  // What moved for a while since the last time is another matter.
  if (live.movedAt > live.reviveAt) live.revivePause = REVIVE_MS;
  live.reviveAt = now + live.revivePause;
  live.revivePause = Math.min(2 * live.revivePause, REVIVE_AT_MOST_MS);
  again(live.note);
}

function showLive() {
  if (!live.session) return;
  const now = performance.now();
  put($("live-title"), live.pictures ? `Live: ${live.name}` : `Live sound: ${live.name}`);
  const camera = state.status?.cameras.find((c) => c.name === live.name);
  const timeUs = live.video?.timeUs ?? live.shownUs;
  put($("live-name"), live.name);
  put($("live-time"), timeUs === null ? "" : new Date(timeUs / 1000).toLocaleTimeString());
  put($("live-score"), !camera ? "" : camera.crying ? `CRYING ${percent(camera.score)}` : `cry ${percent(camera.score)}`);
  $("live-screen").classList.toggle("crying", Boolean(camera?.crying));
  const { silent, awaited, still, mute, stuck } = judge(now);
  const late = live.pictures ? live.video : live.audio;
  const behind = late?.behind > 2 + late?.gap;
  // No text that changes by itself: it would be read aloud again and again.
  const text = live.note ? live.note
    : !live.mediaAt ? "Waiting for the camera."
      : silent ? `nothing new since ${wallClock(live.mediaAt)}.`
        : still ? `the picture stands still since ${wallClock(live.movedAt)}.`
          : mute ? `nothing is heard since ${wallClock(live.soundAt)}.`
            : behind ? "what you see is late; catching up."
              : awaited ? "Waiting for the first picture."
                : now < live.passingUntil ? live.passing : "";
  const stale = silent || still || behind;
  $("live-note").hidden = !text;
  put($("live-note"), stale || (mute && !live.note) ? `Not up to date: ${text}` : text);
  $("live-screen").classList.toggle("out-of-date", stale);
  revive(now, stuck);
  const missing = [
    live.pictures && live.tracks && (live.tracks.no_video || !live.tracks.video) ? `No pictures: ${live.tracks.no_video ?? "they are awaited"}.` : "",
    live.tracks && (live.tracks.no_audio || !live.tracks.audio) ? `No sound: ${live.tracks.no_audio ?? "the camera sends none"}.` : "",
  ];
  put($("live-missing"), missing.filter(Boolean).join(" "));
  const tap = needsTap();
  const button = $("live-sound");
  put(button, tap ? "Tap to hear" : live.sound ? "Mute" : "Sound on");
  button.classList.toggle("wanted", tap);
  put($("live-picture"), live.pictures ? "Sound only" : "Show pictures");
}

function liveRoute() {
  const [view, name, what] = location.hash.slice(1).split("/");
  if (view !== "live" || !name) return leave();
  let decoded = name;
  try {
    decoded = decodeURIComponent(name);
  } catch {
    // It names no camera, which the service will say.
  }
  const pictures = what !== "sound";
  if (!live.session || live.name !== decoded || live.pictures !== pictures) enter(decoded, pictures);
}

$("live-sound").addEventListener("click", () => {
  if (!needsTap()) live.sound = !live.sound;
  applySound();
  showLive();
});
$("live-volume").addEventListener("input", () => {
  live.volume = Number($("live-volume").value) / 100;
  if (live.volume > 0) live.sound = true;
  applySound();
  showLive();
});
$("live-picture").addEventListener("click", () => {
  location.hash = `live/${encodeURIComponent(live.name)}${live.pictures ? "/sound" : ""}`;
});
addEventListener("hashchange", liveRoute);
// A login may have been in between.
addEventListener("nursery-begun", () => {
  leave();
  liveRoute();
});
// What was out of sight may have been paused by the browser.
document.addEventListener("visibilitychange", () => {
  live.tracksAt = performance.now();
});
setInterval(() => {
  if (!live.session) return;
  live.video?.follow();
  live.audio?.follow();
  // A browser pauses what is out of sight; it goes on where it would be now.
  if (live.video && $("live-video").paused && !document.hidden) $("live-video").play().catch(() => {});
  if (performance.now() - live.heard > DEAD_MS) {
    live.heard = performance.now();
    again("Not connected; trying again.");
  }
  showLive();
}, 200);
// The page may have begun before this was here.
if (state.begun) liveRoute();
