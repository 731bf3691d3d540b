// What a session has said so far, on the clock of what was heard: for the downloads.

const CUE_WORDS = 10;
const CUE_S = 5;
const GAP_S = 1;

export class Take {
  constructor(sampleRate) {
    this.sampleRate = sampleRate;
    this.pieces = []; // { at, from, samples }: position on the source's clock, position in the speech
    this.words = [];
    this.spoken = 0;
    this.end = 0;
    this.sourceS = 0;
  }

  output(message) {
    this.sourceS = message.source_s;
    this.words.push(...message.words);
  }

  // Speech starts when it was made, or when the speech before it ends.
  speech(samples) {
    const at = Math.max(this.end, Math.round(this.sourceS * this.sampleRate));
    this.pieces.push({ at, from: this.spoken, samples });
    this.spoken += samples.length;
    this.end = at + samples.length;
  }

  // From a time in the speech, in seconds, to the clock of the source.
  timeOf(speechS) {
    const sample = speechS * this.sampleRate;
    let found = null;
    for (const piece of this.pieces) {
      if (piece.from > sample) break;
      found = piece;
    }
    return found ? (found.at + Math.min(sample - found.from, found.samples.length)) / this.sampleRate : speechS;
  }

  wav() {
    const samples = new Int16Array(this.end);
    for (const piece of this.pieces) samples.set(piece.samples, piece.at);
    const header = new DataView(new ArrayBuffer(44));
    const text = (at, value) => [...value].forEach((char, index) => header.setUint8(at + index, char.charCodeAt(0)));
    text(0, "RIFF");
    header.setUint32(4, 36 + samples.byteLength, true);
    text(8, "WAVEfmt ");
    header.setUint32(16, 16, true);
    header.setUint16(20, 1, true); // PCM
    header.setUint16(22, 1, true); // one channel
    header.setUint32(24, this.sampleRate, true);
    header.setUint32(28, 2 * this.sampleRate, true);
    header.setUint16(32, 2, true);
    header.setUint16(34, 16, true);
    text(36, "data");
    header.setUint32(40, samples.byteLength, true);
    return new Blob([header, samples], { type: "audio/wav" });
  }

  vtt() {
    const cues = [];
    for (const word of this.words) {
      const silent = word.end_s === 0;
      const start = silent ? word.source_s : this.timeOf(word.start_s);
      const end = silent ? start + 0.5 : this.timeOf(word.end_s - 0.001) + 0.001;
      const cue = cues.at(-1);
      const fits = cue && start - cue.end < GAP_S && end - cue.start < CUE_S && cue.words < CUE_WORDS;
      if (cue && (word.joined || (fits && !/[.?!]$/.test(cue.text)))) {
        cue.text += (word.joined ? "" : " ") + word.text;
        cue.end = Math.max(end, cue.end);
        cue.words += 1;
      } else {
        if (cue) cue.end = Math.min(cue.end, start);
        cues.push({ start, end, text: word.text, words: 1 });
      }
    }
    const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
    const blocks = cues.map((cue) => `${clock(cue.start)} --> ${clock(Math.max(cue.end, cue.start + 0.1))}\n${escape(cue.text)}`);
    return new Blob([["WEBVTT", ...blocks].join("\n\n") + "\n"], { type: "text/vtt" });
  }
}

function clock(seconds) {
  const ms = Math.round(seconds * 1000);
  const pad = (value, length = 2) => String(value).padStart(length, "0");
  return `${pad(Math.floor(ms / 3600000))}:${pad(Math.floor(ms / 60000) % 60)}:${pad(Math.floor(ms / 1000) % 60)}.${pad(ms % 1000, 3)}`;
}
