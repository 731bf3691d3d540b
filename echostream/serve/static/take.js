// What a session has said so far, on the clock of what was heard: sentences, and the files to be kept.

import { PAUSE_S, cuesOf, endsSentence, srt, vtt } from "./subtitles.js";
import { DOUBTFUL } from "./words.js";

const MARK = ".translated"; // of echostream/cli/outputs.py
const NAME_BYTES = 200; // file names have 255
const NOT_IN_NAMES = /[\p{Cc}<>:"/\\|?*\u202a-\u202e\u2066-\u2069]/gu; // on one system or another, or to be misread

// The name of a file to be kept, of ending wav, txt, vtt or srt. from: { kind, file, startedAt } of the session.
// A recording's subtitles have its own name, by which players find them; what it says in another language is marked.
export function fileName({ kind, file, startedAt }, ending) {
  if (kind === "recording") {
    const isSubtitles = ending === "vtt" || ending === "srt";
    return `${stem(file.name)}${isSubtitles ? "" : MARK}.${ending}`;
  }
  if (!startedAt) return `translation.${ending}`; // kept from an older page
  const two = (number) => String(number).padStart(2, "0");
  const at = new Date(startedAt);
  const day = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join("-");
  return `translation-${day}-${two(at.getHours())}${two(at.getMinutes())}.${ending}`;
}

// A file's name without its ending, as far as all systems take it.
function stem(name) {
  let kept = "";
  let bytes = 0;
  for (const char of name.replace(/(?<=.)\.[^.]*$/su, "").replace(NOT_IN_NAMES, "_")) {
    bytes += new TextEncoder().encode(char).length;
    if (bytes > NAME_BYTES) break;
    kept += char;
  }
  return kept;
}

export class Take {
  // from: { kind, file, startedAt }: where the session's source comes from.
  constructor(sampleRate, from) {
    this.sampleRate = sampleRate;
    this.from = from;
    this.pieces = []; // { at, from, samples }: position on the source's clock, position in the speech
    this.heard = []; // sentences of source words
    this.said = []; // sentences of the translation: words, and in `of` the number of the source's sentence
    this.isOpen = false; // the last of them goes on
    this.spoken = 0;
    this.end = 0;
    this.sourceS = 0;
    this.turns = []; // for each sentence heard, the time from which on a translation can be of it
  }

  get isEmpty() {
    return !this.heard.length && !this.said.length;
  }

  // Takes in an output and its speech; each word gets the number of its sentence.
  output(message, samples) {
    this.sourceS = message.source_s;
    for (const word of message.source_words) this.addHeard(word);
    const ended = message.sentence_ends ?? []; // kept from an older server, it has none
    let ends = 0;
    message.words.forEach((word, index) => {
      for (; ended[ends] <= index; ends++) this.isOpen = false;
      this.addSaid(word);
    });
    if (ends < ended.length) this.isOpen = false;
    if (samples) this.addSpeech(samples);
  }

  addHeard(word) {
    const last = this.heard.at(-1)?.at(-1);
    if (!last || (!word.joined && (endsSentence(last.text) || word.start_s - last.end_s >= PAUSE_S))) {
      this.heard.push([]);
      this.turns.push(word.end_s); // nothing is translated before a word of it is over
    }
    this.heard.at(-1).push(word);
    word.sentence = this.heard.length - 1;
  }

  addSaid(word) {
    let of = this.said.at(-1)?.of ?? 0;
    while (of + 1 < this.turns.length && this.turns[of + 1] <= word.source_s) of++;
    if (!this.isOpen) this.said.push(Object.assign([], { of }));
    this.isOpen = true;
    this.said.at(-1).push(word);
    word.sentence = this.said.length - 1;
  }

  // The word heard that has the same place in its sentence as this word, the last one of the translation, has in its own.
  sourceOf() {
    const sentence = this.said.at(-1);
    const heard = this.heard[sentence.of];
    return heard?.[Math.min(sentence.length, heard.length) - 1];
  }

  // Speech starts when it was made, or when the speech before it ends.
  addSpeech(samples) {
    const at = Math.max(this.end, Math.round(this.sourceS * this.sampleRate));
    this.pieces.push({ at, from: this.spoken, samples });
    this.spoken += samples.length;
    this.end = at + samples.length;
  }

  // From a time in the speech, in seconds, to the clock of the source.
  timeOf(speechS) {
    const sample = speechS * this.sampleRate;
    let low = 0;
    for (let high = this.pieces.length; high - low > 1; ) {
      const middle = (low + high) >> 1;
      if (this.pieces[middle].from <= sample) low = middle;
      else high = middle;
    }
    const piece = this.pieces[low];
    return piece ? (piece.at + Math.min(sample - piece.from, piece.samples.length)) / this.sampleRate : speechS;
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

  subtitles(kind) {
    const heard = this.heard.map((sentence) =>
      sentence.map(({ text, start_s, end_s, joined }) => ({ text, startS: start_s, endS: end_s, joined })),
    );
    const said = this.said.map((sentence) =>
      sentence.map((word) => {
        const isSilent = word.end_s === 0;
        const startS = isSilent ? word.source_s : this.timeOf(word.start_s);
        const endS = isSilent ? startS : this.timeOf(word.end_s - 0.001) + 0.001;
        return { text: word.text, startS, endS, joined: word.joined, doubtful: word.confidence < DOUBTFUL };
      }),
    );
    const write = kind === "srt" ? srt : vtt;
    const text = write(cuesOf("source", heard), cuesOf("translation", said));
    return new Blob([text], { type: kind === "srt" ? "application/x-subrip" : "text/vtt" });
  }

  // Both languages, a sentence a line.
  text(sourceTitle, targetTitle) {
    const joined = (sentence) => sentence.map((word, index) => (word.joined || !index ? "" : " ") + word.text).join("");
    const section = (title, sentences) => `${title}\n\n${sentences.map(joined).join("\n")}\n`;
    const sections = [section(targetTitle, this.said), section(sourceTitle, this.heard)];
    return new Blob([sections.join("\n")], { type: "text/plain;charset=utf-8" });
  }
}
