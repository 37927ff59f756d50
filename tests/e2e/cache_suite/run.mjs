// The public HTTP cache test suite (npm `http-cache-tests`), run against a proxy: its origin and its client in one process.
//
// node run.mjs TOOLS [ID]: tells the origin's URL on a line of its own, reads a line `{"base", "address", "port"}` (the
// proxy's URL and where it listens), and tells a line a test: `{"id", "kind", "depends_on", "result", "why"}`.

import http from 'node:http'
import { createRequire } from 'node:module'
import path from 'node:path'
import readline from 'node:readline'
import { pathToFileURL } from 'node:url'

const [tools, only] = process.argv.slice(2)
const suite = path.join(tools, 'http-cache-tests')
const load = file => import(pathToFileURL(path.join(suite, file)))
const say = value => process.stdout.write(JSON.stringify(value) + '\n')
// What the suite logs is for people.
console.log = console.error

const fetch = createRequire(path.join(tools, 'node/'))('node-fetch')
const { default: handleConfig } = await load('server/handle-config.mjs')
const { default: handleState } = await load('server/handle-state.mjs')
const { default: handleTest } = await load('server/handle-test.mjs')
const { runTests, getResults } = await load('client/runner.mjs')
const { default: tests } = await load('tests/index.mjs')
const { default: surrogate } = await load('tests/surrogate-control.mjs')
tests.push(surrogate)

const parts = { config: handleConfig, state: handleState, test: handleTest }
const origin = http.createServer((request, response) => {
  // A connection that is closed while a request is on its way would be a test that fails: none is used twice.
  response.shouldKeepAlive = false
  const [part, ...rest] = new URL(request.url, 'http://localhost').pathname.split('/').slice(1)
  if (part in parts) {
    parts[part](rest, request, response)
  } else {
    response.writeHead(404).end()
  }
})
// Of tests that set `Connection` themselves.
origin.keepAliveTimeout = 15000
await new Promise(resolve => origin.listen(0, '127.0.0.1', resolve))
say({ origin: `http://127.0.0.1:${origin.address().port}` })

const lines = readline.createInterface({ input: process.stdin })
const { base, address } = JSON.parse((await lines[Symbol.asyncIterator]().next()).value)
lines.close()

const lookup = (host, options, found) => options.all ? found(null, [{ address, family: 4 }]) : found(null, address, 4)
const agent = new http.Agent({ keepAlive: true, lookup })
const chosen = only
  ? tests.map(s => ({ ...s, tests: s.tests.filter(t => t.id === only).map(t => ({ ...t, dump: true })) }))
  : tests
await runTests(chosen, (url, init) => fetch(url, { ...init, agent }), false, base)

const results = getResults()
for (const test of tests.flatMap(s => s.tests).filter(t => t.id in results)) {
  const result = results[test.id]
  say({
    id: test.id,
    kind: test.kind || 'required',
    depends_on: test.depends_on || [],
    passes: result === true,
    why: result === true ? '' : result.join(': ')
  })
}
process.exit(0)
