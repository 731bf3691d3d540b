// Computes apart from the page, so that it answers while a step lasts.

import { Model } from "./model.js";
import { SILENCE_S, Stream } from "./stream.js";

let model = null;
let stream = null;
let isWorking = false;
let computedMs = 0;

const say = (kind, symbol, sentence) => postMessage({ kind, symbol, sentence });
const aMoment = () => new Promise((resolve) => setTimeout(resolve)); // for messages to come in
const fail = ({ message }) => postMessage({ kind: "failed", message });

onmessage = ({ data }) => {
  if (data.kind === "begin") {
    stream = new Stream(model, say);
    computedMs = 0;
  }
  if (!stream) return; // Stop was pressed while the end was on its way to the page
  if (data.kind === "samples") stream.add(data.samples);
  if (data.kind === "end") stream.finish(data.isStopped);
  if (!isWorking) work().catch(fail);
};

async function work() {
  isWorking = true;
  try {
    while (await measured(() => stream.step())) {
      postMessage({ kind: "step", takenS: seconds(stream.taken), waitingS: seconds(stream.waiting), computedS: computedMs / 1000 });
      await aMoment();
    }
    if (!stream.isFinished) return;
    await measured(() => stream.endSentence());
    const heardS = seconds(stream.taken + stream.waiting) - SILENCE_S;
    postMessage({ kind: "ended", heardS, computedS: computedMs / 1000 });
    stream = null;
  } finally {
    isWorking = false;
  }
}

async function measured(work) {
  const began = performance.now();
  const result = await work();
  computedMs += performance.now() - began;
  return result;
}

const seconds = (samples) => samples / model.about.sample_rate;

Model.load((name, done, total) => postMessage({ kind: "progress", name, done, total })).then((loaded) => {
  model = loaded;
  postMessage({ kind: "ready", about: model.about });
}, fail);
