// The page: controls and texts around a source and a worker that has the model.

import { Source } from "./audio.js";
import { Level } from "./level.js";
import { Transcript } from "./transcript.js";
import { languageName, trouble } from "./words.js";

const MEGABYTE = 1e6;
const PATIENCE_S = 3; // so much may wait before the page says so

const $ = (id) => document.getElementById(id);
const texts = { heard: new Transcript($("source")), said: new Transcript($("translation")) };
const level = new Level($("level"));
let worker = null;
let about = null; // the model, once it is loaded
let session = null; // { name, source, isOpen }

$("microphone").onclick = () => begin("the microphone", listen);
$("file").onchange = () => {
  const [file] = $("file").files;
  $("file").value = ""; // the same file can be chosen again
  if (file) begin(file.name, () => send(file));
};
$("stop").onclick = stop;
load();

function load() {
  if (typeof WebAssembly === "undefined") {
    say("This browser has no WebAssembly, or it is switched off; the model can't be computed without it.", true);
    return;
  }
  say("Loading the model …");
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => answers[data.kind](data);
  worker.onerror = () => answers.failed({ message: "not all files of the page could be read: export the model again with --page." });
}

const answers = {
  progress({ name, done, total }) {
    say(total > MEGABYTE ? `Loading ${name}, ${(total / MEGABYTE).toFixed(0)} MB …` : `Preparing ${name} …`);
    showProgress(done, total);
  },
  ready(message) {
    about = message.about;
    showProgress(0, 0);
    const [from, to] = [about.source_lang, about.target_lang].map(languageName);
    if (from && to) {
      $("purpose").textContent = `Speak ${from}; you read ${to}.`;
      $("source-title").textContent = from;
      $("translation-title").textContent = to;
    }
    $("source").lang = about.source_lang;
    $("translation").lang = about.target_lang;
    say("Press Speak, or choose a recording.");
    showControls();
  },
  heard: write,
  said: write,
  step({ takenS, waitingS, computedS }) {
    $("rtf").textContent = (computedS / takenS).toFixed(2);
    if (!session) return;
    if (session.source) sayRunning(waitingS);
    else showProgress(takenS, takenS + waitingS);
  },
  ended({ heardS, computedS }) {
    finish(`Done: ${heardS.toFixed(1)} s heard, computed in ${computedS.toFixed(1)} s.`);
  },
  // What is left of the model can't be trusted.
  failed({ message }) {
    worker.terminate();
    about = null;
    session?.source?.close();
    const isMemory = /memory|alloc/i.test(message);
    finish(isMemory ? "This browser has not enough memory for the model." : `The model can't be computed: ${message}`, true);
  },
};

// Subwords: one that begins with ▁ begins a word.
function write({ kind, symbol, sentence }) {
  const text = symbol.replace(/^▁/, "");
  texts[kind].add({ text, joined: text === symbol, sentence });
}

async function begin(name, open) {
  if (session) return;
  const mine = (session = { name });
  for (const text of Object.values(texts)) text.clear();
  $("rtf").textContent = "–";
  say(`Opening ${name} …`);
  showControls();
  try {
    worker.postMessage({ kind: "begin" });
    await open();
    if (session !== mine) return;
    mine.isOpen = true;
    sayRunning(0);
    showControls();
  } catch (error) {
    mine.source?.close();
    finish(trouble(error), true);
  }
}

async function listen() {
  const heard = (pcm, peak) => {
    post(Float32Array.from(pcm, (value) => value / 32768));
    level.draw(peak);
  };
  const ended = () => {
    worker.postMessage({ kind: "end" });
    level.draw(0);
  };
  session.source = await Source.microphone("", about.sample_rate, heard, ended);
  session.source.start();
}

// A recording isn't played: it is translated as fast as the computer can.
async function send(file) {
  const decoder = new OfflineAudioContext(1, 1, about.sample_rate); // resamples to the model's rate
  const sound = await file.arrayBuffer().then((bytes) => decoder.decodeAudioData(bytes)).catch(() => {
    throw new Error(`The browser cannot read ${file.name} as audio.`);
  });
  const mixed = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((value, at) => (mixed[at] += value / sound.numberOfChannels));
  }
  post(mixed);
  worker.postMessage({ kind: "end" });
}

function post(samples) {
  worker.postMessage({ kind: "samples", samples }, [samples.buffer]);
}

function stop() {
  if (session.source && !session.source.closed) session.source.finish();
  else worker.postMessage({ kind: "end", isStopped: true });
}

function finish(text, isError = false) {
  session = null;
  showProgress(0, 0);
  level.draw(0);
  say(text, isError);
  showControls();
}

function showControls() {
  const running = session?.isOpen === true; // while a source is being opened, nothing moves yet
  const focused = document.activeElement;
  $("microphone").disabled = $("file").disabled = running || !about;
  $("stop").disabled = !running;
  document.body.classList.toggle("running", running);
  // Where a button is disabled under the hands of a keyboard user, the focus goes on to what can be done next.
  if (focused?.disabled) $(running ? "stop" : "microphone").focus({ preventScroll: true });
}

function sayRunning(waitingS) {
  const { source, name } = session;
  if (!source) say(`Translating ${name} …`);
  else if (source.closed) say("The microphone is off; the rest is on its way.");
  else say(waitingS > PATIENCE_S ? "Listening. This computer is slower than the speech." : "Listening.");
}

function showProgress(done, total) {
  $("progress").hidden = !total;
  $("progress").max = total || 1;
  $("progress").value = done;
}

// A screen reader reads every change aloud.
function say(text, isError = false) {
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}
