// The page: controls, figures and texts around a source, a connection and a player.

import { Player, RECORDING_RATE, Source } from "./audio.js";
import { Connection } from "./connection.js";
import { Level } from "./level.js";
import { Storage } from "./storage.js";
import { Take, fileName } from "./take.js";
import { Transcript } from "./transcript.js";
import { POLICIES, TASKS, duration, languageName, reason, trouble } from "./words.js";

const SEGMENTS_MS = [40, 80, 160, 320, 640, 1280, 2560];
const HASTY_MS = 1000; // a second click so soon was meant for the source, not for the rest
const REST = "The source has ended; the rest is on its way, unless you drop it.";
const KEEP_ALIVE_S = 1800; // of a pause; after it the server's own patience counts

const $ = (id) => document.getElementById(id);
const source = new Transcript($("source"));
const translation = new Transcript($("translation"));
const level = new Level($("level"));
let session = null; // { connection, source, player, paused, overAt, name, from, settings, lags, unheard }
let take = null; // of the session, or of the last one
let isSaved = true; // what the take has
let isSpoken = false; // into the microphone

const [config, storage] = await Promise.all([fetch("config").then((response) => response.json()), Storage.open()]);
const languages = { source: languageName(config.languages.source), target: languageName(config.languages.target) };
fillPage();
$("microphone").onclick = () => begin({ kind: "microphone", name: "the microphone", startedAt: Date.now() });
$("file").onchange = () => {
  const [file] = $("file").files;
  $("file").value = ""; // the same file can be chosen again
  if (file) begin({ kind: "recording", name: file.name, file });
};
$("pause").onclick = () => (session.paused ? goOn(session) : pause(session));
$("stop").onclick = stop;
$("speech-volume").oninput = () => session?.player && (session.player.volume = Number($("speech-volume").value));
$("source-volume").oninput = () => session?.recording && (session.source.volume = Number($("source-volume").value));
$("save-wav").onclick = () => save(take.wav(), "wav");
$("save-vtt").onclick = () => save(take.subtitles("vtt"), "vtt");
$("save-srt").onclick = () => save(take.subtitles("srt"), "srt");
$("save-txt").onclick = () => save(take.text(languages.source || "Source", languages.target || "Translation"), "txt");
$("token").value = sessionStorage.token ?? "";
$("token").oninput = () => (sessionStorage.token = $("token").value);
for (const menu of document.querySelectorAll("details")) {
  menu.onkeydown = ({ key }) => {
    if (key === "Escape" && menu.open) closeMenu(menu);
  };
}
addEventListener("pointerdown", ({ target }) => {
  for (const menu of document.querySelectorAll("details[open]")) if (!menu.contains(target)) menu.open = false;
});
addEventListener("beforeunload", (event) => {
  if (take && !take.isEmpty && !isSaved) event.preventDefault();
});
navigator.mediaDevices?.addEventListener("devicechange", listMicrophones);
await listMicrophones();
await restore();
showControls();
document.querySelector("main").removeAttribute("aria-busy");

function fillPage() {
  const { source: from, target: to } = languages;
  if (from && to) {
    $("purpose").textContent = `Speak ${from}; you ${config.tasks.includes("s2st") ? "hear" : "read"} ${to}.`;
    $("source-title").textContent = from;
    $("translation-title").textContent = to;
  }
  $("about").textContent = config.description;
  $("model").textContent = config.model;
  $("source").lang = config.languages.source;
  $("translation").lang = config.languages.target;
  $("access").hidden = !config.needs_token;
  const segments = new Set([...SEGMENTS_MS, config.defaults.segment_ms].filter((ms) => ms <= config.segment_max_ms));
  fill("segment", [...segments].sort((left, right) => left - right).map((ms) => [ms, `${ms} ms`]), config.defaults.segment_ms);
  fill("policy", config.policies.map((name) => [name, POLICIES[name] ?? name]), config.defaults.policy);
  fill("task", config.tasks.map((name) => [name, TASKS[name] ?? name]), config.defaults.task);
  $("samples").hidden = !config.samples.length;
  $("sample-buttons").append(...config.samples.map(sampleButton));
}

