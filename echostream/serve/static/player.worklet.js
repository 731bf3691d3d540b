// Runs in the audio thread: plays pieces of speech one after the other without a gap, and silence while there are none.

const FADE_SAMPLES = Math.round(sampleRate * 0.005);
const REPORT_SAMPLES = Math.round(sampleRate * 0.05);

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.pieces = [];
    this.offset = 0; // in the first piece
    this.queued = 0;
    this.played = 0;
    this.reported = -1;
    this.fadeIn = 0; // samples already faded in since the last silence
    this.port.onmessage = ({ data }) => {
      this.pieces.push(data);
      this.queued += data.length;
    };
  }

  next() {
    const value = this.pieces[0][this.offset++];
    if (this.offset === this.pieces[0].length) {
      this.pieces.shift();
      this.offset = 0;
    }
    this.queued--;
    this.played++;
    return value;
  }

  process(_, outputs) {
    const output = outputs[0][0];
    // A piece may end anywhere in a wave. Where nothing follows it in time, a short fade avoids a click.
    const runsOut = this.queued <= output.length;
    for (let index = 0; index < output.length; index++) {
      if (!this.queued) {
        this.fadeIn = 0;
        break;
      }
      const rise = Math.min(1, ++this.fadeIn / FADE_SAMPLES);
      const fall = runsOut ? Math.min(1, this.queued / FADE_SAMPLES) : 1;
      output[index] = this.next() * rise * fall;
    }
    if (this.played !== this.reported && (!this.queued || this.played - this.reported >= REPORT_SAMPLES)) {
      this.reported = this.played;
      this.port.postMessage(this.played);
    }
    return true;
  }
}

registerProcessor("player", Player);
