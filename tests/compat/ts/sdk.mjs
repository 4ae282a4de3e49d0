// SDK objects for a bare daemon, and what the tests share.
// Source: Process API contract, section 14.3.

import { randomUUID } from 'node:crypto'

import { Daytona, Process } from '@daytonaio/sdk'
import { Configuration, InterpreterApi, ProcessApi } from '@daytona/toolbox-api-client'

// The package exports its type alone.
const { CodeInterpreter } = await import(
  new URL('./node_modules/@daytonaio/sdk/esm/CodeInterpreter.js', import.meta.url)
)

/**
 * Where the daemon listens, which has ts-node on its PATH, one that has tsx instead, and one that
 * was started with an entrypoint.
 */
export const { BASE, TSX_BASE, ENTRYPOINT_BASE } = process.env

/** How long to wait for what should take no time; only a test that fails waits so long. */
const PATIENCE_MS = 20_000

function configuration(basePath) {
  const headers = {
    Authorization: 'Bearer test',
    'X-Daytona-Source': 'sdk-typescript-legacy',
    'X-Daytona-SDK-Version': '0.218.0',
  }
  return new Configuration({ basePath, baseOptions: { headers } })
}

/** A Process object, whose `codeRun` is for programs in `language`. */
export function connect(basePath, language = 'python') {
  const conf = configuration(basePath)
  const http = Daytona.createAxiosInstance(undefined)
  return new Process(conf, new ProcessApi(conf, '', http), async () => 'test', language)
}

/** A CodeInterpreter object. */
export function interpreter(basePath) {
  const conf = configuration(basePath)
  const http = Daytona.createAxiosInstance(undefined)
  return new CodeInterpreter(conf, new InterpreterApi(conf, '', http), async () => 'test')
}

/** The value of `promise`, unless it never comes. */
export async function bounded(promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('nothing came')), PATIENCE_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Ask until the answer satisfies `fact`, as users do; that answer. */
export async function poll(ask, fact) {
  const deadline = Date.now() + PATIENCE_MS
  for (;;) {
    const answer = await ask()
    if (fact(answer)) return answer
    if (Date.now() > deadline) throw new Error(`still ${JSON.stringify(answer)}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** Text that grows, and who waits for some of it. */
export class Text {
  value = ''
  #decoder = new TextDecoder()
  #waiting = []

  /** Take in a piece, a string or bytes; for use as a callback. */
  take = (piece) => {
    this.value += typeof piece === 'string' ? piece : this.#decoder.decode(piece, { stream: true })
    for (const wake of this.#waiting.splice(0)) wake()
  }

  /** Wait until the text is matched by `pattern`; the match. */
  async until(pattern) {
    const matched = async () => {
      for (;;) {
        const match = this.value.match(pattern)
        if (match) return match
        await new Promise((resolve) => this.#waiting.push(resolve))
      }
    }
    try {
      return await bounded(matched())
    } catch (error) {
      throw new Error(`${pattern} not in ${JSON.stringify(this.value.slice(-500))}`, { cause: error })
    }
  }
}

/** One session and the calls that a test makes in it. */
export class Session {
  constructor(sdk, id) {
    this.sdk = sdk
    this.id = id
  }

  /** A new one, deleted after the test `t`. */
  static async create(t, sdk) {
    const session = new Session(sdk, `s-${randomUUID()}`)
    await sdk.createSession(session.id)
    t.after(() =>
      sdk.deleteSession(session.id).catch((error) => {
        if (error.statusCode !== 404) throw error // the test did it
      }),
    )
    return session
  }

  run(command) {
    return bounded(this.sdk.executeSessionCommand(this.id, { command }))
  }

  /** Start a command in the background; its id. */
  async start(command, options = {}) {
    const request = { command, runAsync: true, ...options }
    return (await this.sdk.executeSessionCommand(this.id, request)).cmdId
  }

  type(command, data) {
    return this.sdk.sendSessionCommandInput(this.id, command, data)
  }

  logs(command) {
    return this.sdk.getSessionCommandLogs(this.id, command)
  }

  async ended(command) {
    const known = await poll(
      () => this.sdk.getSessionCommand(this.id, command),
      ({ exitCode }) => exitCode != null,
    )
    return known.exitCode
  }

  /** Follow a log; what the callbacks get, and a promise of the end. */
  watch(command) {
    const stdout = new Text()
    const stderr = new Text()
    const end = bounded(this.sdk.getSessionCommandLogs(this.id, command, stdout.take, stderr.take))
    return { stdout, stderr, end }
  }

  /** What the callbacks get until the stream ends. */
  async follow(command) {
    const { stdout, stderr, end } = this.watch(command)
    await end
    return { stdout: stdout.value, stderr: stderr.value }
  }
}

/** A check of the error that the SDK makes of a reply. */
export function error(statusCode, code, message = /./) {
  return (thrown) =>
    thrown.statusCode === statusCode &&
    thrown.code === code &&
    thrown.source === 'DAYTONA_DAEMON' &&
    message.test(thrown.message)
}

/** A check of what the SDK makes of a WebSocket refused with 404: the event of `ws`, as it is. */
export const isUpgradeRefused = (thrown) => thrown.message === 'Unexpected server response: 404'
