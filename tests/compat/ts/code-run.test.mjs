// Contract, section 19, item 3.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { ChartType, DaytonaBadRequestError, DaytonaProcessExecutionTimeoutError } from '@daytonaio/sdk'

import { BASE, TSX_BASE, bounded, connect, error } from './sdk.mjs'

const ARGUMENTS = ['two  words', "it's", '"', '$HOME', '; echo no', '*', '', '-v', 'é€😀\n']

const python = connect(BASE)

test('python', async () => {
  const code = 'import json, os, sys\nprint(json.dumps([sys.argv, os.environ["A"]]))'
  const ran = await python.codeRun(code, { argv: ARGUMENTS, env: { A: 'b c' } })
  assert.deepEqual(JSON.parse(ran.result), [['-', ...ARGUMENTS], 'b c'])
  assert.equal(ran.exitCode, 0)
  assert.deepEqual(ran.artifacts, { stdout: ran.result, charts: [] })
  assert.equal((await python.codeRun('raise SystemExit(3)')).exitCode, 3)
})

test('python exception', async () => {
  const { exitCode, result } = await python.codeRun("def f():\n    raise ValueError('é')\n\nf()")
  assert.equal(exitCode, 1)
  assert.match(result, /^Traceback .*\n  File "<stdin>", line 4, in <module>\n/)
  assert.match(result, /\nValueError: é\n$/)
})

test('charts', async (t) => {
  if ((await python.codeRun('import matplotlib')).exitCode) return t.skip('no matplotlib')
  const { exitCode, result, artifacts } = await python.codeRun(
    'import matplotlib.pyplot as plt\n' +
      "plt.bar(['a', 'b'], [3, 2.5], label='sold'); plt.title('Bars'); plt.show()\n" +
      "plt.plot([1, 2], [3, 4], label='rise'); plt.show()\nprint('after')",
  )
  assert.deepEqual({ exitCode, result }, { exitCode: 0, result: 'after\n' })
  const [bar, line] = artifacts.charts
  assert.deepEqual([bar.type, bar.title, line.type], [ChartType.BAR, 'Bars', ChartType.LINE])
  assert.deepEqual(
    bar.elements.map(({ label, group, value }) => [label, group, value]),
    [
      ['a', 'sold', '3'],
      ['b', 'sold', '2.5'],
    ],
  )
  assert.deepEqual(line.elements[0].points, [
    [1, 3],
    [2, 4],
  ])
  assert.ok(Buffer.from(bar.png, 'base64').subarray(1, 4).equals(Buffer.from('PNG')))
})

const ECHO = 'console.log(JSON.stringify([process.argv.slice(1), process.env.A]))'
const ENUM = "enum Colour { Red = 'r' }\nconst colour: Colour = Colour.Red\nimport { sep } from 'path'\n"

for (const [name, base, language, before] of [
  ['javascript', BASE, 'javascript', "const { sep } = require('path')\n"],
  ['typescript by ts-node', BASE, 'typescript', ENUM],
  ['typescript by tsx', TSX_BASE, 'typescript', ENUM],
]) {
  const sdk = connect(base, language)

  test(name, async () => {
    const ran = await sdk.codeRun(before + ECHO, { argv: ARGUMENTS, env: { A: 'b c' } })
    assert.deepEqual(JSON.parse(ran.result), [ARGUMENTS, 'b c'])
    assert.equal(ran.exitCode, 0)
    assert.equal((await sdk.codeRun('process.exit(7)')).exitCode, 7)
  })

  test(`${name}: exception`, async () => {
    const { exitCode, result } = await sdk.codeRun("console.log('é')\n\nthrow new TypeError('why')")
    assert.equal(exitCode, 1)
    assert.match(result, /é\n/)
    assert.match(result, /TypeError: why\n.*:3/s)
  })

  test(`${name}: timeout`, async () => {
    const running = sdk.codeRun('setInterval(() => {}, 9e5)', undefined, 2)
    await assert.rejects(bounded(running), (thrown) => {
      assert.ok(thrown instanceof DaytonaProcessExecutionTimeoutError)
      return error(408, 'PROCESS_EXECUTION_TIMEOUT', /timeout/)(thrown)
    })
  })
}

test('unknown language', async () => {
  await assert.rejects(connect(BASE, 'ruby').codeRun('puts 1'), (thrown) => {
    assert.ok(thrown instanceof DaytonaBadRequestError)
    return error(400, 'BAD_REQUEST', /unsupported language: ruby/)(thrown)
  })
})
