// Sound that browsers do not decode themselves, G.711 and 16 bit PCM, played by WebAudio close to its time.
"use strict";

const CUSHION_S = 0.15; // What is ahead when playing begins, against trembling of the network.
const MOST_AHEAD_S = 0.7; // More than this has piled up: it is skipped, down to
const ENOUGH_AHEAD_S = 0.25;
const PIECE_S = 0.04; // Smaller packets are put together.

/** ITU-T G.711: what each of the 256 codes means, from -1 to 1. */
const G711 = {
  ulaw: Float32Array.from({ length: 256 }, (_, code) => {
    const u = ~code & 255;
    const t = (((u & 15) << 3) + 132) << ((u & 0x70) >> 4);
    return ((u & 0x80) ? 132 - t : t - 132) / 32_768;
  }),
  alaw: Float32Array.from({ length: 256 }, (_, code) => {
    const a = code ^ 0x55;
    const segment = (a & 0x70) >> 4;
    const t = segment === 0 ? ((a & 15) << 4) + 8 : (((a & 15) << 4) + 0x108) << (segment - 1);
    return ((a & 0x80) ? t : -t) / 32_768;
  }),
};

/** Numbers from -1 to 1, channels interleaved. */
function decodeRaw(codec, bytes) {
  const table = G711[codec];
  if (table) return Float32Array.from(bytes, (code) => table[code]);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: bytes.length >> 1 }, (_, i) => view.getInt16(2 * i, true) / 32_768);
}

class RawSound {
  constructor(track) {
    this.track = track;
    this.context = RawSound.context ??= new AudioContext({ latencyHint: "interactive" });
    this.gain = new GainNode(this.context);
    this.analyser = new AnalyserNode(this.context, { fftSize: 2048 });
    this.analyser.connect(this.gain).connect(this.context.destination);
    this.next = 0;
    this.skipping = false;
    this.skips = 0;
    this.waiting = [];
    this.sources = new Set();
  }

  /** Whether the browser lets it be heard without being asked. */
  get allowed() {
    return this.context.state === "running";
  }

  async unlock() {
    await this.context.resume().catch(() => {});
  }

  setVolume(volume) {
    this.gain.gain.value = volume;
  }

  /** Loudness of what is played now, 0 to 1, before the volume. */
  rms() {
    const samples = new Float32Array(this.analyser.fftSize);
    this.analyser.getFloatTimeDomainData(samples);
    return Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
  }

  /** How far what is scheduled reaches, seconds. */
  get ahead() {
    return this.next - this.context.currentTime;
  }

  push(bytes) {
    // What comes while nothing may be heard is over by the time it may.
    if (!this.allowed) return;
    this.waiting.push(decodeRaw(this.track.codec, bytes));
    const { rate, channels } = this.track;
    const length = this.waiting.reduce((sum, piece) => sum + piece.length, 0);
    if (length < rate * channels * PIECE_S) return;
    const pieces = this.waiting;
    this.waiting = [];
    const now = this.context.currentTime;
    if (this.next < now + 0.01) this.next = now + CUSHION_S;
    if (this.ahead > MOST_AHEAD_S && !this.skipping) {
      this.skipping = true;
      this.skips += 1;
    }
    if (this.skipping && this.ahead > ENOUGH_AHEAD_S) return;
    this.skipping = false;
    const frames = Math.floor(length / channels);
    if (frames === 0) return;
    const buffer = this.context.createBuffer(channels, frames, rate);
    const joined = new Float32Array(length);
    let at = 0;
    for (const piece of pieces) {
      joined.set(piece, at);
      at += piece.length;
    }
    for (let channel = 0; channel < channels; channel += 1) {
      const data = buffer.getChannelData(channel);
      for (let i = 0; i < frames; i += 1) data[i] = joined[i * channels + channel];
    }
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.analyser);
    source.onended = () => this.sources.delete(source);
    this.sources.add(source);
    source.start(this.next);
    this.next += buffer.duration;
  }

  close() {
    for (const source of this.sources) source.stop();
    this.analyser.disconnect();
    this.gain.disconnect();
  }
}
