// Contract, section 19, item 7.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { DaytonaBadRequestError, DaytonaProcessNotFoundError } from '@daytonaio/sdk'

import { BASE, ENTRYPOINT_BASE, Text, bounded, connect, isUpgradeRefused } from './sdk.mjs'

test('without one', async () => {
  const sdk = connect(BASE)
  await assert.rejects(sdk.getEntrypointSession(), DaytonaProcessNotFoundError)
  await assert.rejects(sdk.getEntrypointLogs(), DaytonaProcessNotFoundError)
  await assert.rejects(sdk.getEntrypointLogs(() => {}, () => {}), isUpgradeRefused)
})

test('with one', async () => {
  const sdk = connect(ENTRYPOINT_BASE)
  const [stdout, stderr] = [new Text(), new Text()]
  await bounded(sdk.getEntrypointLogs(stdout.take, stderr.take))
  assert.equal(stdout.value, "it's up\n")
  assert.equal(stderr.value, 'careful\n')
  const logs = await sdk.getEntrypointLogs()
  assert.equal(logs.stdout, "it's up\n")
  assert.equal(logs.stderr, 'careful\n')

  const known = await sdk.getEntrypointSession()
  assert.equal(known.sessionId, 'entrypoint')
  assert.deepEqual(
    known.commands.map(({ id, exitCode }) => ({ id, exitCode })),
    [{ id: 'entrypoint_command', exitCode: 4 }],
  )
  assert.deepEqual(await sdk.listSessions(), [])
  const request = { command: 'true' }
  await assert.rejects(sdk.executeSessionCommand('entrypoint', request), DaytonaBadRequestError)
  await assert.rejects(sdk.deleteSession('entrypoint'), DaytonaBadRequestError)
})
