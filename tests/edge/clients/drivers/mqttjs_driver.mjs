// MQTT.js in Node, with its own reconnecting. The same lines as the drivers in Python.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const mqtt = createRequire(process.argv[2])('mqtt')
const options = JSON.parse(process.argv[3])
const say = (event, facts = {}) => console.log(JSON.stringify({ event, ...facts }))
const client = mqtt.connect(`mqtts://${options.host}:${options.port}`, {
  username: options.username,
  password: options.password,
  clientId: options.client_id,
  protocolVersion: options.version === 5 ? 5 : 4,
  ca: readFileSync(options.ca),
  clean: options.clean,
  properties: options.version === 5 && !options.clean ? { sessionExpiryInterval: 60 } : undefined,
  will: options.will ? { topic: options.will, payload: 'gone', qos: 1 } : undefined
})
// -1: an error without a code.
const codeOf = (error) => (error ? error.code ?? -1 : 0)
let left = 0
client.on('connect', (packet) => say('connected', { present: packet.sessionPresent }))
client.on('disconnect', (packet) => { left = packet.reasonCode })
client.on('close', () => { say('disconnected', { code: left }); left = 0 })
client.on('error', (error) => say('refused', { code: error.code ?? 0 }))
client.on('message', (topic, payload, packet) => say('message', { topic, retain: packet.retain }))
createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line)
  if (command.do === 'publish') {
    client.publish(command.topic, 'x', { qos: 1 }, (error) => say('published', { code: codeOf(error) }))
  } else if (command.do === 'subscribe') {
    client.subscribe(command.topic, { qos: 1 }, (error, granted) => {
      say('subscribed', { code: error ? codeOf(error) : granted?.[0]?.qos ?? 0 })
    })
  }
}).on('close', () => process.exit(0))
