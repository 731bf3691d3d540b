// From samples to words, as the program of docs/guides/onnx.md does it: greedy, a translation at each sentence's end.

import { Tensor } from "./model.js";

export const SILENCE_S = 2; // carries the last word through the look-ahead and ends its sentence
const SENTENCE_END_MS = 1000; // without a word
const MOST_TOKENS = { atAll: 8, perSecond: 12.5 }; // a decoder that has lost its place finds no end

// The index of the largest score of a row; never: indices that don't count.
function likeliest(scores, never = []) {
  let best = -1;
  for (let index = 0; index < scores.length; index++) {
    if (!never.includes(index) && (best < 0 || scores[index] > scores[best])) best = index;
  }
  return best;
}

export class Stream {
  // say(kind, symbol, sentence): kind is "heard" or "said", sentence a number.
  constructor(model, say) {
    this.model = model;
    this.say = say;
    this.states = { ...model.fresh };
    this.last = model.about.blank;
    this.silentFrames = 0;
    this.pieces = [];
    this.waiting = 0; // samples in the pieces
    this.taken = 0;
    this.sentence = 0;
    this.forgetSentence();
  }

  forgetSentence() {
    this.isWorded = false;
    this.frames = new Float32Array();
  }

  add(samples) {
    this.pieces.push(samples);
    this.waiting += samples.length;
  }

  // No more is added. isStopped: what waits isn't wanted either.
  finish(isStopped) {
    if (isStopped) {
      this.pieces = [];
      this.waiting = 0;
    }
    this.add(new Float32Array(SILENCE_S * this.model.about.sample_rate));
    this.isFinished = true;
  }

  take(count) {
    const samples = new Float32Array(count);
    for (let filled = 0; filled < count; ) {
      const part = this.pieces[0].subarray(0, count - filled);
      samples.set(part, filled);
      filled += part.length;
      this.pieces[0] = this.pieces[0].subarray(part.length);
      if (!this.pieces[0].length) this.pieces.shift();
    }
    this.waiting -= count;
    this.taken += count;
    return samples;
  }

  // Hears a step and says what follows from it; false: there are not enough samples for one.
  async step() {
    const { about, encoder_start, encoder, asr_head } = this.model;
    const [part, count] = this.taken ? [encoder, about.step_samples] : [encoder_start, about.first_samples];
    if (this.waiting < count) return false;
    const samples = new Tensor("float32", this.take(count), [count]);
    const { frames } = await part.call(this.states, { samples });
    this.remember(frames);
    const { asr_logits } = await asr_head.call(this.states, { frames });
    const symbols = asr_logits.dims[2];
    for (let at = 0; at < asr_logits.size; at += symbols) this.hear(likeliest(asr_logits.data.subarray(at, at + symbols)));
    if (this.silentFrames * about.frame_ms >= SENTENCE_END_MS) await this.endSentence();
    return true;
  }

  // The decoder looks back at no more frames than these, however long nobody speaks.
  remember({ data, dims }) {
    const all = new Float32Array(this.frames.length + data.length);
    all.set(this.frames);
    all.set(data, this.frames.length);
    this.frameSize = dims[2];
    this.frames = all.subarray(Math.max(0, all.length - this.model.about.mt_window_frames * this.frameSize));
  }

  hear(symbol) {
    const { blank, source_symbols } = this.model.about;
    if (symbol !== blank && symbol !== this.last) {
      this.isWorded = true;
      this.say("heard", source_symbols[symbol], this.sentence);
    }
    this.silentFrames = symbol === blank ? this.silentFrames + 1 : 0;
    this.last = symbol;
  }

  async endSentence() {
    if (!this.isWorded) return;
    const { about, mt_decoder, fresh } = this.model;
    const count = this.frames.length / this.frameSize;
    const frames = new Tensor("float32", this.frames, [1, count, this.frameSize]);
    const most = MOST_TOKENS.atAll + (MOST_TOKENS.perSecond * count * about.frame_ms) / 1000;
    const states = { ...fresh };
    for (let token = about.end, written = 0; written < most; written++) {
      const before = new Tensor("int64", [BigInt(token)], [1, 1]);
      const { mt_logits } = await mt_decoder.call(states, { token: before, frames });
      token = likeliest(mt_logits.data, about.never);
      if (token === about.end) break;
      this.say("said", about.target_symbols[token], this.sentence);
    }
    this.sentence++;
    this.forgetSentence();
  }
}
