// `new Daytona()` as its examples have it: two variables in the environment, and no control plane.

import assert from 'node:assert/strict'
import { after, test } from 'node:test'

import { Daytona, DaytonaError, Image } from '@daytonaio/sdk'

import { BASE } from './sdk.mjs'

process.env.DAYTONA_API_URL = BASE
process.env.DAYTONA_API_KEY = 'anything'
const daytona = new Daytona()

after(async () => (await daytona.get('local')).delete())

async function listed(query) {
  const names = []
  for await (const sandbox of daytona.list(query)) names.push(sandbox.name)
  return names
}

test('what is given at creation comes back', async () => {
  const sandbox = await daytona.create(
    { name: 'mine', labels: { a: 'b' }, envVars: { E: '1' }, autoStopInterval: 0, public: true },
    { timeout: 40 },
  )
  assert.deepEqual([sandbox.id, sandbox.name, sandbox.env], ['local', 'mine', { E: '1' }])
  assert.equal(sandbox.labels.a, 'b')
  assert.deepEqual(await listed({ labels: { a: 'b' } }), ['mine'])
  assert.deepEqual(await listed({ labels: { a: 'c' } }), [])
  assert.equal((await daytona.get('mine')).id, 'local')
  assert.equal((await sandbox.process.executeCommand('echo $E')).result, '1\n')
})

test('a sandbox that nobody created runs code in the language asked for', async () => {
  const sandbox = await daytona.get('local')
  assert.equal((await sandbox.process.codeRun('print(6 * 7)')).result, '42\n')
  const typed = await daytona.create({ language: 'typescript' })
  assert.equal((await typed.process.codeRun('const n: number = 42; console.log(n)')).result, '42\n')
})

test('settings, stop and start', async () => {
  const sandbox = await daytona.create()
  await sandbox.setAutostopInterval(15)
  await sandbox.setLabels({ c: 'd' })
  await sandbox.refreshData()
  assert.deepEqual([sandbox.autoStopInterval, sandbox.labels.c], [15, 'd'])
  await sandbox.stop()
  assert.equal(sandbox.state, 'stopped')
  await sandbox.start()
  assert.equal(sandbox.state, 'started')
  assert.equal((await sandbox.getPreviewLink(3000)).url, 'http://127.0.0.1:3000')
  const image = Image.debianSlim('3.12').pipInstall(['numpy'])
  const parameters = { image, resources: { cpu: 2, memory: 4, disk: 8 } }
  assert.equal((await daytona.create(parameters, { timeout: 0 })).id, 'local')
  await sandbox.delete(60, true)
  assert.equal(sandbox.state, 'destroyed')
})

test('what one machine does not have', async () => {
  const sandbox = await daytona.create()
  const calls = [
    () => daytona.volume.get('v', true),
    () => daytona.snapshot.list(),
    () => sandbox.fs.uploadFile(Buffer.from('Hello'), 'file.txt'),
    () => sandbox.fs.downloadFile('file.txt'),
    () => sandbox.git.clone('https://github.com/example/repo', 'repo'),
    async () => (await sandbox.createLspServer('typescript', 'p')).start(),
    () => sandbox.archive(),
  ]
  for (const call of calls) {
    await assert.rejects(call, (error) => {
      assert(error instanceof DaytonaError)
      assert.equal(error.statusCode, 501)
      assert.match(error.message, /not supported by procd/)
      return true
    })
  }
})
