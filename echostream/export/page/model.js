// The exported graphs on onnxruntime-web. States go in and come out by name.

import * as runtime from "./onnxruntime-web/ort.wasm.min.mjs";

const FOLDER = new URL("../", import.meta.url);
const RUNTIME = new URL("onnxruntime-web/", import.meta.url);
const BINARY = "ort-wasm-simd-threaded.wasm";
const WEIGHTS = "weights.bin";
const GRAPHS = ["start", "encoder_start", "encoder", "asr_head", "mt_decoder"]; // what text needs

export const { Tensor } = runtime;

// onProgress(name, done, total), in bytes; the total is 0 where the server doesn't tell it.
async function read(name, folder, onProgress) {
  const response = await fetch(new URL(name, folder));
  if (!response.ok) throw new Error(`${name} is missing: this page must lie in a folder that “echostream export --page” has written.`);
  const total = Number(response.headers.get("Content-Length"));
  let done = 0;
  const counter = new TransformStream({
    transform(piece, controller) {
      done += piece.length;
      onProgress(name, done, total);
      controller.enqueue(piece);
    },
  });
  return new Uint8Array(await new Response(response.body.pipeThrough(counter)).arrayBuffer());
}

class Graph {
  constructor(session) {
    this.session = session;
  }

  // Takes its inputs from those given and from the states, and writes the states that follow over them.
  async call(states, given = {}) {
    const inputs = this.session.inputNames.map((name) => [name, given[name] ?? states[name]]);
    const outputs = await this.session.run(Object.fromEntries(inputs));
    for (const [name, value] of Object.entries(outputs)) if (name.startsWith("next.")) states[name.slice(5)] = value;
    return outputs;
  }
}

export class Model {
  static async load(onProgress) {
    const model = new Model();
    model.about = JSON.parse(new TextDecoder().decode(await read("echostream.json", FOLDER, onProgress)));
    if (model.about.format_version !== 1) throw new Error("Another version of EchoStream wrote this model: export it again.");
    const { wasm } = runtime.env;
    wasm.numThreads = 1;
    wasm.wasmPaths = RUNTIME.href;
    wasm.wasmBinary = await read(BINARY, RUNTIME, onProgress);
    const weights = await read(WEIGHTS, FOLDER, onProgress);
    for (const name of GRAPHS) {
      const bytes = await read(`${name}.onnx`, FOLDER, onProgress);
      const session = await runtime.InferenceSession.create(bytes, {
        executionProviders: ["wasm"],
        externalData: [{ path: WEIGHTS, data: weights }], // every graph takes its own out of the one array
        extra: { session: { disable_quant_qdq: "1" } }, // int8 becomes float32 once, not at every step
      });
      model[name] = new Graph(session);
    }
    wasm.wasmBinary = undefined;
    model.fresh = await model.start.call({});
    return model;
  }
}
