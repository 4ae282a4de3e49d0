// Contract, section 19, item 11.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'

import {
  DaytonaConnectionError,
  DaytonaInternalServerError,
  DaytonaProcessNotFoundError,
  DaytonaTimeoutError,
} from '@daytonaio/sdk'

import { BASE, Text, bounded, error, interpreter } from './sdk.mjs'

const sdk = interpreter(BASE)

/** `interpreter.max_queued`. */
const WAITING = 128
const SLEEP = "print('up')\nimport time\nwhile True: time.sleep(0.01)"

/** A new context, deleted after the test `t`. */
async function create(t, cwd) {
  const context = await sdk.createContext(cwd)
  t.after(() =>
    sdk.deleteContext(context).catch((thrown) => {
      if (thrown.statusCode !== 404) throw thrown // the test did it
    }),
  )
  return context
}

const run = (code, options) => bounded(sdk.runCode(code, options))

/** The standard output of code that has nothing to complain of. */
async function printed(code, options) {
  const { stdout, stderr, error: thrown } = await run(code, options)
  assert.deepEqual({ stderr, thrown }, { stderr: '', thrown: undefined })
  return stdout
}

/** What code printed so far, and the result to come. */
function start(code, options) {
  const stdout = new Text()
  const stderr = new Text()
  const result = sdk.runCode(code, {
    ...options,
    onStdout: ({ output }) => stdout.take(output),
    onStderr: async ({ output }) => stderr.take(output),
  })
  result.catch(() => {}) // it is looked at later
  return { stdout, stderr, result }
}

/** A check of how an execution was broken off. */
const broken = (reason) => (thrown) =>
  thrown instanceof DaytonaConnectionError && thrown.message === reason

test('state persists', async (t) => {
  const context = await create(t)
  assert.equal(await printed('import math\nx = 41\ndef f(n): return n + 1', { context }), '')
  assert.equal(await printed('x = f(x)\nprint(x, math.floor(2.5))', { context }), '42 2\n')
  assert.equal(await printed('x', { context }), '') // a value alone is not shown
})

test('default context', async () => {
  const name = `v${randomUUID().replaceAll('-', '')}`
  await printed(`${name} = 'kept'`)
  assert.equal(await printed(`print(${name})`), 'kept\n')
  assert.ok(!(await sdk.listContexts()).some(({ id }) => id === 'default'))
})

test('life of a context', async (t) => {
  const context = await create(t, '/usr')
  const { cwd, language, active } = context
  assert.deepEqual({ cwd, language, active }, { cwd: '/usr', language: 'python', active: true })
  assert.equal(await printed('import os; print(os.getcwd())', { context }), '/usr\n')
  assert.deepEqual(
    (await sdk.listContexts()).filter(({ id }) => id === context.id),
    [context],
  )
  await sdk.deleteContext(context)
  assert.ok(!(await sdk.listContexts()).some(({ id }) => id === context.id))
  await assert.rejects(sdk.deleteContext(context), (thrown) => {
    assert.ok(thrown instanceof DaytonaProcessNotFoundError)
    return error(404, 'PROCESS_NOT_FOUND', /not found/)(thrown)
  })
  await assert.rejects(
    run('1', { context }),
    broken(`context not found: ${context.id} (close code 1008)`),
  )
})

test('directory that is missing', async () => {
  await assert.rejects(sdk.createContext('/no/such/place'), (thrown) => {
    assert.ok(thrown instanceof DaytonaInternalServerError)
    return error(500, 'INTERNAL_SERVER_ERROR', /failed to start context/)(thrown)
  })
})

test('contexts are isolated', async (t) => {
  const [one, other] = [await create(t), await create(t)]
  await printed("x = 1\nimport os\nos.environ['A'] = 'b'", { context: one })
  const code = "import os\nprint('x' in globals(), 'A' in os.environ)"
  assert.equal(await printed(code, { context: other }), 'False False\n')
  assert.equal(await printed(code, { context: one }), 'True True\n')
})

test('callbacks, each of which comes before the next thing is done', async (t) => {
  const context = await create(t)
  const folder = mkdtempSync(path.join(tmpdir(), 'callbacks-'))
  t.after(() => rmSync(folder, { recursive: true }))
  await printed(`import os, sys\nos.mkfifo('${folder}/go')`, { context })
  const errors = []
  const wait = `open('${folder}/go').read()`
  const { stdout, stderr, result } = start(
    `print('one')\n${wait}\nprint('two', file=sys.stderr)\n${wait}\n` +
      "print('three é€😀', end='')\nraise ValueError('é')",
    { context, onError: (thrown) => errors.push(thrown) },
  )
  await stdout.until(/^one\n$/)
  writeFileSync(`${folder}/go`, '')
  await stderr.until(/^two\n$/)
  writeFileSync(`${folder}/go`, '')
  const ended = await bounded(result)
  assert.deepEqual([stdout.value, stderr.value], ['one\nthree é€😀', 'two\n'])
  assert.deepEqual([ended.stdout, ended.stderr], [stdout.value, stderr.value])
  assert.deepEqual(errors, [ended.error])
  assert.deepEqual([ended.error.name, ended.error.value], ['ValueError', 'é'])
  assert.match(ended.error.traceback, /^Traceback .*\n  File "<stdin>", line 6, in <module>\n/)
})

