// The client module as a package: what npm would put into it, whether it can be imported, and its types.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const run = (program, args, cwd) => {
  try {
    return execFileSync(program, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    throw new Error(`${program} ${args.join(' ')}:\n${error.stdout}${error.stderr}`);
  }
};

const folder = await mkdtemp(join(tmpdir(), 'corecast-package-'));
try {
  const source = here('../../deploy/web');
  const [pack] = JSON.parse(run('npm', ['pack', '--json', '--offline', '--pack-destination', folder, source], folder));
  assert.deepEqual(pack.files.map(({ path }) => path).sort(), ['README.md', 'corecast.d.ts', 'corecast.js', 'package.json']);
  const version = /^version = "(.+)"$/m.exec(await readFile(here('../../Cargo.toml'), 'utf8'))[1];
  assert.equal(pack.version, version, 'the version of the server and of its client');

  // Unpacked, as npm would do it in somebody's project.
  const installed = join(folder, 'node_modules/corecast');
  await mkdir(installed, { recursive: true });
  run('tar', ['xzf', join(folder, pack.filename), '-C', installed, '--strip-components=1'], folder);
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }');
  await writeFile(join(folder, 'use.mjs'), 'import { Corecast } from "corecast"; process.stdout.write(typeof Corecast);');
  assert.equal(run(process.execPath, ['use.mjs'], folder), 'function');

  await copyFile(here('client.types.ts'), join(folder, 'use.ts'));
  const tsc = here('node_modules/typescript/bin/tsc');
  for (const [module, resolution, world] of [['nodenext', 'nodenext', 'dom'], ['esnext', 'bundler', 'webworker']]) {
    const flags = ['--noEmit', '--strict', '--target', 'es2022', '--lib', `es2022,${world}`];
    run(process.execPath, [tsc, ...flags, '--module', module, '--moduleResolution', resolution, 'use.ts'], folder);
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
console.log('all is well');
