// Compiles every .wgsl file in a folder with Tint, the compiler of Chromium's browsers.
//
//   node tools/tint.mjs FOLDER MODULES      MODULES/node_modules holds the npm package `webgpu`
//
// That package is Dawn, and Dawn's null backend needs neither GPU nor driver. Each shader is made
// into a pipeline too, because some rules (workgroup sizes, bindings) are only looked at there.
// Errors go to stderr as FILE:LINE:COLUMN; the exit code is 1 if there was any.

import { readFileSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, modules] = process.argv.slice(2);
if (!folder || !modules) {
  console.error('usage: node tools/tint.mjs FOLDER MODULES');
  process.exit(2);
}
const dawn = resolve(modules, 'node_modules/webgpu/index.js');
const { create, globals } = await import(pathToFileURL(dawn));
Object.assign(globalThis, globals);

// naga takes these without being told; Tint wants a line for each.
const ENABLES = [
  ['f16', /\bf16\b|\b(?:vec[234]|mat[234]x[234])h\b|\d(?:\.\d*)?h\b/],
  ['subgroups', /\bsubgroup[A-Z]\w*\s*\(|@builtin\(\s*subgroup_/],
];

function withEnables(code) {
  const bare = code.replace(/\/\/.*$/gm, '');
  const missing = ENABLES.filter(
    ([name, used]) => used.test(bare) && !new RegExp(`\\benable\\b[^;]*\\b${name}\\b`).test(bare),
  );
  // On the first line, so that the numbers of lines stay.
  return missing.map(([name]) => `enable ${name}; `).join('') + code;
}

async function errorsOf(device, path) {
  const code = withEnables(readFileSync(path, 'utf8'));
  const at = (line, column, text) => `${path}:${line}:${column}: ${text}`;
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  let errors = messages
    .filter((message) => message.type === 'error')
    .map(({ lineNum, linePos, message }) => at(lineNum, linePos, message));
  if (errors.length === 0) {
    await device
      .createComputePipelineAsync({ layout: 'auto', compute: { module } })
      .catch((error) => errors.push(at(1, 1, error.message)));
  }
  const leftOver = await device.popErrorScope();
  if (leftOver && errors.length === 0) errors.push(at(1, 1, leftOver.message));
  return errors;
}

const gpu = create(['backend=null', 'enable-dawn-features=allow_unsafe_apis']);
const adapter = await gpu.requestAdapter();
const limits = {};
for (const name in adapter.limits) limits[name] = adapter.limits[name];
const device = await adapter.requestDevice({
  requiredFeatures: ['shader-f16', 'subgroups'],
  requiredLimits: limits,
});

const files = readdirSync(folder).filter((name) => name.endsWith('.wgsl')).sort();
let [good, bad, skipped] = [0, 0, 0];
for (const name of files) {
  const path = join(folder, name);
  // Extensions of wgpu's own are for native programs alone.
  if (/^\s*enable\b[^;]*\bwgpu_/m.test(readFileSync(path, 'utf8'))) {
    console.log(`${name}: SKIPPED, it uses an extension that no browser has`);
    skipped += 1;
    continue;
  }
  const errors = await errorsOf(device, path);
  for (const error of errors) console.error(error);
  if (errors.length) bad += 1;
  else good += 1;
}
console.log(`Tint took ${good} of ${files.length} shaders, refused ${bad}, skipped ${skipped}`);
if (files.length === 0) console.error(`${folder} holds no .wgsl file`);
// Dawn's threads keep the program alive.
process.exit(bad > 0 || files.length === 0 ? 1 : 0);
