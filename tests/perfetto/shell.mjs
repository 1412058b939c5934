#!/usr/bin/env node
// Perfetto's trace processor on Node, with the face that Python's `perfetto` package expects of its bin_path.
//
//     shell.mjs --http-port PORT --engine FOLDER
//
// FOLDER has what fetch.sh brings: the processor as WebAssembly and the JavaScript that goes with it, the glue. The glue
// is made for a web worker: it is given a MessagePort, and each message on it is a TraceProcessorRpcStream. Here it gets
// as much of a worker as it looks at, and a server in front that puts the bodies of requests into such messages.
// What the bodies say, queries and rows, stays bytes: the Python package knows that.

import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import vm from 'node:vm';
import {pathToFileURL} from 'node:url';
import {parseArgs} from 'node:util';

// -- TraceProcessorRpc: the numbers of its methods and fields, and protobuf as far as it needs it

const METHOD = {append: 1, finalize: 2, query: 3, status: 10};
const FIELD = {
  message: 1, // of the stream; all others are of the message
  request: 2,
  fatalError: 5,
  appendTraceData: 101,
  queryArgs: 103,
  appendResult: 201,
  queryResult: 203,
  status: 210,
  finalizeResult: 212,
};
const RESULTS = new Set([FIELD.appendResult, FIELD.queryResult, FIELD.status, FIELD.finalizeResult]);
const VARINT = 0;
const BYTES = 2;

function varint(number) {
  const bytes = [];
  for (; number > 127; number = Math.floor(number / 128)) bytes.push((number % 128) | 128);
  return Buffer.from([...bytes, number]);
}

function bytesField(field, bytes) {
  return Buffer.concat([varint(field * 8 + BYTES), varint(bytes.length), bytes]);
}

// The fields of a message whose values are bytes, as [number, bytes]; those that are numbers are passed over.
function* bytesFields(message) {
  let at = 0;
  const next = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = message[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = next();
    const value = next(); // of bytes: their length
    if (tag % 8 === BYTES) {
      yield [Math.floor(tag / 8), message.subarray(at, at + value)];
      at += value;
    } else if (tag % 8 !== VARINT) {
      throw new Error(`expected varints and bytes in an answer, got wire type ${tag % 8}`);
    }
  }
}

// -- the engine

// The glue asks for the .wasm with a synchronous XMLHttpRequest, by a URL beside the worker's own.
class FileRequest {
  open(_method, url) {
    this.url = url;
  }

  send() {
    this.response = new Uint8Array(fs.readFileSync(new URL(this.url, location.href))).buffer;
  }
}

// The first module that the glue compiles only asks whether there are memories of 64 bits. Newer Nodes have them, and it
// would then want another .wasm than we have.
function refuseFirstModule() {
  const {Module} = WebAssembly;
  WebAssembly.Module = class {
    constructor() {
      WebAssembly.Module = Module;
      throw new WebAssembly.CompileError('no memories of 64 bits here');
    }
  };
}

// Returns call(method, [argument]), which gives the answers' results one after the other.
async function startEngine(folder) {
  const surroundings = {
    self: globalThis,
    WorkerGlobalScope: class {},
    location: {href: `${pathToFileURL(path.resolve(folder))}/`},
    XMLHttpRequest: FileRequest,
  };
  for (const [name, value] of Object.entries(surroundings))
    Object.defineProperty(globalThis, name, {value, configurable: true});
  const glue = path.join(folder, 'engine_bundle.node.js');
  refuseFirstModule();
  vm.runInThisContext(fs.readFileSync(glue, 'utf8'), {filename: glue});

  let answers = [];
  const port = {postMessage: (bytes) => answers.push(bytes)};
  globalThis.onmessage({data: port});
  await new Promise(setImmediate); // the glue ends its own start in microtasks

  return function call(method, argument = Buffer.alloc(0)) {
    answers = [];
    const message = Buffer.concat([varint(FIELD.request * 8 + VARINT), varint(method), argument]);
    port.onmessage({data: new Uint8Array(bytesField(FIELD.message, message))}); // answers before it returns
    const results = [];
    for (const [, answer] of bytesFields(Buffer.concat(answers)))
      for (const [field, bytes] of bytesFields(answer)) {
        if (field === FIELD.fatalError) throw new Error(bytes.toString());
        if (RESULTS.has(field)) results.push(bytes);
      }
    return Buffer.concat(results); // several parts of one message, one after the other, are that message
  };
}

// -- the server

const {values: options} = parseArgs({
  strict: false, // the package says more than we need to know
  options: {'http-port': {type: 'string'}, engine: {type: 'string'}},
});
const call = await startEngine(options.engine);
const routes = {
  '/status': () => call(METHOD.status),
  '/parse': (body) => call(METHOD.append, bytesField(FIELD.appendTraceData, body)),
  '/notify_eof': () => call(METHOD.finalize),
  '/query': (body) => call(METHOD.query, bytesField(FIELD.queryArgs, body)),
};

const server = http.createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const route = routes[request.url];
  if (!route) return response.writeHead(404).end();
  try {
    const result = route(Buffer.concat(parts));
    response.writeHead(200, {'content-length': result.length}).end(result);
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
});
server.keepAliveTimeout = 0; // seconds may lie between two queries of a test
server.listen(Number(options['http-port']), 'localhost');

// Whoever started us was killed: nobody will end us.
const parent = process.ppid;
setInterval(() => process.ppid === parent || process.exit(), 1000);
