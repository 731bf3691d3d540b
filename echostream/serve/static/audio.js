// Sound in and out: a source (microphone or recording) that gives 16-bit pieces, and a player of speech.

export const RECORDING_RATE = 16000; // the model's: the browser's decoder resamples to it, with a low-pass filter

// Browsers keep a page silent until somebody has clicked or typed in it: the promise to play is then never kept.
function held(ms) {
  const text = "The browser keeps this page silent: click into it and try again.";
  return new Promise((_, reject) => setTimeout(() => reject(new Error(text)), ms));
}

async function context(options, worklet) {
  const made = new AudioContext(options);
  try {
    await made.audioWorklet.addModule(new URL(worklet, import.meta.url));
    await Promise.race([made.resume(), held(5000)]);
  } catch (error) {
    await made.close();
    throw error;
  }
  return made;
}

export class Source {
  // onPiece(Int16Array, peak) for every 20 ms; onEnd() once, when there is no more.
  constructor(audio, onPiece, onEnd, release) {
    this.audio = audio;
    this.sampleRate = audio.sampleRate;
    this.release = release;
    this.node = new AudioWorkletNode(audio, "capture", {
      channelCount: 1,
      channelCountMode: "explicit",
      channelInterpretation: "speakers",
      outputChannelCount: [1],
    });
    this.gain = new GainNode(audio, { gain: 0 });
    this.node.connect(this.gain).connect(audio.destination);
    this.node.port.onmessage = ({ data }) => {
      if (data.finished) {
        this.close();
        onEnd();
      } else {
        onPiece(data.samples, data.peak);
      }
    };
  }

  // device: its id, or empty for the browser's choice; sampleRate: of a session that goes on, or null.
  static async microphone(device, sampleRate, onPiece, onEnd) {
    if (!navigator.mediaDevices) {
      throw new Error("Browsers give the microphone to localhost and to https pages only.");
    }
    // Without echo cancellation the translation from the loudspeakers would be translated again.
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: {
        ...(device && { deviceId: { exact: device } }),
        channelCount: 1,
        echoCancellation: true,
        noiseSuppression: false,
        autoGainControl: false,
      },
    });
    const release = () => stream.getTracks().forEach((track) => track.stop());
    try {
      const audio = await context({ latencyHint: "interactive", ...(sampleRate && { sampleRate }) }, "capture.worklet.js");
      const source = new Source(audio, onPiece, onEnd, release);
      stream.getAudioTracks()[0].onended = () => source.finish();
      source.input = audio.createMediaStreamSource(stream);
      return source;
    } catch (error) {
      release();
      throw error;
    }
  }

  // fromS: where to begin.
  static async recording(file, volume, fromS, onPiece, onEnd) {
    if (!file.size) throw new Error(`${file.name} is empty.`);
    const audio = await context({ sampleRate: RECORDING_RATE }, "capture.worklet.js");
    const source = new Source(audio, onPiece, onEnd, () => {});
    try {
      const buffer = await audio.decodeAudioData(await file.arrayBuffer());
      source.input = new AudioBufferSourceNode(audio, { buffer });
      source.durationS = buffer.duration;
    } catch {
      await audio.close();
      throw new Error(`The browser cannot read ${file.name} as audio.`);
    }
    source.input.onended = () => source.finish();
    source.volume = volume;
    source.fromS = fromS;
    return source;
  }

  start() {
    this.input.connect(this.node);
    if (this.input.start) this.input.start(0, this.fromS);
  }

  set volume(value) {
    this.gain.gain.value = value;
  }

  async setPaused(paused) {
    if (this.closed) return; // it has ended, while the rest of its translation is on its way
    await (paused ? this.audio.suspend() : this.audio.resume());
  }

  // Gives the last piece, then onEnd.
  async finish() {
    if (this.closed) return;
    await this.audio.resume();
    this.node.port.postMessage("finish");
  }

  close() {
    if (this.closed) return;
    this.closed = true;
    this.release();
    this.audio.close();
  }
}

export class Player {
  // The context has the rate of the speech, so that what is resampled for the loudspeaker is one continuous signal.
  static async open(sampleRate, volume, onPlayed) {
    const player = new Player();
    player.audio = await context({ sampleRate }, "player.worklet.js");
    player.node = new AudioWorkletNode(player.audio, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    player.gain = new GainNode(player.audio, { gain: volume });
    player.node.connect(player.gain).connect(player.audio.destination);
    player.node.port.onmessage = ({ data }) => onPlayed(data);
    return player;
  }

  // samples: Int16Array
  play(samples) {
    const speech = Float32Array.from(samples, (value) => value / 32768);
    this.node.port.postMessage(speech, [speech.buffer]);
  }

  set volume(value) {
    this.gain.gain.value = value;
  }

  setPaused(paused) {
    return paused ? this.audio.suspend() : this.audio.resume();
  }

  close() {
    if (this.audio.state !== "closed") this.audio.close();
  }
}