function sampleButton({ name, text }) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "sample";
  button.disabled = true; // until the page is ready
  const label = document.createElement("span"); // of two lines at most
  label.textContent = button.title = text || name;
  button.append(label);
  button.lang = text ? config.languages.source : "";
  button.onclick = async () => {
    try {
      const response = await fetch(`samples/${encodeURIComponent(name)}`);
      if (!response.ok) throw new Error("This sample can't be loaded.");
      begin({ kind: "recording", name: "the sample", file: new File([await response.blob()], name) });
    } catch (error) {
      say(trouble(error), true);
    }
  };
  return button;
}

function fill(id, options, chosen) {
  $(id).replaceChildren(...options.map(([value, text]) => new Option(text, value, value === chosen, value === chosen)));
}

// Browsers name the microphones after one of them has been allowed.
async function listMicrophones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
  const inputs = devices.filter(({ kind, deviceId }) => kind === "audioinput" && deviceId && deviceId !== "default");
  const chosen = $("device").value;
  fill("device", [["", "The browser's choice"], ...inputs.map(({ deviceId, label }, index) => [deviceId, label || `Microphone ${index + 1}`])], chosen);
}

async function begin(from) {
  if (session) return;
  const isLost = isSpoken && !isSaved && take !== null && !take.isEmpty; // a recording can be played again
  if (isLost && !confirm("The last translation has not been saved. Start anew without it?")) return;
  const mine = (session = { from, name: from.name, paused: false, lags: [], unheard: [], played: 0 });
  take = new Take(config.output_sample_rate, from);
  isSaved = true;
  isSpoken = from.kind === "microphone";
  source.clear();
  translation.clear();
  for (const id of ["heard", "latency", "reaction", "rtf", "waiting"]) $(id).textContent = "–";
  say(`Opening ${from.name} …`);
  showControls();
  try {
    await storage?.forget();
    await openSource(mine, 0);
    if (mine.source.durationS > config.limits.max_length_s) {
      throw new Error(`${from.name} is longer than the ${config.limits.max_length_s} s that this server takes.`);
    }
    mine.settings = {
      sample_rate: mine.source.sampleRate,
      segment_ms: Number($("segment").value),
      policy: $("policy").value,
      task: $("task").value,
    };
    if (mine.settings.task === "s2st") await openPlayer(mine);
    connect(mine, null);
    mine.source.start();
    mine.running = true;
    showControls();
    if (from.kind === "microphone") listMicrophones();
  } catch (error) {
    mine.source?.close();
    finish(mine, trouble(error), true);
  }
}

async function openSource(mine, fromS) {
  const on = [
    (samples, peak) => {
      mine.connection.send(samples);
      level.draw(peak);
    },
    () => sourceEnded(mine),
  ];
  const { kind, file } = mine.from;
  mine.recording = kind === "recording";
  mine.source = mine.recording
    ? await Source.recording(file, Number($("source-volume").value), fromS, ...on)
    : await Source.microphone($("device").value, mine.settings?.sample_rate, ...on);
}

async function openPlayer(mine) {
  const before = mine.played; // heard before the page was loaded again
  mine.player = await Player.open(config.output_sample_rate, Number($("speech-volume").value), (samples) => {
    if (session !== mine) return;
    mine.played = before + samples;
    translation.played(mine.played / config.output_sample_rate);
    while (mine.unheard.length && mine.unheard[0].startS <= mine.played / config.output_sample_rate) {
      showLag(mine, mine.unheard.shift().heardMs);
    }
    showWaiting(mine);
    if (mine.end) drained(mine);
  });
}

function connect(mine, saved) {
  const handlers = {
    outputSampleRate: config.output_sample_rate,
    ready: () => {
      keep(mine);
      sayRunning(mine);
    },
    resumed: () => {
      if (!mine.paused) sayRunning(mine);
    },
    restarted: () => keep(mine),
    lost: () => say("The connection is lost. Trying again …", true),
    output: (message, samples) => {
      keep(mine, { message, samples });
      output(mine, message, samples);
    },
    ended: (end) => ended(mine, end),
  };
  mine.connection = new Connection(mine.settings, $("token").value, config.limits, handlers, saved);
}

