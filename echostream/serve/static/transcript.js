// A growing text: a paragraph for each sentence, the newest words in view.

import { DOUBTFUL } from "./words.js";

export class Transcript {
  constructor(element) {
    this.element = element;
    new ResizeObserver(() => this.showEnd()).observe(element);
    element.addEventListener("scroll", () => {
      this.isPinned = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
    });
    this.clear();
  }

  clear() {
    this.element.replaceChildren();
    this.paragraph = null;
    this.sentence = -1;
    this.isPinned = true; // until somebody scrolls back
    this.due = []; // spans of words that have not been spoken yet: { span, startS, endS }
  }

  // spoken: { startS, endS } in the speech, for words that will be heard.
  add(word, spoken = null) {
    if (word.sentence !== this.sentence) {
      this.paragraph = document.createElement("p");
      this.element.append(this.paragraph);
      this.sentence = word.sentence;
    } else if (!word.joined) {
      this.paragraph.append(" ");
    }
    const span = document.createElement("span");
    span.textContent = word.text;
    if (word.confidence < DOUBTFUL) {
      span.classList.add("doubtful");
      span.title = "The model is not sure of this word.";
    }
    if (spoken) {
      span.classList.add("due");
      this.due.push({ span, ...spoken });
    }
    this.paragraph.append(span);
    this.showEnd();
  }

  showEnd() {
    if (this.isPinned) this.element.scrollTop = this.element.scrollHeight;
  }

  // Marks the word that is being heard when so many seconds of speech have been played.
  played(seconds) {
    while (this.due.length && this.due[0].endS <= seconds + 0.01) {
      this.due.shift().span.classList.remove("due", "now");
    }
    if (this.due.length && this.due[0].startS <= seconds) this.due[0].span.classList.replace("due", "now");
  }

  // Nothing more will be heard.
  settle() {
    this.played(Infinity);
  }
}
