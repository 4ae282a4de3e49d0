// A quickstart as it is published: it deletes nothing, and is to end when it is through.
import { Daytona } from '@daytonaio/sdk'

const daytona = new Daytona()
const sandbox = await daytona.create({ language: 'python' })
const response = await sandbox.process.codeRun('print("Hello World from code!")')
console.log(response.exitCode, response.result)
