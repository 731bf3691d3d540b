// Runs in the audio thread: what is heard, in pieces of 16-bit samples at the rate of the audio context.
// The input is passed on, so that a recording can be listened to while it is translated.

const PIECE_S = 0.02;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(Math.round(sampleRate * PIECE_S));
    this.filled = 0;
    this.peak = 0;
    this.running = true;
    this.port.onmessage = () => this.finish();
  }

  // The main thread has said that the source is over.
  finish() {
    this.running = false;
    this.post();
    this.port.postMessage({ finished: true });
  }

  post() {
    if (!this.filled) return;
    const samples = this.piece.slice(0, this.filled);
    this.port.postMessage({ samples, peak: this.peak }, [samples.buffer]);
    this.filled = 0;
    this.peak = 0;
  }

  process(inputs, outputs) {
    const input = inputs[0][0]; // mixed down to one channel by the node
    if (!this.running || !input) return this.running;
    outputs[0][0].set(input);
    for (const value of input) {
      this.peak = Math.max(this.peak, Math.abs(value));
      this.piece[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(value * 32768)));
      if (this.filled === this.piece.length) this.post();
    }
    return true;
  }
}

registerProcessor("capture", Capture);