test('exceptions', async (t) => {
  const context = await create(t)
  assert.equal((await run('if x', { context })).error.name, 'SyntaxError')
  assert.equal((await run('raise KeyboardInterrupt', { context })).error.name, 'KeyboardInterrupt')
  assert.equal((await run('raise SystemExit(3)', { context })).error, undefined)
  assert.equal(await printed("print('on')", { context }), 'on\n')
})

test('environment', async (t) => {
  const context = await create(t)
  const code = "import os; print(os.environ.get('GIVEN'), os.environ['HOME'])"
  const envs = { GIVEN: 'a "b" $HOME é€😀', HOME: '/elsewhere' }
  assert.equal(await printed(code, { context, envs }), `${envs.GIVEN} /elsewhere\n`)
  assert.match(await printed(code, { context }), /^None \/.*home\n$/)
})

test('timeout', async (t) => {
  const context = await create(t)
  await printed("x = 'kept'", { context })
  const { stdout, result } = start(SLEEP, { context, timeout: 1 })
  await assert.rejects(bounded(result), DaytonaTimeoutError)
  assert.equal(stdout.value, 'up\n')
  assert.equal(await printed('print(x)', { context, timeout: 0 }), 'kept\n')
})

test('timeout of code that will not stop', async (t) => {
  const context = await create(t)
  const stubborn = `x = 1\nimport signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n${SLEEP}`
  await assert.rejects(run(stubborn, { context, timeout: 1 }), DaytonaTimeoutError)
  assert.equal(await printed("print('x' in globals())", { context }), 'False\n')
})

for (const where of ['created', 'default']) {
  test(`death of the worker of a ${where} context`, async (t) => {
    const context = where === 'created' ? await create(t) : undefined
    await printed('x = 1', { context })
    for (const end of ['os._exit(0)', 'os.kill(os.getpid(), 9)']) {
      const { stdout, result } = start(`import os\nprint('bye')\n${end}`, { context })
      await assert.rejects(bounded(result), broken('worker process ended (close code 1011)'))
      assert.equal(stdout.value, 'bye\n')
      assert.equal(await printed("print('x' in globals())", { context }), 'False\n')
    }
  })
}

test('two mebibytes in one line', async (t) => {
  const context = await create(t)
  for (const [character, count] of [['x', 2 << 20], ['😀', 1 << 19]]) {
    const line = await printed(`print('${character}' * ${count})`, { context })
    assert.ok(line === `${character.repeat(count)}\n`, `${line.length} characters`)
  }
})

test('deletion while running', async (t) => {
  const context = await create(t)
  const { stdout, result } = start(SLEEP, { context })
  await stdout.until(/^up\n$/)
  await bounded(sdk.deleteContext(context))
  await assert.rejects(bounded(result), broken('context deleted (close code 1011)'))
})

test('deletion with as many waiting as may', async (t) => {
  const context = await create(t)
  const first = start(SLEEP, { context })
  await first.stdout.until(/^up\n$/)
  const others = Array.from({ length: WAITING + 1 }, () => start('print(1)', { context }).result)
  // One more than may wait is refused at once; when it is, all of the others do wait.
  await assert.rejects(
    bounded(Promise.race(others)),
    broken(`limit of ${WAITING} waiting executions is reached (close code 1013)`),
  )
  await bounded(sdk.deleteContext(context))
  const ends = await bounded(Promise.allSettled([first.result, ...others]))
  const deleted = broken('context deleted (close code 1011)')
  assert.equal(ends.filter(({ reason }) => deleted(reason)).length, WAITING + 1)
})

test('twenty contexts at a time', async (t) => {
  const contexts = await Promise.all(Array.from({ length: 20 }, () => create(t)))
  const shown = await Promise.all(
    contexts.map((context, x) => printed(`x = ${x}\nimport os\nprint(os.getpid())`, { context })),
  )
  assert.equal(new Set(shown).size, 20)
  assert.deepEqual(
    await Promise.all(contexts.map((context) => printed('print(x)', { context }))),
    contexts.map((_, x) => `${x}\n`),
  )
})

test('many lines', async (t) => {
  const context = await create(t)
  const lines = Array.from({ length: 100_000 }, (_, index) => `${index}\n`)
  assert.ok((await printed('for i in range(100000): print(i)', { context })) === lines.join(''))
})
