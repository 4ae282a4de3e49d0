// Contract, section 19, item 6: the callbacks get exact text, live and late.

import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'

import { BASE, Session, bounded, connect, isUpgradeRefused } from './sdk.mjs'

const sdk = connect(BASE)

async function directory(t) {
  const made = await mkdtemp(path.join(tmpdir(), 'procd-'))
  t.after(() => rm(made, { recursive: true }))
  return made
}

/** Compare long texts without printing them. */
function same(actual, expected) {
  if (actual === expected) return
  let at = 0
  while (actual[at] === expected[at]) at += 1
  const near = (text) => JSON.stringify(text.slice(Math.max(0, at - 20), at + 20))
  assert.fail(
    `at ${at} of ${expected.length} (got ${actual.length}): ${near(actual)}, not ${near(expected)}`,
  )
}

test('each step waits for what the one before it printed', async (t) => {
  const session = await Session.create(t, sdk)
  const command = await session.start(
    'printf ready; read x; printf "$x?" >&2; read y; echo; echo last',
    { suppressInputEcho: true },
  )
  const { stdout, stderr, end } = session.watch(command)
  await stdout.until(/^ready$/)
  await session.type(command, 'sure')
  await stderr.until(/^sure\?$/)
  await session.type(command, 'go')
  await end
  assert.equal(stdout.value, 'ready\nlast\n')
  assert.equal(stderr.value, 'sure?')
})

test('two followers and a late one', async (t) => {
  const session = await Session.create(t, sdk)
  const command = await session.start('echo one; read x; seq 1 20000; echo end >&2', {
    suppressInputEcho: true,
  })
  const first = session.watch(command)
  await first.stdout.until(/^one\n$/)
  const second = session.follow(command)
  await session.type(command, 'go')
  await first.end
  const numbers = Array.from({ length: 20000 }, (_, index) => `${index + 1}\n`)
  const expected = `one\n${numbers.join('')}`
  for (const seen of [await second, await session.follow(command)]) {
    same(seen.stdout, expected)
    assert.equal(seen.stderr, 'end\n')
  }
  same(first.stdout.value, expected)
  assert.equal(first.stderr.value, 'end\n')
})

test('a mebibyte of short lines', async (t) => {
  const session = await Session.create(t, sdk)
  const ran = await session.run('seq 0 169999')
  const expected = Array.from({ length: 170000 }, (_, index) => `${index}\n`).join('')
  same(ran.stdout, expected)
  same((await session.logs(ran.cmdId)).stdout, expected)
  same((await session.follow(ran.cmdId)).stdout, expected)
})

test('characters across the borders of messages', async (t) => {
  const session = await Session.create(t, sdk)
  const file = path.join(await directory(t), 'text')
  const text = `\0\x01\x02\x1b[0m${'aéz€\t😀ñ\n'.repeat(20000)}x${'😀'.repeat(50000)}\x01y\x02z`
  await writeFile(file, text)
  const ran = await session.run(`cat '${file}'`)
  same(ran.stdout, text)
  same((await session.follow(ran.cmdId)).stdout, text)
})

test('both streams in turns', async (t) => {
  const session = await Session.create(t, sdk)
  const made = await directory(t)
  const out = Array.from({ length: 120000 }, (_, index) => `${index} aéz€\t😀ñ\n`).join('')
  const err = Array.from({ length: 220000 }, (_, index) => `${index} €rr\n`).join('')
  await writeFile(path.join(made, 'out'), out)
  await writeFile(path.join(made, 'err'), err)
  await writeFile(
    path.join(made, 'interleave.mjs'),
    `import { readFileSync, writeSync } from 'node:fs'
     const streams = [{ to: 1, data: readFileSync('out') }, { to: 2, data: readFileSync('err') }]
     let size = 1
     while (streams.some(({ data }) => data.length)) {
       for (const stream of streams) {
         size = (size * 7919) % 9973
         const part = stream.data.subarray(0, size)
         for (let sent = 0; sent < part.length; ) sent += writeSync(stream.to, part, sent)
         stream.data = stream.data.subarray(size)
       }
     }`,
  )
  const program = `'${process.execPath}' interleave.mjs`
  const command = await session.start(`cd '${made}'; read x; ${program}`, {
    suppressInputEcho: true,
  })
  const live = session.follow(command)
  await session.type(command, 'go')
  for (const seen of [await live, await session.follow(command), await session.logs(command)]) {
    same(seen.stdout, out)
    same(seen.stderr, err)
  }
  assert.equal(await session.ended(command), 0)
})

test('background child goes on after its command', async (t) => {
  const session = await Session.create(t, sdk)
  await session.run(`cd '${await directory(t)}'; mkfifo gate`)
  const ran = await session.run('(read x <gate; echo late $x) & echo now')
  assert.equal(ran.stdout, 'now\n')
  const { stdout, end } = session.watch(ran.cmdId)
  await stdout.until(/^now\n$/)
  await session.run('echo go >gate')
  await end
  assert.equal(stdout.value, 'now\nlate go\n')
})

test('deletion ends the stream', async (t) => {
  const session = await Session.create(t, sdk)
  const command = await session.start('echo up; sleep 1000')
  const { stdout, end } = session.watch(command)
  await stdout.until(/^up\n$/)
  await bounded(sdk.deleteSession(session.id))
  await end
  assert.equal(stdout.value, 'up\n')
})

test('unknown command', async (t) => {
  const session = await Session.create(t, sdk)
  await assert.rejects(session.follow('nothing'), isUpgradeRefused)
})
