// The WebSocket protocol of docs/protocol.md: a session that outlives its connection.
//
// In a page in the background, timers come once a second, and once a minute after a while; what is recorded and what
// the server says come as ever. So the clock says what is due, and whatever happens next does it.

const CODES = { DONE: 1000, GONE: 4410 };
const RETRIED = new Set([1001, 1005, 1006, 1012, 1013]); // lost, or a server that stops, or has no place at the moment
const RETRY_MS = 1000;
const CHUNK_S = 0.25; // what was recorded while the connection was lost is sent in pieces of this
const HEARD_KEPT = 6000; // pieces of 20 ms

export class Connection {
  // handlers: ready(), resumed(receivedSamples), restarted(), output(message, samples), lost(), ended({ ok, code, message })
  // saved: what state() gave, to go on with it.
  constructor(settings, token, limits, handlers, saved = null) {
    Object.assign(this, { settings, token, limits, handlers });
    this.kept = []; // { from, samples }: the source that the server may ask for again
    this.total = this.sentTo = 0; // samples of the source given, and sent
    this.baseS = this.baseSpeechS = 0; // where this session begins, if there was another one before
    this.resumeToken = null;
    this.seq = this.spoken = 0;
    this.heard = []; // [seconds given by then, time in ms]
    this.retryAt = null; // when to connect again, in ms; null: there is a connection, or one is coming
    Object.assign(this, saved);
    this.sentTo = this.total;
    this.open();
  }

  state() {
    const { resumeToken, seq, spoken, total, baseS, baseSpeechS, over } = this;
    return { resumeToken, seq, spoken, total, baseS, baseSpeechS, over };
  }

  open() {
    clearTimeout(this.timer);
    this.retryAt = null;
    this.endIsSent = false;
    const url = new URL("ws", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = (this.socket = new WebSocket(url));
    this.isLive = false;
    this.last = this.pending = null;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      const opening = this.resumeToken
        ? { type: "resume", resume_token: this.resumeToken, seq: this.seq }
        : { type: "start", resumable: true, ...this.settings };
      socket.send(JSON.stringify({ version: 1, ...opening, ...(this.token && { token: this.token }) }));
    };
    socket.onmessage = ({ data }) => this.receive(data);
    socket.onclose = (event) => this.closed(event);
  }

  // Nothing is lost that is said while there is no connection.
  send(samples) {
    if (this.over) return;
    this.kept.push({ from: this.total, samples });
    this.total += samples.length;
    this.heard.push([this.baseS + this.total / this.settings.sample_rate, performance.now()]);
    if (this.heard.length > HEARD_KEPT) this.heard.shift();
    if (this.isLive && this.sentTo === this.total - samples.length) {
      this.socket.send(samples);
      this.sentTo = this.total;
    } else this.goOn();
  }

  // What is due by now: another connection, or a part of what the server has not got.
  goOn() {
    if (this.retryAt === null) this.catchUp();
    else if (performance.now() >= this.retryAt) this.open();
  }

  end() {
    if (this.over) return;
    this.over = true;
    if (this.isLive && this.sentTo === this.total) this.sendEnd();
  }

  // A pause: what is heard after it has nothing to do with the clock before.
  forgetTimes() {
    this.heard = [];
  }

  // When a moment of the source was heard, in ms; undefined if that is not known.
  heardAt(sourceS) {
    return this.heard.length && sourceS >= this.heard[0][0] ? this.heard.find(([until]) => until >= sourceS)?.[1] : undefined;
  }

  // Ends the session at once: nothing of what is still due is wanted. A connection that is closed in order says so.
  abandon() {
    this.over = this.isClosed = true;
    clearTimeout(this.timer);
    this.kept = [];
    this.socket.close(CODES.DONE);
  }

  sendEnd() {
    if (!this.endIsSent) this.socket.send(JSON.stringify({ type: "end" }));
    this.endIsSent = true;
  }

  // Sends what the server has not got, not faster than it may come.
  catchUp() {
    if (!this.isLive || this.socket.readyState !== WebSocket.OPEN) return;
    const speed = Math.min(2.5, 0.8 * this.limits.max_speed);
    const now = performance.now();
    this.dueS = Math.min(this.dueS + (speed * (now - this.dueAt)) / 1000, this.limits.max_buffer_s / 2);
    this.dueAt = now;
    while (this.sentTo < this.total && this.dueS > 0) this.dueS -= this.sendChunk() / this.settings.sample_rate;
    clearTimeout(this.timer);
    if (this.sentTo < this.total) this.timer = setTimeout(() => this.catchUp(), (1000 * CHUNK_S) / speed);
    else if (this.over) this.sendEnd();
  }

