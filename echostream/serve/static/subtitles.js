// Words to subtitle cues that can be read. The rules are those of echostream/streaming/cues.py; a test compares the two.

const LINE_CHARACTERS = 42;
const MIN_DURATION_S = 0.8;
const MAX_DURATION_S = 7;
const READING_CHARACTERS_S = 17;
const MAX_LATE_S = 1; // a cue may come so much after its first word, so that the one before it can be read
export const PAUSE_S = 1; // a silence of the speaker that ends a sentence

export const endsSentence = (text) => /[.?!]$/.test(text);

// Cues { track, startS, endS, text, doubtful } of one track; sentences: arrays of words { text, startS, endS, joined,
// doubtful }. A cue's doubtful: for each of its words, which spaces divide, whether the model is not sure of it.
export function cuesOf(track, sentences, pauseS = Infinity) {
  const cues = [];
  let tokens = []; // of the cue that is being made; a token is what has no space in it
  let last = null; // the cue before, whose end is not certain yet
  let freeS = 0; // where it ends

  const giveOut = (nextS) => {
    if (!last) return;
    freeS = Math.min(last.endS, Math.max(last.startS + MIN_DURATION_S, nextS + MAX_LATE_S));
    cues.push({ ...last, endS: freeS });
    last = null;
  };
  const end = () => {
    const text = tokens.map((token) => token.text).join(" ").trim();
    if (text) {
      giveOut(tokens[0].startS);
      const startS = Math.max(tokens[0].startS, freeS);
      const readingS = Math.max(MIN_DURATION_S, [...text].length / READING_CHARACTERS_S);
      const endS = Math.min(Math.max(tokens.at(-1).endS, startS + readingS), startS + MAX_DURATION_S);
      last = { track, startS, endS, text, doubtful: tokens.map((token) => Boolean(token.doubtful)) };
    }
    tokens = [];
  };
  const hasRoom = (word) => {
    if (!lines([...tokens, word].map((token) => token.text).join(" ")).every((line) => [...line].length <= LINE_CHARACTERS)) return false;
    return !tokens.length || word.endS - tokens[0].startS <= MAX_DURATION_S;
  };
  const add = (word) => {
    if (word.joined && tokens.length) {
      const before = tokens.pop();
      const doubtful = before.doubtful || word.doubtful;
      const grown = { ...before, text: before.text + word.text, endS: word.endS, doubtful };
      if (hasRoom(grown)) tokens.push(grown);
      else if (tokens.length) {
        end(); // the token goes on in the next cue as a whole
        tokens = [grown];
      } else {
        tokens.push(before);
        end();
        tokens = [word];
      }
    } else {
      // A translation may well wait inside a sentence; a speaker who does has ended it.
      if (!hasRoom(word) || (tokens.length && word.startS - tokens.at(-1).endS >= pauseS)) end();
      tokens.push(word);
    }
    if (endsSentence(word.text)) end();
  };
  for (const sentence of sentences) {
    for (const word of sentence) pieces(word).forEach(add);
    end();
  }
  giveOut(Infinity);
  return cues;
}

// A word that is longer than a line, in pieces that are not.
function pieces(word) {
  const characters = [...word.text];
  const found = [];
  for (let at = 0; at < characters.length; at += LINE_CHARACTERS) {
    found.push({ ...word, text: characters.slice(at, at + LINE_CHARACTERS).join(""), joined: word.joined || at > 0 });
  }
  return found;
}

// One line or two, broken so that the longer one is as short as possible; a word alone is cut if it must be.
function lines(text) {
  const characters = [...text];
  if (characters.length <= LINE_CHARACTERS) return [text];
  let at = -1;
  let shortest = Infinity;
  characters.forEach((character, space) => {
    const longer = Math.max(space, characters.length - space - 1);
    if (character === " " && longer < shortest) [at, shortest] = [space, longer];
  });
  const cut = (from, to) => characters.slice(from, to).join("");
  if (at < 0) return [cut(0, LINE_CHARACTERS), cut(LINE_CHARACTERS)];
  return [cut(0, at), cut(at + 1)];
}

const inOrder = (heard, said) => [...heard, ...said].sort((left, right) => left.startS - right.startS);

const HEADER = `WEBVTT

STYLE
::cue(.doubtful) { color: silver; text-decoration: underline dotted; }
`;

// The lines of a cue for WebVTT, with doubtful words marked; neighbours share a mark.
function markedLines(text, doubtful) {
  const escaped = (piece) => piece.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const isOneWord = !text.includes(" "); // which may have been cut
  let number = 0;
  return lines(text).map((line) => {
    const runs = [];
    for (const word of line.split(" ")) {
      const isDoubtful = doubtful[isOneWord ? 0 : number++];
      if (runs.at(-1)?.isDoubtful === isDoubtful) runs.at(-1).text += ` ${word}`;
      else runs.push({ text: word, isDoubtful });
    }
    return runs.map((run) => (run.isDoubtful ? `<c.doubtful>${escaped(run.text)}</c>` : escaped(run.text))).join(" ");
  });
}

// WebVTT: what was heard at the top, and the translation.
export function vtt(heard, said) {
  const count = {};
  const blocks = inOrder(heard, said).map(({ track, startS, endS, text, doubtful }) => {
    count[track] = (count[track] ?? 0) + 1;
    const place = track === "source" ? " line:0" : "";
    return `\n${track} ${count[track]}\n${clock(startS)} --> ${clock(endS)}${place}\n${markedLines(text, doubtful).join("\n")}\n`;
  });
  return [HEADER, ...blocks].join("");
}

// SubRip has no places on the screen; players know this mark for the top.
export function srt(heard, said) {
  const blocks = inOrder(heard, said).map(({ track, startS, endS, text }, index) => {
    const times = `${clock(startS)} --> ${clock(endS)}`.replaceAll(".", ",");
    return `${index + 1}\n${times}\n${track === "source" ? "{\\an8}" : ""}${lines(text).join("\n")}\n\n`;
  });
  return blocks.join("");
}

function clock(seconds) {
  const ms = Math.round(seconds * 1000);
  const pad = (value, length = 2) => String(value).padStart(length, "0");
  return `${pad(Math.floor(ms / 3600000))}:${pad(Math.floor(ms / 60000) % 60)}:${pad(Math.floor(ms / 1000) % 60)}.${pad(ms % 1000, 3)}`;
}
