// Contract, section 19, items 4 and 5.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'

import {
  DaytonaBadRequestError,
  DaytonaCommandAlreadyCompletedError,
  DaytonaConflictError,
  DaytonaProcessNotFoundError,
  DaytonaSessionEndedError,
} from '@daytonaio/sdk'

import { BASE, Session, bounded, connect, error, poll } from './sdk.mjs'

const sdk = connect(BASE)

/** A check of both the class and the fields of an error. */
const is = (kind, ...fields) => (thrown) => thrown instanceof kind && error(...fields)(thrown)

test('life of a session', async () => {
  const id = `ann-${randomUUID()}`
  await sdk.createSession(id)
  const session = new Session(sdk, id)
  const { cmdId } = await session.run('echo hi')
  const known = await sdk.getSession(id)
  assert.equal(known.sessionId, id)
  assert.deepEqual(
    known.commands.map(({ id, command, exitCode }) => ({ id, command, exitCode })),
    [{ id: cmdId, command: 'echo hi', exitCode: 0 }],
  )
  assert.ok((await sdk.listSessions()).some(({ sessionId }) => sessionId === id))

  await assert.rejects(
    sdk.createSession(id),
    is(DaytonaConflictError, 409, 'CONFLICT', /session already exists/),
  )
  await sdk.deleteSession(id)
  const gone = is(DaytonaProcessNotFoundError, 404, 'PROCESS_NOT_FOUND', /session not found/)
  await assert.rejects(sdk.getSession(id), gone)
  await assert.rejects(sdk.deleteSession(id), gone)
  await assert.rejects(session.run('true'), gone)
  await sdk.createSession(id) // the id is free at once
  await sdk.deleteSession(id)
})

test('state is kept between commands', async (t) => {
  const session = await Session.create(t, sdk)
  await session.run('cd /usr')
  assert.equal((await session.run('pwd')).stdout, '/usr\n')
  await session.run("export NAME='two words'")
  assert.equal((await session.run('sh -c \'echo "$NAME"\'')).stdout, 'two words\n')
})

const SCRIPTS = {
  'both streams': ['echo out; echo err >&2; (exit 7)', 'out\n', 'err\n', 7],
  wait: ['sleep 0.01 & sleep 0.01 & wait; echo done', 'done\n', '', 0],
  'here-document': ["cat <<'END'\nit's \"so\" $HOME\nEND", 'it\'s "so" $HOME\n', '', 0],
  'end of input': ['cat; echo $?', '0\n', '', 0],
  'NUL bytes': ["printf 'a\\0b\\0'", 'a\0b\0', '', 0],
  'no final newline': ['printf out; printf err >&2', 'out', 'err', 0],
}

for (const [name, [command, stdout, stderr, exitCode]] of Object.entries(SCRIPTS)) {
  test(`script: ${name}`, async (t) => {
    const session = await Session.create(t, sdk)
    const ran = await session.run(command)
    assert.deepEqual(
      { stdout: ran.stdout, stderr: ran.stderr, exitCode: ran.exitCode },
      { stdout, stderr, exitCode },
    )
    const logs = await session.logs(ran.cmdId)
    assert.deepEqual({ stdout: logs.stdout, stderr: logs.stderr }, { stdout, stderr })
    assert.deepEqual([...logs.output].sort(), [...(stdout + stderr)].sort())
    assert.deepEqual(await session.follow(ran.cmdId), { stdout, stderr })
  })
}

const ENDS = {
  exit: ['echo bye; exit 3', 3],
  'failure under set -e': ['set -e; echo bye; false; echo never', 1],
  SIGKILL: ['echo bye; kill -9 $$', 137],
}

for (const [name, [command, exitCode]] of Object.entries(ENDS)) {
  test(`end of the shell: ${name}`, async (t) => {
    const session = await Session.create(t, sdk)
    const ran = await session.run(command)
    assert.equal(ran.stdout, 'bye\n')
    assert.equal(ran.exitCode, exitCode)
    await assert.rejects(session.run('true'), is(DaytonaSessionEndedError, 410, 'SESSION_ENDED'))
    assert.deepEqual(await session.follow(ran.cmdId), { stdout: 'bye\n', stderr: '' })
  })
}

test('background command and its input', async (t) => {
  const session = await Session.create(t, sdk)
  const command = await session.start('read x; echo got $x; echo err >&2; (exit 4)')
  assert.equal((await sdk.getSessionCommand(session.id, command)).exitCode, undefined)
  await session.type(command, 'zz')
  assert.equal(await session.ended(command), 4)
  const { stdout, stderr } = await session.logs(command)
  assert.deepEqual({ stdout, stderr }, { stdout: 'zz\ngot zz\n', stderr: 'err\n' })
  await assert.rejects(
    session.type(command, 'more'),
    is(
      DaytonaCommandAlreadyCompletedError,
      410,
      'COMMAND_ALREADY_COMPLETED',
      /command has already completed with exit code 4/,
    ),
  )
})

test('input without echo', async (t) => {
  const session = await Session.create(t, sdk)
  const command = await session.start('read x; echo got $x', { suppressInputEcho: true })
  await session.type(command, 'é€😀')
  assert.equal(await session.ended(command), 0)
  assert.equal((await session.logs(command)).output, 'got é€😀\n')
})

test('deletion while a command is awaited', async (t) => {
  const session = await Session.create(t, sdk)
  const waiting = session.run('echo up; sleep 1000')
  await poll(
    async () => {
      const [command] = (await sdk.getSession(session.id)).commands
      return command ? (await session.logs(command.id)).stdout : ''
    },
    (stdout) => stdout === 'up\n',
  )
  const refused = assert.rejects(waiting, is(DaytonaSessionEndedError, 410, 'SESSION_ENDED'))
  await bounded(sdk.deleteSession(session.id))
  await refused
})

test('bad requests', async (t) => {
  const session = await Session.create(t, sdk)
  await assert.rejects(session.run(' '), DaytonaBadRequestError)
  await assert.rejects(sdk.createSession(''), DaytonaBadRequestError)
  await assert.rejects(sdk.createSession('entrypoint'), DaytonaBadRequestError)
  const unknown = is(DaytonaProcessNotFoundError, 404, 'PROCESS_NOT_FOUND', /command not found/)
  await assert.rejects(sdk.getSessionCommand(session.id, 'nothing'), unknown)
  await assert.rejects(session.logs('nothing'), unknown)
  await assert.rejects(session.type('nothing', 'x'), unknown)
})
