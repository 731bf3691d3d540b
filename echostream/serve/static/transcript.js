// A growing text: words in paragraphs, a new one after a sentence or a pause.

const PAUSE_S = 2;

export class Transcript {
  constructor(element) {
    this.element = element;
    this.clear();
  }

  clear() {
    this.element.replaceChildren();
    this.paragraph = null;
    this.lastS = 0;
    this.due = []; // spans of words that have not been spoken yet: { span, startS, endS }
  }

  // atS: source time of the word; spoken: { startS, endS } in the speech, for words that will be heard.
  add(text, joined, atS, spoken = null) {
    const pinned = this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < 40;
    const sentenceEnded = /[.?!]$/.test(this.paragraph?.textContent ?? "");
    if (!this.paragraph || (!joined && (sentenceEnded || atS - this.lastS > PAUSE_S))) {
      this.paragraph = document.createElement("p");
      this.element.append(this.paragraph);
    } else if (!joined) {
      this.paragraph.append(" ");
    }
    this.lastS = atS;
    const span = document.createElement("span");
    span.textContent = text;
    if (spoken) {
      span.className = "due";
      this.due.push({ span, ...spoken });
    }
    this.paragraph.append(span);
    if (pinned) this.element.scrollTop = this.element.scrollHeight;
  }

  // Marks the word that is being heard when so many seconds of speech have been played.
  played(seconds) {
    while (this.due.length && this.due[0].endS <= seconds + 0.01) this.due.shift().span.className = "";
    if (this.due.length && this.due[0].startS <= seconds) this.due[0].span.className = "now";
  }

  // Nothing more will be heard.
  settle() {
    this.played(Infinity);
  }
}
