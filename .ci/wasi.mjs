// Runs a program for wasm32-wasip1, as a test binary is one: node .ci/wasi.mjs PROGRAM ARGUMENT...
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const args = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args, env: process.env, returnOnExit: true });
const program = await WebAssembly.instantiate(await WebAssembly.compile(await readFile(args[0])), wasi.getImportObject());
process.exitCode = wasi.start(program);
