// What the page says: names of languages and settings, and errors in a user's words.

export const POLICIES = {
  alignment: "On evidence, word by word",
  "token-alignment": "As tokens are recognised",
  stride: "At a fixed stride",
  "wait-k": "A few words behind (wait-k)",
  alignatt: "Where the translation looks (AlignAtt)",
  "fixed-rate": "At a fixed rate",
};
export const TASKS = { s2st: "Speech and text", s2tt: "Text", asr: "Transcript only" };

// Words whose confidence is below this are marked; that of echostream/constants.py, a test compares the two.
export const DOUBTFUL = 0.5;

// The name of a language in the page's own; empty if it is not known.
export function languageName(tag) {
  try {
    return tag ? new Intl.DisplayNames(["en"], { type: "language" }).of(tag) : "";
  } catch {
    return tag;
  }
}

// Milliseconds, as seconds where they are that many.
export const duration = (ms) => (Math.round(ms) < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

const minutes = (seconds) => (seconds < 120 ? `${seconds} seconds` : `${Math.round(seconds / 60)} minutes`);

// Why a session has ended; limits: those of the server.
export function reason({ code, message }, limits) {
  const texts = {
    1001: "The server is being restarted. Start again in a moment.",
    1006: "The connection is lost. Start again when you are back online.",
    1011: "The server could not translate this. Start again.",
    1013: "The server is full at the moment. Try again in a few minutes.",
    4401: "That access code is not right. Ask whoever runs this server for one.",
    4408: `Nothing was heard for ${minutes(limits.max_idle_s)}. Start again when you are ready.`,
    4409: "This session goes on in another tab.",
    4413: `A session can be ${minutes(limits.max_length_s)} long. Start again to go on.`,
    4429: "The connection is too unsteady: what was said came too late, and all at once. Start again.",
    4499: "The connection is too slow for the translation. Try the text alone, under Settings.",
  };
  return texts[code] ?? `Something went wrong (${message || code}). Start again.`;
}

// Why a microphone or a recording could not be opened.
export function trouble(error) {
  const texts = {
    NotAllowedError: "The microphone is blocked: allow it for this page.",
    NotFoundError: "No microphone was found.",
    OverconstrainedError: "That microphone is not there any more. Choose another one under Settings.",
    NotReadableError: "The microphone can't be opened. Another program may be using it.",
  };
  return texts[error.name] ?? error.message;
}
