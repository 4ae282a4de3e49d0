// What the callbacks of this SDK get of a log, as JSON: node follow.mjs SESSION COMMAND

import { BASE, Session, connect } from './sdk.mjs'

const [session, command] = process.argv.slice(2)
process.stdout.write(JSON.stringify(await new Session(connect(BASE), session).follow(command)))
