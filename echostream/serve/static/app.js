// The page: controls, figures and texts around a source, a connection and a player.

import { Player, Source } from "./audio.js";
import { Connection } from "./connection.js";
import { Take } from "./take.js";
import { Transcript } from "./transcript.js";

const SEGMENTS_MS = [40, 80, 160, 320, 640, 1280, 2560];
const POLICIES = {
  alignment: "On evidence, word by word",
  "token-alignment": "As tokens are recognised",
  stride: "At a fixed stride",
  "wait-k": "A few words behind (wait-k)",
  "fixed-rate": "At a fixed rate",
};
const TASKS = { s2st: "Speech and text", s2tt: "Text", asr: "Transcript only" };

const $ = (id) => document.getElementById(id);
const source = new Transcript($("source"));
const translation = new Transcript($("translation"));
let session = null; // { connection, source, player, take, paused, name }
let take = null; // of the session, or of the last one

const config = await fetch("config").then((response) => response.json());
fillSettings();
$("microphone").onclick = () => begin("the microphone", (...on) => Source.microphone(...on));
$("file").onchange = () => {
  const [file] = $("file").files;
  $("file").value = ""; // the same file can be chosen again
  if (file) begin(file.name, (...on) => Source.recording(file, Number($("source-volume").value), ...on));
};
$("pause").onclick = togglePause;
$("stop").onclick = () => session?.source?.finish();
$("speech-volume").oninput = () => session?.player && (session.player.volume = Number($("speech-volume").value));
$("source-volume").oninput = () => session?.recording && (session.source.volume = Number($("source-volume").value));
$("save-wav").onclick = () => save(take.wav(), "wav");
$("save-vtt").onclick = () => save(take.vtt(), "vtt");
const wide = matchMedia("(min-width: 46rem)");
wide.onchange = () => ($("more").open = wide.matches);
wide.onchange();
showControls();
drawLevel(0);

function fillSettings() {
  const segments = new Set([...SEGMENTS_MS, config.defaults.segment_ms].filter((ms) => ms <= config.segment_max_ms));
  fill("segment", [...segments].sort((left, right) => left - right).map((ms) => [ms, `${ms} ms`]), config.defaults.segment_ms);
  fill("policy", config.policies.map((name) => [name, POLICIES[name] ?? name]), config.defaults.policy);
  fill("task", config.tasks.map((name) => [name, TASKS[name] ?? name]), config.defaults.task);
  $("model").textContent = config.model;
  $("source").lang = config.languages.source;
  $("translation").lang = config.languages.target;
}

function fill(id, options, chosen) {
  $(id).replaceChildren(...options.map(([value, text]) => new Option(text, value, value === chosen, value === chosen)));
}

async function begin(name, open) {
  if (session) return;
  const mine = (session = { name, paused: false, recording: false, played: 0 });
  take = new Take(config.output_sample_rate);
  source.clear();
  translation.clear();
  for (const id of ["heard", "latency", "rtf", "waiting"]) $(id).textContent = "–";
  say(`Opening ${name} …`);
  showControls();
  try {
    mine.source = await open(
      (samples, peak) => {
        mine.connection.send(samples);
        drawLevel(peak);
      },
      () => sourceEnded(mine),
    );
    mine.recording = mine.source.durationS !== undefined;
    if (mine.source.durationS > config.limits.max_length_s) {
      throw new Error(`${name} is longer than the ${config.limits.max_length_s} s that this server takes.`);
    }
    if ($("task").value === "s2st") mine.player = await openPlayer(mine);
    connect(mine);
    mine.source.start();
    mine.running = true;
    showControls();
  } catch (error) {
    const refused = error.name === "NotAllowedError";
    mine.source?.close();
    finish(mine, refused ? "The microphone is blocked: allow it for this page." : readable(error), true);
  }
}

function openPlayer(mine) {
  return Player.open(config.output_sample_rate, Number($("speech-volume").value), (samples) => {
    mine.played = samples;
    translation.played(samples / config.output_sample_rate);
    showWaiting(mine);
    if (mine.end) drained(mine);
  });
}

