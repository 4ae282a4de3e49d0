// Contract, section 19, items 1 and 2.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { DaytonaBadRequestError, DaytonaProcessExecutionTimeoutError } from '@daytonaio/sdk'

import { BASE, bounded, connect, error } from './sdk.mjs'

const sdk = connect(BASE)

test('output and exit code', async () => {
  const ran = await sdk.executeCommand('echo hi')
  assert.deepEqual(ran, { exitCode: 0, result: 'hi\n', artifacts: { stdout: 'hi\n' } })
  assert.equal((await sdk.executeCommand("printf 'é€😀'; exit 7")).exitCode, 7)
  assert.equal((await sdk.executeCommand("printf 'é€😀'; exit 7")).result, 'é€😀')
  assert.equal((await sdk.executeCommand('no-such-program')).exitCode, 127)
})

test('directory and environment', async () => {
  const ran = await sdk.executeCommand('pwd; echo "$A|$B"', '/usr', { A: "it's", B: 'x\ny' })
  assert.equal(ran.result, "/usr\nit's|x\ny\n")
})

test('timeout', async () => {
  await assert.rejects(bounded(sdk.executeCommand('sleep 1000', undefined, undefined, 1)), (thrown) => {
    assert.ok(thrown instanceof DaytonaProcessExecutionTimeoutError)
    return error(408, 'PROCESS_EXECUTION_TIMEOUT', /timeout/)(thrown)
  })
})

test('background child', async () => {
  const ran = await bounded(sdk.executeCommand('sleep 5 & echo $!'))
  assert.match(ran.result, /^\d+\n$/)
  await sdk.executeCommand(`kill ${ran.result}`)
})

test('four megabytes', async () => {
  const { result } = await sdk.executeCommand('seq 1 600000')
  assert.equal(result.length, 4_088_895)
  assert.ok(result.startsWith('1\n2\n') && result.endsWith('\n600000\n'))
})

test('blank command', async () => {
  await assert.rejects(sdk.executeCommand(' '), (thrown) => {
    assert.ok(thrown instanceof DaytonaBadRequestError)
    return error(400, thrown.code)(thrown)
  })
})
