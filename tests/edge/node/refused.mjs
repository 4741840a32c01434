// Connects to an organization that refuses, and waits a while for what passes by itself. Prints what it was told, and
// whether it came in without anybody's help.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const { connect } = createRequire(process.argv[2])('mqtt')
const { url, ca, seconds, ...login } = JSON.parse(process.argv[3])

const told = []
let connected = false
const client = connect(url, { ...login, ca: readFileSync(ca), reconnectPeriod: 200 })
client.on('packetreceive', (packet) => {
  if (packet.cmd === 'connack' || packet.cmd === 'disconnect') {
    told.push([packet.cmd, packet.reasonCode ?? packet.returnCode, packet.properties?.reasonString ?? ''])
  }
})
client.on('error', () => {})
const finish = () => client.end(true, () => { console.log(JSON.stringify({ told, connected })); process.exit(0) })
client.on('connect', () => {
  connected = true
  if (told.length > 1) finish()
})
setTimeout(finish, seconds * 1_000)