  // The next samples, as one message; returns how many they are.
  sendChunk() {
    const most = CHUNK_S * this.settings.sample_rate;
    const pieces = [];
    let count = 0;
    for (const { from, samples } of this.kept) {
      if (from + samples.length <= this.sentTo) continue;
      const piece = samples.subarray(Math.max(0, this.sentTo - from));
      pieces.push(piece);
      count += piece.length;
      this.sentTo += piece.length;
      if (count >= most) break;
    }
    const chunk = new Int16Array(count);
    let at = 0;
    for (const piece of pieces) {
      chunk.set(piece, at);
      at += piece.length;
    }
    this.socket.send(chunk);
    return count;
  }

  receive(data) {
    if (this.isClosed) return; // it was on its way
    if (typeof data !== "string") {
      this.deliver(this.pending, new Int16Array(data));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "output") {
      if (message.samples) this.pending = message; // whole with its speech, which comes next
      else this.deliver(message, null);
    } else if (message.type === "ready" || message.type === "resumed") {
      this.lostAt = null;
      this.resumeToken = message.resume_token;
      this.sentTo = message.received_samples;
      this.closeGap();
      this.isLive = true;
      this.dueS = CHUNK_S;
      this.dueAt = performance.now();
      this.catchUp();
      if (message.type === "ready") this.handlers.ready();
      else this.handlers.resumed(message.received_samples);
    } else {
      this.last = message; // done, error or suspended: the reason of the close that follows
    }
  }

  // A page that was loaded again has not got what was on its way then: what it records follows what the server has.
  closeGap() {
    const gap = (this.kept[0]?.from ?? this.total) - this.sentTo;
    if (gap > 0 || !this.kept.length) {
      for (const piece of this.kept) piece.from -= gap;
      this.total -= gap;
    }
    this.total = Math.max(this.total, this.sentTo);
  }

  deliver(message, samples) {
    this.seq = message.seq;
    const acknowledged = message.acknowledged_samples ?? 0;
    while (this.kept.length && this.kept[0].from + this.kept[0].samples.length <= Math.min(acknowledged, this.sentTo)) this.kept.shift();
    message.source_s += this.baseS;
    for (const word of message.source_words) {
      word.start_s += this.baseS;
      word.end_s += this.baseS;
    }
    for (const word of message.words) {
      word.source_s += this.baseS;
      if (word.end_s) word.start_s += this.baseSpeechS;
      if (word.end_s) word.end_s += this.baseSpeechS;
    }
    this.spoken += samples?.length ?? 0;
    this.handlers.output(message, samples);
    if (this.sentTo < this.total) this.catchUp();
  }

  closed({ code, reason }) {
    this.isLive = false;
    if (this.isClosed) return;
    const said = this.last;
    if (said?.type === "done" || !this.resumeToken) {
      this.finish({ ok: said?.type === "done" && said.code === CODES.DONE, code, message: said?.message ?? reason });
    } else if (code === CODES.GONE) {
      this.restart();
    } else if (RETRIED.has(code)) {
      const now = performance.now();
      this.lostAt ??= now;
      this.handlers.lost();
      if (now - this.lostAt > 1000 * this.limits.max_away_s) {
        this.finish({ ok: false, code: 1006, message: "" });
        return;
      }
      this.retryAt = now + RETRY_MS;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.open(), RETRY_MS);
    } else {
      this.finish({ ok: false, code, message: said?.message ?? reason });
    }
  }

  // The server has forgotten the session: another one goes on after it.
  restart() {
    const from = this.kept[0]?.from ?? this.total;
    this.baseS += from / this.settings.sample_rate;
    this.baseSpeechS = this.spoken / this.handlers.outputSampleRate;
    for (const piece of this.kept) piece.from -= from;
    this.total -= from;
    this.sentTo = this.seq = 0;
    this.resumeToken = null;
    this.handlers.restarted();
    this.open();
  }

  finish(end) {
    this.over = this.isClosed = true;
    this.handlers.ended(end);
  }
}
