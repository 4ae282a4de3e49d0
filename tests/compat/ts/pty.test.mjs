// Contract, section 19, items 8 and 10.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'

import {
  DaytonaConnectionError,
  DaytonaGoneError,
  DaytonaNotFoundError,
  DaytonaProcessNotFoundError,
} from '@daytonaio/sdk'

import { BASE, Text, bounded, connect } from './sdk.mjs'

const sdk = connect(BASE)

/** An id whose PTY is gone after the test `t`. */
function newId(t) {
  const id = `p-${randomUUID()}`
  t.after(() =>
    sdk.killPtySession(id).catch((error) => {
      if (!(error instanceof DaytonaNotFoundError)) throw error // it had ended
    }),
  )
  return id
}

/** A new PTY, what it prints, and its id. */
async function create(t, options = {}) {
  const id = newId(t)
  const screen = new Text()
  const pty = await sdk.createPty({ id, onData: screen.take, ...options })
  return { pty, screen, id }
}

test('output, and exit code 0', async (t) => {
  const { pty, screen } = await create(t)
  assert.ok(pty.isConnected())
  await pty.sendInput("expr 6 '*' 7; exit\n")
  const { exitCode, error } = await bounded(pty.wait())
  assert.deepEqual({ exitCode, error }, { exitCode: 0, error: undefined })
  await screen.until(/[\r\n]42\r\n/)
  assert.ok(!pty.isConnected())
  await assert.rejects(pty.sendInput('x'), DaytonaConnectionError)
})

test('other exit codes', async (t) => {
  const { pty, id } = await create(t)
  await pty.sendInput(new TextEncoder().encode('exit 3\n'))
  assert.deepEqual(await bounded(pty.wait()), { exitCode: 3, error: 'non-zero exit' })
  assert.equal(pty.exitCode, 3)
  await assert.rejects(sdk.getPtySessionInfo(id), DaytonaProcessNotFoundError)
})

test('kill', async (t) => {
  const { pty, id } = await create(t)
  await pty.kill()
  assert.deepEqual(await bounded(pty.wait()), { exitCode: 137, error: 'SIGKILL' })
  assert.ok(!(await sdk.listPtySessions()).some((each) => each.id === id))
  await assert.rejects(pty.kill(), DaytonaProcessNotFoundError)
})

test('size, directory and information', async (t) => {
  const { pty, screen, id } = await create(t, { cols: 120, rows: 40, cwd: '/usr' })
  await pty.sendInput('stty size; pwd\n')
  await screen.until(/[\r\n]40 120\r\n\/usr\r\n/)
  const { cols, rows } = await pty.resize(100, 30)
  assert.deepEqual({ cols, rows }, { cols: 100, rows: 30 })
  await pty.sendInput('stty size\n')
  await screen.until(/[\r\n]30 100\r\n/)

  const known = await sdk.getPtySessionInfo(id)
  assert.deepEqual([known.id, known.cwd, known.cols, known.rows], [id, '/usr', 100, 30])
  assert.ok(known.active)
  assert.ok((await sdk.listPtySessions()).some((each) => each.id === id))
  assert.equal((await sdk.resizePtySession(id, 90, 20)).cols, 90)
})

test('environment', async (t) => {
  const big = 'x'.repeat(20 << 10)
  const { pty, screen } = await create(t, { envs: { GREETING: 'é€😀 $HOME', BIG: big } })
  await pty.sendInput('echo "<$GREETING>" ${#BIG} "<$TERM>"\n')
  await screen.until(/[\r\n]<é€😀 \$HOME> 20480 <xterm-256color>\r\n/)
})

test('disconnect and connect again', async (t) => {
  const { pty, screen, id } = await create(t)
  await pty.sendInput('name=kept; echo first$((1 + 1))\n')
  await screen.until(/[\r\n]first2\r\n/)
  await pty.disconnect()

  const second = new Text()
  const again = await sdk.connectPty(id, { onData: second.take })
  await again.sendInput('echo "<$name>"\n')
  await second.until(/[\r\n]<kept>\r\n/)
  await again.sendInput('exit 5\n')
  assert.equal((await bounded(again.wait())).exitCode, 5)
})

test('two terminals on one PTY', async (t) => {
  const { pty, screen, id } = await create(t)
  const other = new Text()
  const second = await sdk.connectPty(id, { onData: other.take })
  await pty.sendInput('echo one$((1 + 1))\n')
  await Promise.all([screen.until(/[\r\n]one2\r\n/), other.until(/[\r\n]one2\r\n/)])
  await second.sendInput('exit 6\n')
  const ends = await bounded(Promise.all([pty.wait(), second.wait()]))
  assert.deepEqual(
    ends.map(({ exitCode }) => exitCode),
    [6, 6],
  )
})

test('Ctrl+C interrupts the program, not the shell', async (t) => {
  const { pty, screen } = await create(t)
  await pty.sendInput("sh -c 'echo go$((1 + 1)); exec sleep 1000'\n")
  await screen.until(/[\r\n]go2\r\n/)
  await pty.sendInput('\x03')
  await pty.sendInput('echo code $?\n')
  await screen.until(/[\r\n]code 130\r\n/)
})

test('twenty megabytes', async (t) => {
  const pieces = []
  const pty = await sdk.createPty({ id: newId(t), onData: (piece) => pieces.push(piece) })
  await pty.sendInput('stty -onlcr; echo begin; seq 1 2800000; echo end; exit 8\n')
  assert.equal((await bounded(pty.wait())).exitCode, 8)
  const text = Buffer.concat(pieces).toString()
  const [, numbers] = text.match(/[\r\n]begin\n([0-9\n]*)end\n/)
  const expected = Array.from({ length: 2_800_000 }, (_, index) => `${index + 1}\n`).join('')
  assert.ok(numbers === expected, `${numbers.length} characters instead of ${expected.length}`)
})

test('fifty in a row', async (t) => {
  for (let round = 0; round < 50; round += 1) {
    const { pty } = await create(t, round % 2 ? { envs: { ROUND: `${round}` } } : {})
    await pty.kill()
    assert.equal((await bounded(pty.wait())).exitCode, 137)
  }
})

test('what cannot be', async (t) => {
  const { id } = await create(t)
  await assert.rejects(sdk.createPty({ id, onData() {} }), DaytonaConnectionError)
  const nobody = newId(t)
  await assert.rejects(sdk.connectPty(nobody, { onData() {} }), (thrown) => {
    assert.ok(thrown instanceof DaytonaConnectionError)
    assert.match(thrown.message, new RegExp(`PTY session ${nobody} not found`))
    return true
  })
  await assert.rejects(sdk.resizePtySession(nobody, 80, 24), DaytonaGoneError)
  await assert.rejects(sdk.getPtySessionInfo(nobody), DaytonaProcessNotFoundError)
})
