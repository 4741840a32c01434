"use strict";
// What the test calls: each function returns plain data, and refusals are data too.
const clients = {};
const refusal = (error) => ({ code: error.code ?? null, text: String(error.message ?? error) });

// Connect as NAME; settles with the CONNACK, or with why there is none.
function open(name, url, options) {
  return new Promise((resolve) => {
    const client = mqtt.connect(url, { reconnectPeriod: 0, connectTimeout: 8000, ...options });
    const state = { client, messages: [], disconnect: null, closed: false };
    clients[name] = state;
    client.on("message", (topic, payload, packet) => {
      const response = packet.properties?.responseTopic ?? null;
      state.messages.push({ topic, text: payload.toString(), size: payload.length, retain: packet.retain, response });
    });
    client.on("disconnect", (packet) => { state.disconnect = packet.reasonCode; });
    client.on("error", (error) => resolve({ error: refusal(error) }));
    client.on("close", () => { state.closed = true; resolve({ error: { code: null, text: "closed" } }); });
    client.on("connect", (connack) => resolve({
      code: connack.reasonCode ?? connack.returnCode,
      assigned: connack.properties?.assignedClientIdentifier ?? null,
      protocol: client.stream.socket?.protocol ?? null,
    }));
  });
}

// The SUBACK's codes, in the order of the filters.
function subscribe(name, filters, qos) {
  return new Promise((resolve) => {
    const codes = [];
    const { client } = clients[name];
    const listen = (packet) => { if (packet.cmd === "suback") codes.push(...packet.granted); };
    client.on("packetreceive", listen);
    client.subscribe(filters, { qos }, () => { client.off("packetreceive", listen); resolve(codes); });
  });
}

// Publish and go through the handshake; the code of a negative answer, or null.
function publish(name, topic, text, options) {
  return new Promise((resolve) => {
    clients[name].client.publish(topic, text, options, (error) => resolve(error ? refusal(error) : null));
  });
}

const messages = (name) => clients[name].messages.splice(0);
const ended = (name) => ({ closed: clients[name].closed, disconnect: clients[name].disconnect });
const leave = (name) => new Promise((resolve) => clients[name].client.end(false, {}, resolve));
