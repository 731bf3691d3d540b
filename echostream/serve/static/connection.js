// The WebSocket protocol of docs/protocol.md.

export class Connection {
  // handlers: ready(message), output(message), speech(Int16Array), ended({ ok, message })
  constructor(settings, handlers) {
    const url = new URL("ws", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    this.handlers = handlers;
    this.early = []; // pieces that wait for the server to be ready
    this.sent = []; // [seconds given by then, time in ms]
    this.sentSamples = 0;
    this.sampleRate = settings.sample_rate;
    this.latencies = [];
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.socket.send(JSON.stringify({ type: "start", version: 1, ...settings }));
    this.socket.onmessage = ({ data }) => this.receive(data);
    this.socket.onclose = (event) => this.closed(event);
  }

  // Nothing is lost that is said while the connection is being made.
  send(samples) {
    if (this.over) return;
    this.sentSamples += samples.length;
    this.sent.push([this.sentSamples / this.sampleRate, performance.now()]);
    if (this.early) this.early.push(samples);
    else this.socket.send(samples);
  }

  end() {
    if (this.over) return;
    this.over = true;
    if (!this.early) this.sendEnd();
  }

  sendEnd() {
    this.socket.send(JSON.stringify({ type: "end" }));
  }

  ready() {
    for (const samples of this.early) this.socket.send(samples);
    this.early = null;
    if (this.over) this.sendEnd();
  }

  receive(data) {
    if (typeof data !== "string") {
      this.handlers.speech(new Int16Array(data));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "output") {
      message.latency_ms = this.latency(message.source_s);
      this.handlers.output(message);
    } else if (message.type === "ready") {
      this.ready();
      this.handlers.ready(message);
    } else {
      this.last = message; // done or error: the reason of the close that follows
    }
  }

  // Median of the last few times from sending a sample to the answer that needed it.
  latency(sourceS) {
    while (this.sent.length && this.sent[0][0] < sourceS - 0.001) this.sent.shift();
    if (this.sent.length) this.latencies.push(performance.now() - this.sent[0][1]);
    if (this.latencies.length > 9) this.latencies.shift();
    const sorted = [...this.latencies].sort((left, right) => left - right);
    return sorted[sorted.length >> 1];
  }

  closed(event) {
    this.over = true;
    const said = this.last;
    if (said) this.handlers.ended({ ok: said.type === "done" && said.code === 1000, ...said });
    else this.handlers.ended({ ok: false, message: event.reason || "The connection to the server was lost." });
  }
}