function connect(mine) {
  const settings = {
    sample_rate: mine.source.sampleRate,
    segment_ms: Number($("segment").value),
    policy: $("policy").value,
    task: $("task").value,
  };
  mine.connection = new Connection(settings, {
    ready: () => {
      say(mine.recording ? `Playing ${mine.name}.` : "Listening. Headphones keep the translation out of the microphone.");
    },
    output: (message) => output(mine, message),
    speech: (samples) => {
      take.speech(samples);
      mine.player?.play(samples);
      showControls();
    },
    ended: (end) => ended(mine, end),
  });
}

function output(mine, message) {
  take.output(message);
  for (const word of message.source_words) source.add(word.text, word.joined, word.start_s);
  for (const word of message.words) {
    const spoken = mine.player ? { startS: word.start_s, endS: word.end_s } : null;
    translation.add(word.text, word.joined, word.source_s, spoken);
  }
  $("heard").textContent = `${message.source_s.toFixed(1)} s`;
  if (message.latency_ms !== undefined) $("latency").textContent = `${Math.round(message.latency_ms)} ms`;
  $("rtf").textContent = message.rtf.toFixed(2);
  showWaiting(mine);
  if (message.words.length) showControls();
}

function showWaiting(mine) {
  const waiting = mine.player ? Math.max(0, take.spoken - mine.played) / take.sampleRate : 0;
  $("waiting").textContent = `${waiting.toFixed(1)} s`;
}

function sourceEnded(mine) {
  mine.connection?.end();
  drawLevel(0);
  if (session === mine && !mine.end) say("The source has ended; the rest is on its way.");
  showControls();
}

function ended(mine, end) {
  mine.end = end;
  mine.source.close();
  if (mine.player && take.spoken > mine.played) drained(mine);
  else conclude(mine);
  showControls();
}

// What was received is still heard to its end.
function drained(mine) {
  if (take.spoken <= mine.played) conclude(mine);
}

function conclude(mine) {
  const heard = `${take.sourceS.toFixed(1)} s heard`;
  const said = take.spoken ? `, ${(take.spoken / take.sampleRate).toFixed(1)} s spoken` : "";
  finish(mine, mine.end.ok ? `Done: ${heard}${said}.` : `Ended: ${mine.end.message}`, !mine.end.ok);
}

function finish(mine, text, isError) {
  if (session !== mine) return;
  mine.player?.close();
  session = null;
  translation.settle();
  drawLevel(0);
  say(text, isError);
  showControls();
}

async function togglePause() {
  const mine = session;
  mine.paused = !mine.paused;
  showControls();
  await Promise.all([mine.end ? null : mine.source.setPaused(mine.paused), mine.player?.setPaused(mine.paused)]);
  say(mine.paused ? `Paused. The server waits ${config.limits.max_idle_s} s.` : "Going on.");
  if (mine.paused) drawLevel(0);
}

function showControls() {
  const running = session?.running === true; // while a source is being opened, nothing moves yet
  const focused = document.activeElement;
  $("microphone").disabled = $("file").disabled = $("settings").disabled = running;
  $("pause").disabled = !running;
  $("stop").disabled = !running || session.source.closed === true;
  $("pause").setAttribute("aria-pressed", String(session?.paused ?? false));
  $("save-wav").disabled = !take?.spoken;
  $("save-vtt").disabled = !take?.words.length;
  // Where a button is disabled under the hands of a keyboard user, the focus goes on to what can be done next.
  if (focused?.disabled) $(running ? "pause" : "microphone").focus({ preventScroll: true });
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function readable(error) {
  return error.name === "NotFoundError" ? "No microphone was found." : error.message;
}

function drawLevel(peak) {
  const canvas = $("level");
  const pen = canvas.getContext("2d");
  const bars = 24;
  const lit = peak ? Math.round(bars * Math.max(0, 1 + Math.log10(peak) / 2.5)) : 0;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = getComputedStyle(canvas).color;
  for (let bar = 0; bar < bars; bar++) {
    pen.globalAlpha = bar < lit ? 1 : 0.18;
    pen.fillRect(bar * 5, 4, 3, 12);
  }
}

function save(blob, kind) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `translation.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
