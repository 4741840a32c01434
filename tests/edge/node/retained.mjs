// Subscribes again and again to a topic with a retained message, as a library does that looks a subscription's handler up
// when the subscribe callback has registered it. Prints how often the message came before the callback.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const { connectAsync } = createRequire(process.argv[2])('mqtt')
const { url, ca, rounds, ...login } = JSON.parse(process.argv[3])

async function round (number) {
  const client = await connectAsync(url, { ...login, clientId: `r${number}`, ca: readFileSync(ca), reconnectPeriod: 0 })
  const order = []
  const both = new Promise((resolve) => {
    const seen = (what) => { if (order.push(what) === 2) resolve() }
    client.on('message', () => seen('message'))
    client.subscribe('kept', { qos: 1 }, () => seen('callback'))
  })
  await both
  await client.endAsync()
  return order[0] === 'message'
}

async function stored (number) {
  // What waits in a stored session comes right behind CONNACK; the handler is there as soon as the promise is resolved.
  const options = { ...login, clientId: `s${number}`, ca: readFileSync(ca), reconnectPeriod: 0, clean: false, properties: { sessionExpiryInterval: 60 } }
  const first = await connectAsync(url, options)
  await first.subscribeAsync('queue', { qos: 1 })
  await first.endAsync()
  const other = await connectAsync(url, { ...login, clientId: `p${number}`, ca: readFileSync(ca), reconnectPeriod: 0 })
  await other.publishAsync('queue', 'waiting', { qos: 1 })
  await other.endAsync()
  const second = await connectAsync(url, options)
  const got = await new Promise((resolve) => {
    second.on('message', () => resolve(true))
    setTimeout(() => resolve(false), 1_000)
  })
  await second.endAsync()
  return !got
}

let early = 0
let lost = 0
for (let number = 0; number < rounds; number++) {
  if (await round(number)) early++
}
for (let number = 0; number < Math.ceil(rounds / 4); number++) {
  if (await stored(number)) lost++
}
console.log(JSON.stringify({ early, lost }))