// Keeps what a page that is loaded again needs.
function keep(mine, output = null) {
  const session = { from: mine.from, settings: mine.settings, connection: mine.end ? null : mine.connection.state() };
  storage?.save(session, output);
}

function output(mine, message, samples) {
  take.output(message, samples);
  for (const word of message.source_words) source.add(word);
  for (const word of message.words) {
    const spoken = mine.settings.task === "s2st" ? { startS: word.start_s, endS: word.end_s } : null;
    translation.add(word, spoken);
    const heard = take.said.at(-1) && take.sourceOf();
    const heardMs = heard && mine.connection?.heardAt(heard.end_s);
    if (heardMs === undefined) continue;
    if (spoken) mine.unheard.push({ startS: word.start_s, heardMs });
    else showLag(mine, heardMs);
  }
  if (message.words.length || message.source_words.length) isSaved = false;
  if (samples) mine.player?.play(samples);
  $("heard").textContent = `${message.source_s.toFixed(1)} s`;
  $("reaction").textContent = duration(message.reaction_ms);
  $("rtf").textContent = message.rtf.toFixed(2);
  showWaiting(mine);
  if (message.words.length || message.source_words.length) showControls();
}

// The listener's: from a word that was heard to its translation that is heard, the median of the last few.
function showLag(mine, heardMs) {
  mine.lags.push(Math.max(0, performance.now() - heardMs) / 1000);
  if (mine.lags.length > 9) mine.lags.shift();
  const sorted = [...mine.lags].sort((left, right) => left - right);
  $("latency").textContent = `${sorted[sorted.length >> 1].toFixed(1)} s`;
}

function showWaiting(mine) {
  const waiting = mine.player ? Math.max(0, take.spoken - mine.played) / take.sampleRate : 0;
  $("waiting").textContent = `${waiting.toFixed(1)} s`;
}

function sayRunning(mine) {
  if (mine.overAt !== undefined) say(REST);
  else say(mine.recording ? `Playing ${mine.name}.` : "Listening. Headphones keep the translation out of the microphone.");
}

function sourceEnded(mine) {
  mine.overAt ??= performance.now();
  mine.connection?.end();
  level.draw(0);
  if (session === mine && !mine.end) say(REST);
  showControls();
}

function ended(mine, end) {
  mine.end = end;
  mine.overAt ??= performance.now();
  mine.source?.close();
  clearInterval(mine.keepingAlive);
  keep(mine);
  if (end.code === 4401) $("settings-menu").open = true;
  if (mine.player && !mine.paused && take.spoken > mine.played) drained(mine);
  else conclude(mine);
  showControls();
}

// What was received is still heard to its end.
function drained(mine) {
  if (take.spoken <= mine.played) conclude(mine);
}

function conclude(mine, how = "Done") {
  const heard = `${take.sourceS.toFixed(1)} s heard`;
  const said = take.spoken ? `, ${(take.spoken / take.sampleRate).toFixed(1)} s spoken` : "";
  finish(mine, mine.end.ok ? `${how}: ${heard}${said}.` : reason(mine.end, config.limits), !mine.end.ok);
}

function finish(mine, text, isError) {
  if (session !== mine) return;
  mine.player?.close();
  session = null;
  translation.settle();
  level.draw(0);
  say(text, isError);
  showControls();
}

function stop() {
  const mine = session;
  if (mine.overAt !== undefined) {
    if (performance.now() - mine.overAt > HASTY_MS) drop(mine);
    return;
  }
  clearInterval(mine.keepingAlive);
  if (mine.paused) {
    mine.paused = false;
    mine.player?.setPaused(false);
    showControls();
  }
  if (mine.source) mine.source.finish();
  else sourceEnded(mine);
}

// The source is over; what it has not brought yet is not waited for. What was said is kept.
function drop(mine) {
  mine.connection.abandon();
  mine.end ??= { ok: true };
  clearInterval(mine.keepingAlive);
  keep(mine);
  conclude(mine, "Stopped");
}

async function pause(mine) {
  mine.paused = true;
  showControls();
  await Promise.all([mine.end ? null : mine.source?.setPaused(true), mine.player?.setPaused(true)]);
  mine.connection.forgetTimes();
  mine.unheard = [];
  level.draw(0);
  stayAlive(mine);
  say("Paused. Nothing is heard until you go on.");
}

// A sample of silence now and then says that somebody is still there.
function stayAlive(mine) {
  const until = performance.now() + 1000 * KEEP_ALIVE_S;
  const tick = () => {
    if (performance.now() < until) mine.connection.send(new Int16Array(1));
  };
  clearInterval(mine.keepingAlive);
  mine.keepingAlive = setInterval(tick, (1000 * config.limits.max_idle_s) / 3);
}

async function goOn(mine) {
  clearInterval(mine.keepingAlive);
  try {
    if (!mine.player && mine.settings.task === "s2st") {
      await openPlayer(mine);
      for (const piece of take.pieces.filter(({ from }) => from >= mine.played)) mine.player.play(piece.samples);
    }
    if (!mine.source && !mine.connection.over) {
      const { total, baseS } = mine.connection;
      await openSource(mine, baseS + total / mine.settings.sample_rate);
      mine.source.start();
    } else await Promise.all([mine.end ? null : mine.source?.setPaused(false), mine.player?.setPaused(false)]);
  } catch (error) {
    say(trouble(error), true);
    return;
  }
  mine.paused = false;
  showControls();
  sayRunning(mine);
}

// The page was loaded again: shows what was said, and waits for somebody to go on.
async function restore() {
  const saved = await storage?.load().catch(() => null);
  if (!saved?.outputs.length) return;
  const { from, settings, connection } = saved.session;
  take = new Take(config.output_sample_rate, from);
  isSpoken = from.kind === "microphone";
  const mine = { from, settings, name: from.name, paused: true, lags: [], unheard: [], played: 0, recording: from.kind === "recording" };
  for (const { message, samples } of saved.outputs) output(mine, message, samples);
  translation.settle();
  mine.played = take.spoken;
  if (!connection?.resumeToken) {
    say("This is what was said before the page was loaded again.");
    return;
  }
  session = mine;
  mine.running = true;
  if (connection.over) mine.overAt = 0;
  // The speaker is not back yet; the session waits.
  connect(mine, connection);
  stayAlive(mine);
  say("The page was loaded again. Press Resume to go on where you were.");
}

function showControls() {
  const running = session?.running === true; // while a source is being opened, nothing moves yet
  const focused = document.activeElement;
  $("microphone").disabled = $("file").disabled = $("settings").disabled = running;
  const hasWords = take !== null && !take.isEmpty; // which need the room
  $("start").hidden = running || (hasWords && innerHeight < 500);
  $("about").hidden = hasWords && innerHeight < 700;
  for (const button of document.querySelectorAll(".sample")) button.disabled = session !== null;
  $("pause").disabled = !running;
  $("pause").textContent = session?.paused ? "Resume" : "Pause";
  $("pause").classList.toggle("primary", session?.paused === true);
  $("stop").disabled = !running;
  const isOver = running && session.overAt !== undefined;
  $("stop").textContent = isOver ? "Drop the rest" : "Stop";
  $("stop").title = isOver ? "What was said is kept" : "";
  $("save-wav").disabled = !take?.spoken;
  for (const kind of ["txt", "vtt", "srt"]) $(`save-${kind}`).disabled = !take || take.isEmpty;
  document.body.classList.toggle("running", running);
  // Where a button is disabled under the hands of a keyboard user, the focus goes on to what can be done next.
  if (focused?.disabled || (focused && focused !== document.body && !focused.checkVisibility())) {
    $(running ? "pause" : "microphone").focus({ preventScroll: true });
  }
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function save(blob, kind) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = fileName(take.from, kind);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  isSaved = true;
  closeMenu($("save-menu"));
}

function closeMenu(menu) {
  menu.open = false;
  menu.querySelector("summary").focus();
}
